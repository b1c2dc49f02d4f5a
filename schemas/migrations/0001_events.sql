-- Every accepted event, once. Found by its id and by its place on Kafka through skip indexes.
CREATE TABLE IF NOT EXISTS events
(
    site           LowCardinality(String),
    event_time     DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id       UUID,
    visitor        UInt64,
    session        UInt64,
    session_start  UInt8,
    kind           LowCardinality(String),
    name           LowCardinality(String),
    host           LowCardinality(String),
    path           String CODEC(ZSTD(1)),
    title          String CODEC(ZSTD(1)),
    referrer       String CODEC(ZSTD(1)),
    referrer_host  LowCardinality(String),
    channel        LowCardinality(String),
    utm_source     LowCardinality(String),
    utm_medium     LowCardinality(String),
    utm_campaign   LowCardinality(String),
    country        LowCardinality(String),
    language       LowCardinality(String),
    time_zone      LowCardinality(String),
    browser        LowCardinality(String),
    system         LowCardinality(String),
    device         LowCardinality(String),
    screen_width   UInt16,
    engaged_ms     UInt32,
    scroll_depth   UInt8,
    page_view      UInt32,
    props          Map(LowCardinality(String), String),
    clock          LowCardinality(String),
    late           UInt8,
    payload_hash   UInt64,
    _topic         LowCardinality(String),
    _partition     Int32,
    _offset        Int64 CODEC(Delta, ZSTD(1)),
    _index         UInt16,
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_offset _offset TYPE minmax GRANULARITY 1,
    INDEX by_received_at received_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (site, event_time, visitor)
-- The engine forgets insert tokens unless told how many to keep.
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
