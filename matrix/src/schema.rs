//! The matrix file's JSON Schema, for editors: generated from the types that parse it.

use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform},
};
use serde_json::Value;

use crate::file::MatrixFile;

/// JSON Schema of the matrix file (draft 2020-12).
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<MatrixFile>();
    RecursiveTransform(without_null).transform(&mut schema);
    schema
}

/// TOML has no null: an optional key is left out, never null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &mut types[..] {
            let only = only.take();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = &mut choices[..] {
            let only = std::mem::take(only);
            object.remove("anyOf");
            // Keeps the description of the field itself.
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}
