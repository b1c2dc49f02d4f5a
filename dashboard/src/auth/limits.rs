//! How often somebody may try to get in: by address, and by the name they try.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};

use footfall_schemas::directory::UserName;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

/// Addresses or names remembered before those that are calm again are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// Wait so long, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) retry_after_s: u64,
}

pub(crate) struct LoginLimits {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    names: DefaultKeyedRateLimiter<UserName>,
}

impl LoginLimits {
    pub(crate) fn new(per_address: u32, per_name: u32) -> Self {
        Self { addresses: per_minute(per_address), names: per_minute(per_name) }
    }

    /// Takes one from what the address may (/64 for IPv6). Without an address nothing was accepted here.
    pub(crate) fn by_address(&self, address: Option<IpAddr>) -> Result<(), TooMany> {
        check(&self.addresses, &network(address.ok_or(TooMany { retry_after_s: 60 })?))
    }

    /// Takes one from what may be tried under a name, from wherever it comes.
    pub(crate) fn by_name(&self, name: &UserName) -> Result<(), TooMany> {
        check(&self.names, name)
    }
}

fn per_minute<K: Clone + Hash + Eq>(limit: u32) -> DefaultKeyedRateLimiter<K> {
    RateLimiter::keyed(Quota::per_minute(NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN)))
}

fn check<K: Clone + Hash + Eq>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), TooMany> {
    if limiter.len() >= MAX_REMEMBERED {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|until| {
        let wait = until.wait_time_from(DefaultClock::default().now());
        TooMany { retry_after_s: wait.as_secs() + 1 }
    })
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10.1.2.3", "10.1.2.3")]
    #[case("::ffff:10.1.2.3", "10.1.2.3")]
    #[case("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
    fn logins_are_limited_by_network(#[case] address: &str, #[case] counted: &str) {
        assert_eq!(network(address.parse().unwrap()), counted.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_name_is_limited_from_wherever_it_comes_and_told_how_long() {
        let limits = LoginLimits::new(1, 2);
        let name = |name: &str| UserName::try_from(name.to_owned()).unwrap();
        assert_eq!((limits.by_name(&name("ada")), limits.by_name(&name("ada"))), (Ok(()), Ok(())));
        let wait = limits.by_name(&name("ada")).unwrap_err().retry_after_s;
        assert!((29..=31).contains(&wait), "{wait}");
        assert_eq!(limits.by_name(&name("bob")), Ok(()));
        assert_eq!(limits.by_address(Some([10, 0, 0, 1].into())), Ok(()));
        assert!(limits.by_address(Some([10, 0, 0, 1].into())).is_err());
        assert_eq!(limits.by_address(Some([10, 0, 0, 2].into())), Ok(()));
        assert!(limits.by_address(None).is_err());
    }
}
