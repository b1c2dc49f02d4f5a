//! Links that work once: the login link of who runs Footfall, and the set-up link of the first start.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use footfall_schemas::directory::Directory;

use super::signer::{Secret, Signer};

/// Differences between the clocks of who makes a link and of this node that are let pass.
const SKEW_MS: i64 = 60_000;
/// A set-up link is good until there is an owner; its mark is kept for longer than anybody has it.
const SET_UP_VALID_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1_000;

const LOGIN: &str = "footfall/login/v1";
const SET_UP: &str = "footfall/set-up/v1";

/// A link that logs in whoever opens it first, within the time the node's `login_link_ms` gives from `now_ms`.
/// `base_url`: where people reach the dashboard, such as `http://127.0.0.1:8081`.
pub fn login_url(secret: &[u8; 32], base_url: &str, now_ms: i64) -> String {
    let token = Signer::new(secret, LOGIN).sign(now_ms, rand::random(), "");
    format!("{}/login?token={token}", base_url.trim_end_matches('/'))
}

/// A link under which the first owner gives name and password. It is void once there is an owner. The token lies behind
/// the hash, so that it reaches no proxy's log.
pub fn set_up_url(secret: &[u8; 32], base_url: &str, now_ms: i64) -> String {
    let token = Signer::new(secret, SET_UP).sign(now_ms, rand::random(), "");
    format!("{}/#/set-up/{token}", base_url.trim_end_matches('/'))
}

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

/// A link's name among what is revoked, and until when it must be kept there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnceLink {
    pub(crate) id: String,
    /// ms since 1970.
    pub(crate) until: i64,
}

#[derive(Debug)]
pub(crate) struct OnceLinks {
    signer: Signer,
    valid_ms: i64,
    /// Claimed on this node, until they expire; all nodes learn it from the directory. Only who has the secret can make
    /// it grow.
    claimed: Mutex<HashMap<String, i64>>,
}

impl OnceLinks {
    pub(crate) fn login(secret: &Secret, valid_ms: u64) -> Self {
        Self::new(secret, LOGIN, valid_ms)
    }

    pub(crate) fn set_up(secret: &Secret) -> Self {
        Self::new(secret, SET_UP, SET_UP_VALID_MS)
    }

    fn new(secret: &Secret, purpose: &str, valid_ms: u64) -> Self {
        Self {
            signer: Signer::new(secret, purpose),
            valid_ms: i64::try_from(valid_ms).unwrap_or(i64::MAX / 4),
            claimed: Mutex::default(),
        }
    }

    /// Whether `token` could be used. Changes nothing, so that a mail program's preview does not use a link up.
    pub(crate) fn check(&self, token: &str, directory: &Directory, now: i64) -> Result<(), RefusedLink> {
        let link = self.read(token, directory, now)?;
        if self.claimed().contains_key(&link.id) { Err(RefusedLink::Used) } else { Ok(()) }
    }

    /// Keeps everybody else on this node from using `token`, until it is given back.
    pub(crate) fn claim(
        &self,
        token: &str,
        directory: &Directory,
        now: i64,
    ) -> Result<OnceLink, RefusedLink> {
        let link = self.read(token, directory, now)?;
        let mut claimed = self.claimed();
        claimed.retain(|_, until| now <= *until);
        match claimed.insert(link.id.clone(), link.until) {
            None => Ok(link),
            Some(_) => Err(RefusedLink::Used),
        }
    }

    /// Nothing came of it.
    pub(crate) fn give_back(&self, link: &OnceLink) {
        self.claimed().remove(&link.id);
    }

    fn read(&self, token: &str, directory: &Directory, now: i64) -> Result<OnceLink, RefusedLink> {
        let signed = self.signer.verify(token).ok_or(RefusedLink::Invalid)?;
        if signed.made_at > now + SKEW_MS {
            return Err(RefusedLink::Invalid);
        }
        let link = OnceLink { id: signed.id(), until: signed.made_at.saturating_add(self.valid_ms) };
        if now > link.until {
            return Err(RefusedLink::Expired);
        }
        if directory.revoked.contains_key(&link.id) { Err(RefusedLink::Used) } else { Ok(link) }
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::directory::Revoked;
    use rstest::rstest;

    use super::*;

    const SECRET: Secret = [7; 32];
    const NOW: i64 = 1_800_000_000_000;
    const VALID_MS: u64 = 15 * 60_000;

    fn links() -> OnceLinks {
        OnceLinks::login(&SECRET, VALID_MS)
    }

    fn login_token() -> String {
        login_url(&SECRET, "http://127.0.0.1:8081/", NOW)
            .strip_prefix("http://127.0.0.1:8081/login?token=")
            .unwrap()
            .to_owned()
    }

    fn set_up_token() -> String {
        set_up_url(&SECRET, "http://127.0.0.1:8081/", NOW)
            .strip_prefix("http://127.0.0.1:8081/#/set-up/")
            .unwrap()
            .to_owned()
    }

    #[rstest]
    #[case::at_once(NOW, Ok(()))]
    #[case::in_time(NOW + VALID_MS as i64, Ok(()))]
    #[case::too_late(NOW + VALID_MS as i64 + 1, Err(RefusedLink::Expired))]
    #[case::before_it_was_made(NOW - SKEW_MS, Ok(()))]
    #[case::long_before_it_was_made(NOW - SKEW_MS - 1, Err(RefusedLink::Invalid))]
    fn a_login_link_is_good_for_a_while(#[case] now: i64, #[case] expected: Result<(), RefusedLink>) {
        let (links, directory, token) = (links(), Directory::default(), login_token());
        assert_eq!(links.check(&token, &directory, now), expected);
        assert_eq!(links.claim(&token, &directory, now).map(drop), expected);
    }

    #[test]
    fn a_link_is_claimed_once_however_often_it_was_looked_at() {
        let (links, directory, token) = (links(), Directory::default(), login_token());
        assert_eq!(links.check(&token, &directory, NOW), Ok(()));
        assert_eq!(links.check(&token, &directory, NOW), Ok(()));
        let link = links.claim(&token, &directory, NOW).unwrap();
        assert_eq!(links.claim(&token, &directory, NOW), Err(RefusedLink::Used));
        assert_eq!(links.check(&token, &directory, NOW), Err(RefusedLink::Used));
        links.claim(&login_token(), &directory, NOW).unwrap();
        links.give_back(&link);
        assert_eq!(links.claim(&token, &directory, NOW), Ok(link));
    }

    #[test]
    fn what_another_node_has_taken_is_used() {
        let token = login_token();
        let link = links().claim(&token, &Directory::default(), NOW).unwrap();
        let mut directory = Directory::default();
        directory.revoked.insert(link.id, Revoked { until: link.until });
        assert_eq!(links().check(&token, &directory, NOW), Err(RefusedLink::Used));
        assert_eq!(links().claim(&token, &directory, NOW), Err(RefusedLink::Used));
    }

    #[test]
    fn each_kind_of_link_is_good_for_its_own_purpose_and_a_set_up_link_does_not_age() {
        let (directory, set_up) = (Directory::default(), OnceLinks::set_up(&SECRET));
        assert_eq!(links().check(&set_up_token(), &directory, NOW), Err(RefusedLink::Invalid));
        assert_eq!(set_up.check(&login_token(), &directory, NOW), Err(RefusedLink::Invalid));
        assert_eq!(set_up.check(&set_up_token(), &directory, NOW + 1_000 * VALID_MS as i64), Ok(()));
    }
}
