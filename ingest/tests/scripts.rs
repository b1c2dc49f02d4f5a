//! The tracker's scripts as browsers get them.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use footfall_ingest::scripts;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_is_served_by_its_name_for_an_hour_and_by_its_hash_for_ever() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    for script in scripts() {
        for (path, cache) in [
            (&script.path, "public, max-age=3600"),
            (&script.pinned_path, "public, max-age=31536000, immutable"),
        ] {
            let got = ingest.get(path).await;
            assert_eq!((got.status, got.headers["cache-control"].as_str()), (200, cache));
            assert_eq!(got.headers["content-length"], got.body.len().to_string());
            for (name, value) in [
                ("content-type", "text/javascript; charset=utf-8"),
                ("vary", "Accept-Encoding"),
                ("access-control-allow-origin", "*"),
                ("cross-origin-resource-policy", "cross-origin"),
                ("timing-allow-origin", "*"),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(got.headers[name], value);
            }

            let head = http(ingest.address, "HEAD", path, &[], b"").await;
            assert_eq!((head.status, head.body.as_str()), (200, ""));
            assert_eq!(head.headers["content-length"], got.headers["content-length"]);

            let etag = [("if-none-match", got.headers["etag"].as_str())];
            let again = http(ingest.address, "GET", path, &etag, b"").await;
            assert_eq!((again.status, again.body.as_str()), (304, ""));
            assert_eq!(again.headers["cache-control"], cache, "good for as long again");
        }
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_brotli_and_what_it_knows_of_another_encoding_does_not_count() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let accepted = ("accept-encoding", "gzip, deflate, br, zstd");
    let plain = ingest.get("/f.js").await;
    let packed = http(ingest.address, "GET", "/f.js", &[accepted], b"").await;
    assert_eq!(packed.headers["content-encoding"], "br");
    assert!(!plain.headers.contains_key("content-encoding"));
    let length = |answer: &Answer| answer.headers["content-length"].parse::<usize>().unwrap();
    assert!(length(&packed) * 3 < length(&plain) * 2);
    for (known, status) in [(&plain, 200), (&packed, 304)] {
        let etag = ("if-none-match", known.headers["etag"].as_str());
        assert_eq!(http(ingest.address, "GET", "/f.js", &[accepted, etag], b"").await.status, status);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_of_another_version_says_what_to_use() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let gone = ingest.get("/f.0123456789abcdef.js").await;
    assert_eq!((gone.status, gone.headers["cache-control"].as_str()), (404, "no-store"));
    assert!(gone.body.contains("/f.js"), "{}", gone.body);
    for nothing in ["/f-nothing.js", "/f.js.br", "/f.0123.js"] {
        assert_eq!(ingest.get(nothing).await.status, 404, "{nothing}");
    }
    assert_eq!(http(ingest.address, "POST", "/f.js", &[], b"").await.status, 405);
    ingest.stop().await;
}
