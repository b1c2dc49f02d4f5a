//! Embeds the tracker's scripts and the demo site, so that one binary serves them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let scripts = root.join("tracker/dist");
    let demo = root.join("tracker/demo");
    println!("cargo::rerun-if-changed=tracker/dist");
    println!("cargo::rerun-if-changed=tracker/demo");

    let names = script_names(&scripts);
    let encodings = |name: &String| ["", ".br", ".gz"].map(|encoding| format!("{name}.js{encoding}"));
    let core = "f".to_owned();
    let mut needed = names.iter().chain([&core]).flat_map(encodings);
    if let Some(missing) = needed.find(|file| !scripts.join(file).is_file()) {
        println!(
            "cargo::error=ingest/tracker/dist/{missing} is missing: run `make web`, which builds the tracker's scripts"
        );
        return;
    }
    let rows = names.iter().map(|name| {
        let [plain, brotli, gzip] = encodings(name).map(|file| include(&scripts.join(file)));
        format!("Script::new({name:?}, {plain}, {brotli}, {gzip})")
    });
    write_list(&out.join("scripts.rs"), rows);

    let mut files = Vec::new();
    collect(&demo, &mut files);
    files.sort();
    let rows = files.iter().map(|file| {
        let name = file.strip_prefix(&demo).expect("found below it").to_string_lossy().replace('\\', "/");
        format!("({name:?}, {})", include(file))
    });
    write_list(&out.join("demo.rs"), rows);
}

/// `f` and the modules `f-NAME` that the tracker's build made, sorted: the core first.
fn script_names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = files.filter_map(|file| file.strip_suffix(".js").map(str::to_owned)).collect();
    names.sort();
    names
}

fn include(file: &Path) -> String {
    format!("include_bytes!({:?})", file.to_string_lossy())
}

fn write_list(file: &Path, rows: impl Iterator<Item = String>) {
    let rows: String = rows.map(|row| format!("    {row},\n")).collect();
    fs::write(file, format!("[\n{rows}]\n")).expect("OUT_DIR is writable");
}

/// Without a demo directory there is no demo site, and that is no error.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
