//! Text -> [`MatrixFile`], with errors a person can act on.
//!
//! The TOML deserializer stops at the first unknown key or value. A file may have several: each is reported, its key is removed,
//! and the rest is read again.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use serde::Deserialize as _;

use crate::{
    error::{MAX_REPORTED, Mistakes, Problem},
    file::MatrixFile,
    near,
    snippet::Source,
};

/// The file, if its shape allows one. Unknown keys and values are reported in `mistakes`, and do not prevent the result.
pub(crate) fn parse(mistakes: &mut Mistakes) -> Option<MatrixFile> {
    let source = mistakes.source().clone();
    let (mut document, syntax_errors) = DeTable::parse_recoverable(source.text());
    if !syntax_errors.is_empty() {
        for error in syntax_errors.into_iter().take(MAX_REPORTED) {
            mistakes.push(syntax_problem(&source, &error));
        }
        return None;
    }
    loop {
        let error = match MatrixFile::deserialize(Deserializer::from(document.clone())) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let is_unknown = ["unknown field", "unknown variant"].iter().any(|words| error.message().starts_with(words));
        let unknown = error.span().filter(|_| is_unknown);
        mistakes.push(shape_problem(&source, &error));
        // Each round removes a key, so this ends; the number of reported mistakes is far below the number of keys.
        if mistakes.is_full() || !unknown.is_some_and(|span| remove_key(document.get_mut(), &span)) {
            return None;
        }
    }
}

/// Removes the key with these bytes, or whose value has them, from its table; `false` if there is none.
fn remove_key(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let there = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    let key = there.map(|(key, _)| key.get_ref().clone());
    match key {
        Some(key) => table.remove(key.as_ref()).is_some(),
        None => table.iter_mut().any(|(_, value)| remove_key_below(value, span)),
    }
}

fn remove_key_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_key(table, span),
        DeValue::Array(array) => array.iter_mut().any(|value| remove_key_below(value, span)),
        _ => false,
    }
}

fn syntax_problem(source: &Source, error: &toml::de::Error) -> Problem {
    let problem = Problem::at(source, error.span().unwrap_or(0..0), one_line(error.message()), "here");
    if error.message().contains("duplicate key") {
        problem.with_help("a table has each key once: remove one of the two, or begin a new `[[...]]` table")
    } else {
        problem
            .with_help("the file is TOML: text in quotes, lists in [ ], tables in { } on one line; see https://toml.io")
    }
}

fn shape_problem(source: &Source, error: &toml::de::Error) -> Problem {
    let message = one_line(error.message());
    let span = error.span().unwrap_or(0..0);
    // serde words these messages the same for every format, and offers no other access to them.
    let (found, expected) = message.split_once(", expected ").unwrap_or((&message, ""));
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let choices = quoted(expected);
    if let Some(key) = found.strip_prefix("unknown field ").map(|key| key.trim_matches('`')) {
        let mut known = choices.clone();
        known.sort();
        let problem = Problem::at(source, span, format!("unknown key `{key}`"), "unknown key");
        return problem.with_help(near::help(key, &choices, &format!("known keys: {}", known.join(", "))));
    }
    if let Some(value) = found.strip_prefix("unknown variant ").map(|value| value.trim_matches('`')) {
        let problem = Problem::at(source, span, format!("invalid value `{value}`"), "invalid value");
        return problem.with_help(near::help(value, &choices, &format!("valid values: {}", choices.join(", "))));
    }
    if let Some(key) = found.strip_prefix("missing field ").map(|key| key.trim_matches('`')) {
        let problem = Problem::at(source, span, format!("missing key `{key}`"), "in this table");
        return problem.with_help(format!("add `{key} = ...` to this table"));
    }
    let is_images_table = source.text().get(span.clone()) == Some("[[images]]");
    let problem = Problem::at(source, span, message.clone(), "wrong type");
    if is_images_table {
        problem.with_help("`images` is a list of names; the table of one image is `[[image]]`")
    } else if expected.is_empty() {
        problem.with_help("`nestmatrix schema` prints all keys and their types")
    } else {
        problem.with_help(format!("write {expected} here"))
    }
}

/// The message on one line, in TOML's words.
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line
        .replace("invalid type: map", "invalid type: table")
        .replace("invalid type: sequence", "invalid type: list");
    line.replace("expected a map", "expected a table").replace("expected a sequence", "expected a list")
}
