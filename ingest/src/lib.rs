//! footfall-ingest
