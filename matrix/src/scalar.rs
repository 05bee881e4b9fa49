//! Values with more than one notation: axis values, sizes, durations, one-or-several.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::{DiskInterface, InstallFrom, located::At};

/// Text; whole numbers and booleans are taken as their text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Truth(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

struct ScalarVisitor(&'static str);

impl de::Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar::Truth(truth))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor("a string, a whole number, true or false"))
    }
}

/// A size: a whole number and `KiB`, `MiB`, `GiB` or `TiB`.
// A bare number is accepted, too, so that the error can name the missing unit.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(transparent, extend("examples" = ["512MiB", "2GiB"], "pattern" = "^[0-9]+ *[KMGT]iB$"))]
pub(crate) struct SizeText(pub(crate) String);

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor("a size such as \"512MiB\"")).map(|scalar| Self(scalar.to_string()))
    }
}

/// Whether a suite has the package installed, or how.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum SuiteInstall {
    /// Whether.
    Whether(bool),
    /// How.
    From(InstallFrom),
}

impl SuiteInstall {
    /// Whether it is; `None`: as usual.
    pub(crate) fn whether(self) -> Option<bool> {
        match self {
            Self::Whether(whether) => Some(whether),
            Self::From(_) => None,
        }
    }

    /// How, if that is said.
    pub(crate) fn from(self) -> Option<InstallFrom> {
        match self {
            Self::Whether(_) => None,
            Self::From(from) => Some(from),
        }
    }
}

impl<'de> Deserialize<'de> for SuiteInstall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "true, false, \"file\" or \"repository\"";
        match deserializer.deserialize_any(ScalarVisitor(EXPECTED))? {
            Scalar::Truth(whether) => Ok(Self::Whether(whether)),
            Scalar::Text(text) if text == "file" => Ok(Self::From(InstallFrom::File)),
            Scalar::Text(text) if text == "repository" => Ok(Self::From(InstallFrom::Repository)),
            Scalar::Text(text) => Err(de::Error::invalid_value(de::Unexpected::Str(&text), &EXPECTED)),
            Scalar::Integer(number) => Err(de::Error::invalid_value(de::Unexpected::Signed(number), &EXPECTED)),
        }
    }
}

/// A disk besides the root disk, empty.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskTable {
    /// Its size, at least 1MiB. Only what is written takes room.
    pub(crate) size: At<SizeText>,
    /// The serial number that the guest recognizes it by (`/sys/class/block/*/serial`): at most 20 letters, digits, `-` and `_`;
    /// default: `disk-1` for the first one, and so on.
    pub(crate) serial: Option<At<String>>,
    /// The bus it is attached to; default: virtio.
    #[serde(default)]
    pub(crate) interface: DiskInterface,
}

/// A disk: its size, or a table with more keys.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum DiskEntry {
    /// Its size.
    Size(SizeText),
    /// Its size and more.
    Table(Box<DiskTable>),
}

impl<'de> Deserialize<'de> for DiskEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = DiskEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"10GiB\", or a table such as { size = \"1GiB\", serial = \"data\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DiskEntry, E> {
                Ok(DiskEntry::Size(SizeText(text.to_owned())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<DiskEntry, E> {
                Ok(DiskEntry::Size(SizeText(number.to_string())))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<DiskEntry, A::Error> {
                let table = DiskTable::deserialize(de::value::MapAccessDeserializer::new(table));
                table.map(|table| DiskEntry::Table(Box::new(table)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A duration: numbers and units, such as `90s`, `3m` or `1h30m`.
// A bare number is accepted, too, so that the error can name the missing unit.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(transparent, extend("examples" = ["90s", "3m", "1h30m"]))]
pub(crate) struct DurationText(pub(crate) String);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor("a duration such as \"3m\"")).map(|scalar| Self(scalar.to_string()))
    }
}

/// One value, or a list of values, any of which matches.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum OneOrMany {
    /// One value.
    One(Scalar),
    /// Any of these values.
    Many(Vec<At<Scalar>>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(Scalar::Text(text.to_owned())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(Scalar::Integer(number)))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(Scalar::Truth(truth)))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
