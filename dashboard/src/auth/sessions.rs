//! Sessions: what a browser's cookie says, and whether that still holds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use footfall_schemas::directory::{Directory, User, UserName};
use tokio::sync::watch;

use super::signer::{Secret, Signer};

const PURPOSE: &str = "footfall/session/v2";

/// Somebody who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// Nobody's name: who runs Footfall, by a login link.
    pub(crate) user: Option<UserName>,
    /// ms since 1970.
    opened_at: i64,
    pub(crate) expires_at: i64,
}

impl Session {
    /// The user, when the session is still good; `Some(None)` is the operator.
    pub(crate) fn user<'a>(&self, directory: &'a Directory, now: i64) -> Option<Option<&'a User>> {
        if now >= self.expires_at || directory.revoked.contains_key(&self.id) {
            return None;
        }
        let Some(name) = &self.user else { return Some(None) };
        let user = directory.users.get(name)?;
        (self.opened_at >= opened_since(user)).then_some(Some(user))
    }
}

/// Sessions opened before are void. A user who was removed and made again does not get the old ones back.
fn opened_since(user: &User) -> i64 {
    user.sessions_since.max(user.created_at)
}

#[derive(Debug)]
pub(crate) struct Sessions {
    signer: Signer,
    lifetime_ms: i64,
    /// Logged out on this node, until they would have expired; all nodes learn it from the directory. Only a valid
    /// session can make it grow.
    revoked: Mutex<HashMap<String, i64>>,
    revocations: watch::Sender<u64>,
}

impl Sessions {
    pub(crate) fn new(secret: &Secret, lifetime_ms: u64) -> Self {
        Self {
            signer: Signer::new(secret, PURPOSE),
            lifetime_ms: i64::try_from(lifetime_ms).unwrap_or(i64::MAX / 4),
            revoked: Mutex::default(),
            revocations: watch::Sender::new(0),
        }
    }

    /// A new session of a user as a cookie's value.
    pub(crate) fn open(&self, name: &UserName, user: &User, now: i64) -> String {
        // A node whose clock is behind must not open a session that is void already.
        self.signer.sign(now.max(opened_since(user)), rand::random(), name.as_str())
    }

    /// As [`Self::open`], of who runs Footfall.
    pub(crate) fn open_operator(&self, now: i64) -> String {
        self.signer.sign(now, rand::random(), "")
    }

    /// What the cookie says, if this was signed. Whether it still holds is told by [`Session::user`] and
    /// [`Self::is_revoked`].
    pub(crate) fn read(&self, cookie: &str) -> Option<Session> {
        let signed = self.signer.verify(cookie)?;
        let user = match signed.subject.as_str() {
            "" => None,
            name => Some(UserName::try_from(name.to_owned()).ok()?),
        };
        Some(Session {
            id: signed.id(),
            user,
            opened_at: signed.made_at,
            expires_at: signed.made_at.saturating_add(self.lifetime_ms),
        })
    }

    pub(crate) fn revoke(&self, session: &Session, now: i64) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, expires_at| now < *expires_at);
        revoked.insert(session.id.clone(), session.expires_at);
        drop(revoked);
        self.revocations.send_modify(|count| *count += 1);
    }

    pub(crate) fn is_revoked(&self, session: &Session) -> bool {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&session.id)
    }

    /// Wakes with every revocation on this node.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    pub(crate) fn lifetime_s(&self) -> i64 {
        self.lifetime_ms / 1_000
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use footfall_schemas::directory::{Grants, Revoked};
    use rstest::rstest;

    use super::*;

    const SECRET: Secret = [7; 32];
    const NOW: i64 = 1_800_000_000_000;

    fn ada() -> UserName {
        "ada".to_owned().try_into().unwrap()
    }

    fn user(sessions_since: i64, created_at: i64) -> User {
        User { password: String::new(), grants: Grants::everything(), sessions_since, created_at }
    }

    fn with(user: User) -> Directory {
        let mut directory = Directory::default();
        directory.users.insert(ada(), Arc::new(user));
        directory
    }

    fn sessions() -> Sessions {
        Sessions::new(&SECRET, 1_000)
    }

    #[test]
    fn a_session_holds_until_its_time_is_over() {
        let sessions = sessions();
        let session = sessions.read(&sessions.open(&ada(), &user(0, 0), NOW)).unwrap();
        assert_eq!((session.user.clone(), session.expires_at), (Some(ada()), NOW + 1_000));
        let directory = with(user(0, 0));
        assert!(session.user(&directory, NOW + 999).is_some());
        assert!(session.user(&directory, NOW + 1_000).is_none());
        let operator = sessions.read(&sessions.open_operator(NOW)).unwrap();
        assert_eq!(operator.user(&directory, NOW), Some(None));
        assert!(operator.user(&directory, NOW + 1_000).is_none());
    }

    #[rstest]
    #[case::as_before(Some(user(0, 0)), true)]
    #[case::gone(None, false)]
    #[case::new_password(Some(user(NOW + 1, 0)), false)]
    #[case::made_again(Some(user(0, NOW + 1)), false)]
    fn a_session_holds_while_its_user_does(#[case] later: Option<User>, #[case] holds: bool) {
        let session = sessions().read(&sessions().open(&ada(), &user(0, 0), NOW)).unwrap();
        let directory = later.map_or_else(Directory::default, with);
        assert_eq!(session.user(&directory, NOW + 2).is_some(), holds);
    }

    #[test]
    fn a_node_whose_clock_is_behind_opens_a_session_that_holds() {
        let changed = user(NOW + 500, 0);
        let session = sessions().read(&sessions().open(&ada(), &changed, NOW)).unwrap();
        assert!(session.user(&with(changed), NOW).is_some());
    }

    #[test]
    fn a_session_that_was_logged_out_is_void_here_at_once_and_everywhere_by_the_directory() {
        let sessions = sessions();
        let [one, other] = [(); 2].map(|()| sessions.read(&sessions.open_operator(NOW)).unwrap());
        let mut revocations = sessions.revocations();
        sessions.revoke(&one, NOW);
        assert!(revocations.has_changed().unwrap());
        revocations.mark_unchanged();
        assert!(sessions.is_revoked(&one) && !sessions.is_revoked(&other));

        let mut directory = Directory::default();
        directory.revoked.insert(one.id.clone(), Revoked { until: one.expires_at });
        assert!(one.user(&directory, NOW).is_none() && other.user(&directory, NOW).is_some());
    }
}
