//! Rates, by governor's GCRA. What was used of a rate is kept by whoever is limited (eight bytes in a connection or a
//! site), or by address in a map that cannot grow beyond its bound.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, Hasher, RandomState},
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

use crate::{config, network::AddressKey};

pub(crate) fn quota(rate: config::Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// Within a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Low,
    /// Less than a quarter of the burst is left: the sender should gather more before it sends.
    High,
}

/// Over a limit: free again after `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) wait: Duration,
    /// The limit of the whole site, not the sender's own.
    pub(crate) of_site: bool,
}

/// A rate and where the use of it is kept.
pub(crate) struct Limiter<S: StateStore> {
    governor: RateLimiter<S::Key, S, DefaultClock, StateInformationMiddleware>,
    quarter: u32,
}

impl<S: StateStore<Key: Hash + Eq + Clone>> Limiter<S> {
    fn over(rate: config::Rate, state: S) -> Self {
        Self {
            governor: RateLimiter::new(quota(rate), state, DefaultClock::default()),
            quarter: rate.burst.get() / 4,
        }
    }

    pub(crate) fn charge(&self, key: &S::Key, amount: NonZeroU32) -> Result<Pressure, Over> {
        match self.governor.check_key_n(key, amount) {
            Ok(Ok(left)) if left.remaining_burst_capacity() < self.quarter => Ok(Pressure::High),
            Ok(Ok(_)) => Ok(Pressure::Low),
            Ok(Err(until)) => {
                let now: QuantaInstant = self.governor.clock().now();
                Err(Over { wait: until.wait_time_from(now), of_site: false })
            }
            // More than the burst at once never passes; the config check keeps whole batches below it.
            Err(_) => Err(Over { wait: Duration::from_secs(60), of_site: false }),
        }
    }
}

/// What one connection or site has used of a rate: governor's theoretical arrival time, in nanoseconds since its limiter
/// began, below the limiter's number. Once the time is in the past the burst is whole again, so nothing is ever swept.
#[derive(Debug, Default)]
pub(crate) struct Used(AtomicU64);

/// Nine years.
const TIME_BITS: u32 = 58;

/// Keeps nothing but the number of its limiter. New settings make a new limiter, for which nothing is used yet: a time
/// under one rate says nothing under another.
pub(crate) struct InUsed {
    number: u64,
}

impl Limiter<InUsed> {
    pub(crate) fn by_holder(rate: config::Rate) -> Self {
        static LIMITERS: AtomicU64 = AtomicU64::new(0);
        let number = LIMITERS.fetch_add(1, Ordering::Relaxed) % (1 << (u64::BITS - TIME_BITS));
        Self::over(rate, InUsed { number })
    }
}

impl StateStore for InUsed {
    type Key = Used;

    fn measure_and_replace<T, F, E>(&self, key: &Used, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = key.0.load(Ordering::Relaxed);
        loop {
            let is_of_ours = before >> TIME_BITS == self.number;
            let time = is_of_ours.then(|| Nanos::new(before & ((1 << TIME_BITS) - 1)));
            let (outcome, after) = decide(time)?;
            let after = self.number << TIME_BITS | after.as_u64();
            match key.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

// governor wants keys that a map could hold. No map holds these.
impl Hash for Used {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.load(Ordering::Relaxed).hash(state);
    }
}

impl Clone for Used {
    fn clone(&self) -> Self {
        Self(self.0.load(Ordering::Relaxed).into())
    }
}

impl PartialEq for Used {
    fn eq(&self, other: &Self) -> bool {
        self.0.load(Ordering::Relaxed) == other.0.load(Ordering::Relaxed)
    }
}

impl Eq for Used {}

type Arrivals = HashMap<AddressKey, u64>;

/// Keeps what so many addresses have used. An address that finds no room shares the use of its /16, of which there are
/// few: so the memory is bounded, and those who were there before an attack keep what is theirs.
pub(crate) struct ByAddress {
    shards: [Mutex<Arrivals>; SHARDS],
    most_by_shard: usize,
    crowd: Mutex<Arrivals>,
    hasher: RandomState,
}

const SHARDS: usize = 64;

impl Limiter<ByAddress> {
    /// Keeps at most `most` addresses apart.
    pub(crate) fn by_address(rate: config::Rate, most: usize) -> Self {
        let state = ByAddress {
            shards: std::array::from_fn(|_| Mutex::default()),
            most_by_shard: most.div_ceil(SHARDS),
            crowd: Mutex::default(),
            hasher: RandomState::new(),
        };
        Self::over(rate, state)
    }

    /// Forgets who has a whole burst again.
    pub(crate) fn sweep(&self) {
        self.governor.retain_recent();
        self.governor.shrink_to_fit();
    }
}

impl ByAddress {
    fn maps(&self) -> impl Iterator<Item = MutexGuard<'_, Arrivals>> {
        self.shards.iter().chain([&self.crowd]).map(lock)
    }
}

/// A std mutex: no await happens while it is held. The arrivals are sound even after a panic.
fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for ByAddress {
    type Key = AddressKey;

    fn measure_and_replace<T, F, E>(&self, key: &AddressKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let measure = |arrivals: &mut Arrivals, key: AddressKey| {
            let known = arrivals.get(&key).copied().map(Nanos::new);
            let (outcome, after) = decide(known)?;
            arrivals.insert(key, after.as_u64());
            Ok(outcome)
        };
        let mut shard = lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS]);
        if shard.len() < self.most_by_shard || shard.contains_key(key) {
            return measure(&mut shard, *key);
        }
        drop(shard);
        measure(&mut lock(&self.crowd), key.coarse())
    }
}

