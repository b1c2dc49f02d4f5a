//! Files that are written from the code: a test fails when one is stale, `make schemas` writes it anew.

use std::{fs, path::Path};

/// Compares, or writes where `FOOTFALL_WRITE` is set.
pub(crate) fn is_current(file: &Path, text: &str) {
    if std::env::var_os("FOOTFALL_WRITE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    assert!(found == text, "{} is stale: run `make schemas` and commit what it writes", file.display());
}
