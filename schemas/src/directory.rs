//! What people set up: sites, users, API keys and share links. It lies on the compacted topic `footfall.directory`, one
//! entry under each key, the newest holds; so every node knows a change as soon as it is written, and a copy of the
//! topic is a copy of everything. What the settings file declares goes before the topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    SiteId,
    site::{InvalidSite, Site},
    viewer::Filter,
};

const MAX_NAME_CHARS: usize = 64;

/// A user's name: 1 to 64 of `a-z 0-9 . _ @ + -`, so that no two look alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// What somebody may do with a site. The later may do what the earlier may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Watches.
    Viewer,
    /// Changes settings, alert rules and share links, too.
    Owner,
}

/// Roles by site. `*` is every site, those to come included; who owns `*` makes sites, users and keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(BTreeMap<String, Role>);

/// Key: `user/NAME`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Argon2id in PHC form.
    pub password: String,
    pub grants: Grants,
    /// Sessions opened before are void (ms since 1970): moved by a new password.
    #[serde(default)]
    pub sessions_since: i64,
    pub created_at: i64,
}

/// Key: `key/ID`. A program's way in: `Authorization: Bearer …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What it is for.
    pub name: String,
    /// SHA-256 of the token in hexadecimal digits. A token is random, so no slow hash is needed.
    pub hash: String,
    pub grants: Grants,
    pub created_at: i64,
    pub created_by: String,
}

/// Key: `link/ID`. Lets whoever has it watch one view of one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareLink {
    pub name: String,
    pub site: SiteId,
    /// What is shown; nothing wider can be asked for.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// ms since 1970; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub created_at: i64,
    pub created_by: String,
}

/// Key: `revoked/ID`. A session that was logged out, or a login link that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// It would have ended then (ms since 1970), and need not be kept longer.
    pub until: i64,
}

/// A site with its origin.
#[derive(Clone, PartialEq)]
pub struct ListedSite {
    pub site: Arc<Site>,
    /// As it was written, secrets included.
    pub written: Value,
    /// In the settings file: it is changed there.
    pub declared: bool,
}

/// Everything, as it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Directory {
    pub sites: BTreeMap<SiteId, ListedSite>,
    pub users: BTreeMap<UserName, Arc<User>>,
    /// In the settings file: they are changed there.
    pub declared_users: BTreeSet<UserName>,
    /// By id.
    pub api_keys: BTreeMap<String, Arc<ApiKey>>,
    /// By id.
    pub share_links: BTreeMap<String, Arc<ShareLink>>,
    /// By id of the session or link.
    pub revoked: BTreeMap<String, Revoked>,
}

/// An entry to be written.
#[derive(Clone, PartialEq)]
pub enum Entry {
    /// As it is written in JSON; parses as [`Site`].
    Site(SiteId, Value),
    User(UserName, User),
    ApiKey(String, ApiKey),
    ShareLink(String, ShareLink),
    Revoked(String, Revoked),
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidEntry {
    #[error("{0:?} is no key of the directory: another version has written it")]
    Key(String),
    #[error("{key}: {error}")]
    Value { key: String, error: serde_json::Error },
    #[error("{key}: {error}")]
    Site { key: String, error: InvalidSite },
    #[error("{key}: its value is of site {site:?}")]
    OtherSite { key: String, site: SiteId },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name: {0:?} is not 1 to 64 of a-z 0-9 . _ @ + -")]
pub struct InvalidUserName(String);

impl TryFrom<String> for UserName {
    type Error = InvalidUserName;

    fn try_from(text: String) -> Result<Self, InvalidUserName> {
        let is_plain = |byte: u8| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'.' | b'_' | b'@' | b'+' | b'-')
        };
        if (1..=MAX_NAME_CHARS).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text))
        } else {
            Err(InvalidUserName(text))
        }
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Passwords stay out of logs, hashed as well.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// What was written holds the site's secrets.
impl fmt::Debug for ListedSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, declared, .. } = self;
        f.debug_struct("ListedSite").field("site", site).field("declared", declared).finish_non_exhaustive()
    }
}

