//! Checks text: names, environment variables, globs, paths in a guest.

use globset::{Glob, GlobMatcher};

use crate::{error::Mistakes, located::At};

/// Maximum length of a name: it appears in tables, file names and host names.
const MAX_NAME_LEN: usize = 100;
/// Maximum length of a package name for a guest, in bytes.
const MAX_PACKAGE_LEN: usize = 250;

/// Maximum length of a glob over names, in bytes.
const MAX_GLOB_LEN: usize = 1000;
/// Maximum length of a path, in bytes: Linux opens no longer one.
pub(crate) const MAX_PATH_LEN: usize = 4095;

/// Checks a name that people read in a table: not empty, no control characters, no blanks at its ends.
pub(crate) fn check_name(at: &At<String>, what: &str, mistakes: &mut Mistakes) {
    let name = at.text();
    let problem = if name.is_empty() {
        mistakes.at(at.span(), format!("the {what} has an empty name"), "empty").with_help("give it a name")
    } else if name.chars().any(char::is_control) || name.trim() != name {
        mistakes
            .at(at.span(), format!("{name:?} cannot name the {what}"), "not a name")
            .with_help("a name has no line breaks or other control characters, and no blanks at its ends")
    } else if name.chars().count() > MAX_NAME_LEN {
        mistakes
            .at(at.span(), format!("the name of the {what} is too long"), "too long")
            .with_help(format!("a name has at most {MAX_NAME_LEN} characters"))
    } else {
        return;
    };
    mistakes.push(problem);
}

/// Checks text for a script or a kernel: no NUL, which would end it.
pub(crate) fn check_no_nul(at: &At<String>, mistakes: &mut Mistakes) {
    if at.text().contains('\0') {
        mistakes.push(
            mistakes
                .at(at.span(), "the value holds a NUL character", "holds NUL")
                .with_help("remove the NUL (`\\u0000`)"),
        );
    }
}

/// A letter or `_`, then letters, digits and `_` (all ASCII): the name of an axis or of an environment variable.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// True for the name of a package as the package managers of guests accept it, including a version or an architecture
/// (`gcc:i386`, `gcc=12.2`). Never anything that could be read as an option.
pub(crate) fn is_package(text: &str) -> bool {
    text.len() <= MAX_PACKAGE_LEN
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+._:=~-".contains(c))
}

/// A glob over names of images, suites and cells, and values of axes: `Err` has the mistake.
pub(crate) fn name_glob(text: &str) -> Result<GlobMatcher, String> {
    // The library panics at globs that are too large for its regular expressions.
    if text.len() > MAX_GLOB_LEN {
        return Err(format!("it has {} bytes, the limit is {MAX_GLOB_LEN}", text.len()));
    }
    Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

/// Checks an absolute path or glob in a guest: `Err` has the mistake and the remedy.
pub(crate) fn guest_glob(text: &str) -> Result<(), (String, String)> {
    let example = "write an absolute path or glob, for example `/var/log/hello*.log`";
    if !text.starts_with('/') || text == "/" {
        return Err((format!("`{text}` is not an absolute path in the guest"), example.into()));
    }
    if text.len() > MAX_PATH_LEN {
        return Err((format!("the path has {} bytes, the limit is {MAX_PATH_LEN}", text.len()), example.into()));
    }
    if text.chars().any(char::is_control) {
        return Err((format!("{text:?} holds control characters"), example.into()));
    }
    if text.split('/').any(|part| part == "..") {
        return Err((format!("`{text}` goes up with `..`"), "write the path without `..`".into()));
    }
    glob::Pattern::new(text)
        .map(drop)
        .map_err(|error| (format!("`{text}` is not a glob: {}", error.msg), GLOB_HELP.into()))
}

/// The remedy for a bad glob.
pub(crate) const GLOB_HELP: &str = "`*` and `?` match within a name, `**` any folders (alone between slashes), `[a-c]` one of these; write `[[]` for a plain `[`";
