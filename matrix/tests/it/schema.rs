//! The JSON Schema for editors.

use serde_json::Value;

#[test]
fn the_schema_knows_every_key_and_forbids_others() {
    let schema = matrix::schema().to_value();
    let keys =
        |table: &Value| table["properties"].as_object().expect("a table").keys().cloned().collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(keys(&schema), @"axes exclude guest image images include network package repository runner suite timeout");
    insta::assert_snapshot!(keys(&schema["$defs"]["SuiteTable"]), @"artifacts boot dependencies env files guest identity inline install name reboot results run steps timeout");
    insta::assert_snapshot!(keys(&schema["$defs"]["ImageTable"]), @"arch dependencies digest family firmware from guest install kernel_args login name path prepare rootfs url");
    insta::assert_snapshot!(keys(&schema["$defs"]["PrepareTable"]), @"inline network packages run timeout");
    insta::assert_snapshot!(keys(&schema["$defs"]["GuestTable"]), @"cpus disk disks firmware memory network nics tpm");
    insta::assert_snapshot!(keys(&schema["$defs"]["NetworkTable"]), @"allow private unexpected");
    insta::assert_snapshot!(keys(&schema["$defs"]["RepositoryTable"]), @"apk deb images key name pacman pkg rpm");
    insta::assert_snapshot!(keys(&schema["$defs"]["DiskTable"]), @"interface serial size");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["$defs"]["SuiteTable"]["required"], serde_json::json!(["name"]));
}

#[test]
fn the_schema_has_no_null_because_toml_has_none() {
    assert!(!matrix::schema().to_value().to_string().contains("null"));
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn check(path: &str, schema: &Value) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            assert!(value["description"].is_string(), "{path}.{key}");
        }
    }
    let schema = matrix::schema().to_value();
    check("", &schema);
    for (name, table) in schema["$defs"].as_object().expect("tables") {
        check(name, table);
    }
}