/// As above.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.key()).finish()
    }
}

const EVERY_SITE: &str = "*";

impl Grants {
    /// Owner of everything.
    pub fn everything() -> Self {
        Self(BTreeMap::from([(EVERY_SITE.to_owned(), Role::Owner)]))
    }

    pub fn new(roles: impl IntoIterator<Item = (SiteId, Role)>) -> Self {
        Self(roles.into_iter().map(|(site, role)| (site.as_str().to_owned(), role)).collect())
    }

    /// The higher of what is granted for the site and for every site.
    pub fn role(&self, site: &SiteId) -> Option<Role> {
        self.0.get(site.as_str()).max(self.0.get(EVERY_SITE)).copied()
    }

    /// Whether sites, users and keys may be made.
    pub fn own_everything(&self) -> bool {
        self.0.get(EVERY_SITE) == Some(&Role::Owner)
    }

    /// `*` or a site's key, with the role.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Role)> {
        self.0.iter().map(|(scope, role)| (scope.as_str(), *role))
    }

    /// A scope that is neither `*` nor a site's key.
    pub fn invalid_scope(&self) -> Option<&str> {
        let is_wrong = |scope: &&String| *scope != EVERY_SITE && SiteId::try_from(scope.as_str()).is_err();
        self.0.keys().find(is_wrong).map(String::as_str)
    }
}

/// `*` or a site's key, with the role; of one that is there twice the last holds.
impl FromIterator<(String, Role)> for Grants {
    fn from_iter<I: IntoIterator<Item = (String, Role)>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

impl Entry {
    pub fn key(&self) -> String {
        match self {
            Self::Site(site, _) => Self::site_key(site),
            Self::User(name, _) => Self::user_key(name),
            Self::ApiKey(id, _) => format!("key/{id}"),
            Self::ShareLink(id, _) => format!("link/{id}"),
            Self::Revoked(id, _) => format!("revoked/{id}"),
        }
    }

    pub fn site_key(site: &SiteId) -> String {
        format!("site/{site}")
    }

    pub fn user_key(name: &UserName) -> String {
        format!("user/{}", name.as_str())
    }

    /// The record's value.
    pub fn value(&self) -> Value {
        let value = match self {
            Self::Site(_, written) => return written.clone(),
            Self::User(_, user) => serde_json::to_value(user),
            Self::ApiKey(_, key) => serde_json::to_value(key),
            Self::ShareLink(_, link) => serde_json::to_value(link),
            Self::Revoked(_, revoked) => serde_json::to_value(revoked),
        };
        value.expect("plain fields always serialise")
    }
}

impl Directory {
    /// With the sites of the settings file, which no record changes.
    pub fn declaring(sites: impl IntoIterator<Item = (Site, Value)>) -> Self {
        let sites = sites.into_iter().map(|(site, written)| {
            (site.key.clone(), ListedSite { site: Arc::new(site), written, declared: true })
        });
        Self { sites: sites.collect(), ..Self::default() }
    }

    /// And with its users, as little.
    pub fn with_users(mut self, users: impl IntoIterator<Item = (UserName, User)>) -> Self {
        for (name, user) in users {
            self.declared_users.insert(name.clone());
            self.users.insert(name, Arc::new(user));
        }
        self
    }

