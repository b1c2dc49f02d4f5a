//! Everybody who may ask: people with passwords, programs with keys, browsers with links, and nobody.

use std::sync::{Arc, LazyLock};

use footfall_dashboard::password;
use footfall_schemas::{SiteId, directory::Directory};
use http::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN, SET_COOKIE},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    memory::Memory,
    stage::{Answer, Stage},
};

pub(crate) const PASSWORD: &str = "correct horse";
static HASH: LazyLock<String> = LazyLock::new(|| password::hash(PASSWORD).unwrap());

const OWNER_KEY: &str = "fk_0000000000000001_of-the-owner";
const VIEWER_KEY: &str = "fk_0000000000000002_of-a-viewer";

/// How a request says who it is from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    pub(crate) cookie: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) share: Option<String>,
}

impl Asker {
    pub(crate) fn nobody() -> Self {
        Self::default()
    }

    pub(crate) fn owner_key() -> Self {
        Self { key: Some(OWNER_KEY.into()), ..Self::default() }
    }

    pub(crate) fn viewer_key() -> Self {
        Self { key: Some(VIEWER_KEY.into()), ..Self::default() }
    }

    pub(crate) fn link(token: &str) -> Self {
        Self { share: Some(token.into()), ..Self::default() }
    }
}

/// Sites `shop` and `blog` (declared), and users of every kind: `owner`, `second` (both of everything), `keeper` (owner
/// of `shop`), `viewer` (of `shop`), `stranger` (of nothing) and `fixed` (declared). All have the same password.
pub(crate) fn town() -> Directory {
    let blog = json!({"key": "blog", "origins": ["*"]});
    let mut directory = Directory::declaring([(serde_json::from_value(blog.clone()).unwrap(), blog)]);
    let user = |grants: Value| json!({"password": *HASH, "grants": grants, "created_at": 0});
    let key = |token: &str, grants: Value| {
        let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"name": "ci", "hash": hash, "grants": grants, "created_at": 0, "created_by": "owner"})
    };
    let link = json!({"name": "board", "site": "shop", "created_at": 5, "created_by": "owner"});
    let shop = json!({"key": "shop", "name": "Shop", "origins": ["https://shop.example"]});
    let entries = [
        ("site/shop", shop),
        ("user/owner", user(json!({"*": "owner"}))),
        ("user/second", user(json!({"*": "owner"}))),
        ("user/keeper", user(json!({"shop": "owner"}))),
        ("user/viewer", user(json!({"shop": "viewer"}))),
        ("user/stranger", user(json!({}))),
        ("key/0000000000000001", key(OWNER_KEY, json!({"*": "owner"}))),
        ("key/0000000000000002", key(VIEWER_KEY, json!({"shop": "viewer"}))),
        ("link/whole", link),
    ];
    for (key, value) in entries {
        directory.apply(key, Some(value.to_string().as_bytes())).unwrap();
    }
    let fixed = serde_json::from_value(user(json!({"shop": "owner"}))).unwrap();
    directory.with_users([("fixed".to_owned().try_into().unwrap(), fixed)])
}

/// A directory with the [`town`] in it.
pub(crate) fn in_town() -> Arc<Memory> {
    let memory = Memory::new();
    memory.replace(town());
    memory
}

pub(crate) fn site(key: &str) -> SiteId {
    SiteId::try_from(key).unwrap()
}

impl Stage {
    /// Logs a user in.
    pub(crate) async fn enter(&self, name: &str) -> Asker {
        let answer = self.try_password(name, PASSWORD).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        Asker { cookie: Some(cookie(&answer)), ..Asker::default() }
    }

    pub(crate) async fn operator(&self) -> Asker {
        Asker { cookie: Some(self.log_in().await), ..Asker::default() }
    }

    pub(crate) async fn try_password(&self, name: &str, password: &str) -> Answer {
        let body = json!({"name": name, "password": password});
        self.ask(Method::POST, "/api/login", &Asker::nobody(), Some(&body)).await
    }

    /// From the dashboard's own page, or from a program.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        asker: &Asker,
        body: Option<&Value>,
    ) -> Answer {
        let path = match &asker.share {
            Some(token) if path.contains('?') => format!("{path}&share={token}"),
            Some(token) => format!("{path}?share={token}"),
            None => path.to_owned(),
        };
        let mut request = Request::builder().method(method).uri(path);
        match &asker.key {
            Some(key) => request = request.header(AUTHORIZATION, format!("Bearer {key}")),
            None => request = request.header(ORIGIN, self.origin()),
        }
        if let Some(cookie) = &asker.cookie {
            request = request.header("cookie", cookie);
        }
        match body {
            Some(body) => {
                self.send(request.header(CONTENT_TYPE, "application/json"), &body.to_string()).await
            }
            None => self.send(request, "").await,
        }
    }

    pub(crate) async fn read(&self, path: &str, asker: &Asker) -> Value {
        let answer = self.ask(Method::GET, path, asker, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Makes a link to the shop, as its owner does, and gives its token.
    pub(crate) async fn share(&self, filter: Value, expires_at: Option<i64>) -> String {
        let link = json!({"name": "board", "site": "shop", "filter": filter, "expires_at": expires_at});
        let made = self.ask(Method::POST, "/api/links", &Asker::owner_key(), Some(&link)).await;
        let url = made.json()["url"].as_str().unwrap().to_owned();
        url.split_once("?share=").unwrap().1.to_owned()
    }
}

/// What an answer gives the browser to keep.
pub(crate) fn cookie(answer: &Answer) -> String {
    answer.headers[SET_COOKIE].to_str().unwrap().split_once(';').unwrap().0.to_owned()
}
