-- Rules that fired. The newest version of a firing holds (FINAL); `resolved_at` is null while it is open.
CREATE TABLE IF NOT EXISTS alerts
(
    site         LowCardinality(String),
    rule         LowCardinality(String),
    opened_at    DateTime64(3, 'UTC'),
    resolved_at  Nullable(DateTime64(3, 'UTC')),
    kind         LowCardinality(String),
    value        Float64,
    threshold    Float64,
    text         String,
    id           UUID,
    version      UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(opened_at)
ORDER BY (site, rule, opened_at)
