//! Embeds the page: writes a table of the files under `web/dist` for `src/assets.rs` to include.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const MISSING: &str =
    "the dashboard's page is not built (no dashboard/web/dist/index.html): run `make web` first";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("web/dist");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("assets.rs");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    if !files.iter().any(|file| file == &root.join("index.html")) {
        // What people run must not go out without its page; tests of the server do not need it.
        assert!(env::var("PROFILE").is_ok_and(|profile| profile != "release"), "{MISSING}");
        println!("cargo:warning={MISSING}");
    }

    let mut table = String::from("&[\n");
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        let path = file
            .strip_prefix(&root)
            .expect("found below it")
            .to_str()
            .expect("the bundler writes UTF-8 names");
        let path = path.replace('\\', "/");
        table += &format!("    ({path:?}, include_bytes!({:?})),\n", file.to_str().expect("as above"));
    }
    table += "]\n";
    // Written only when it changed, so that a rebuild of the same page rebuilds nothing else.
    if fs::read_to_string(&out).ok().as_deref() != Some(&table) {
        fs::write(&out, table).expect("OUT_DIR is writable");
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_none_or(|extension| extension != "map") {
            files.push(path);
        }
    }
}
