//! Names of cells: readable, stable, and safe as one path component and as a command-line argument.
//!
//! A name never depends on the other cells of the plan, so leaving a cell out renames no other one. Unchanged text can be read
//! back unambiguously (a value cannot contain `=`, an axis name no dot); changed text carries a digest of the original.

use crate::{CellId, Digest};

/// Maximum length of an id, in bytes (all ASCII). File systems take 255; suffixes of an id must fit, too.
const MAX_ID_LEN: usize = 120;

/// The text is not the id of a cell.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a cell: expected 1 to {MAX_ID_LEN} of `A-Z a-z 0-9 . _ = + -`, not beginning with `.` or `-`")]
pub struct CellIdParseError(String);

impl CellId {
    /// The id of the cell of this image, suite and axes.
    pub(crate) fn new<'a>(image: &str, suite: &str, axes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let mut text = String::with_capacity(48);
        push_clean(&mut text, image);
        text.push('.');
        push_clean(&mut text, suite);
        let mut clean = is_clean(image) && is_clean(suite);
        for (name, value) in axes.clone() {
            text.push('.');
            push_clean(&mut text, name);
            text.push('=');
            push_clean(&mut text, value);
            clean &= is_clean(value);
        }
        if text.starts_with(['.', '-']) {
            text.replace_range(..1, "_");
            clean = false;
        }
        if !clean || text.len() > MAX_ID_LEN {
            // NUL occurs in no name, so it separates the parts.
            let parts = axes.flat_map(|(name, value)| [name, value]);
            let original = [image, suite].into_iter().chain(parts).collect::<Vec<_>>().join("\0");
            let digest = Digest::of(original.as_bytes()).short();
            text.truncate(MAX_ID_LEN - 1 - digest.len());
            text.push('-');
            text.push_str(&digest);
        }
        Self(text)
    }
}

/// True for characters that may appear in an id. `=` is reserved for the id itself.
fn is_own(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

fn is_clean(text: &str) -> bool {
    text.chars().all(is_own)
}

fn push_clean(id: &mut String, text: &str) {
    id.extend(text.chars().map(|c| if is_own(c) { c } else { '-' }));
}

impl TryFrom<String> for CellId {
    type Error = CellIdParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let safe = !text.is_empty()
            && text.len() <= MAX_ID_LEN
            && !text.starts_with(['.', '-'])
            && text.chars().all(|c| is_own(c) || c == '=');
        if safe { Ok(Self(text)) } else { Err(CellIdParseError(text)) }
    }
}

impl From<CellId> for String {
    fn from(id: CellId) -> Self {
        id.0
    }
}
