//! Passwords, sessions, the first owner, and what owners change.

use std::sync::atomic::Ordering::SeqCst;

use footfall_dashboard::Config;
use footfall_schemas::{
    directory::{Directory, Role},
    network::Network,
};
use http::{
    Method, StatusCode,
    header::{RETRY_AFTER, SET_COOKIE},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    askers::{Asker, PASSWORD, cookie, in_town, site},
    stage::{Answer, Stage, quick},
};

fn error(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_password_opens_a_session_that_says_whose_it_is() {
    let stage = Stage::on(in_town(), quick()).await;
    let answer = stage.try_password("keeper", PASSWORD).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert!(answer.headers[SET_COOKIE].to_str().unwrap().contains("; HttpOnly; SameSite=Lax"));
    let keeper = Asker { cookie: Some(cookie(&answer)), ..Asker::default() };
    let session = stage.read("/api/session", &keeper).await;
    assert_eq!((&session["user"], &session["everything"]), (&json!("keeper"), &json!(false)));
    assert!(session["expires_at"].as_i64() > session["now"].as_i64());
    let operator = stage.read("/api/session", &stage.operator().await).await;
    assert_eq!((&operator["user"], &operator["everything"]), (&json!("operator"), &json!(true)));

    let wrong = stage.try_password("keeper", "wrong horse").await;
    assert_eq!(error(&wrong), (401, "wrong_login".into()));
    for (name, password) in [("nobody", PASSWORD), ("No Name!", PASSWORD), ("", ""), ("keeper", "")] {
        let other = stage.try_password(name, password).await;
        assert_eq!(
            (other.status, &other.body),
            (wrong.status, &wrong.body),
            "which of both is wrong is not told"
        );
        assert!(!other.headers.contains_key(SET_COOKIE));
    }
}

#[tokio::test]
async fn a_cookie_of_tls_is_bound_to_the_host() {
    let config = Config { public_url: Some("https://stats.example".into()), ..quick() };
    let stage = Stage::on(in_town(), config).await;
    let answer = stage.try_password("keeper", PASSWORD).await;
    let told = answer.headers[SET_COOKIE].to_str().unwrap();
    assert!(told.starts_with("__Host-footfall=") && told.ends_with("; Secure"), "{told}");
}

#[tokio::test]
async fn passwords_are_limited_by_name_and_by_address() {
    let by_name = Stage::on(in_town(), Config { passwords_per_minute: 3, ..quick() }).await;
    for _ in 0..3 {
        assert_eq!(by_name.try_password("viewer", "wrong horse").await.status, 401);
    }
    let limited = by_name.try_password("viewer", PASSWORD).await;
    assert_eq!(error(&limited), (429, "rate_limited".into()));
    let wait: u64 = limited.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(by_name.try_password("keeper", PASSWORD).await.status, 204);

    let by_address = Stage::on(in_town(), Config { logins_per_minute: 2, ..quick() }).await;
    assert_eq!(by_address.try_password("viewer", "wrong horse").await.status, 401);
    assert_eq!(by_address.get("/login?token=x", None).await.status, 403);
    assert_eq!(by_address.try_password("keeper", PASSWORD).await.status, 429);
    let page = by_address.get("/login?token=x", None).await;
    assert!(page.status == 429 && page.headers.contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn behind_a_trusted_proxy_addresses_are_told_apart() {
    let attempts = async |trusted_proxies: Vec<Network>| {
        let config = Config { logins_per_minute: 1, trusted_proxies, ..quick() };
        let stage = Stage::on(in_town(), config).await;
        let mut statuses = Vec::new();
        for client in ["203.0.113.1", "203.0.113.2", "203.0.113.2"] {
            let request = http::Request::get("/login?token=x").header("x-forwarded-for", client);
            statuses.push(stage.send(request, "").await.status.as_u16());
        }
        statuses
    };
    assert_eq!(attempts(vec!["127.0.0.1".try_into().unwrap()]).await, [403, 403, 429]);
    assert_eq!(attempts(Vec::new()).await, [403, 429, 429]);
}

#[tokio::test]
async fn the_first_owner_is_made_once() {
    let stage = Stage::new(quick()).await;
    let nobody = Asker::nobody();
    let session = async || stage.ask(Method::GET, "/api/session", &nobody, None).await.json();
    assert_eq!(session().await["set_up"], true);
    let token = stage.set_up_token();
    let set_up = async |token: &str, name: &str, password: &str| {
        let body = json!({"token": token, "name": name, "password": password});
        stage.ask(Method::POST, "/api/set-up", &nobody, Some(&body)).await
    };
    assert_eq!(error(&set_up("forged", "ada", PASSWORD).await), (403, "wrong_link".into()));
    let login_token = stage.link().split_once("token=").unwrap().1.to_owned();
    assert_eq!(error(&set_up(&login_token, "ada", PASSWORD).await), (403, "wrong_link".into()));
    for (name, password, field) in
        [("Ada", PASSWORD, "name"), ("operator", PASSWORD, "name"), ("ada", "short", "password")]
    {
        let refused = set_up(&token, name, password).await;
        assert_eq!((refused.status.as_u16(), refused.json()["field"].clone()), (400, json!(field)));
    }
    stage.directory.refuses.store(true, SeqCst);
    let refused = set_up(&token, "ada", PASSWORD).await;
    assert_eq!(error(&refused), (503, "not_written".into()));
    assert!(!refused.body.contains("broker-7"), "{}", refused.body);
    assert_eq!(session().await["set_up"], true);
    stage.directory.refuses.store(false, SeqCst);

    let made = set_up(&token, "ada", PASSWORD).await;
    assert_eq!(made.status, 204, "{}", made.body);
    let ada = Asker { cookie: Some(cookie(&made)), ..Asker::default() };
    assert_eq!(stage.read("/api/session", &ada).await["everything"], true);
    assert_eq!(session().await["set_up"], false);
    assert_eq!(stage.try_password("ada", PASSWORD).await.status, 204);
    assert_eq!(error(&set_up(&stage.set_up_token(), "eve", PASSWORD).await), (409, "set_up_done".into()));

    // Even when the owner is removed behind our back, a link that was used makes no other.
    stage.directory.set("user/ada", None);
    assert_eq!(error(&set_up(&token, "eve", PASSWORD).await), (403, "wrong_link".into()));
}

#[tokio::test]
async fn a_login_link_is_used_up_on_every_node_and_after_a_restart() {
    let one = Stage::new(quick()).await;
    let other = Stage::on(one.directory.clone(), quick()).await;
    let link = one.link();
    let form = link.split_once('?').unwrap().1;

    one.directory.refuses.store(true, SeqCst);
    let refused = one.post("/login", form, &one.origin(), None).await;
    assert_eq!(
        (refused.status, refused.headers.contains_key(SET_COOKIE)),
        (StatusCode::SERVICE_UNAVAILABLE, false)
    );
    assert_eq!(one.get(&link, None).await.status, 200, "what came to nothing may be tried again");
    one.directory.refuses.store(false, SeqCst);

    assert_eq!(one.post("/login", form, &one.origin(), None).await.status, 303);
    assert_eq!(other.get(&link, None).await.status, 403);
    let again = other.post("/login", form, &other.origin(), None).await;
    assert!(again.status == 403 && again.body.contains("used already"), "{}", again.body);
}

#[tokio::test]
async fn a_logout_ends_the_session_on_every_node() {
    let one = Stage::on(in_town(), quick()).await;
    let other = Stage::on(one.directory.clone(), quick()).await;
    let viewer = one.enter("viewer").await;
    let mut socket = other.viewer(viewer.cookie.as_deref().unwrap()).await;
    socket.subscribe("shop", None).await;
    socket.next().await;

    let answer = one.post("/logout", "", &one.origin(), viewer.cookie.as_deref()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(u16::from(socket.closed().await.unwrap().code), 1008);
    for node in [&one, &other] {
        assert_eq!(node.ask(Method::GET, "/api/session", &viewer, None).await.status, 401);
    }

    // Without the log this node keeps to it, at least.
    let viewer = one.enter("viewer").await;
    one.directory.refuses.store(true, SeqCst);
    one.post("/logout", "", &one.origin(), viewer.cookie.as_deref()).await;
    assert_eq!(one.ask(Method::GET, "/api/session", &viewer, None).await.status, 401);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let stage = Stage::on(in_town(), quick()).await;
    let (mine, other) = (stage.enter("viewer").await, stage.enter("viewer").await);
    let mut socket = stage.viewer(other.cookie.as_deref().unwrap()).await;
    socket.subscribe("shop", None).await;
    socket.next().await;
    let change = async |old: &str, new: &str| {
        let body = json!({"old": old, "new": new});
        stage.ask(Method::POST, "/api/password", &mine, Some(&body)).await
    };
    assert_eq!(change("wrong horse", "another horse").await.json()["field"], "old");
    assert_eq!(change(PASSWORD, "short").await.json()["field"], "new");
    assert_eq!(stage.ask(Method::GET, "/api/session", &other, None).await.status, 200);

    let changed = change(PASSWORD, "another horse").await;
    assert_eq!(changed.status, 204, "{}", changed.body);
    let fresh = Asker { cookie: Some(cookie(&changed)), ..Asker::default() };
    assert_eq!(stage.ask(Method::GET, "/api/session", &fresh, None).await.status, 200);
    for old in [&mine, &other] {
        assert_eq!(stage.ask(Method::GET, "/api/session", old, None).await.status, 401);
    }
    assert_eq!(u16::from(socket.closed().await.unwrap().code), 1008);
    assert_eq!(stage.try_password("viewer", PASSWORD).await.status, 401);
    assert_eq!(stage.try_password("viewer", "another horse").await.status, 204);
}

#[rstest]
#[case::removed("user/viewer", None)]
#[case::granted_something_else("user/viewer", Some(json!({"blog": "viewer"})))]
#[tokio::test]
async fn a_socket_ends_when_its_user_may_not_watch_any_more(
    #[case] key: &str,
    #[case] grants: Option<Value>,
) {
    let stage = Stage::on(in_town(), quick()).await;
    let viewer = stage.enter("viewer").await;
    let mut socket = stage.viewer(viewer.cookie.as_deref().unwrap()).await;
    socket.subscribe("shop", None).await;
    socket.next().await;
    // Somebody else's change does not disturb.
    stage.directory.set("user/second", None);
    stage.directory.set(key, grants.map(|grants| json!({"password": "", "grants": grants, "created_at": 0})));
    assert_eq!(u16::from(socket.closed().await.unwrap().code), 1008);
}

#[tokio::test]
async fn the_last_owner_stays() {
    let stage = Stage::on(in_town(), quick()).await;
    let operator = stage.operator().await;
    let less = json!({"grants": {"*": "viewer"}});
    let put = async |name: &str| {
        stage.ask(Method::PUT, &format!("/api/users/{name}"), &operator, Some(&less)).await
    };
    let remove =
        async |name: &str| stage.ask(Method::DELETE, &format!("/api/users/{name}"), &operator, None).await;
    assert_eq!(put("second").await.status, 204);
    assert_eq!(error(&put("owner").await), (409, "last_owner".into()));
    assert_eq!(error(&remove("owner").await), (409, "last_owner".into()));
    assert_eq!(remove("second").await.status, 204);
    let again = json!({"grants": {"*": "owner"}, "password": PASSWORD});
    assert_eq!(stage.ask(Method::PUT, "/api/users/b%40c.example", &operator, Some(&again)).await.status, 204);
    assert_eq!(remove("owner").await.status, 204);
    assert_eq!(stage.try_password("b@c.example", PASSWORD).await.status, 204);
}

#[tokio::test]
async fn users_come_with_their_grants_and_keep_a_password_that_is_not_written() {
    let stage = Stage::on(in_town(), quick()).await;
    let owner = stage.enter("owner").await;
    let put = json!({"grants": {"blog": "owner"}});
    assert_eq!(stage.ask(Method::PUT, "/api/users/viewer", &owner, Some(&put)).await.status, 204);
    let users = stage.read("/api/users", &owner).await;
    assert!(!users.to_string().contains("argon2"), "{users}");
    let viewer = users["users"].as_array().unwrap().iter().find(|user| user["name"] == "viewer").unwrap();
    assert_eq!(
        *viewer,
        json!({"name": "viewer", "grants": {"blog": "owner"}, "created_at": 0, "declared": false})
    );
    let viewer = stage.enter("viewer").await;
    let sites = stage.read("/api/sites", &viewer).await;
    assert_eq!((&sites["sites"][0]["key"], &sites["sites"][0]["role"]), (&json!("blog"), &json!("owner")));
    assert_eq!(sites["sites"].as_array().unwrap().len(), 1);

    let put = json!({"grants": {}, "password": "another horse"});
    assert_eq!(stage.ask(Method::PUT, "/api/users/viewer", &owner, Some(&put)).await.status, 204);
    assert_eq!(stage.ask(Method::GET, "/api/session", &viewer, None).await.status, 401);
}

#[rstest]
#[case::no_json("PUT", "/api/users/eve", Value::Null, None)]
#[case::no_password("PUT", "/api/users/eve", json!({"grants": {}}), Some("password"))]
#[case::short_password("PUT", "/api/users/eve", json!({"grants": {}, "password": "x"}), Some("password"))]
#[case::no_name("PUT", "/api/users/Eve", json!({"grants": {}, "password": PASSWORD}), Some("name"))]
#[case::operator("PUT", "/api/users/operator", json!({"grants": {}, "password": PASSWORD}), Some("name"))]
#[case::no_role("PUT", "/api/users/eve", json!({"grants": {"shop": "king"}, "password": PASSWORD}), Some("grants"))]
#[case::no_scope("PUT", "/api/users/eve", json!({"grants": {"SHOP": "owner"}, "password": PASSWORD}), Some("grants"))]
#[case::key_name("POST", "/api/keys", json!({"name": " ", "grants": {}}), Some("name"))]
#[case::key_scope("POST", "/api/keys", json!({"name": "a", "grants": {"A": "viewer"}}), Some("grants"))]
#[case::link_name("POST", "/api/links", json!({"name": "a\nb", "site": "shop"}), Some("name"))]
#[case::link_site("POST", "/api/links", json!({"name": "a", "site": "SHOP"}), Some("site"))]
#[case::link_filter("POST", "/api/links", json!({"name": "a", "site": "shop", "filter": {"path": "/"}}), Some("filter"))]
#[case::link_value("POST", "/api/links", json!({"name": "a", "site": "shop", "filter": {"page": "x".repeat(1_025)}}), Some("filter"))]
#[case::link_past("POST", "/api/links", json!({"name": "a", "site": "shop", "expires_at": 1}), Some("expires_at"))]
#[case::site_key("PUT", "/api/sites/A%20B", json!({"origins": ["*"]}), Some("key"))]
#[case::other_key("PUT", "/api/sites/new", json!({"key": "old", "origins": ["*"]}), Some("key"))]
#[case::no_object("PUT", "/api/sites/new", json!([]), Some("site"))]
#[case::no_origins("PUT", "/api/sites/new", json!({}), None)]
#[case::no_origin("PUT", "/api/sites/new", json!({"origins": []}), Some("origins"))]
#[case::wrong_origin("PUT", "/api/sites/new", json!({"origins": ["*", "shop"]}), Some("origins"))]
#[case::gap("PUT", "/api/sites/new", json!({"origins": ["*"], "session_gap_minutes": 721}), Some("session_gap_minutes"))]
#[case::kind("PUT", "/api/sites/new", json!({"origins": ["*"], "public": "yes"}), Some("public"))]
#[case::unknown("PUT", "/api/sites/new", json!({"origins": ["*"], "colour": 1}), Some("colour"))]
#[case::alert("PUT", "/api/sites/new", json!({"origins": ["*"], "alerts": [{"name": "a", "kind": "silence", "minutes": 99}]}), Some("alerts"))]
#[case::goal("PUT", "/api/sites/new", json!({"origins": ["*"], "goals": [{"name": "a"}]}), Some("goals"))]
#[case::secret("PUT", "/api/sites/new", json!({"origins": ["*"], "secret": "(set)"}), Some("secret"))]
#[tokio::test]
async fn what_is_wrong_is_named_by_its_field(
    #[case] method: Method,
    #[case] path: &str,
    #[case] body: Value,
    #[case] field: Option<&str>,
) {
    let stage = Stage::on(in_town(), quick()).await;
    let before = stage.directory.directory();
    let answer = stage.ask(method, path, &Asker::owner_key(), Some(&body)).await;
    let told = answer.json();
    assert_eq!((answer.status.as_u16(), told["field"].as_str()), (400, field), "{told}");
    assert!(field.is_none_or(|field| told["detail"].as_str().unwrap().contains(field)), "{told}");
    assert_eq!(stage.directory.directory(), before);
}

#[tokio::test]
async fn a_site_is_changed_and_its_secrets_are_kept_and_not_shown() {
    let stage = Stage::on(in_town(), quick()).await;
    let keeper = stage.enter("keeper").await;
    let (secret, hook) = ("0f".repeat(32), "1e".repeat(32));
    let written = json!({
        "name": "The shop", "origins": ["https://shop.example"], "secret": secret, "public": true,
        "alert_webhooks": [{"url": "https://hooks.example/a", "secret": hook}],
        "goals": [{"name": "Bought", "event": "buy"}],
    });
    assert_eq!(stage.ask(Method::PUT, "/api/sites/shop", &keeper, Some(&written)).await.status, 204);
    let shown = stage.read("/api/sites/shop", &keeper).await;
    assert_eq!(shown["declared"], false);
    let text = shown.to_string();
    assert!(!text.contains(&secret) && !text.contains(&hook), "{text}");
    assert_eq!(shown["site"]["secret"], "(set)");

    let mut again = shown["site"].clone();
    again["name"] = json!("Our shop");
    let answer = stage.ask(Method::PUT, "/api/sites/shop", &keeper, Some(&again)).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    let directory = stage.directory.directory();
    let kept = &directory.sites[&site("shop")];
    assert_eq!(
        (&kept.written["secret"], &kept.written["alert_webhooks"][0]["secret"]),
        (&json!(secret), &json!(hook))
    );
    assert!(kept.site.secret.is_some());

    let listed = stage.read("/api/sites", &keeper).await["sites"][0].clone();
    assert_eq!(listed["name"], "Our shop");
    assert_eq!(listed["goals"], json!([{"name": "Bought", "event": "buy"}]));
    assert_eq!(
        (&listed["public"], &listed["declared"], &listed["role"]),
        (&json!(true), &json!(false), &json!("owner"))
    );
}

#[tokio::test]
async fn a_site_that_goes_takes_its_links_with_it() {
    let stage = Stage::on(in_town(), quick()).await;
    let owner = Asker::owner_key();
    let token = stage.share(json!({}), None).await;
    assert_eq!(stage.ask(Method::DELETE, "/api/sites/shop", &owner, None).await.status, 204);
    assert!(stage.directory.directory().share_links.is_empty());
    let again = json!({"origins": ["*"]});
    assert_eq!(stage.ask(Method::PUT, "/api/sites/shop", &owner, Some(&again)).await.status, 204);
    let old = stage.ask(Method::GET, "/api/sites", &Asker::link(&token), None).await;
    assert_eq!(error(&old), (403, "wrong_link".into()));
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_until_it_is_removed() {
    let stage = Stage::on(in_town(), quick()).await;
    let owner = stage.enter("owner").await;
    let body = json!({"name": "ci", "grants": {"shop": "owner"}});
    let made = stage.ask(Method::POST, "/api/keys", &owner, Some(&body)).await.json();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert!(token.starts_with(&format!("fk_{id}_")) && token.len() > 60, "{token}");
    let listed = stage.read("/api/keys", &owner).await.to_string();
    assert!(listed.contains(id) && listed.contains("\"created_by\":\"owner\""), "{listed}");
    let directory: &Directory = &stage.directory.directory();
    assert!(!listed.contains(&token[20..]) && !listed.contains(&directory.api_keys[id].hash), "{listed}");
    assert_eq!(directory.api_keys[id].grants.role(&site("shop")), Some(Role::Owner));

    let key = Asker { key: Some(token.into()), ..Asker::default() };
    assert_eq!(stage.ask(Method::GET, "/api/sites/shop", &key, None).await.status, 200);
    let path = format!("/api/keys/{id}");
    assert_eq!(stage.ask(Method::DELETE, &path, &owner, None).await.status, 204);
    // A cookie beside it does not help: what is shown on purpose counts.
    let both = Asker { cookie: owner.cookie.clone(), ..key };
    assert_eq!(
        error(&stage.ask(Method::GET, "/api/sites/shop", &both, None).await),
        (401, "wrong_key".into())
    );
}

#[tokio::test]
async fn a_change_that_cannot_be_written_is_said_to_be() {
    let stage = Stage::on(in_town(), quick()).await;
    stage.directory.refuses.store(true, SeqCst);
    let body = json!({"name": "ci", "grants": {}});
    let answer = stage.ask(Method::POST, "/api/keys", &Asker::owner_key(), Some(&body)).await;
    assert_eq!(error(&answer), (503, "not_written".into()));
    assert!(!answer.body.contains("broker-7"), "{}", answer.body);
}

#[tokio::test]
async fn of_two_that_remove_an_owner_at_once_one_is_refused() {
    let stage = Stage::on(in_town(), quick()).await;
    let operator = stage.operator().await;
    let remove = async |name: &str| {
        stage.ask(Method::DELETE, &format!("/api/users/{name}"), &operator, None).await.status.as_u16()
    };
    let (one, other) = tokio::join!(remove("owner"), remove("second"));
    let mut both = [one, other];
    both.sort_unstable();
    assert_eq!(both, [204, 409]);
}
