//! Embeds the tracker script and the demo site, so that one binary serves them.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let script = root.join("tracker/dist/f.js");
    let demo = root.join("tracker/demo");
    println!("cargo::rerun-if-changed=tracker/dist");
    println!("cargo::rerun-if-changed=tracker/demo");

    if !script.is_file() {
        println!(
            "cargo::error=ingest/tracker/dist/f.js is missing: run `make web`, which builds the tracker script"
        );
        return;
    }
    fs::copy(&script, out.join("f.js")).expect("OUT_DIR is writable");

    let mut files = Vec::new();
    collect(&demo, &mut files);
    files.sort();
    let mut table = fs::File::create(out.join("demo.rs")).expect("OUT_DIR is writable");
    writeln!(table, "&[").expect("OUT_DIR is writable");
    for file in files {
        let name = file.strip_prefix(&demo).expect("found below it").to_string_lossy().replace('\\', "/");
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.to_string_lossy())
            .expect("OUT_DIR is writable");
    }
    writeln!(table, "]").expect("OUT_DIR is writable");
}

/// Without a demo directory there is no demo site, and that is no error.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
