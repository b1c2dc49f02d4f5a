//! SIGHUP: the settings file is read again. What can change in a running node does; what cannot is named; a file with a
//! fault changes nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use footfall_ingest::Config;
use footfall_schemas::directory::Directory;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};
use toml::{Table, Value};
use tracing::{error, info, warn};

use crate::settings::Settings;

/// What a node takes while it runs, with everything below it.
const RELOADED: [&str; 5] = ["sites", "users", "ingest.limits", "ingest.trusted_proxies", "ingest.tls"];
/// But this is built into what exists by then.
const NOT_RELOADED: [&str; 1] = ["ingest.limits.dead_letters_per_site"];

/// Reads the file again when told to.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    /// As it was read last.
    told: Table,
    ingest: watch::Sender<Config>,
    declared: watch::Sender<Directory>,
}

/// What the file says at any time.
#[derive(Debug, Clone)]
pub struct Reloaded {
    pub ingest: watch::Receiver<Config>,
    /// Its sites and users.
    pub declared: watch::Receiver<Directory>,
}

/// Tells a [`Reloader`] to read, from wherever a signal does not come.
pub type Trigger = Arc<Notify>;

impl Reloader {
    /// `file` is what `settings` were read from.
    pub fn new(file: Option<&Path>, settings: &Settings) -> anyhow::Result<Self> {
        let told = file.map(read).transpose()?.map(|(table, _)| table).unwrap_or_default();
        let (ingest, _) = watch::channel(settings.ingest.clone());
        let (declared, _) = watch::channel(settings.declared());
        Ok(Self { file: file.map(Path::to_owned), told, ingest, declared })
    }

    pub fn reloaded(&self) -> Reloaded {
        Reloaded { ingest: self.ingest.subscribe(), declared: self.declared.subscribe() }
    }

    /// Listens for SIGHUP, which would end the process otherwise, until the process ends.
    pub fn spawn(mut self) -> anyhow::Result<Trigger> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let trigger = Trigger::default();
        let triggered = Arc::clone(&trigger);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => {}
                    () = triggered.notified() => {}
                }
                self.reload();
            }
        });
        Ok(trigger)
    }

    fn reload(&mut self) {
        let Some(file) = &self.file else {
            warn!("there is no --config to read again");
            return;
        };
        let (table, settings) = match read(file) {
            Ok(read) => read,
            Err(error) => {
                error!("the settings stay as they were: {error:#}");
                return;
            }
        };
        let fixed = needs_restart(&self.told, &table);
        if !fixed.is_empty() {
            warn!(settings = fixed.join(", "), "changed in the file, but taken at the next start only");
        }
        self.told = table;
        info!(file = %file.display(), "the settings are read again");
        self.declared.send_replace(settings.declared());
        self.ingest.send_replace(settings.ingest);
    }
}

fn read(file: &Path) -> anyhow::Result<(Table, Settings)> {
    let settings = Settings::load(Some(file))?;
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok((text.parse().with_context(|| file.display().to_string())?, settings))
}

/// Keys that differ and that a running node does not take.
fn needs_restart(before: &Table, after: &Table) -> Vec<String> {
    let (before, after) = (flat(before), flat(after));
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .filter(|key| !is_below(key, &RELOADED) || is_below(key, &NOT_RELOADED))
        .cloned()
        .collect()
}

fn is_below(key: &str, prefixes: &[&str]) -> bool {
    prefixes
        .iter()
        .any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Values by their whole key; arrays are values.
fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(below) => {
                values.extend(flat(below).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => drop(values.insert(key.clone(), value.clone())),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::limits("[ingest.limits]\nsockets = 1", &[])]
    #[case::rate("[ingest.limits]\nevents_per_site = { per_second = 1, burst = 300 }", &[])]
    #[case::proxies("[ingest]\ntrusted_proxies = [\"10.0.0.0/8\"]", &[])]
    #[case::site("[[sites]]\nkey = \"a\"\norigins = [\"*\"]", &[])]
    #[case::certificate("[ingest.tls]\nkey = \"b.pem\"", &[])]
    #[case::address("[listen]\ningest = \"127.0.0.1:1\"", &["listen.ingest"])]
    #[case::what_the_name_only_begins_with("[ingest]\nlimits_of_my_own = 1", &["ingest.limits_of_my_own"])]
    #[case::dead_letters("[ingest.limits]\ndead_letters_per_site = { per_second = 1, burst = 1 }", &["ingest.limits.dead_letters_per_site.burst", "ingest.limits.dead_letters_per_site.per_second"])]
    #[case::several("node = \"b\"\n[ingest.timeouts]\nidle_ms = 1\n[ingest.limits]\nsockets = 1", &["ingest.timeouts.idle_ms", "node"])]
    fn what_needs_a_restart_is_named(#[case] after: &str, #[case] expected: &[&str]) {
        let after = after.parse().unwrap();
        assert_eq!(needs_restart(&Table::new(), &after), expected);
        assert_eq!(needs_restart(&after, &Table::new()), expected, "a key that is taken out");
        assert!(needs_restart(&after, &after).is_empty());
    }

    #[test]
    fn a_good_file_is_taken_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("footfall.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("[ingest.limits]\nsockets = 10");
        let settings = Settings::load(Some(&file)).unwrap();
        let mut reloader = Reloader::new(Some(&file), &settings).unwrap();
        let Reloaded { mut ingest, mut declared } = reloader.reloaded();
        for bad in ["[ingest.limits]\nsokets = 20", "[ingest.limits]\nsockets = 20\nconnections = 20", "["] {
            write(bad);
            reloader.reload();
            assert!(!ingest.has_changed().unwrap() && !declared.has_changed().unwrap(), "{bad}");
        }
        write("node = \"b\"\n[ingest.limits]\nsockets = 20\n[[sites]]\nkey = \"a\"\norigins = [\"*\"]");
        reloader.reload();
        assert_eq!(ingest.borrow_and_update().limits.sockets, 20);
        assert!(declared.borrow_and_update().sites.contains_key("a"));
        let again = read(&file).unwrap().0;
        assert!(needs_restart(&reloader.told, &again).is_empty(), "what needs a restart is told once");
    }
}
