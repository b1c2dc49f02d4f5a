//! What is shown to others: share links, public sites, embeds, and sockets of programs.

use footfall_dashboard::Config;
use footfall_schemas::viewer::{ViewerError, ViewerFrame};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    askers::{Asker, in_town},
    stage::{Stage, Viewer, now_ms, quick},
};

fn public(is: bool) -> Option<Value> {
    Some(
        json!({"key": "shop", "origins": ["*"], "public": is, "embed_origins": ["https://shop.example", "https://*.shop.example"]}),
    )
}

/// A subscription is refused, and the socket stays.
async fn is_refused(viewer: &mut Viewer, site: &str, with: Value) {
    viewer.subscribe_to(site, with, None).await;
    let frame = viewer.next_raw().await;
    assert!(matches!(&frame, ViewerFrame::Error { reason: ViewerError::NotAllowed, .. }), "{frame:?}");
}

async fn is_watched(viewer: &mut Viewer, site: &str, with: Value) {
    viewer.subscribe_to(site, with, None).await;
    viewer.next().await;
}

#[tokio::test]
async fn a_link_shows_its_view_or_a_narrower_one_until_it_is_revoked() {
    let stage = Stage::on(in_town(), quick()).await;
    let token = stage.share(json!({"page": "/a"}), None).await;
    let origin = stage.origin();
    let query = format!("?share={token}");
    let mut viewer = stage.viewer_with(&query, &[("origin", &origin)]).await;
    is_refused(&mut viewer, "shop", json!({})).await;
    is_refused(&mut viewer, "shop", json!({"page": "/b"})).await;
    is_refused(&mut viewer, "blog", json!({"page": "/a"})).await;
    is_watched(&mut viewer, "shop", json!({"page": "/a"})).await;
    is_watched(&mut viewer, "shop", json!({"page": "/a", "country": "DE"})).await;

    let link = Asker::link(&token);
    let sites = stage.read("/api/sites", &link).await;
    assert_eq!((&sites["sites"][0]["key"], &sites["sites"][0]["role"]), (&json!("shop"), &json!("viewer")));
    let listed = stage.read("/api/links?site=shop", &Asker::owner_key()).await["links"].clone();
    let made = listed.as_array().unwrap().iter().find(|link| link["id"] != "whole").unwrap();
    assert_eq!(
        (&made["filter"], &made["created_by"]),
        (&json!({"page": "/a"}), &json!("key:0000000000000001"))
    );
    assert_eq!(made["url"], format!("{origin}/s/shop?share={token}"));

    let path = format!("/api/links/{}", made["id"].as_str().unwrap());
    assert_eq!(stage.ask(Method::DELETE, &path, &Asker::owner_key(), None).await.status, 204);
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
    assert_eq!(stage.ask(Method::GET, "/api/sites", &link, None).await.status, 403);
    assert_eq!(stage.get(&format!("/s/shop{query}"), None).await.status, 404);
}

#[tokio::test]
async fn a_link_ends_by_its_time_and_opens_nothing_by_its_id() {
    let stage = Stage::on(in_town(), quick()).await;
    let token = stage.share(json!({}), Some(now_ms() + 1_500)).await;
    let origin = stage.origin();
    let mut viewer = stage.viewer_with(&format!("?share={token}"), &[("origin", &origin)]).await;
    is_watched(&mut viewer, "shop", json!({})).await;
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
    for token in [token.as_str(), "whole", "", "AQAA"] {
        let answer = stage.ask(Method::GET, "/api/sites", &Asker::link(token), None).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (403, &json!("wrong_link")), "{token}");
    }
    // The operator's own cookie beside a dead link does not open what the link would have shown.
    let both = Asker { share: Some("whole".into()), ..stage.operator().await };
    assert_eq!(stage.ask(Method::GET, "/api/sites", &both, None).await.status, 403);
}

