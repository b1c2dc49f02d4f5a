-- The audit counts dead letters by their place on Kafka.
ALTER TABLE dead_letters ADD INDEX IF NOT EXISTS by_offset _offset TYPE minmax GRANULARITY 1
