//! `/api/users`: for who owns everything.

use std::sync::Arc;

use footfall_schemas::directory::{Directory, Entry, Grants, User, UserName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, Asked, done, ok, session::new_user_name};
use crate::{
    auth::Access,
    clock::wall_ms,
    routes::{Node, Refusal},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserJson {
    /// Of a user that is there already: absent, it stays.
    #[serde(default)]
    password: Option<String>,
    grants: Grants,
}

impl Node {
    pub(super) fn users(&self, access: &Access) -> Answered {
        self.owner(access)?;
        let directory = self.accounts.directory();
        let user = |(name, user): (&UserName, &Arc<User>)| {
            let declared = directory.declared_users.contains(name);
            json!({ "name": name, "grants": user.grants, "created_at": user.created_at, "declared": declared })
        };
        let users: Vec<Value> = directory.users.iter().map(user).collect();
        ok(&json!({ "users": users }))
    }

    pub(super) async fn put_user(&self, access: &Access, name: &str, asked: &Asked) -> Answered {
        self.owner(access)?;
        let name = new_user_name(name)?;
        let written: UserJson = asked.json()?;
        check_grants(&written.grants)?;
        let password = match written.password {
            Some(password) => Some(self.hash("password", password).await?),
            None => None,
        };

        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        not_declared(&directory, &name)?;
        let now = wall_ms();
        let user = match (directory.users.get(&name), password) {
            (None, None) => return Err(Refusal::field("password", "password: a new user needs one")),
            (None, Some(password)) => {
                User { password, grants: written.grants, sessions_since: now, created_at: now }
            }
            (Some(user), None) => User { grants: written.grants, ..User::clone(user) },
            (Some(user), Some(password)) => User {
                password,
                grants: written.grants,
                sessions_since: now + 1,
                created_at: user.created_at,
            },
        };
        if !user.grants.own_everything() {
            keep_an_owner(&directory, &name)?;
        }
        change.put(Entry::User(name, user)).await?;
        Ok(done())
    }

    pub(super) async fn remove_user(&self, access: &Access, name: &str) -> Answered {
        self.owner(access)?;
        let name = UserName::try_from(name.to_owned()).map_err(|_| unknown_user())?;
        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        if !directory.users.contains_key(&name) {
            return Err(unknown_user());
        }
        not_declared(&directory, &name)?;
        keep_an_owner(&directory, &name)?;
        change.remove(Entry::user_key(&name)).await?;
        Ok(done())
    }
}

fn unknown_user() -> Refusal {
    Refusal::unknown("unknown_user", "there is no user of this name")
}

/// Refuses to change what the settings file says.
pub(super) fn not_declared(directory: &Directory, name: &UserName) -> Result<(), Refusal> {
    if directory.declared_users.contains(name) {
        let detail = "this user stands in the settings file: change it there";
        return Err(Refusal::conflict("declared", detail));
    }
    Ok(())
}

/// Refuses to lose `name` as an owner of everything when there is no other.
fn keep_an_owner(directory: &Directory, name: &UserName) -> Result<(), Refusal> {
    let mut owners = directory.users.iter().filter(|(_, user)| user.grants.own_everything());
    match (owners.next(), owners.next()) {
        (Some((owner, _)), None) if owner == name => {
            let detail = "this is the last user who owns everything: make another one first";
            Err(Refusal::conflict("last_owner", detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_grants(grants: &Grants) -> Result<(), Refusal> {
    match grants.invalid_scope() {
        None => Ok(()),
        Some(scope) => {
            Err(Refusal::field("grants", format!("grants: {scope:?} is neither a site's key nor \"*\"")))
        }
    }
}
