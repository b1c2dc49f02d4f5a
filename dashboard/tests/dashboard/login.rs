//! Who gets in.

use http::{Request, StatusCode, header::SET_COOKIE};

use crate::stage::{NOWHERE, Stage, quick};

#[tokio::test]
async fn a_link_lets_one_browser_in_once() {
    let stage = Stage::new(quick()).await;
    let link = stage.link();
    let token = link.split_once("token=").unwrap().1;

    // A preview looks at it, twice: nothing is used up, nobody is logged in.
    for _ in 0..2 {
        let page = stage.get(&link, None).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("Open the dashboard") && page.body.contains(token), "{}", page.body);
        assert!(!page.headers.contains_key(SET_COOKIE));
        assert!(!page.body.contains("<script"));
    }

    let form = format!("token={token}");
    let answer = stage.post("/login", &form, &stage.origin(), None).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
    let session = stage.get("/api/session", cookie.split(';').next()).await;
    assert_eq!(session.status, StatusCode::OK);
    assert!(session.json()["expires_at"].as_i64() > session.json()["now"].as_i64());

    let again = stage.post("/login", &form, &stage.origin(), None).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN);
    assert!(!again.headers.contains_key(SET_COOKIE));
    assert!(again.body.contains("used already") && again.body.contains("footfall login"), "{}", again.body);
    assert_eq!(stage.get(&link, None).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_link_is_not_redeemed_from_another_site() {
    let stage = Stage::new(quick()).await;
    let link = stage.link();
    let form = link.split_once('?').unwrap().1;
    let foreign = stage.post("/login", form, "http://evil.example", None).await;
    assert_eq!((foreign.status, foreign.headers.contains_key(SET_COOKIE)), (StatusCode::FORBIDDEN, false));
    assert_eq!(stage.post("/login", form, &stage.origin(), None).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn without_a_session_nothing_is_told() {
    let stage = Stage::new(quick()).await;
    let forged =
        "footfall_session=AQAAAZ-8mgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for cookie in [None, Some("footfall_session="), Some(forged)] {
        for path in [
            "/api/session",
            "/api/sites",
            "/api/history?site=demo",
            "/api/day?site=demo",
            "/api/firings?site=demo",
            "/api/doctor?site=demo",
            "/api/export?site=demo&dimension=page",
            "/live/events?site=demo",
        ] {
            let answer = stage.get(path, cookie).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {cookie:?}");
            assert_eq!(answer.json()["error"], "not_logged_in");
        }
        let origin = stage.origin();
        let headers = [("origin", origin.as_str()), ("cookie", cookie.unwrap_or("a=b"))];
        assert_eq!(stage.refused_upgrade(&headers).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_and_its_sockets() {
    let stage = Stage::new(quick()).await;
    let (cookie, other) = (stage.log_in().await, stage.log_in().await);
    let (mut mine, mut theirs) = (stage.viewer(&cookie).await, stage.viewer(&other).await);
    mine.subscribe("demo", None).await;
    theirs.subscribe("demo", None).await;
    mine.next().await;

    let foreign = stage.post("/logout", "", "http://evil.example", Some(&cookie)).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(stage.get("/api/session", Some(&cookie)).await.status, StatusCode::OK);

    let answer = stage.post("/logout", "", &stage.origin(), Some(&cookie)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.headers[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(u16::from(mine.closed().await.unwrap().code), 1008);
    assert_eq!(stage.get("/api/session", Some(&cookie)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(stage.get("/api/session", Some(&other)).await.status, StatusCode::OK);
    theirs.next().await;
}

#[tokio::test]
async fn a_session_that_expires_closes_its_socket() {
    let stage = Stage::new(footfall_dashboard::Config { session_ms: 1_500, ..quick() }).await;
    let cookie = stage.log_in().await;
    let mut viewer = stage.viewer(&cookie).await;
    viewer.subscribe("demo", None).await;
    viewer.next().await;
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
    assert_eq!(stage.get("/api/session", Some(&cookie)).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn logins_are_limited_by_address() {
    let stage = Stage::new(footfall_dashboard::Config { logins_per_minute: 3, ..quick() }).await;
    for _ in 0..3 {
        assert_eq!(stage.get("/login?token=x", None).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(stage.get(&stage.link(), None).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(stage.get("/healthz", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let stage = Stage::new(quick()).await;
    let table = [
        ("/api/nowhere", 404),
        ("/s/shop", 404),
        ("/embed/shop", 404),
        ("/login?token=x", 403),
        ("/login", 403),
        ("/logout", 405),
        ("/api/session", 401),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/plain.css", 200),
        ("/live", 403),
        ("/nowhere", 404),
        ("/assets/../Cargo.toml", 404),
        ("/index.html/", 404),
    ];
    for (path, status) in table {
        let answer = stage.get(path, None).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        for directive in
            ["default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        let sockets = format!("connect-src 'self' ws://{0} wss://{0};", stage.address);
        assert!(policy.contains(&sockets) && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["referrer-policy"], "same-origin", "{path}");
        assert!(answer.headers.contains_key("permissions-policy"), "{path}");
    }
}

#[tokio::test]
async fn a_host_that_is_none_does_not_reach_the_policy() {
    let stage = Stage::new(quick()).await;
    let request = Request::get("/healthz").header("host", "x; script-src *");
    let policy = stage.send(request, "").await.headers["content-security-policy"].clone();
    assert!(!policy.to_str().unwrap().contains('*'), "{policy:?}");
}

#[tokio::test]
async fn the_sites_come_with_their_snippet() {
    let stage = Stage::new(quick()).await;
    let cookie = stage.log_in().await;
    let sites = stage.get("/api/sites", Some(&cookie)).await.json();
    assert_eq!(sites["sites"][0]["key"], "demo");
    assert_eq!(sites["sites"][0]["demo"], "http://127.0.0.1:8080/demo/");
    assert_eq!(
        sites["sites"][1]["snippet"],
        r#"<script defer src="http://127.0.0.1:8080/f.js" data-site="shop" data-include="localhost" data-modules="links"></script>"#
    );
    assert_eq!(sites["sites"][1]["demo"], serde_json::Value::Null);
}

#[tokio::test]
async fn without_kafka_people_can_log_in_and_are_told_nothing_false() {
    let stage = Stage::start(quick(), "http://127.0.0.1:1", Some(NOWHERE)).await;
    let readiness = stage.get("/readyz", None).await;
    assert_eq!(readiness.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(readiness.body.contains("kafka"), "{}", readiness.body);
    let cookie = stage.log_in().await;
    let mut viewer = stage.viewer(&cookie).await;
    viewer.subscribe("demo", None).await;
    viewer.next().await;
    assert_eq!((viewer.page.snapshots, viewer.page.heartbeats), (0, 1));
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_are_shown_to_this_machine_and_through_a_proxy_only_when_public() {
    for (public_metrics, status) in [(false, StatusCode::FORBIDDEN), (true, StatusCode::OK)] {
        let stage = Stage::new(footfall_dashboard::Config { public_metrics, ..quick() }).await;
        assert_eq!(stage.get("/metrics", None).await.status, StatusCode::OK);
        let forwarded = Request::get("/metrics").header("x-forwarded-for", "203.0.113.7");
        assert_eq!(stage.send(forwarded, "").await.status, status);
    }
}
