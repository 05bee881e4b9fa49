//! Values that are text in files.

/// `TryFrom<String>` by `FromStr`, and `String` by `Display`: serde reads and writes such a value with these.
macro_rules! written_as_text {
    ($value:ty) => {
        impl TryFrom<String> for $value {
            type Error = <Self as std::str::FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$value> for String {
            fn from(value: $value) -> Self {
                value.to_string()
            }
        }
    };
}
