//! The forms that work without a script: a login link, and logging out.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{LOCATION, SET_COOKIE},
};
use serde::Deserialize;
use tracing::warn;

use super::{Answer, Node, Peer, Query, text};
use crate::{
    auth::{Asker, OPERATOR, is_own_form, set_cookie},
    clock::wall_ms,
    pages,
};

#[derive(Deserialize)]
pub(super) struct LoginForm {
    #[serde(default)]
    pub(super) token: String,
}

impl Node {
    /// Looks at a link without using it up.
    pub(super) fn show_login(&self, peer: Option<Peer>, token: &str) -> Answer {
        if let Err(too_many) = self.accounts.limits.by_address(peer.map(|Peer(address)| address)) {
            self.count_login("rate_limited");
            return pages::too_many_logins(too_many.retry_after_s);
        }
        match self.accounts.login_links.check(token, &self.accounts.directory(), wall_ms()) {
            Ok(()) => pages::open_dashboard(token),
            Err(refused) => {
                self.count_login(refused.as_str());
                pages::refused_link(refused)
            }
        }
    }

    /// Gives who runs Footfall a session, and uses the link up on all nodes.
    pub(super) async fn log_in_by_link(
        &self,
        peer: Option<Peer>,
        headers: &HeaderMap,
        token: &str,
    ) -> Answer {
        if let Err(too_many) = self.accounts.limits.by_address(peer.map(|Peer(address)| address)) {
            self.count_login("rate_limited");
            return pages::too_many_logins(too_many.retry_after_s);
        }
        if !is_own_form(headers, &self.shared.config) {
            self.count_login("wrong_origin");
            return pages::wrong_origin();
        }
        let links = &self.accounts.login_links;
        let link = match links.claim(token, &self.accounts.directory(), wall_ms()) {
            Ok(link) => link,
            Err(refused) => {
                self.count_login(refused.as_str());
                return pages::refused_link(refused);
            }
        };
        if let Err(error) = self.accounts.use_up(links, &link, OPERATOR).await {
            warn!(%error, "a login link cannot be used up");
            self.count_login("not_written");
            return pages::log_is_away();
        }
        self.count_login("logged_in");
        let mut response = text(StatusCode::SEE_OTHER, "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        self.with_session(response, &self.accounts.sessions.open_operator(wall_ms()))
    }

    /// Ends the session everywhere, open sockets included.
    pub(super) async fn log_out(&self, headers: &HeaderMap) -> Answer {
        if !is_own_form(headers, &self.shared.config) {
            return pages::wrong_origin();
        }
        if let Ok(access) = self.access(headers, &Query::new())
            && let Asker::Session(session) = access.asker()
        {
            self.accounts.log_out(session, &access.name()).await;
        }
        let mut response = pages::logged_out();
        response.headers_mut().insert(SET_COOKIE, set_cookie(&self.shared.config, "", 0));
        response
    }

    /// Gives the browser its session.
    pub(super) fn with_session(&self, mut response: Answer, session: &str) -> Answer {
        let lifetime_s = self.accounts.sessions.lifetime_s();
        response.headers_mut().insert(SET_COOKIE, set_cookie(&self.shared.config, session, lifetime_s));
        response
    }
}
