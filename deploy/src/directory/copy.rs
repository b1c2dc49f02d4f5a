//! A copy of the directory: one entry a line, as JSON. It holds hashes of passwords and the sites' secrets.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use anyhow::{Context, bail};
use footfall_schemas::directory::Directory;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An entry as a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// `kind/id`
    pub key: String,
    pub value: Value,
}

/// What is declared is left out: the settings file has it. Returns how many entries were written.
pub fn write_copy(directory: &Directory, mut to: impl Write) -> io::Result<usize> {
    let mut count = 0;
    for entry in directory.entries() {
        let line = Line { key: entry.key(), value: entry.value() };
        serde_json::to_writer(&mut to, &line)?;
        to.write_all(b"\n")?;
        count += 1;
    }
    to.flush()?;
    Ok(count)
}

/// The entries of a copy. The error names the first line that is none.
pub fn read_copy(text: &str) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut keys = BTreeSet::new();
    let mut directory = Directory::default();
    for (number, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let line: Line = serde_json::from_str(text).with_context(|| format!("line {number}"))?;
        if !keys.insert(line.key.clone()) {
            bail!("line {number}: {} is there twice", line.key);
        }
        let value = line.value.to_string();
        directory.apply(&line.key, Some(value.as_bytes())).with_context(|| format!("line {number}"))?;
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const SHOP: &str = r#"{"key":"site/shop","value":{"key":"shop","origins":["*"]}}"#;

    #[test]
    fn a_copy_is_read_as_it_was_written_without_what_is_declared() {
        let written = json!({"key": "declared", "origins": ["*"]});
        let site = serde_json::from_value(written.clone()).unwrap();
        let mut directory = Directory::declaring([(site, written)]);
        let records = [
            ("site/shop", json!({"key": "shop", "origins": ["*"], "secret": "5a".repeat(32)})),
            (
                "user/ada",
                json!({"password": "$", "grants": {"*": "owner"}, "sessions_since": 7, "created_at": 8}),
            ),
            ("revoked/x", json!({"until": 9})),
        ];
        for (key, value) in &records {
            directory.apply(key, Some(value.to_string().as_bytes())).unwrap();
        }
        let mut copy = Vec::new();
        assert_eq!(write_copy(&directory, &mut copy).unwrap(), 3);
        let lines = read_copy(str::from_utf8(&copy).unwrap()).unwrap();
        let expected = records.map(|(key, value)| Line { key: key.to_owned(), value });
        assert_eq!(lines, expected);
    }

    #[rstest]
    #[case::no_json("{", "line 2: EOF")]
    #[case::no_entry("[]", "line 2: ")]
    #[case::more_than_an_entry(
        r#"{"key":"revoked/a","value":{"until":1},"at":2}"#,
        "line 2: unknown field `at`"
    )]
    #[case::of_another_version(r#"{"key":"team/a","value":{}}"#, "line 2: \"team/a\" is no key")]
    #[case::no_site(
        r#"{"key":"site/blog","value":{"key":"blog","origins":[]}}"#,
        "line 2: site/blog: origins"
    )]
    #[case::a_removal(r#"{"key":"user/ada","value":null}"#, "line 2: user/ada")]
    #[case::twice(SHOP, "line 2: site/shop is there twice")]
    fn a_line_that_is_none_is_named(#[case] line: &str, #[case] told: &str) {
        let error = format!("{:#}", read_copy(&format!("{SHOP}\n{line}\n")).unwrap_err());
        assert!(error.contains(told), "{error}");
    }
}
