//! Logging in with a password, the first owner, and a new password.

use footfall_schemas::directory::{Entry, Grants, User, UserName};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::{Answered, Asked, done, ok, users::not_declared};
use crate::{
    auth::{Access, Asker, OPERATOR, RefusedLink, Session},
    clock::wall_ms,
    routes::{Node, Peer, Refusal},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUp {
    token: String,
    name: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    old: String,
    new: String,
}

impl Node {
    pub(super) fn session(&self, access: &Access) -> Answered {
        if !access.is_known() {
            let set_up = !self.accounts.directory().has_owner();
            let refusal = Refusal::not_logged_in();
            let body = json!({ "error": refusal.error, "detail": refusal.detail, "set_up": set_up });
            return Ok(super::json(refusal.status, body.to_string()));
        }
        ok(&json!({
            "user": access.name(),
            "everything": access.own_everything(),
            "expires_at": access.expires_at(),
            "now": wall_ms(),
        }))
    }

    pub(super) async fn log_in(&self, asked: &Asked) -> Answered {
        let login: Login = asked.json()?;
        let outcome = self.try_log_in(login, asked.peer).await;
        self.count_login(outcome.as_ref().map_or_else(|refusal| refusal.error, |_| "logged_in"));
        outcome
    }

    async fn try_log_in(&self, login: Login, peer: Option<Peer>) -> Answered {
        let limits = &self.accounts.limits;
        limits.by_address(peer.map(|Peer(address)| address))?;
        let name = UserName::try_from(login.name.trim().to_ascii_lowercase()).ok();
        if let Some(name) = &name {
            limits.by_name(name)?;
        }
        // From before the password is checked: one that was changed meanwhile opens no session that holds.
        let now = wall_ms();
        let directory = self.accounts.directory();
        let user = name.and_then(|name| Some((directory.users.get(&name)?.clone(), name)));
        let hash = user.as_ref().map(|(user, _)| user.password.clone());
        let fits = self.accounts.passwords.verify(login.password, hash).await?;
        match user.filter(|_| fits) {
            Some((user, name)) => {
                Ok(self.with_session(done(), &self.accounts.sessions.open(&name, &user, now)))
            }
            None => {
                let detail = "name or password is wrong";
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong_login", detail))
            }
        }
    }

    pub(super) async fn set_up(&self, asked: &Asked) -> Answered {
        let set_up: SetUp = asked.json()?;
        let outcome = self.try_set_up(set_up, asked.peer).await;
        self.count_login(outcome.as_ref().map_or_else(|refusal| refusal.error, |_| "set_up"));
        outcome
    }

    /// Makes the first owner. Once there is one, no link does.
    async fn try_set_up(&self, set_up: SetUp, peer: Option<Peer>) -> Answered {
        self.accounts.limits.by_address(peer.map(|Peer(address)| address))?;
        let links = &self.accounts.set_up_links;
        let refused = |refused| match refused {
            RefusedLink::Used => refused_set_up("this link was used already"),
            RefusedLink::Invalid | RefusedLink::Expired => {
                refused_set_up("this link is not valid: open the whole link that Footfall printed last")
            }
        };
        links.check(&set_up.token, &self.accounts.directory(), wall_ms()).map_err(refused)?;
        let name = new_user_name(&set_up.name)?;
        let password = self.hash("password", set_up.password).await?;

        let change = self.accounts.change(format!("set-up:{}", name.as_str())).await;
        let directory = change.directory();
        if directory.has_owner() {
            let detail = "there is an owner already: ask them for a user";
            return Err(Refusal::conflict("set_up_done", detail));
        }
        if directory.users.contains_key(&name) {
            return Err(Refusal::field("name", "name: there is a user of this name; choose another"));
        }
        let link = links.claim(&set_up.token, &directory, wall_ms()).map_err(refused)?;
        let now = wall_ms();
        let user = User { password, grants: Grants::everything(), sessions_since: now, created_at: now };
        if let Err(error) = change.put(Entry::User(name.clone(), user.clone())).await {
            links.give_back(&link);
            return Err(error.into());
        }
        // The owner voids the link; this keeps it void should they be removed one day.
        if let Err(error) = self.accounts.use_up(links, &link, change.by()).await {
            warn!(%error, "the set-up link is not marked as used");
        }
        Ok(self.with_session(done(), &self.accounts.sessions.open(&name, &user, now)))
    }

    /// Of the user who asks. Their other sessions end.
    pub(super) async fn change_password(&self, access: &Access, asked: &Asked) -> Answered {
        let Asker::Session(Session { user: Some(name), .. }) = access.asker() else {
            return Err(Refusal::not_for(access));
        };
        not_declared(&self.accounts.directory(), name)?;
        let passwords: NewPassword = asked.json()?;
        // Who has found an open browser must not find out the password, too.
        self.accounts.limits.by_name(name)?;
        let known = self.accounts.directory().users.get(name).map(|user| user.password.clone());
        if !self.accounts.passwords.verify(passwords.old, known.clone()).await? {
            return Err(Refusal::field("old", "old: this is not your password"));
        }
        let password = self.hash("new", passwords.new).await?;

        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        let Some(user) = directory.users.get(name).filter(|user| Some(&user.password) == known.as_ref())
        else {
            return Err(Refusal::field("old", "old: the password was changed meanwhile"));
        };
        let now = wall_ms();
        let user = User { password, sessions_since: now + 1, ..User::clone(user) };
        change.put(Entry::User(name.clone(), user.clone())).await?;
        Ok(self.with_session(done(), &self.accounts.sessions.open(name, &user, now)))
    }

    /// A new password's hash.
    pub(super) async fn hash(&self, field: &str, password: String) -> Result<String, Refusal> {
        let hashed = self.accounts.passwords.hash(password).await?;
        hashed.map_err(|invalid| Refusal::field(field, invalid.to_string()))
    }
}

fn refused_set_up(detail: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "wrong_link", detail)
}

/// A name that a user can have.
pub(super) fn new_user_name(text: &str) -> Result<UserName, Refusal> {
    let name = UserName::try_from(text.to_owned());
    let name = name.map_err(|invalid| Refusal::field("name", invalid.to_string()))?;
    if name.as_str() == OPERATOR {
        return Err(Refusal::field(
            "name",
            "name: whoever opens a login link is called operator; choose another",
        ));
    }
    Ok(name)
}
