//! `/api/`: JSON for the page and for programs. Every arm of [`Node::api`]'s table says what it asks of whom, through
//! [`Access`] or [`Node::owner`] and [`Node::owner_of`].

mod archive;
mod keys;
mod links;
mod session;
mod site_json;
mod sites;
mod users;

use bytes::Bytes;
use footfall_schemas::{SiteId, directory::Role};
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Answer, Node, Peer, Query, Refusal, json};
use crate::auth::{Access, Asker, is_own_form};

/// Names of keys and links, one line.
const MAX_NAME_CHARS: usize = 64;

/// A request to `/api/`.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) body: Bytes,
}

type Answered = Result<Answer, Refusal>;

impl Node {
    pub(super) async fn api(&self, asked: Asked) -> Answer {
        self.try_api(&asked).await.unwrap_or_else(Answer::from)
    }

    async fn try_api(&self, asked: &Asked) -> Answered {
        let access = self.access(&asked.headers, &asked.query)?;
        let is_program = matches!(access.asker(), Asker::Key(_));
        if asked.method != Method::GET && !is_program && !is_own_form(&asked.headers, &self.shared.config) {
            return Err(Refusal::wrong_origin());
        }
        let segments = asked.segments()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (segments.as_slice(), asked.method.as_str()) {
            (["session"], "GET") => self.session(&access),
            (["login"], "POST") => self.log_in(asked).await,
            (["set-up"], "POST") => self.set_up(asked).await,
            (["password"], "POST") => self.change_password(&access, asked).await,

            (["sites"], "GET") => self.sites(&access),
            (["sites", key], "GET") => self.site(&access, key),
            (["sites", key], "PUT") => self.put_site(&access, key, asked).await,
            (["sites", key], "DELETE") => self.remove_site(&access, key).await,

            (["users"], "GET") => self.users(&access),
            (["users", name], "PUT") => self.put_user(&access, name, asked).await,
            (["users", name], "DELETE") => self.remove_user(&access, name).await,

            (["keys"], "GET") => self.keys(&access),
            (["keys"], "POST") => self.make_key(&access, asked).await,
            (["keys", id], "DELETE") => self.remove_key(&access, id).await,

            (["links"], "GET") => self.links(&access, asked),
            (["links"], "POST") => self.make_link(&access, asked).await,
            (["links", id], "DELETE") => self.remove_link(&access, id).await,

            (["history"], "GET") => self.history(&access, asked).await,
            (["day"], "GET") => self.day(&access, asked).await,
            (["firings"], "GET") => self.firings(&access, asked).await,
            (["doctor"], "GET") => self.doctor(&access, asked).await,
            (["export"], "GET") => self.export(&access, asked).await,

            (
                [
                    "session" | "login" | "set-up" | "password" | "sites" | "users" | "keys" | "links"
                    | "history" | "day" | "firings" | "doctor" | "export",
                ]
                | ["sites" | "users" | "keys" | "links", _],
                _,
            ) => {
                let detail = format!("{} is not for {}", asked.path, asked.method);
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail))
            }
            _ => Err(Refusal::unknown("unknown_path", "there is nothing at this path")),
        }
    }

    /// Only who owns everything goes on.
    fn owner(&self, access: &Access) -> Result<(), Refusal> {
        if access.own_everything() { Ok(()) } else { Err(Refusal::not_for(access)) }
    }

    /// Only who owns the site goes on; whether it is there, others do not learn.
    fn owner_of(&self, access: &Access, site: &SiteId) -> Result<(), Refusal> {
        let is_owner = access.role(site) == Some(Role::Owner);
        if is_owner { Ok(()) } else { Err(Refusal::not_for(access)) }
    }
}

impl Asked {
    /// Of the path below `/api/`, decoded.
    fn segments(&self) -> Result<Vec<String>, Refusal> {
        let path = self.path.trim_start_matches("/api/");
        let decoded = path.split('/').map(|segment| percent_decode_str(segment).decode_utf8());
        let decoded: Result<Vec<_>, _> =
            decoded.map(|segment| segment.map(|text| text.into_owned())).collect();
        decoded.map_err(|_| Refusal::unknown("unknown_path", "the path is no UTF-8"))
    }

    /// The query's site.
    fn site(&self) -> Result<SiteId, Refusal> {
        let key = self.query.get("site").ok_or_else(|| Refusal::field("site", "site: say which"))?;
        SiteId::try_from(key.as_str()).map_err(|_| Refusal::unknown_site())
    }

    /// The body as JSON. A browser sends this content type only where it may: no form of another page can.
    fn value(&self) -> Result<Value, Refusal> {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let detail = "Content-Type: application/json is understood";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "invalid", format!("no JSON: {error}")))
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        parse(self.value()?)
    }
}

/// Reads a body's value; what is wrong is named by its field, and told with the way there.
fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let says = error.into_inner().to_string();
        match path.split(['.', '[']).next() {
            Some(field) if !matches!(field, "" | "?") => Refusal::field(field, format!("{path}: {says}")),
            _ => Refusal::new(StatusCode::BAD_REQUEST, "invalid", says),
        }
    })
}

fn checked_name(name: &str) -> Result<(), Refusal> {
    let is_line = !name.trim().is_empty() && !name.contains(char::is_control);
    if is_line && name.chars().count() <= MAX_NAME_CHARS {
        return Ok(());
    }
    Err(Refusal::field("name", format!("name: write 1 to {MAX_NAME_CHARS} characters on one line")))
}

fn ok(body: &Value) -> Answered {
    Ok(json(StatusCode::OK, body.to_string()))
}

fn done() -> Answer {
    let mut answer = json(StatusCode::NO_CONTENT, Bytes::new());
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}
