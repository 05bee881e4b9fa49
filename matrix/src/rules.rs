//! Axes, and the rules that take cells out of their product (`[[exclude]]`) or add cells to it (`[[include]]`).

use std::{collections::HashSet, ops::Range};

use globset::{Glob, GlobMatcher};
use indexmap::{IndexMap, IndexSet};

use crate::{
    error::Mistakes,
    located::At,
    near,
    scalar::{OneOrMany, Scalar},
    text::{self, GLOB_HELP},
};

/// What a rule may speak of.
pub(crate) struct Dimensions<'a> {
    pub(crate) images: &'a [&'a str],
    pub(crate) suites: &'a [&'a str],
    pub(crate) axes: &'a IndexMap<String, Vec<String>>,
}

impl Dimensions<'_> {
    /// Checks the key of a rule.
    fn check_key(&self, key: &At<String>, mistakes: &mut Mistakes) -> bool {
        let own = ["image", "suite"];
        if own.contains(&key.text()) || self.axes.contains_key(key.text()) {
            return true;
        }
        let known: Vec<_> = own.into_iter().chain(self.axes.keys().map(String::as_str)).collect();
        let help = near::help(key.text(), &known, &format!("this matrix has {}", known.join(", ")));
        let message = format!("unknown axis `{}`", key.text());
        mistakes.push(mistakes.at(key.span(), message, "neither `image` nor `suite` nor an axis").with_help(help));
        false
    }

    /// The position of this image or suite, or a mistake.
    fn position(&self, key: &str, name: &str, span: Range<usize>, mistakes: &mut Mistakes) -> Option<usize> {
        let known = if key == "image" { self.images } else { self.suites };
        let position = known.iter().position(|known| *known == name);
        if position.is_none() {
            let help = near::help(name, known, &format!("this matrix has {}", known.join(", ")));
            mistakes.push(
                mistakes.at(span, format!("no {key} of this matrix is named `{name}`"), "unknown").with_help(help),
            );
        }
        position
    }
}

/// The axes, checked: name -> values, in the order of the file.
pub(crate) fn axes(
    file: &IndexMap<At<String>, At<Vec<At<Scalar>>>>,
    mistakes: &mut Mistakes,
) -> IndexMap<String, Vec<String>> {
    let mut axes = IndexMap::new();
    let mut variables = HashSet::new();
    for (name, list) in file {
        check_axis_name(name, &mut variables, mistakes);
        if list.get().is_empty() {
            mistakes.push(
                mistakes
                    .at(
                        list.span(),
                        format!("the axis `{}` has no values, so the matrix has no cells", name.text()),
                        "empty",
                    )
                    .with_help("give it at least one value, or remove it"),
            );
        }
        let mut values: IndexSet<String> = IndexSet::new();
        for value in list.get() {
            let text = value.get().to_string();
            if text.chars().any(char::is_control) {
                let problem =
                    mistakes.at(value.span(), format!("{text:?} cannot be a value of an axis"), "control characters");
                mistakes
                    .push(problem.with_help("values are names in reports: no line breaks or other control characters"));
            }
            if !values.insert(text) {
                let message = format!("the axis `{}` has the value `{}` twice", name.text(), value.get());
                mistakes.push(mistakes.at(value.span(), message, "again").with_help("remove one of the two"));
            }
        }
        axes.insert(name.text().to_owned(), values.into_iter().collect());
    }
    axes
}

/// Axes become variables of templates and, in capitals, of the script's environment.
fn check_axis_name(name: &At<String>, variables: &mut HashSet<String>, mistakes: &mut Mistakes) {
    let text = name.text();
    let problem = if ["image", "suite"].contains(&text) {
        mistakes
            .at(name.span(), format!("an axis cannot be named `{text}`"), "taken")
            .with_help(format!("every cell has its {text} anyway; choose another name"))
    } else if !text::is_identifier(text) {
        mistakes
            .at(name.span(), format!("{text:?} cannot name an axis"), "not an axis name")
            .with_help("use letters, digits and `_`, not beginning with a digit")
    } else if !variables.insert(text.to_ascii_uppercase()) {
        mistakes
            .at(name.span(), format!("the axis `{text}` differs from another one only in capitals"), "too like another")
            .with_help("the script sees both as one environment variable: rename one")
    } else {
        return;
    };
    mistakes.push(problem);
}

/// Cells to leave out: those that match every condition.
pub(crate) struct Exclude {
    /// The rule in the file.
    pub(crate) span: Range<usize>,
    /// One entry per image of the matrix: it matches.
    pub(crate) images: Vec<bool>,
    /// One entry per suite.
    pub(crate) suites: Vec<bool>,
    /// For every axis, one entry per value.
    pub(crate) axes: Vec<Vec<bool>>,
}

