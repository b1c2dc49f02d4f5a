//! `footfall`: one binary, four roles.
fn main() {}
