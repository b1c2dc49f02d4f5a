//! Where the samples of the dashboard belong.

use crate::bench::profile::Layers;

pub const LAYERS: Layers = Layers {
    by_name: &[
        ("WebSocket", &["tungstenite"]),
        ("feed and merge", &["dashboard::feed", "dashboard::hub", "dashboard::view", "dashboard::presence"]),
        ("metrics", &["opentelemetry", "dashboard::metrics"]),
        ("subscriber loop", &["dashboard::subscriber"]),
        ("HTTP", &["hyper", "warp"]),
        ("runtime", &["tokio", "mio", "std::sys", "parking_lot"]),
    ],
    over_kafka: &["feed and merge"],
};
