//! `/api/keys`: for who owns everything.

use std::sync::Arc;

use footfall_schemas::directory::{ApiKey, Entry, Grants};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, Asked, checked_name, done, ok, users::check_grants};
use crate::{
    auth::{Access, key_hash, new_id, new_key_token},
    clock::wall_ms,
    routes::{Node, Refusal},
};

const MAX_KEYS: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    grants: Grants,
}

impl Node {
    pub(super) fn keys(&self, access: &Access) -> Answered {
        self.owner(access)?;
        let directory = self.accounts.directory();
        let key = |(id, key): (&String, &Arc<ApiKey>)| {
            json!({
                "id": id, "name": key.name, "grants": key.grants,
                "created_at": key.created_at, "created_by": key.created_by,
            })
        };
        let keys: Vec<Value> = directory.api_keys.iter().map(key).collect();
        ok(&json!({ "keys": keys }))
    }

    /// Its token is told this once: only a hash is kept.
    pub(super) async fn make_key(&self, access: &Access, asked: &Asked) -> Answered {
        self.owner(access)?;
        let written: NewKey = asked.json()?;
        checked_name(&written.name)?;
        check_grants(&written.grants)?;
        let change = self.accounts.change(access.name()).await;
        if change.directory().api_keys.len() >= MAX_KEYS {
            let detail = format!("there are {MAX_KEYS} keys: remove some first");
            return Err(Refusal::conflict("too_many", detail));
        }
        let id = new_id();
        let token = new_key_token(&id);
        let key = ApiKey {
            name: written.name,
            hash: key_hash(&token),
            grants: written.grants,
            created_at: wall_ms(),
            created_by: change.by().to_owned(),
        };
        change.put(Entry::ApiKey(id.clone(), key)).await?;
        ok(&json!({ "id": id, "token": token }))
    }

    pub(super) async fn remove_key(&self, access: &Access, id: &str) -> Answered {
        self.owner(access)?;
        let change = self.accounts.change(access.name()).await;
        if !change.directory().api_keys.contains_key(id) {
            return Err(Refusal::unknown("unknown_key", "there is no key of this id"));
        }
        change.remove(format!("key/{id}")).await?;
        Ok(done())
    }
}
