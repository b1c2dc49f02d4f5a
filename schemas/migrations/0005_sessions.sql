-- A visitor's sessions: absolute values, the highest version holds, written twice nothing changes. Read with FINAL (the
-- reader's profile sets it). A session's start can move to an earlier time, and one session can turn out to be a part of
-- another (joined); the key holds only what never changes. `start <= opened <= end`: whoever asks for sessions that
-- started after some time may ask for `opened` after it, too, and reads less.
CREATE TABLE IF NOT EXISTS sessions
(
    site           LowCardinality(String),
    session        UInt64,
    visitor        UInt64,
    opened         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    start          DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    end            DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    duration_ms    UInt64,
    entry_path     String CODEC(ZSTD(1)),
    exit_path      String CODEC(ZSTD(1)),
    views          UInt32,
    events         UInt32,
    customs        UInt32,
    engaged_ms     UInt64,
    is_bounce      UInt8,
    referrer_host  LowCardinality(String),
    channel        LowCardinality(String),
    utm_campaign   LowCardinality(String),
    country        LowCardinality(String),
    browser        LowCardinality(String),
    system         LowCardinality(String),
    device         LowCardinality(String),
    joined         UInt64,
    _partition     Int32,
    version        UInt64,
    is_deleted     UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(opened)
ORDER BY (site, toStartOfHour(opened), session)
