//! Every route, asked by everybody.

use http::Method;
use serde_json::{Value, json};

use crate::{
    askers::{Asker, PASSWORD, in_town, town},
    stage::{Stage, quick},
};

#[tokio::test]
async fn every_route_answers_everybody_as_their_role_says() {
    let stage = Stage::on(in_town(), quick()).await;
    let mut askers = vec![Asker::nobody(), stage.operator().await];
    for name in ["owner", "keeper", "viewer", "stranger", "fixed"] {
        askers.push(stage.enter(name).await);
    }
    askers.extend([Asker::owner_key(), Asker::viewer_key()]);
    let part = stage.share(json!({"page": "/a"}), None).await;
    let full_town = {
        let mut full_town = stage.directory.directory().as_ref().clone();
        full_town.share_links.retain(|_, link| !link.filter.is_empty());
        let part_links = full_town.share_links;
        let mut full_town = town();
        full_town.share_links.extend(part_links);
        full_town
    };
    let whole = {
        let links = stage.read("/api/links?site=shop", &Asker::owner_key()).await;
        let is_whole = |link: &&Value| link["id"] == "whole";
        let link = links["links"].as_array().unwrap().iter().find(is_whole).unwrap().clone();
        link["url"].as_str().unwrap().split_once("?share=").unwrap().1.to_owned()
    };
    askers.extend([Asker::link(&whole), Asker::link(&part)]);

    let site = json!({"origins": ["*"]});
    let user = json!({"password": "long enough", "grants": {}});
    let key = json!({"name": "ci", "grants": {}});
    let link = |site: &str| json!({"name": "board", "site": site});
    let password = json!({"old": PASSWORD, "new": "another horse"});
    let login = json!({"name": "viewer", "password": PASSWORD});
    let set_up = json!({"token": stage.set_up_token(), "name": "eve", "password": PASSWORD});

    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    #[rustfmt::skip]
    let table: &[(&Method, &str, Option<&Value>, [u16; 11])] = &[
        //                                              nobody         owner         viewer          fixed       viewer's key   part
        //                                                   operator       keeper        stranger        owner's key     link
        (&get, "/api/session", None,                    [401, 200, 200, 200, 200, 200, 200, 200, 200, 401, 401]),
        (&post, "/api/login", Some(&login),             [204; 11]),
        (&post, "/api/set-up", Some(&set_up),           [409; 11]),
        (&post, "/api/password", Some(&password),       [401, 403, 204, 204, 204, 204, 409, 403, 403, 403, 403]),
        (&get, "/api/sites", None,                      [401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
        (&get, "/api/sites/shop", None,                 [401, 200, 200, 200, 403, 403, 200, 200, 403, 403, 403]),
        (&get, "/api/sites/blog", None,                 [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&get, "/api/sites/none", None,                 [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&put, "/api/sites/shop", Some(&site),          [401, 204, 204, 204, 403, 403, 204, 204, 403, 403, 403]),
        (&put, "/api/sites/blog", Some(&site),          [401, 409, 409, 403, 403, 403, 403, 409, 403, 403, 403]),
        (&put, "/api/sites/new", Some(&site),           [401, 204, 204, 403, 403, 403, 403, 204, 403, 403, 403]),
        (&delete, "/api/sites/shop", None,              [401, 204, 204, 204, 403, 403, 204, 204, 403, 403, 403]),
        (&delete, "/api/sites/blog", None,              [401, 409, 409, 403, 403, 403, 403, 409, 403, 403, 403]),
        (&delete, "/api/sites/none", None,              [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&get, "/api/users", None,                      [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&put, "/api/users/eve", Some(&user),           [401, 204, 204, 403, 403, 403, 403, 204, 403, 403, 403]),
        (&put, "/api/users/fixed", Some(&user),         [401, 409, 409, 403, 403, 403, 403, 409, 403, 403, 403]),
        (&delete, "/api/users/viewer", None,            [401, 204, 204, 403, 403, 403, 403, 204, 403, 403, 403]),
        (&delete, "/api/users/fixed", None,             [401, 409, 409, 403, 403, 403, 403, 409, 403, 403, 403]),
        (&delete, "/api/users/none", None,              [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&get, "/api/keys", None,                       [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&post, "/api/keys", Some(&key),                [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&delete, "/api/keys/0000000000000002", None,   [401, 204, 204, 403, 403, 403, 403, 204, 403, 403, 403]),
        (&delete, "/api/keys/none", None,               [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&get, "/api/links?site=shop", None,            [401, 200, 200, 200, 403, 403, 200, 200, 403, 403, 403]),
        (&get, "/api/links?site=blog", None,            [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&post, "/api/links", Some(&link("shop")),      [401, 200, 200, 200, 403, 403, 200, 200, 403, 403, 403]),
        (&post, "/api/links", Some(&link("blog")),      [401, 200, 200, 403, 403, 403, 403, 200, 403, 403, 403]),
        (&post, "/api/links", Some(&link("none")),      [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&delete, "/api/links/whole", None,             [401, 204, 204, 204, 403, 403, 204, 204, 403, 403, 403]),
        (&delete, "/api/links/none", None,              [401, 404, 404, 404, 404, 404, 404, 404, 404, 403, 403]),
        // ClickHouse is away: who may ask learns that.
        (&get, "/api/history?site=shop", None,          [401, 503, 503, 503, 503, 403, 503, 503, 503, 503, 403]),
        (&get, "/api/history?site=blog", None,          [401, 503, 503, 403, 403, 403, 403, 503, 403, 403, 403]),
        (&get, "/api/history?site=none", None,          [401, 404, 404, 403, 403, 403, 403, 404, 403, 403, 403]),
        (&delete, "/api/session", None,                 [405; 11]),
        (&post, "/api/users/eve", Some(&user),          [405; 11]),
        (&get, "/api/", None,                           [404; 11]),
        (&get, "/api/sites/shop/none", None,            [404; 11]),
    ];
    for (method, path, body, statuses) in table {
        for (place, (asker, status)) in askers.iter().zip(statuses).enumerate() {
            stage.directory.replace(full_town.clone());
            let answer = stage.ask((*method).clone(), path, asker, *body).await;
            assert_eq!(answer.status, *status, "{method} {path} by {place} {asker:?}: {}", answer.body);
            assert_eq!(answer.headers["cache-control"], "no-store", "{method} {path}");
            if *status >= 400 {
                assert!(answer.json()["error"].is_string() && answer.json()["detail"].is_string());
                let changed = *stage.directory.directory() != full_town;
                assert!(!changed, "{method} {path} by {place}: refused, and yet the directory changed");
            }
        }
    }
}

#[tokio::test]
async fn a_change_from_another_page_is_refused_whoever_is_logged_in() {
    let stage = Stage::on(in_town(), quick()).await;
    let cookie = stage.enter("owner").await.cookie.unwrap();
    let send = async |method: &str, path: &str, from: (&str, &str), kind: &str, body: &str| {
        let request = http::Request::builder().method(method).uri(path).header(from.0, from.1);
        let request = request.header("cookie", &cookie).header("content-type", kind);
        let answer = stage.send(request, body).await;
        (answer.status.as_u16(), answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let json_body = r#"{"name": "ci", "grants": {}}"#;
    for (method, path) in [
        ("POST", "/api/keys"),
        ("PUT", "/api/sites/shop"),
        ("DELETE", "/api/users/viewer"),
        ("POST", "/api/login"),
        ("POST", "/api/set-up"),
    ] {
        for from in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = send(method, path, from, "application/json", json_body).await;
            assert_eq!(refused, (403, "wrong_origin".into()), "{method} {path} {from:?}");
        }
    }
    let own = ("sec-fetch-site", "same-origin");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        let refused = send("POST", "/api/keys", own, kind, json_body).await;
        assert_eq!(refused, (415, "not_json".into()), "{kind}");
    }
    assert_eq!(*stage.directory.directory(), town());
    assert_eq!(send("POST", "/api/keys", own, "application/json; charset=utf-8", json_body).await.0, 200);
}
