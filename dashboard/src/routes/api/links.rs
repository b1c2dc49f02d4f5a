//! `/api/links`: share links, for who owns their site.

use std::sync::Arc;

use footfall_schemas::{
    SiteId,
    directory::{Entry, ShareLink},
    viewer::Filter,
};
use http::{HeaderMap, header::HOST};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, Asked, checked_name, done, ok};
use crate::{
    auth::{Access, new_id},
    clock::wall_ms,
    routes::{Node, Refusal},
};

const MAX_LINKS_OF_A_SITE: usize = 200;
/// Of one value of a filter.
const MAX_VALUE_BYTES: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLink {
    name: String,
    site: SiteId,
    #[serde(default)]
    filter: Filter,
    /// ms since 1970; absent: until it is revoked.
    #[serde(default)]
    expires_at: Option<i64>,
}

impl Node {
    pub(super) fn links(&self, access: &Access, asked: &Asked) -> Answered {
        let site = asked.site()?;
        self.owner_of(access, &site)?;
        let directory = self.accounts.directory();
        let of_site = directory.share_links.iter().filter(|(_, link)| link.site == site);
        let link = |(id, link): (&String, &Arc<ShareLink>)| {
            json!({
                "id": id, "name": link.name, "site": link.site, "filter": link.filter,
                "expires_at": link.expires_at, "created_at": link.created_at, "created_by": link.created_by,
                "url": self.share_url(id, link, &asked.headers),
            })
        };
        let links: Vec<Value> = of_site.map(link).collect();
        ok(&json!({ "links": links }))
    }

    pub(super) async fn make_link(&self, access: &Access, asked: &Asked) -> Answered {
        let written: NewLink = asked.json()?;
        self.owner_of(access, &written.site)?;
        checked_name(&written.name)?;
        if written.filter.values().into_iter().flatten().any(|value| value.len() > MAX_VALUE_BYTES) {
            let detail = format!("filter: a value is longer than {MAX_VALUE_BYTES} bytes");
            return Err(Refusal::field("filter", detail));
        }
        let now = wall_ms();
        if written.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Refusal::field("expires_at", "expires_at: this time is over already"));
        }
        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        if !directory.sites.contains_key(&written.site) {
            return Err(Refusal::unknown_site());
        }
        let count = directory.share_links.values().filter(|link| link.site == written.site).count();
        if count >= MAX_LINKS_OF_A_SITE {
            let detail = format!("this site has {MAX_LINKS_OF_A_SITE} links: revoke some first");
            return Err(Refusal::conflict("too_many", detail));
        }
        let link = ShareLink {
            name: written.name,
            site: written.site,
            filter: written.filter,
            expires_at: written.expires_at,
            created_at: now,
            created_by: change.by().to_owned(),
        };
        let id = new_id();
        let url = self.share_url(&id, &link, &asked.headers);
        change.put(Entry::ShareLink(id.clone(), link)).await?;
        ok(&json!({ "id": id, "url": url }))
    }

    pub(super) async fn remove_link(&self, access: &Access, id: &str) -> Answered {
        if !access.is_known() {
            return Err(Refusal::not_for(access));
        }
        let change = self.accounts.change(access.name()).await;
        let link = change.directory().share_links.get(id).cloned();
        let link = link.ok_or_else(|| Refusal::unknown("unknown_link", "there is no link of this id"))?;
        self.owner_of(access, &link.site)?;
        change.remove(format!("link/{id}")).await?;
        Ok(done())
    }

    /// As people reach this node: the address configured, or the one that was asked.
    fn share_url(&self, id: &str, link: &ShareLink, headers: &HeaderMap) -> String {
        let base = self.shared.config.public_url.clone().unwrap_or_else(|| {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            host.map(|host| format!("http://{host}")).unwrap_or_default()
        });
        let token = self.accounts.shares.token(id, link.created_at);
        format!("{base}/s/{}?share={token}", link.site)
    }
}
