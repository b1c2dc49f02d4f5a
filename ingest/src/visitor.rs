//! Who a visitor is, without cookies, and the signed token that keeps it so.
//!
//! A visitor's id is HMAC(day key, site, address, user agent): without the secret it cannot be traced back to an
//! address. Of the day keys only today's is kept, and yesterday's for a minute, for what came just before midnight; for
//! an event of an earlier day that a server sends, the day's key is derived once more and not kept. (So could whoever
//! holds the secret; a new secret ends that.) The token carries the id over a change of node, of address and of day.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use footfall_schemas::{
    SiteId, VisitorId,
    time::{RESEND_WINDOW_MS, SECOND_MS},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const DAY_MS: i64 = 24 * 60 * 60 * SECOND_MS;

/// A day longer than the resend window: an event kept until its last day is still sent with a token that holds.
pub const TOKEN_LIFE_MS: i64 = RESEND_WINDOW_MS + DAY_MS;

const VERSION: u8 = 1;
/// Version, visitor, expiry (s since 1970).
const CLAIMS_LEN: usize = 1 + 8 + 8;
const MAC_LEN: usize = 16;

/// Why a token does not hold. All refuse with `bad_token`; the text tells which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("token: not one of ours; use the token of the last welcome or ack")]
    Malformed,
    #[error("token: not signed for this site by this deployment; use the token of the last welcome or ack")]
    Forged,
    #[error("token: expired; use the token of the last welcome or ack")]
    Expired,
}

/// How long after midnight (UTC) yesterday's key is kept.
const OVERLAP_MS: i64 = 60 * SECOND_MS;

/// Keys derived from the deployment's secret: equal on every node. Each is kept as an HMAC that has taken it in.
pub struct VisitorKeys {
    visitor: Hmac<Sha256>,
    /// For those whom a site's own servers name.
    name: Hmac<Sha256>,
    token: Hmac<Sha256>,
    days: ArcSwap<Days>,
}

/// The keys of the days that are asked for.
#[derive(Clone)]
struct Days {
    today: DayKey,
    yesterday: Option<DayKey>,
}

#[derive(Clone)]
struct DayKey {
    /// Since 1970, UTC.
    day: i64,
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for VisitorKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VisitorKeys")
    }
}

impl VisitorKeys {
    pub fn derive(secret: &[u8; 32]) -> Self {
        let secret = keyed(secret);
        let visitor = keyed(&mac(&secret, &[b"footfall/visitor/v1"]));
        let name = keyed(&mac(&secret, &[b"footfall/visitor-name/v1"]));
        let token = keyed(&mac(&secret, &[b"footfall/visitor-token/v1"]));
        let first = Days { today: DayKey::derive(&visitor, 0), yesterday: None };
        Self { visitor, name, token, days: ArcSwap::from_pointee(first) }
    }

    /// The id of who comes from `address` with `user_agent` on the (UTC) day of `now_ms`.
    pub fn visitor(&self, site: &SiteId, address: IpAddr, user_agent: &str, now_ms: i64) -> VisitorId {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        // A site key holds no NUL and an address has a fixed length: no two inputs run together.
        let tag =
            mac(&self.day_key(now_ms), &[site.as_str().as_bytes(), &[0], &address, user_agent.as_bytes()]);
        VisitorId(u64::from_be_bytes(tag[..8].try_into().expect("8 of 32 bytes")))
    }

    /// The id of whom the site's own servers call `name`: the same on every day.
    pub fn named(&self, site: &SiteId, name: &str) -> VisitorId {
        let tag = mac(&self.name, &[site.as_str().as_bytes(), &[0], name.as_bytes()]);
        VisitorId(u64::from_be_bytes(tag[..8].try_into().expect("8 of 32 bytes")))
    }

    fn day_key(&self, now_ms: i64) -> Hmac<Sha256> {
        let (day, into_day) = (now_ms.div_euclid(DAY_MS), now_ms.rem_euclid(DAY_MS));
        let days = self.days.load();
        let is_over = days.yesterday.is_some() && into_day >= OVERLAP_MS;
        if days.today.day == day && !is_over {
            return days.today.key.clone();
        }
        if let Some(yesterday) = days.yesterday.as_ref().filter(|yesterday| yesterday.day == day) {
            return yesterday.key.clone();
        }
        let asked = DayKey::derive(&self.visitor, day);
        // A clock that is set back does not bring a day back.
        if day >= days.today.day {
            let yesterday = Some(&days.today).filter(|today| today.day + 1 == day && into_day < OVERLAP_MS);
            self.days.store(Arc::new(Days { today: asked.clone(), yesterday: yesterday.cloned() }));
        }
        asked.key
    }

    /// base64url of version, visitor, expiry and a MAC over them and the site.
    pub fn sign(&self, site: &SiteId, visitor: VisitorId, now_ms: i64) -> String {
        let mut token = [0; CLAIMS_LEN + MAC_LEN];
        token[0] = VERSION;
        token[1..9].copy_from_slice(&visitor.0.to_be_bytes());
        token[9..CLAIMS_LEN].copy_from_slice(&((now_ms + TOKEN_LIFE_MS) / SECOND_MS).to_be_bytes());
        let tag = self.token_mac(site, &token[..CLAIMS_LEN]).finalize().into_bytes();
        token[CLAIMS_LEN..].copy_from_slice(&tag[..MAC_LEN]);
        URL_SAFE_NO_PAD.encode(token)
    }

