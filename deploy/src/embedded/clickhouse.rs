//! The ClickHouse engine as a child process.
