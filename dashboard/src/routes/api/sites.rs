//! `/api/sites`: what can be watched, and its settings for who owns it.

use footfall_schemas::{
    SiteId,
    directory::{Entry, ListedSite},
    site::Site,
    snippet::script_tag,
};
use serde_json::{Value, json};

use super::{Answered, Asked, done, ok, parse, site_json};
use crate::{
    auth::Access,
    routes::{Node, Refusal},
};

impl Node {
    /// The sites that the asker may see.
    pub(super) fn sites(&self, access: &Access) -> Answered {
        let directory = self.accounts.directory();
        let seen = directory.sites.iter().filter_map(|(key, listed)| Some((key, listed, access.role(key)?)));
        let site = |(key, listed, role): (&SiteId, &ListedSite, _)| {
            let ListedSite { site, declared, .. } = listed;
            let demo = self.demo_url.as_ref().filter(|_| key.as_str() == "demo");
            json!({
                "key": key,
                "name": if site.name.is_empty() { key.as_str() } else { &site.name },
                "snippet": script_tag(&self.ingest_url, key.as_str()),
                "demo": demo,
                "role": role,
                "declared": declared,
                "public": site.public,
                "goals": site.goals,
                "filter": access.narrowed_to(key),
            })
        };
        let sites: Vec<Value> = seen.map(site).collect();
        if sites.is_empty() && access.is_nobody() {
            return Err(Refusal::not_logged_in());
        }
        ok(&json!({ "sites": sites }))
    }

    /// A site as it was written, without its secrets.
    pub(super) fn site(&self, access: &Access, key: &str) -> Answered {
        let key = site_id(key)?;
        self.owner_of(access, &key)?;
        let directory = self.accounts.directory();
        let listed = directory.sites.get(&key).ok_or_else(Refusal::unknown_site)?;
        ok(&json!({ "site": site_json::without_secrets(&listed.written), "declared": listed.declared }))
    }

    /// Changes a site, or makes one, which takes an owner of everything.
    pub(super) async fn put_site(&self, access: &Access, key: &str, asked: &Asked) -> Answered {
        let key = site_id(key)?;
        self.owner_of(access, &key)?;
        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        let listed = directory.sites.get(&key);
        match listed {
            Some(listed) if listed.declared => return Err(declared()),
            Some(_) => {}
            None => self.owner(access)?,
        }
        let written = site_json::of_key(&key, asked.value()?)?;
        let written = site_json::with_secrets(written, listed.map(|listed| &listed.written))?;
        let site: Site = parse(written.clone())?;
        site.check().map_err(|invalid| Refusal::field(invalid.field(), invalid.to_string()))?;
        change.put(Entry::Site(key, written)).await?;
        Ok(done())
    }

    /// Removes a site and the links to it. What was counted stays.
    pub(super) async fn remove_site(&self, access: &Access, key: &str) -> Answered {
        let key = site_id(key)?;
        self.owner_of(access, &key)?;
        let change = self.accounts.change(access.name()).await;
        let directory = change.directory();
        let listed = directory.sites.get(&key).ok_or_else(Refusal::unknown_site)?;
        if listed.declared {
            return Err(declared());
        }
        // First: a site that is made again under this key must not be open to who had a link to this one.
        for (id, _) in directory.share_links.iter().filter(|(_, link)| link.site == key) {
            change.remove(format!("link/{id}")).await?;
        }
        change.remove(Entry::site_key(&key)).await?;
        Ok(done())
    }
}

fn site_id(key: &str) -> Result<SiteId, Refusal> {
    SiteId::try_from(key).map_err(|invalid| Refusal::field("key", format!("key: {invalid}")))
}

fn declared() -> Refusal {
    Refusal::conflict("declared", "this site stands in the settings file: change it there")
}
