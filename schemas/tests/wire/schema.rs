//! `json/*.schema.json`: JSON Schema (2020-12) of each wire type, for whoever speaks it from another language.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{path, wires, written::is_current};

fn pretty(json: &Value) -> String {
    serde_json::to_string_pretty(json).unwrap() + "\n"
}

#[test]
fn the_schemas_are_those_of_the_types() {
    for wire in wires() {
        let file = path(&format!("json/{}.schema.json", wire.name));
        is_current(&file, &pretty(&wire.schema.to_value()));
    }
}

/// For tests in other languages: which schema holds for which golden file.
#[test]
fn every_golden_file_has_its_schema() {
    let by_golden: BTreeMap<_, _> = wires()
        .into_iter()
        .flat_map(|wire| wire.golden.iter().map(move |golden| (*golden, wire.name)))
        .collect();
    is_current(&path("json/golden.json"), &pretty(&json!(by_golden)));
}

#[test]
fn no_schema_is_left_of_a_type_that_is_gone() {
    let wires = wires();
    for entry in std::fs::read_dir(path("json")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known =
            name == "golden.json" || wires.iter().any(|wire| name == format!("{}.schema.json", wire.name));
        assert!(known, "json/{name} belongs to no type: delete it");
    }
}
