//! footfall-schemas
