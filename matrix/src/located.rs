//! A value and its place in the matrix file, so that mistakes can be shown in place.

use std::{
    borrow::{Borrow, Cow},
    ops::Range,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use toml::Spanned;

/// A value and its bytes in the file. Equality and hash use the value alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub(crate) struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// The value.
    pub(crate) fn get(&self) -> &T {
        self.0.get_ref()
    }

    /// Its bytes in the file, quotes included.
    pub(crate) fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl At<String> {
    /// The text.
    pub(crate) fn text(&self) -> &str {
        self.get()
    }
}

/// Looked up by its text: hash and equality use that alone.
impl Borrow<str> for At<String> {
    fn borrow(&self) -> &str {
        self.get()
    }
}

/// The schema ignores the place.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}
