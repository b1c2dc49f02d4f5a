//! The page: at `/`, and at the addresses that may be shown to others, `/s/KEY` and `/embed/KEY`. What it shows, it asks
//! for; the addresses only say whether there is anything to see.

use footfall_schemas::{SiteId, site::OriginPattern};
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, IF_NONE_MATCH},
};
use warp::{Rejection, path::FullPath};

use super::{Answer, Node, Query};
use crate::pages;

/// Put into an answer's extensions: pages with these origins may show it in a frame. Without: none may.
#[derive(Debug, Clone)]
pub(crate) struct FrameAncestors(pub(crate) HeaderValue);

impl Node {
    pub(super) fn index(&self, headers: &HeaderMap) -> Answer {
        let served = self.assets.serve("index.html", headers.get(IF_NONE_MATCH));
        served.unwrap_or_else(pages::not_built)
    }

    pub(super) fn asset(&self, path: &FullPath, headers: &HeaderMap) -> Result<Answer, Rejection> {
        let path = path.as_str().trim_start_matches('/');
        self.assets.serve(path, headers.get(IF_NONE_MATCH)).ok_or_else(warp::reject::not_found)
    }

    /// `/s/KEY`
    pub(super) fn shared_page(&self, path: &FullPath, headers: &HeaderMap, query: &Query) -> Answer {
        match self.shown_site(path, headers, query) {
            Some(_) => self.index(headers),
            None => pages::not_shared(),
        }
    }

    /// `/embed/KEY`
    pub(super) fn embedded_page(&self, path: &FullPath, headers: &HeaderMap, query: &Query) -> Answer {
        let Some(site) = self.shown_site(path, headers, query) else { return pages::not_shared() };
        // Whole and not kept: with a 304, browsers go by the frame headers that they have.
        let mut answer = self.index(&HeaderMap::new());
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let listed = self.accounts.directory().sites.get(&site).cloned();
        if let Some(ancestors) = listed.and_then(|listed| frame_ancestors(&listed.site.embed_origins)) {
            answer.extensions_mut().insert(ancestors);
        }
        answer
    }

    /// The path's site, if whoever asks may see anything of it.
    fn shown_site(&self, path: &FullPath, headers: &HeaderMap, query: &Query) -> Option<SiteId> {
        let (_, key) = path.as_str().trim_start_matches('/').split_once('/')?;
        let site = SiteId::try_from(key).ok()?;
        let access = self.access(headers, query).ok()?;
        access.role(&site).is_some().then_some(site)
    }
}

/// `None`: no page may.
fn frame_ancestors(origins: &[OriginPattern]) -> Option<FrameAncestors> {
    let origins: Vec<_> = origins.iter().map(OriginPattern::as_str).collect();
    let value = HeaderValue::from_str(&origins.join(" ")).ok()?;
    (!origins.is_empty()).then_some(FrameAncestors(value))
}
