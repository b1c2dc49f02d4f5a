//! Who asks, and what they may do as the directory stands now.

use std::{future::pending, sync::Arc};

use footfall_schemas::{
    SiteId,
    directory::{Directory, Grants, Role, ShareLink},
    viewer::Filter,
};
use tokio::sync::watch;

use super::sessions::{Session, Sessions};
use crate::clock::wall_ms;

/// How somebody has shown who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    Session(Session),
    /// An API key, by id.
    Key(String),
    /// A share link, by id.
    Link(String),
    Nobody,
}

/// What an asker was given.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rights<'a> {
    Everything,
    Grants(&'a Grants),
    Link(&'a ShareLink),
    Nothing,
}

impl Asker {
    /// `None`: it was taken back, or its time is over.
    fn rights<'a>(&self, directory: &'a Directory, now: i64) -> Option<Rights<'a>> {
        match self {
            Self::Session(session) => match session.user(directory, now)? {
                None => Some(Rights::Everything),
                Some(user) => Some(Rights::Grants(&user.grants)),
            },
            Self::Key(id) => Some(Rights::Grants(&directory.api_keys.get(id)?.grants)),
            Self::Link(id) => {
                let link = directory.share_links.get(id)?;
                let is_over = link.expires_at.is_some_and(|expires_at| now >= expires_at);
                (!is_over).then_some(Rights::Link(link))
            }
            Self::Nobody => Some(Rights::Nothing),
        }
    }
}

impl Rights<'_> {
    fn role(self, site: &SiteId, directory: &Directory) -> Option<Role> {
        let own = match self {
            Self::Everything => Some(Role::Owner),
            Self::Grants(grants) => grants.role(site),
            Self::Link(link) => (link.site == *site).then_some(Role::Viewer),
            Self::Nothing => None,
        };
        own.max(is_public(site, directory).then_some(Role::Viewer))
    }

    fn may_watch(self, site: &SiteId, filter: &Filter, directory: &Directory) -> bool {
        match self {
            Self::Link(link) if link.site == *site && filter.is_within(&link.filter) => true,
            Self::Link(_) => is_public(site, directory),
            _ => self.role(site, directory).is_some(),
        }
    }
}

fn is_public(site: &SiteId, directory: &Directory) -> bool {
    directory.sites.get(site).is_some_and(|listed| listed.site.public)
}

/// An asker with the directory: every answer is that of now, so what is kept for long (a socket) may ask again.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    asker: Asker,
    directory: watch::Receiver<Arc<Directory>>,
    sessions: Arc<Sessions>,
    revocations: watch::Receiver<u64>,
}

impl Access {
    pub(crate) fn new(
        asker: Asker,
        directory: watch::Receiver<Arc<Directory>>,
        sessions: Arc<Sessions>,
    ) -> Self {
        let revocations = sessions.revocations();
        Self { asker, directory, sessions, revocations }
    }

    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    pub(crate) fn is_nobody(&self) -> bool {
        self.asker == Asker::Nobody
    }

    /// Has a name or a key, and not just an address.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.asker, Asker::Session(_) | Asker::Key(_))
    }

    /// Whether who they said to be still holds; nobody always is nobody.
    pub(crate) fn stands(&self) -> bool {
        self.with_rights(|rights, _| rights.is_some())
    }

    pub(crate) fn may_watch(&self, site: &SiteId, filter: &Filter) -> bool {
        self.with_rights(|rights, directory| {
            rights.unwrap_or(Rights::Nothing).may_watch(site, filter, directory)
        })
    }

    /// A role that nobody granted is that of a public site's viewer.
    pub(crate) fn role(&self, site: &SiteId) -> Option<Role> {
        self.with_rights(|rights, directory| rights.unwrap_or(Rights::Nothing).role(site, directory))
    }

    /// Whether they make sites, users and keys.
    pub(crate) fn own_everything(&self) -> bool {
        self.with_rights(|rights, _| match rights {
            Some(Rights::Everything) => true,
            Some(Rights::Grants(grants)) => grants.own_everything(),
            Some(Rights::Link(_) | Rights::Nothing) | None => false,
        })
    }

    /// What a link shows of its site: nothing wider may be watched.
    pub(crate) fn narrowed_to(&self, site: &SiteId) -> Filter {
        let Asker::Link(id) = &self.asker else { return Filter::default() };
        let directory = self.directory.borrow();
        let link = directory.share_links.get(id).filter(|link| link.site == *site);
        link.map(|link| link.filter.clone()).unwrap_or_default()
    }

    /// When what they have ends by itself (ms since 1970).
    pub(crate) fn expires_at(&self) -> Option<i64> {
        match &self.asker {
            Asker::Session(session) => Some(session.expires_at),
            Asker::Link(id) => self.directory.borrow().share_links.get(id)?.expires_at,
            Asker::Key(_) | Asker::Nobody => None,
        }
    }

    /// As records and the log name them; no user's name has a colon.
    pub(crate) fn name(&self) -> String {
        match &self.asker {
            Asker::Session(Session { user: Some(user), .. }) => user.as_str().to_owned(),
            Asker::Session(Session { user: None, .. }) => OPERATOR.to_owned(),
            Asker::Key(id) => format!("key:{id}"),
            Asker::Link(id) => format!("link:{id}"),
            Asker::Nobody => "nobody".to_owned(),
        }
    }

    /// Returns when an answer may have become another one.
    pub(crate) async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.directory.changed() => changed,
            changed = self.revocations.changed() => changed,
        };
        if changed.is_err() {
            // The node is ending; nothing will change any more.
            pending::<()>().await;
        }
    }

    fn with_rights<T>(&self, answer: impl FnOnce(Option<Rights<'_>>, &Directory) -> T) -> T {
        let directory = self.directory.borrow().clone();
        let is_revoked = matches!(&self.asker, Asker::Session(session) if self.sessions.is_revoked(session));
        let rights = if is_revoked { None } else { self.asker.rights(&directory, wall_ms()) };
        answer(rights, &directory)
    }
}