impl ShrinkableKeyedStateStore<AddressKey> for ByAddress {
    fn retain_recent(&self, drop_below: Nanos) {
        self.maps().for_each(|mut map| map.retain(|_, arrival| *arrival > drop_below.as_u64()));
    }

    fn shrink_to_fit(&self) {
        self.maps().for_each(|mut map| map.shrink_to_fit());
    }

    fn len(&self) -> usize {
        self.maps().map(|map| map.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;
    use std::net::IpAddr;

    fn n(amount: u32) -> NonZeroU32 {
        NonZeroU32::new(amount).unwrap()
    }

    fn key(bits: u32) -> AddressKey {
        IpAddr::V4(bits.into()).into()
    }

    #[test]
    fn three_quarters_of_the_burst_pass_in_silence_then_the_pressure_is_told_then_the_wait() {
        let limiter = Limiter::by_holder(Rate::new(1, 100));
        let used = Used::default();
        assert_eq!(limiter.charge(&used, n(75)), Ok(Pressure::Low));
        assert_eq!(limiter.charge(&used, n(25)), Ok(Pressure::High));
        let over = limiter.charge(&used, n(10)).unwrap_err();
        assert!((9..=10).contains(&over.wait.as_secs()), "{over:?}");
    }

    #[test]
    fn nothing_is_used_under_a_new_limiter() {
        let used = Used::default();
        for _ in 0..3 {
            let limiter = Limiter::by_holder(Rate::new(1, 100));
            assert!(limiter.charge(&used, n(100)).is_ok());
            let over = limiter.charge(&used, n(50)).unwrap_err();
            assert!((49..=50).contains(&over.wait.as_secs()), "{over:?}");
        }
    }

    #[test]
    fn more_than_the_burst_at_once_never_passes() {
        let limiter = Limiter::by_holder(Rate::new(1, 100));
        assert!(limiter.charge(&Used::default(), n(101)).is_err());
    }

    /// What the tables take: a key, its use, and a byte of hashbrown's for each bucket, of which seven in eight are used.
    fn bytes(store: &ByAddress) -> usize {
        let buckets: usize = store.maps().map(|map| map.capacity() * 8 / 7).sum();
        buckets * (size_of::<(AddressKey, u64)>() + 1)
    }

    #[test]
    fn an_attack_from_a_million_addresses_of_each_kind_leaves_memory_bounded() {
        // The burst lasts for longer than the attack on a busy machine.
        let limiter = Limiter::by_address(Rate::new(1, 10_000), 100_000);
        let known = key(0xcb00_7109);
        limiter.charge(&known, n(5_000)).unwrap();
        for bits in (0..=u32::MAX).step_by(4_001) {
            let _ = limiter.charge(&key(bits), n(1));
            let v6 = (u128::from(bits) * 0x9e37_79b9_7f4a_7c15) << 64 | 1;
            let _ = limiter.charge(&IpAddr::V6(v6.into()).into(), n(1));
        }
        assert_eq!(
            limiter.charge(&known, n(5_000)),
            Ok(Pressure::High),
            "who was there before keeps his own"
        );
        assert!(limiter.charge(&known, n(1_000)).is_err());
        let keys = limiter.governor.len();
        assert!((100_000..100_064 + 2 * 65_536).contains(&keys), "{keys}");
        let bytes = bytes(&limiter.governor.into_state_store());
        assert!(bytes < 8 * 1024 * 1024, "{bytes}");
    }

    #[test]
    fn an_address_without_room_shares_the_limit_of_its_16() {
        let limiter = Limiter::by_address(Rate::new(1, 10), 0);
        limiter.charge(&key(0x0a01_0001), n(10)).unwrap();
        assert!(limiter.charge(&key(0x0a01_ffff), n(1)).is_err());
        assert!(limiter.charge(&key(0x0a02_0001), n(1)).is_ok());
    }

    #[test]
    fn a_refilled_address_is_forgotten_and_its_memory_given_back() {
        let limiter = Limiter::by_address(Rate::new(1_000_000_000, 10), 10_000);
        (0..10_000).for_each(|bits| assert!(limiter.charge(&key(bits), n(1)).is_ok()));
        limiter.charge(&key(1), n(10)).unwrap();
        limiter.sweep();
        assert!(limiter.governor.is_empty());
        assert_eq!(bytes(&limiter.governor.into_state_store()), 0);
    }
}
