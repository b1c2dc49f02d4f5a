//! Where the samples of a node belong.

use crate::bench::profile::Layers;

pub const LAYERS: Layers = Layers {
    by_name: &[
        (
            "WebSocket and frame loop",
            &[
                "tungstenite",
                "ingest::connection",
                "ingest::frame",
                "ingest::upgrade",
                "ingest::wheel",
                "ingest::transport",
            ],
        ),
        ("limits", &["ingest::limits", "governor"]),
        (
            "enrichment",
            &[
                "ingest::enrich",
                "ingest::agent",
                "ingest::channel",
                "ingest::zones",
                "ingest::visitor",
                "ingest::geo",
            ],
        ),
        ("JSON and validation", &["ingest::validate", "ingest::intake"]),
        (
            "record",
            &[
                "ingest::batcher",
                "ingest::receipt",
                "ingest::run",
                "schemas::record",
                "ingest::log",
                "ingest::spool",
            ],
        ),
        ("presence and ledger", &["ingest::presence", "ingest::sites"]),
        ("metrics", &["opentelemetry", "ingest::metrics"]),
        ("JSON and validation", &["serde", "url::"]),
        ("HTTP", &["hyper", "warp"]),
        ("runtime", &["tokio", "mio", "std::sys", "parking_lot"]),
    ],
    over_kafka: &["record", "metrics", "JSON and validation"],
};
