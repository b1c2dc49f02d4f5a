//! footfall-aggregator