/// The excludes, checked, and matched against every value once: what is left to do per cell is a look-up.
pub(crate) fn excludes(
    file: &[At<IndexMap<At<String>, At<OneOrMany>>>],
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Exclude> {
    file.iter().filter_map(|rule| exclude(rule, dimensions, mistakes)).collect()
}

fn exclude(
    rule: &At<IndexMap<At<String>, At<OneOrMany>>>,
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Option<Exclude> {
    if rule.get().is_empty() {
        mistakes.push(
            mistakes
                .at(rule.span(), "an exclude without a condition leaves out every cell", "empty")
                .with_help("add `image`, `suite` or an axis, or remove it"),
        );
        return None;
    }
    let mut exclude = Exclude {
        span: rule.span(),
        images: vec![true; dimensions.images.len()],
        suites: vec![true; dimensions.suites.len()],
        axes: dimensions.axes.values().map(|values| vec![true; values.len()]).collect(),
    };
    for (key, value) in rule.get() {
        if !dimensions.check_key(key, mistakes) {
            continue;
        }
        let patterns = match value.get() {
            OneOrMany::One(one) => vec![(one.to_string(), value.span())],
            OneOrMany::Many(many) => many.iter().map(|one| (one.get().to_string(), one.span())).collect(),
        };
        let mut matchers = Vec::new();
        for (pattern, span) in patterns {
            if matches!(key.text(), "image" | "suite") && !pattern.contains(['*', '?', '[', '{', '\\']) {
                dimensions.position(key.text(), &pattern, span.clone(), mistakes);
            }
            matchers.extend(Matcher::new(pattern, span, mistakes));
        }
        let matched = |value: &str| matchers.iter().any(|matcher| matcher.is_match(value));
        match key.text() {
            "image" => exclude.images = dimensions.images.iter().map(|image| matched(image)).collect(),
            "suite" => exclude.suites = dimensions.suites.iter().map(|suite| matched(suite)).collect(),
            axis => {
                if let Some((index, _, values)) = dimensions.axes.get_full(axis) {
                    exclude.axes[index] = values.iter().map(|value| matched(value)).collect();
                }
            }
        }
    }
    Some(exclude)
}

/// A glob over the values of one dimension. A value always matches itself, whatever characters it holds.
struct Matcher {
    text: String,
    glob: GlobMatcher,
}

impl Matcher {
    fn new(text: String, span: Range<usize>, mistakes: &mut Mistakes) -> Option<Self> {
        match Glob::new(&text) {
            Ok(glob) => Some(Self { text, glob: glob.compile_matcher() }),
            Err(error) => {
                let message = format!("`{text}` is not a glob: {}", error.kind());
                mistakes.push(mistakes.at(span, message, "not a glob").with_help(GLOB_HELP));
                None
            }
        }
    }

    fn is_match(&self, value: &str) -> bool {
        self.text == value || self.glob.is_match(value)
    }
}

/// A cell to add.
pub(crate) struct Include {
    /// The rule in the file.
    pub(crate) span: Range<usize>,
    /// Which image of the matrix.
    pub(crate) image: usize,
    /// Which suite of the matrix.
    pub(crate) suite: usize,
    /// A value for every axis, in the order of the axes.
    pub(crate) axes: Vec<String>,
}

/// The includes, checked: every one determines one cell.
pub(crate) fn includes(
    file: &[At<IndexMap<At<String>, At<Scalar>>>],
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Include> {
    file.iter().filter_map(|rule| include(rule, dimensions, mistakes)).collect()
}

fn include(
    rule: &At<IndexMap<At<String>, At<Scalar>>>,
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Option<Include> {
    let keys_known = rule.get().keys().filter(|key| !dimensions.check_key(key, mistakes)).count() == 0;
    let value = |key: &str| {
        let (_, value) = rule.get().iter().find(|(known, _)| known.text() == key)?;
        Some((value.get().to_string(), value.span()))
    };
    let wanted = || ["image", "suite"].into_iter().chain(dimensions.axes.keys().map(String::as_str));
    let missing: Vec<_> = wanted().filter(|key| value(key).is_none()).map(|key| format!("`{key}`")).collect();
    if !missing.is_empty() {
        let message = format!("this include does not name {}", missing.join(", "));
        let help = "an include adds one cell: name its image, its suite and a value of every axis";
        mistakes.push(mistakes.at(rule.span(), message, "incomplete").with_help(help));
    }
    let mut position = |key: &str| {
        let (name, span) = value(key)?;
        dimensions.position(key, &name, span, mistakes)
    };
    let (image, suite) = (position("image"), position("suite"));
    let mut values = Vec::new();
    for axis in dimensions.axes.keys() {
        let (text, span) = value(axis)?;
        if text.chars().any(char::is_control) {
            let problem = mistakes.at(span, format!("{text:?} cannot be a value of an axis"), "control characters");
            mistakes.push(problem.with_help("values are names in reports: no line breaks or other control characters"));
        }
        values.push(text);
    }
    keys_known.then_some(Include { span: rule.span(), image: image?, suite: suite?, axes: values })
}
