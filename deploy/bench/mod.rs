//! What the benches of the crates share: processes, what Linux tells of them, and the file with the tables. Each takes
//! it in by its path.
#![allow(dead_code, reason = "each bench uses a part")]

pub mod machine;
pub mod process;
pub mod profile;
pub mod report;
pub mod wire;
