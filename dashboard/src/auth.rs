//! Who may look: one-time login links and the sessions they open. Both are signed, so any node with the same secret
//! takes them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::watch;

type HmacSha256 = Hmac<Sha256>;

/// Secrets as each role is given them.
pub(crate) type Secret = [u8; 32];

type Nonce = [u8; 16];

/// Differences between the clocks of who makes a link and of this node that are let pass.
const SKEW_MS: i64 = 60_000;

const VERSION: u8 = 1;
/// Version, time (ms since 1970, big endian), nonce.
const BODY_BYTES: usize = 1 + 8 + 16;
const TOKEN_BYTES: usize = BODY_BYTES + 32;

/// A link that logs in whoever opens it first, within the time the node's `login_link_ms` gives from `now_ms`.
/// `base_url`: where people reach the dashboard, such as `http://127.0.0.1:8081`.
pub fn login_url(secret: &[u8; 32], base_url: &str, now_ms: i64) -> String {
    let token = Signer::new(secret, LINK).sign(now_ms, rand::random());
    format!("{}/login?token={token}", base_url.trim_end_matches('/'))
}

const LINK: &str = "footfall/login/v1";
const SESSION: &str = "footfall/session/v1";

/// Why a link was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedLink {
    Invalid,
    Expired,
    Used,
}

impl RefusedLink {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Used => "used",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Links {
    signer: Signer,
    valid_ms: i64,
    /// Links made before are refused: which of them were used is not known any more.
    known_since: i64,
    /// Nonces with the time of the link, until it expires. Only who has the secret can make it grow.
    used: Mutex<HashMap<Nonce, i64>>,
}

impl Links {
    pub(crate) fn new(secret: &Secret, valid_ms: u64, started_at: i64) -> Self {
        Self {
            signer: Signer::new(secret, LINK),
            valid_ms: i64::try_from(valid_ms).unwrap_or(i64::MAX / 2),
            known_since: started_at - SKEW_MS,
            used: Mutex::default(),
        }
    }

    /// Whether `token` could be redeemed. Changes nothing, so that a mail program's preview does not use a link up.
    pub(crate) fn check(&self, token: &str, now: i64) -> Result<(), RefusedLink> {
        let (made_at, nonce) = self.read(token, now)?;
        if self.used().contains_key(&nonce) {
            return Err(RefusedLink::Used);
        }
        debug_assert!(made_at <= now + SKEW_MS);
        Ok(())
    }

    /// Uses `token` up.
    pub(crate) fn redeem(&self, token: &str, now: i64) -> Result<(), RefusedLink> {
        let (made_at, nonce) = self.read(token, now)?;
        let mut used = self.used();
        used.retain(|_, made_at| now - *made_at <= self.valid_ms);
        match used.insert(nonce, made_at) {
            None => Ok(()),
            Some(_) => Err(RefusedLink::Used),
        }
    }

    fn read(&self, token: &str, now: i64) -> Result<(i64, Nonce), RefusedLink> {
        let (made_at, nonce) = self.signer.verify(token).ok_or(RefusedLink::Invalid)?;
        if made_at > now + SKEW_MS {
            return Err(RefusedLink::Invalid);
        }
        if now - made_at > self.valid_ms || made_at < self.known_since {
            return Err(RefusedLink::Expired);
        }
        Ok((made_at, nonce))
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<Nonce, i64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    id: Nonce,
    /// ms since 1970.
    pub(crate) expires_at: i64,
}

#[derive(Debug)]
pub(crate) struct Sessions {
    signer: Signer,
    lifetime_ms: i64,
    /// Logged out on this node, until they would have expired. Only a valid session can make it grow.
    revoked: Mutex<HashMap<Nonce, i64>>,
    revocations: watch::Sender<u64>,
}

impl Sessions {
    pub(crate) fn new(secret: &Secret, lifetime_ms: u64) -> Self {
        Self {
            signer: Signer::new(secret, SESSION),
            lifetime_ms: i64::try_from(lifetime_ms).unwrap_or(i64::MAX / 2),
            revoked: Mutex::default(),
            revocations: watch::Sender::new(0),
        }
    }

    /// A new session as a cookie's value.
    pub(crate) fn open(&self, now: i64) -> String {
        self.signer.sign(now.saturating_add(self.lifetime_ms), rand::random())
    }

    pub(crate) fn check(&self, cookie: &str, now: i64) -> Option<Session> {
        let (expires_at, id) = self.signer.verify(cookie)?;
        let session = Session { id, expires_at };
        (now < expires_at && !self.is_revoked(session)).then_some(session)
    }

    pub(crate) fn revoke(&self, session: Session, now: i64) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, expires_at| now < *expires_at);
        revoked.insert(session.id, session.expires_at);
        drop(revoked);
        self.revocations.send_modify(|count| *count += 1);
    }

    pub(crate) fn is_revoked(&self, session: Session) -> bool {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&session.id)
    }

    /// Wakes with every revocation.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    pub(crate) fn lifetime_s(&self) -> i64 {
        self.lifetime_ms / 1_000
    }
}

