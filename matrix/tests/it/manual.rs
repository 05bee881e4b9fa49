//! The matrices in the manual are valid, and its tables name every key.

use matrix::schema;
use serde_json::Value;

use crate::folder::Folder;

const README: &str = include_str!("../../README.md");
const FRONT_PAGE: &str = include_str!("../../../README.md");

/// The first TOML block of a page.
fn example(page: &str) -> &str {
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    rest.split_once("```").expect("its end").0
}

#[test]
fn the_examples_of_the_manual_are_valid() {
    let front = Folder::with(example(FRONT_PAGE)).file("hello_1.0_all.deb", "deb").load();
    assert_eq!((front.plan.cells.len(), front.warnings.len()), (3, 0));
    let mut folder = Folder::with(example(README)).file("dist/hello.deb", "deb").file("tests/data/a", "a");
    for script in ["full", "service", "kernel"] {
        folder = folder.file(&format!("tests/{script}.sh"), "true\n");
    }
    let full = folder.load();
    // Four images, three suites, two locales; one image has only one of them.
    assert_eq!((full.plan.cells.len(), full.warnings.len()), (4 * 3 * 2 - 3, 0));
}

#[test]
fn the_manual_names_every_key_of_the_matrix_file() {
    let schema = serde_json::to_value(schema()).expect("JSON");
    let keys = |table: &Value| -> Vec<String> {
        table["properties"].as_object().map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
    };
    let tables = schema["$defs"].as_object().expect("tables").values();
    let all: Vec<String> = tables.chain([&schema]).flat_map(keys).collect();
    assert!(all.len() > 60, "{all:?}");
    let missing: Vec<_> = all.iter().filter(|key| !README.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "not in matrix/README.md: {missing:?}");
}
