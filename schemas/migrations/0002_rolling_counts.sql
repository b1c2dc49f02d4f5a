-- Counts by minute, dimension and value: absolute values per Kafka partition, the highest version holds. Written twice,
-- nothing changes. Read with FINAL (the reader's profile sets it) and add up over partitions.
CREATE TABLE IF NOT EXISTS rolling_counts
(
    site        LowCardinality(String),
    minute      DateTime('UTC'),
    dimension   LowCardinality(String),
    value       String,
    _partition  Int32,
    events      UInt64,
    views       UInt64,
    visitors    UInt64,
    sessions    UInt64,
    engaged_ms  UInt64,
    version     UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(minute)
ORDER BY (site, minute, dimension, value, _partition)
