//! footfall-dashboard
