//! The directory as this role uses it: who is asking, and changes, one at a time on this node.

use std::sync::Arc;

use footfall_schemas::directory::{Directory, Entry, Revoked};
use http::{HeaderMap, header::AUTHORIZATION};
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::{info, warn};

use crate::{
    auth::{
        Access, Asker, LoginLimits, OnceLink, OnceLinks, Passwords, Secret, Session, Sessions, Shares,
        find_key, session_cookie,
    },
    clock::wall_ms,
    config::Config,
    directory::{Edit, EditError},
};

pub(crate) struct Accounts {
    directory: watch::Receiver<Arc<Directory>>,
    edit: Arc<dyn Edit>,
    /// Held from the look to the write: of two changes the second sees the first. Nodes do not wait for each other.
    changing: Mutex<()>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) login_links: OnceLinks,
    pub(crate) set_up_links: OnceLinks,
    pub(crate) shares: Shares,
    pub(crate) passwords: Passwords,
    pub(crate) limits: LoginLimits,
}

/// Something was shown that opens nothing (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unidentified {
    Key,
    Link,
}

impl Accounts {
    pub(crate) fn new(
        directory: watch::Receiver<Arc<Directory>>,
        edit: Arc<dyn Edit>,
        secret: &Secret,
        config: &Config,
    ) -> Self {
        Self {
            directory,
            edit,
            changing: Mutex::default(),
            sessions: Arc::new(Sessions::new(secret, config.session_ms)),
            login_links: OnceLinks::login(secret, config.login_link_ms),
            set_up_links: OnceLinks::set_up(secret),
            shares: Shares::new(secret),
            passwords: Passwords::new(config.password_concurrency),
            limits: LoginLimits::new(config.logins_per_minute, config.passwords_per_minute),
        }
    }

    /// As it stands now.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.borrow().clone()
    }

    /// Who asks. What is shown on purpose goes before what a browser brings along: an API key, a share link's token, the
    /// session's cookie.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        share: Option<&str>,
        config: &Config,
    ) -> Result<Access, Unidentified> {
        if let Some(shown) = headers.get(AUTHORIZATION) {
            let token = shown.to_str().ok().and_then(|shown| shown.strip_prefix("Bearer "));
            let directory = self.directory();
            let key = token.and_then(|token| find_key(token, &directory)).ok_or(Unidentified::Key)?;
            return Ok(self.access(Asker::Key(key.0.to_owned())));
        }
        if let Some(token) = share {
            let access = self.access(Asker::Link(self.shares.read(token).ok_or(Unidentified::Link)?));
            return if access.stands() { Ok(access) } else { Err(Unidentified::Link) };
        }
        let session = session_cookie(headers, config).and_then(|cookie| self.sessions.read(cookie));
        let access = session.map(|session| self.access(Asker::Session(session)));
        Ok(access.filter(Access::stands).unwrap_or_else(|| self.access(Asker::Nobody)))
    }

    fn access(&self, asker: Asker) -> Access {
        Access::new(asker, self.directory.clone(), self.sessions.clone())
    }

    /// Waits until nobody else on this node changes anything.
    pub(crate) async fn change(&self, by: String) -> Change<'_> {
        Change { _alone: self.changing.lock().await, accounts: self, by }
    }

    /// Ends a session: at once on this node and for its open sockets, then on all nodes.
    pub(crate) async fn log_out(&self, session: &Session, by: &str) {
        self.sessions.revoke(session, wall_ms());
        let revoked = Entry::Revoked(session.id.clone(), Revoked { until: session.expires_at });
        if let Err(error) = self.write(by, revoked.key(), Some(&revoked)).await {
            warn!(by, %error, "logged out on this node only");
        }
    }

    /// Makes a claimed link known as used to all nodes; else it is given back.
    pub(crate) async fn use_up(&self, links: &OnceLinks, link: &OnceLink, by: &str) -> Result<(), EditError> {
        let used = Entry::Revoked(link.id.clone(), Revoked { until: link.until });
        let written = self.write(by, used.key(), Some(&used)).await;
        if written.is_err() {
            links.give_back(link);
        }
        written
    }

    /// Every change is told in the log: who, and which entry. What it holds may be secret.
    async fn write(&self, by: &str, key: String, entry: Option<&Entry>) -> Result<(), EditError> {
        self.edit.write(key.clone(), entry.map(Entry::value)).await?;
        match entry {
            Some(_) => info!(by, entry = %key, "an entry of the directory was written"),
            None => info!(by, entry = %key, "an entry of the directory was removed"),
        }
        Ok(())
    }
}

/// The right to change the directory, while nobody else on this node does.
pub(crate) struct Change<'a> {
    _alone: MutexGuard<'a, ()>,
    accounts: &'a Accounts,
    by: String,
}

impl Change<'_> {
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.accounts.directory()
    }

    /// Whoever changes it.
    pub(crate) fn by(&self) -> &str {
        &self.by
    }

    pub(crate) async fn put(&self, entry: Entry) -> Result<(), EditError> {
        self.accounts.write(&self.by, entry.key(), Some(&entry)).await
    }

    pub(crate) async fn remove(&self, key: String) -> Result<(), EditError> {
        self.accounts.write(&self.by, key, None).await
    }
}
