//! `footfall snippet` as an owner of a site runs it.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{path::PathBuf, process::Command};

/// What it says on stdout, or else on stderr.
fn snippet(arguments: &[&str]) -> Result<String, String> {
    let (succeeds, [out, err]) = run(arguments);
    if succeeds { Ok(out) } else { Err(err) }
}

/// Whether it succeeds, and what it says on stdout and stderr.
fn run(arguments: &[&str]) -> (bool, [String; 2]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_footfall")).arg("snippet").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), said)
}

fn settings(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let file = directory.path().join("footfall.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn stdout_is_the_tags_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = settings(
        &directory,
        "[listen]\ningest = \"0.0.0.0:8099\"\n[[sites]]\nkey = \"shop\"\norigins = [\"https://shop.example\"]\n",
    );
    let config = ["--config", file.to_str().unwrap()];
    let own = snippet(&[&["--site", "shop"], &config[..]].concat()).unwrap();
    let tag = r#"<script defer src="http://127.0.0.1:8099/f.js" data-site="shop" data-include="localhost" data-modules="links"></script>"#;
    assert_eq!(own.trim_end(), tag);

    let pinned = ["--site", "shop", "--endpoint", "https://stats.example", "--pin"];
    let pinned = snippet(&[&pinned[..], &config[..]].concat()).unwrap();
    assert!(pinned.starts_with("<script defer src=\"https://stats.example/f."), "{pinned}");
    assert!(pinned.contains(" integrity=\"sha384-") && pinned.lines().count() == 1, "{pinned}");
}

#[test]
fn a_site_that_the_settings_do_not_declare_is_told_with_those_they_do() {
    let directory = tempfile::tempdir().unwrap();
    let origins = "origins = [\"https://shop.example\"]";
    let two = format!("[[sites]]\nkey = \"shop\"\n{origins}\n[[sites]]\nkey = \"blog\"\n{origins}\n");
    for (text, has) in [(two.as_str(), "it has shop, blog"), ("", "it has demo")] {
        let file = settings(&directory, text);
        // It may have been set up in the dashboard.
        let (succeeds, [tag, hint]) = run(&["--site", "shpo", "--config", file.to_str().unwrap()]);
        assert!(succeeds && tag.contains("data-site=\"shpo\""), "{tag}");
        assert!(hint.contains("no site \"shpo\"") && hint.contains(has), "{hint}");
    }
    assert!(snippet(&["--site", "anything"]).is_ok(), "no settings, nothing to hold it against");
}

#[test]
fn without_a_port_to_name_the_endpoint_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = settings(&directory, "[listen]\ningest = \"127.0.0.1:0\"\n");
    let error = snippet(&["--site", "demo", "--config", file.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("--endpoint"), "{error}");
}