    pub fn verify(&self, site: &SiteId, token: &str, now_ms: i64) -> Result<VisitorId, BadToken> {
        let mut bytes = [0; CLAIMS_LEN + MAC_LEN];
        match URL_SAFE_NO_PAD.decode_slice(token, &mut bytes) {
            Ok(length) if length == bytes.len() && bytes[0] == VERSION => {}
            _ => return Err(BadToken::Malformed),
        }
        let (claims, tag) = bytes.split_at(CLAIMS_LEN);
        // Compares in constant time.
        self.token_mac(site, claims).verify_truncated_left(tag).map_err(|_| BadToken::Forged)?;
        let expiry_s = i64::from_be_bytes(claims[9..].try_into().expect("8 bytes"));
        if expiry_s <= now_ms / SECOND_MS {
            return Err(BadToken::Expired);
        }
        Ok(VisitorId(u64::from_be_bytes(claims[1..9].try_into().expect("8 bytes"))))
    }

    fn token_mac(&self, site: &SiteId, claims: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.token.clone();
        mac.update(claims);
        mac.update(site.as_str().as_bytes());
        mac
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl DayKey {
    fn derive(visitor: &Hmac<Sha256>, day: i64) -> Self {
        Self { day, key: keyed(&mac(visitor, &[&day.to_be_bytes()])) }
    }
}

fn mac(key: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = key.clone();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn keys() -> VisitorKeys {
        VisitorKeys::derive(&[7; 32])
    }

    fn site(key: &str) -> SiteId {
        SiteId::try_from(key).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_visitor_is_the_same_all_day_and_on_every_node() {
        let of = |keys: &VisitorKeys, now| keys.visitor(&site("a"), address("203.0.113.9"), "UA", now);
        assert_eq!(of(&keys(), NOW), of(&keys(), NOW + 60_000));
        assert_ne!(of(&keys(), NOW), of(&keys(), NOW + DAY_MS), "yesterday's id cannot be made again");
        assert_ne!(of(&keys(), NOW), of(&VisitorKeys::derive(&[8; 32]), NOW));
    }

    #[test]
    fn yesterdays_key_is_dropped_after_the_overlap() {
        let keys = keys();
        let midnight = NOW.div_euclid(DAY_MS) * DAY_MS;
        let of = |now| keys.visitor(&site("a"), address("203.0.113.9"), "UA", now);
        let held = || {
            let days = keys.days.load();
            (
                days.today.day - midnight / DAY_MS,
                days.yesterday.as_ref().map(|day| day.day - midnight / DAY_MS),
            )
        };
        let before = of(midnight - 1);
        assert_eq!(held(), (-1, None));
        let after = of(midnight);
        assert_eq!(held(), (0, Some(-1)));
        assert_eq!((of(midnight - 1), of(midnight + OVERLAP_MS - 1)), (before, after));
        assert_eq!(held(), (0, Some(-1)), "what came just before midnight finds its key");
        assert_eq!(of(midnight + OVERLAP_MS), after);
        assert_eq!(held(), (0, None));
        assert_eq!(of(midnight - 1), before, "a clock set back is served");
        assert_eq!(held(), (0, None), "and brings nothing back");
        of(midnight + DAY_MS + OVERLAP_MS);
        assert_eq!(held(), (1, None), "a day without a visitor near midnight leaves nothing behind");
    }

    #[test]
    fn site_address_and_user_agent_each_tell_visitors_apart() {
        let keys = keys();
        let one = keys.visitor(&site("a"), address("203.0.113.9"), "UA", NOW);
        assert_ne!(one, keys.visitor(&site("b"), address("203.0.113.9"), "UA", NOW));
        assert_ne!(one, keys.visitor(&site("a"), address("203.0.113.8"), "UA", NOW));
        assert_ne!(one, keys.visitor(&site("a"), address("203.0.113.9"), "UA2", NOW));
        assert_eq!(one, keys.visitor(&site("a"), address("::ffff:203.0.113.9"), "UA", NOW));
    }

    #[test]
    fn a_named_visitor_is_told_apart_by_name_and_site() {
        let keys = keys();
        assert_eq!(keys.named(&site("a"), "anna"), keys.named(&site("a"), "anna"));
        assert_ne!(keys.named(&site("a"), "anna"), keys.named(&site("a"), "bert"));
        assert_ne!(keys.named(&site("a"), "anna"), keys.named(&site("b"), "anna"));
    }

    #[test]
    fn a_token_keeps_the_visitor_for_longer_than_the_resend_window() {
        let token = keys().sign(&site("a"), VisitorId(42), NOW);
        assert_eq!(keys().verify(&site("a"), &token, NOW), Ok(VisitorId(42)));
        assert_eq!(keys().verify(&site("a"), &token, NOW + RESEND_WINDOW_MS), Ok(VisitorId(42)));
        assert_eq!(keys().verify(&site("a"), &token, NOW + TOKEN_LIFE_MS), Err(BadToken::Expired));
    }

    #[test]
    fn a_token_of_another_site_or_secret_is_forged() {
        let token = keys().sign(&site("a"), VisitorId(42), NOW);
        assert_eq!(keys().verify(&site("b"), &token, NOW), Err(BadToken::Forged));
        assert_eq!(VisitorKeys::derive(&[8; 32]).verify(&site("a"), &token, NOW), Err(BadToken::Forged));
    }

    #[test]
    fn no_single_changed_bit_passes() {
        let token = URL_SAFE_NO_PAD.decode(keys().sign(&site("a"), VisitorId(42), NOW)).unwrap();
        for bit in 0..token.len() * 8 {
            let mut changed = token.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(keys().verify(&site("a"), &URL_SAFE_NO_PAD.encode(changed), NOW).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        for text in ["", "x", "AAECAwQFBgcICQoL.signature", &"A".repeat(44), &"A".repeat(4096)] {
            assert_eq!(keys().verify(&site("a"), text, NOW), Err(BadToken::Malformed), "{text}");
        }
    }
}