    /// Takes a record: `None` removes. What cannot be read changes nothing.
    pub fn apply(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), InvalidEntry> {
        let unknown = || InvalidEntry::Key(key.to_owned());
        let invalid = |error| InvalidEntry::Value { key: key.to_owned(), error };
        let (kind, id) = key.split_once('/').ok_or_else(unknown)?;
        match kind {
            "site" => {
                let id = SiteId::try_from(id).map_err(|_| unknown())?;
                if self.sites.get(&id).is_some_and(|listed| listed.declared) {
                    return Ok(());
                }
                match value {
                    None => drop(self.sites.remove(&id)),
                    Some(value) => {
                        let written: Value = serde_json::from_slice(value).map_err(invalid)?;
                        let site: Site = serde_json::from_slice(value).map_err(invalid)?;
                        if site.key != id {
                            return Err(InvalidEntry::OtherSite { key: key.to_owned(), site: site.key });
                        }
                        site.check().map_err(|error| InvalidEntry::Site { key: key.to_owned(), error })?;
                        self.sites.insert(id, ListedSite { site: Arc::new(site), written, declared: false });
                    }
                }
            }
            "user" => {
                let name = UserName::try_from(id.to_owned()).map_err(|_| unknown())?;
                if self.declared_users.contains(&name) {
                    return Ok(());
                }
                set(&mut self.users, name, value).map_err(invalid)?;
            }
            "key" => set(&mut self.api_keys, id.to_owned(), value).map_err(invalid)?,
            "link" => set(&mut self.share_links, id.to_owned(), value).map_err(invalid)?,
            "revoked" => match value {
                None => drop(self.revoked.remove(id)),
                Some(value) => {
                    self.revoked.insert(id.to_owned(), serde_json::from_slice(value).map_err(invalid)?);
                }
            },
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// What records made, as it can be written again.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let sites = self.sites.iter().filter(|(_, listed)| !listed.declared);
        let users = self.users.iter().filter(|(name, _)| !self.declared_users.contains(name));
        sites
            .map(|(key, listed)| Entry::Site(key.clone(), listed.written.clone()))
            .chain(users.map(|(name, user)| Entry::User(name.clone(), User::clone(user))))
            .chain(self.api_keys.iter().map(|(id, key)| Entry::ApiKey(id.clone(), ApiKey::clone(key))))
            .chain(
                self.share_links
                    .iter()
                    .map(|(id, link)| Entry::ShareLink(id.clone(), ShareLink::clone(link))),
            )
            .chain(self.revoked.iter().map(|(id, revoked)| Entry::Revoked(id.clone(), *revoked)))
    }

    /// Whether anybody can make users: before that, the set-up link is what lets people in.
    pub fn has_owner(&self) -> bool {
        self.users.values().any(|user| user.grants.own_everything())
    }
}

fn set<K: Ord, V: for<'de> Deserialize<'de>>(
    map: &mut BTreeMap<K, Arc<V>>,
    id: K,
    value: Option<&[u8]>,
) -> Result<(), serde_json::Error> {
    match value {
        None => drop(map.remove(&id)),
        Some(value) => drop(map.insert(id, Arc::new(serde_json::from_slice(value)?))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn site_id(key: &str) -> SiteId {
        key.try_into().unwrap()
    }

    #[rstest]
    #[case::none(&[], "shop", None)]
    #[case::of_the_site(&[("shop", "viewer")], "shop", Some(Role::Viewer))]
    #[case::of_another(&[("shop", "viewer")], "blog", None)]
    #[case::of_every(&[("*", "viewer")], "blog", Some(Role::Viewer))]
    #[case::the_higher_holds(&[("*", "owner"), ("shop", "viewer")], "shop", Some(Role::Owner))]
    #[case::the_higher_holds(&[("*", "viewer"), ("shop", "owner")], "shop", Some(Role::Owner))]
    fn a_grant_is_of_a_site_or_of_every(
        #[case] grants: &[(&str, &str)],
        #[case] site: &str,
        #[case] role: Option<Role>,
    ) {
        let grants: BTreeMap<_, _> = grants.iter().copied().collect();
        let grants: Grants = serde_json::from_value(json!(grants)).unwrap();
        assert_eq!(grants.role(&site_id(site)), role);
    }

    #[test]
    fn entries_are_read_as_they_were_written_and_removed() {
        let user =
            User { password: "$".into(), grants: Grants::everything(), sessions_since: 1, created_at: 2 };
        let link = ShareLink {
            name: "board".into(),
            site: site_id("shop"),
            filter: Filter::default(),
            expires_at: None,
            created_at: 3,
            created_by: "ada".into(),
        };
        let key = ApiKey {
            name: "ci".into(),
            hash: "0".into(),
            grants: Grants::new([(site_id("shop"), Role::Viewer)]),
            created_at: 4,
            created_by: "ada".into(),
        };
        let name = UserName::try_from("ada".to_owned()).unwrap();
        let entries = [
            Entry::Site(site_id("shop"), json!({"key": "shop", "origins": ["*"]})),
            Entry::User(name.clone(), user.clone()),
            Entry::ApiKey("k".into(), key.clone()),
            Entry::ShareLink("l".into(), link.clone()),
            Entry::Revoked("r".into(), Revoked { until: 9 }),
        ];
        let mut directory = Directory::default();
        for entry in &entries {
            directory.apply(&entry.key(), Some(entry.value().to_string().as_bytes())).unwrap();
        }
        assert!(directory.has_owner() && directory.sites[&site_id("shop")].site.allows("https://a.example"));
        assert_eq!(*directory.users[&name], user);
        assert_eq!((&*directory.api_keys["k"], &*directory.share_links["l"]), (&key, &link));
        assert_eq!(directory.revoked["r"].until, 9);
        assert_eq!(directory.entries().collect::<Vec<_>>(), entries);
        for entry in &entries {
            directory.apply(&entry.key(), None).unwrap();
        }
        assert_eq!(directory, Directory::default());
    }

    #[test]
    fn what_the_settings_file_declares_is_not_changed_by_a_record() {
        let written = json!({"key": "shop", "origins": ["*"], "name": "declared"});
        let site = serde_json::from_value(written.clone()).unwrap();
        let mut directory = Directory::declaring([(site, written)]);
        directory.apply("site/shop", Some(br#"{"key":"shop","origins":["*"]}"#)).unwrap();
        directory.apply("site/shop", None).unwrap();
        assert_eq!(directory.sites[&site_id("shop")].site.name, "declared");

        let ada = UserName::try_from("ada".to_owned()).unwrap();
        let user = |password: &str| User {
            password: password.into(),
            grants: Grants::everything(),
            sessions_since: 0,
            created_at: 0,
        };
        let mut directory = directory.with_users([(ada.clone(), user("declared"))]);
        let other = Entry::User(ada.clone(), user("other")).value().to_string();
        directory.apply("user/ada", Some(other.as_bytes())).unwrap();
        directory.apply("user/ada", None).unwrap();
        assert_eq!(directory.users[&ada].password, "declared");
        assert_eq!(directory.entries().count(), 0, "it is not to be written");
    }

    #[test]
    fn a_debug_print_shows_no_secret() {
        let mut directory = Directory::default();
        let secret = "5a".repeat(32);
        let written = json!({"key": "shop", "origins": ["*"], "secret": secret});
        directory.apply("site/shop", Some(written.to_string().as_bytes())).unwrap();
        let entry = Entry::Site(site_id("shop"), written);
        let printed = format!("{directory:?} {entry:?}");
        assert!(printed.contains("shop") && !printed.contains(&secret), "{printed}");
    }

    #[rstest]
    #[case::no_kind("shop", "{}")]
    #[case::unknown_kind("shop/a", "{}")]
    #[case::no_site("site/SHOP!", r#"{"key":"shop","origins":["*"]}"#)]
    #[case::of_another_site("site/blog", r#"{"key":"shop","origins":["*"]}"#)]
    #[case::no_origin("site/shop", r#"{"key":"shop","origins":[]}"#)]
    #[case::no_gap("site/shop", r#"{"key":"shop","origins":["*"],"session_gap_minutes":0}"#)]
    #[case::no_json("user/ada", "{")]
    #[case::no_user_name("user/Ada", r#"{"password":"","grants":{},"created_at":0}"#)]
    #[case::no_role("user/ada", r#"{"password":"","grants":{"*":"king"},"created_at":0}"#)]
    fn what_cannot_be_read_changes_nothing(#[case] key: &str, #[case] value: &str) {
        let mut directory = Directory::default();
        directory.apply(key, Some(value.as_bytes())).unwrap_err();
        assert_eq!(directory, Directory::default());
    }
}