/// Signs a time and a nonce for one purpose.
struct Signer {
    key: HmacSha256,
}

impl std::fmt::Debug for Signer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    fn new(secret: &Secret, purpose: &str) -> Self {
        let derived = keyed(secret).chain_update(purpose).finalize().into_bytes();
        Self { key: keyed(&derived) }
    }

    fn sign(&self, time_ms: i64, nonce: Nonce) -> String {
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&time_ms.to_be_bytes());
        token.extend_from_slice(&nonce);
        let signature = self.key.clone().chain_update(&token).finalize().into_bytes();
        token.extend_from_slice(&signature);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Compares the signature in constant time.
    fn verify(&self, token: &str) -> Option<(i64, Nonce)> {
        // Decoding refuses bits that are left over, so a token has one spelling only.
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, signature) = bytes.split_at_checked(BODY_BYTES)?;
        self.key.clone().chain_update(body).verify_slice(signature).ok()?;
        let (version, rest) = body.split_first()?;
        let (time, nonce) = rest.split_at(8);
        (*version == VERSION).then_some((i64::from_be_bytes(time.try_into().ok()?), nonce.try_into().ok()?))
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SECRET: Secret = [7; 32];
    const NOW: i64 = 1_800_000_000_000;
    const VALID_MS: u64 = 15 * 60_000;

    fn links() -> Links {
        Links::new(&SECRET, VALID_MS, NOW)
    }

    fn token(secret: &Secret, now: i64) -> String {
        login_url(secret, "http://127.0.0.1:8081/", now)
            .strip_prefix("http://127.0.0.1:8081/login?token=")
            .unwrap()
            .to_owned()
    }

    #[rstest]
    #[case::at_once(NOW, Ok(()))]
    #[case::in_time(NOW + VALID_MS as i64, Ok(()))]
    #[case::too_late(NOW + VALID_MS as i64 + 1, Err(RefusedLink::Expired))]
    #[case::long_before_it_was_made(NOW - SKEW_MS - 1, Err(RefusedLink::Invalid))]
    fn a_link_is_good_for_a_while(#[case] now: i64, #[case] expected: Result<(), RefusedLink>) {
        let links = links();
        let token = token(&SECRET, NOW);
        assert_eq!(links.check(&token, now), expected);
        assert_eq!(links.redeem(&token, now), expected);
    }

    #[test]
    fn a_link_logs_in_once_however_often_it_was_looked_at() {
        let links = links();
        let token = token(&SECRET, NOW);
        assert_eq!(links.check(&token, NOW), Ok(()));
        assert_eq!(links.check(&token, NOW), Ok(()));
        assert_eq!(links.redeem(&token, NOW), Ok(()));
        assert_eq!(links.redeem(&token, NOW), Err(RefusedLink::Used));
        assert_eq!(links.check(&token, NOW), Err(RefusedLink::Used));
        assert_eq!(links.redeem(&token_of_its_own(), NOW), Ok(()));
    }

    fn token_of_its_own() -> String {
        token(&SECRET, NOW)
    }

    #[test]
    fn a_link_from_before_the_start_is_refused_for_it_may_have_been_used() {
        let links = links();
        assert_eq!(links.redeem(&token(&SECRET, NOW - SKEW_MS - 1), NOW), Err(RefusedLink::Expired));
    }

    #[test]
    fn a_token_with_any_bit_changed_is_invalid() {
        let good = URL_SAFE_NO_PAD.decode(token(&SECRET, NOW)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                links().check(&URL_SAFE_NO_PAD.encode(bad), NOW),
                Err(RefusedLink::Invalid),
                "bit {bit}"
            );
        }
    }

    #[rstest]
    #[case::empty(String::new())]
    #[case::of_another_secret(token(&[8; 32], NOW))]
    #[case::cut(token(&SECRET, NOW)[..40].to_owned())]
    #[case::longer(token(&SECRET, NOW) + "AAAA")]
    #[case::a_session(Sessions::new(&SECRET, 60_000).open(NOW))]
    fn what_was_not_signed_as_a_link_is_invalid(#[case] token: String) {
        assert_eq!(links().redeem(&token, NOW), Err(RefusedLink::Invalid));
    }

    #[test]
    fn a_session_ends_by_time_or_by_logout() {
        let sessions = Sessions::new(&SECRET, 1_000);
        let (one, other) = (sessions.open(NOW), sessions.open(NOW));
        assert_eq!(sessions.check(&one, NOW + 999).unwrap().expires_at, NOW + 1_000);
        assert_eq!(sessions.check(&one, NOW + 1_000), None);
        let session = sessions.check(&one, NOW).unwrap();
        let mut revocations = sessions.revocations();
        sessions.revoke(session, NOW);
        assert!(revocations.has_changed().unwrap());
        revocations.mark_unchanged();
        assert_eq!(sessions.check(&one, NOW), None);
        assert!(sessions.check(&other, NOW).is_some());
    }

    #[test]
    fn a_link_is_no_session() {
        assert_eq!(Sessions::new(&SECRET, 1_000).check(&token(&SECRET, NOW), NOW), None);
    }
}
