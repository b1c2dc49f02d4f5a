//! Footfall's binary as a library, so that its tests can start the same parts: settings, roles, the
//! embedded broker and engine, load and audit.

pub mod embedded;