#[tokio::test]
async fn a_public_site_is_watched_by_anybody_until_it_is_public_no_more() {
    let stage = Stage::on(in_town(), quick()).await;
    let origin = stage.origin();
    assert_eq!(stage.refused_upgrade(&[("origin", &origin)]).await, StatusCode::UNAUTHORIZED);
    stage.directory.set("site/shop", public(true));
    let sites = stage.read("/api/sites", &Asker::nobody()).await;
    assert_eq!(sites["sites"].as_array().unwrap().len(), 1);
    assert_eq!((&sites["sites"][0]["key"], &sites["sites"][0]["role"]), (&json!("shop"), &json!("viewer")));

    let mut viewer = stage.viewer_with("", &[("origin", &origin)]).await;
    is_refused(&mut viewer, "blog", json!({})).await;
    is_refused(&mut viewer, "none", json!({})).await;
    is_watched(&mut viewer, "shop", json!({"page": "/a"})).await;
    assert_eq!(stage.refused_upgrade(&[("origin", "https://evil.example")]).await, StatusCode::FORBIDDEN);

    stage.directory.set("site/shop", public(false));
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
    assert_eq!(stage.ask(Method::GET, "/api/sites", &Asker::nobody(), None).await.status, 401);
}

#[tokio::test]
async fn viewers_without_a_name_do_not_take_all_places() {
    let stage = Stage::on(in_town(), Config { max_viewers: 3, max_public_viewers: 1, ..quick() }).await;
    stage.directory.set("site/shop", public(true));
    let origin = stage.origin();
    let mut first = stage.viewer_with("", &[("origin", &origin)]).await;
    is_watched(&mut first, "shop", json!({})).await;
    assert!(stage.try_viewer(&[("origin", &origin)]).await.is_none());
    let cookie = stage.enter("viewer").await.cookie.unwrap();
    assert!(stage.try_viewer(&[("origin", &origin), ("cookie", &cookie)]).await.is_some());
}

#[tokio::test]
async fn a_program_watches_with_a_key_and_no_page_does_it_for_it() {
    let stage = Stage::on(in_town(), quick()).await;
    let bearer = format!("Bearer {}", Asker::viewer_key().key.unwrap());
    let mut viewer = stage.viewer_with("", &[("authorization", &bearer)]).await;
    is_refused(&mut viewer, "blog", json!({})).await;
    is_watched(&mut viewer, "shop", json!({})).await;
    let foreign = [("authorization", bearer.as_str()), ("origin", "https://evil.example")];
    assert_eq!(stage.refused_upgrade(&foreign).await, StatusCode::FORBIDDEN);
    let (wrong, origin) = (format!("{bearer}x"), stage.origin());
    let wrong = [("authorization", wrong.as_str()), ("origin", origin.as_str())];
    assert_eq!(stage.refused_upgrade(&wrong).await, StatusCode::UNAUTHORIZED);

    stage.directory.set("key/0000000000000002", None);
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
}

#[tokio::test]
async fn only_the_sites_own_pages_frame_it_and_only_where_it_is_embedded() {
    let stage = Stage::on(in_town(), quick()).await;
    let framed = async |path: &str| {
        let answer = stage.get(path, None).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        let ancestors = policy.split("; ").find_map(|part| part.strip_prefix("frame-ancestors ")).unwrap();
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        let is_shown = !answer.body.contains("Nothing to see here");
        (is_shown, ancestors.to_owned(), answer.headers.contains_key("x-frame-options"))
    };
    let none = || "'none'".to_owned();
    assert_eq!(framed("/embed/shop").await, (false, none(), true));
    let token = stage.share(json!({}), None).await;
    assert_eq!(
        framed(&format!("/embed/shop?share={token}")).await,
        (true, none(), true),
        "no origin is given"
    );

    stage.directory.set("site/shop", public(true));
    let origins = "https://shop.example https://*.shop.example".to_owned();
    assert_eq!(framed("/embed/shop").await, (true, origins.clone(), false));
    assert_eq!(framed("/s/shop").await, (true, none(), true));
    assert_eq!(framed("/").await, (true, none(), true));
    assert_eq!(framed("/embed/blog").await, (false, none(), true));
    assert_eq!(framed("/embed/blog/shop").await, (false, none(), true));
    stage.directory.set("site/shop", public(false));
    assert_eq!(framed(&format!("/embed/shop?share={token}")).await, (true, origins, false));
    assert_eq!(framed("/embed/shop?share=whole").await, (false, none(), true));
}