/// Who came by a login link. No user has this name.
pub(crate) const OPERATOR: &str = "operator";

#[cfg(test)]
mod tests {
    use footfall_schemas::directory::{ApiKey, User};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn site(key: &str) -> SiteId {
        key.try_into().unwrap()
    }

    /// `shop`, `blog` and the public `news`; a user and a key that watch `shop`, and links to it.
    fn directory() -> Directory {
        let mut directory = Directory::default();
        for (key, public) in [("shop", false), ("blog", false), ("news", true)] {
            let written = json!({"key": key, "origins": ["*"], "public": public}).to_string();
            directory.apply(&format!("site/{key}"), Some(written.as_bytes())).unwrap();
        }
        let grants = || Grants::new([(site("shop"), Role::Viewer)]);
        let user = User { password: String::new(), grants: grants(), sessions_since: 0, created_at: 0 };
        directory.users.insert("ada".to_owned().try_into().unwrap(), Arc::new(user));
        let key = ApiKey {
            name: "ci".into(),
            hash: String::new(),
            grants: grants(),
            created_at: 0,
            created_by: "ada".into(),
        };
        directory.api_keys.insert("k".into(), Arc::new(key));
        let link = |filter: Value, expires_at| {
            Arc::new(ShareLink {
                name: "board".into(),
                site: site("shop"),
                filter: serde_json::from_value(filter).unwrap(),
                expires_at,
                created_at: 0,
                created_by: "ada".into(),
            })
        };
        directory.share_links.insert("all".into(), link(json!({}), None));
        directory.share_links.insert("page".into(), link(json!({"page": "/a"}), None));
        directory.share_links.insert("ended".into(), link(json!({}), Some(NOW)));
        directory.share_links.insert("ends".into(), link(json!({}), Some(NOW + 1)));
        directory
    }

    fn session(user: Option<&str>) -> Asker {
        let sessions = Sessions::new(&[7; 32], 1_000);
        let user = user.map(|name| name.to_owned().try_into().unwrap());
        let cookie = match &user {
            Some(name) => {
                let user = User {
                    password: String::new(),
                    grants: Grants::default(),
                    sessions_since: 0,
                    created_at: 0,
                };
                sessions.open(name, &user, NOW)
            }
            None => sessions.open_operator(NOW),
        };
        Asker::Session(sessions.read(&cookie).unwrap())
    }

    fn link(id: &str) -> Asker {
        Asker::Link(id.into())
    }

    #[rstest]
    #[case::nobody(Asker::Nobody, [false, false, true])]
    #[case::operator(session(None), [true, true, true])]
    #[case::user(session(Some("ada")), [true, false, true])]
    #[case::key(Asker::Key("k".into()), [true, false, true])]
    #[case::link(link("all"), [true, false, true])]
    #[case::link_that_ends(link("ends"), [true, false, true])]
    fn sites_are_watched_by_who_may(#[case] asker: Asker, #[case] may: [bool; 3]) {
        let directory = directory();
        let rights = asker.rights(&directory, NOW).unwrap();
        let watched =
            ["shop", "blog", "news"].map(|key| rights.may_watch(&site(key), &Filter::default(), &directory));
        assert_eq!(watched, may);
        let roles = ["shop", "blog", "news"].map(|key| rights.role(&site(key), &directory).is_some());
        assert_eq!(roles, may);
    }

    #[rstest]
    #[case::user_that_is_gone(session(Some("bob")))]
    #[case::key_that_is_gone(Asker::Key("gone".into()))]
    #[case::link_that_is_gone(link("gone"))]
    #[case::link_that_has_ended(link("ended"))]
    fn what_was_taken_back_does_not_stand(#[case] asker: Asker) {
        assert_eq!(asker.rights(&directory(), NOW), None);
    }

    #[rstest]
    #[case::all(json!({}), false)]
    #[case::the_same(json!({"page": "/a"}), true)]
    #[case::narrower(json!({"page": "/a", "country": "DE"}), true)]
    #[case::another(json!({"page": "/b"}), false)]
    #[case::another_field(json!({"country": "DE"}), false)]
    fn a_link_shows_its_view_or_a_narrower_one(#[case] filter: Value, #[case] may: bool) {
        let directory = directory();
        let rights = link("page").rights(&directory, NOW).unwrap();
        let filter = serde_json::from_value(filter).unwrap();
        assert_eq!(rights.may_watch(&site("shop"), &filter, &directory), may);
        assert!(!rights.may_watch(&site("blog"), &filter, &directory));
        assert!(rights.may_watch(&site("news"), &filter, &directory), "for that is public");
    }
}
