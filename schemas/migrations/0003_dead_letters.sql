-- What was refused, with its reason. Keyed by its place on Kafka: written twice it is still one (FINAL).
CREATE TABLE IF NOT EXISTS dead_letters
(
    site         String,
    received_at  DateTime64(3, 'UTC'),
    stage        LowCardinality(String),
    reason       LowCardinality(String),
    detail       String,
    event_id     UUID,
    payload      String CODEC(ZSTD(1)),
    _topic       LowCardinality(String),
    _partition   Int32,
    _offset      Int64,
    _index       UInt16
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (site, received_at, _topic, _partition, _offset, _index)
