//! ClickHouse DDL, in order. Each file is one statement and may run twice.

/// One migration.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    pub name: &'static str,
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        /// All migrations in order. Applied ones never change; a change is a new file.
        pub const ALL: &[Migration] = &[$(Migration {
            name: $name,
            sql: include_str!(concat!("../migrations/", $name, ".sql")),
        }),*];
    };
}

migrations![
    "0001_events",
    "0002_rolling_counts",
    "0003_dead_letters",
    "0004_place_and_terms",
    "0005_sessions",
    "0006_alerts",
    "0007_sessions_are_counted_apart",
    "0008_dead_letters_by_offset",
];
