//! Axes, and what rules about cells may name. `[[include]]`: cells that are added; for those left out see [`crate::exclude`].

use std::{collections::HashSet, ops::Range};

use indexmap::{IndexMap, IndexSet};

use crate::{error::Mistakes, located::At, near, scalar::Scalar, text};

/// Maximum number of axes: every cell has a value of each.
const MAX_AXES: usize = 100;

/// What a rule may name: images, suites, and every axis.
pub(crate) struct Dimensions<'a> {
    names: IndexSet<&'a str>,
    values: Vec<IndexSet<&'a str>>,
}

const IMAGE: usize = 0;
const SUITE: usize = 1;

impl<'a> Dimensions<'a> {
    pub(crate) fn new(
        images: impl Iterator<Item = &'a str>,
        suites: impl Iterator<Item = &'a str>,
        axes: &'a IndexMap<String, Vec<String>>,
    ) -> Self {
        let axis_values = axes.values().map(|values| values.iter().map(String::as_str).collect());
        Self {
            names: ["image", "suite"].into_iter().chain(axes.keys().map(String::as_str)).collect(),
            values: [images.collect(), suites.collect()].into_iter().chain(axis_values).collect(),
        }
    }

    /// Their number.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// The values of one dimension, by position.
    pub(crate) fn values(&self, dimension: usize) -> &IndexSet<&'a str> {
        &self.values[dimension]
    }

    /// The position of a value.
    pub(crate) fn find(&self, dimension: usize, value: &str) -> Option<usize> {
        self.values[dimension].get_index_of(value)
    }

    /// Its values are names, so a rule with an unknown one is a mistake. (An unknown value of an axis may be meant for later.)
    pub(crate) fn is_named(dimension: usize) -> bool {
        [IMAGE, SUITE].contains(&dimension)
    }

    /// The dimension of a rule's key, or a mistake.
    pub(crate) fn check_key(&self, key: &At<String>, mistakes: &mut Mistakes) -> Option<usize> {
        let found = self.names.get_index_of(key.text());
        if found.is_none() {
            let known: Vec<_> = self.names.iter().copied().collect();
            let help = near::help(key.text(), &known, &format!("this matrix has {}", some(&known)));
            let message = format!("unknown axis `{}`", key.text());
            mistakes.push(mistakes.at(key.span(), message, "neither `image` nor `suite` nor an axis").with_help(help));
        }
        found
    }

    /// The position of this image or suite, or a mistake.
    pub(crate) fn position(
        &self,
        dimension: usize,
        name: &str,
        span: Range<usize>,
        mistakes: &mut Mistakes,
    ) -> Option<usize> {
        let position = self.find(dimension, name);
        if position.is_none() {
            let known: Vec<_> = self.values[dimension].iter().copied().collect();
            let key = self.names[dimension];
            let help = near::help(name, &known, &format!("this matrix has {}", some(&known)));
            mistakes.push(mistakes.at(span, format!("unknown {key} `{name}`"), "unknown").with_help(help));
        }
        position
    }
}

/// Names for people, abbreviated.
pub(crate) fn some(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Checks the axes: name -> values, in the order of the file.
pub(crate) fn axes(
    file: &IndexMap<At<String>, At<Vec<At<Scalar>>>>,
    mistakes: &mut Mistakes,
) -> IndexMap<String, Vec<String>> {
    let (mut axes, mut variables) = (IndexMap::new(), HashSet::new());
    if let Some((first_too_many, _)) = file.get_index(MAX_AXES) {
        let message = format!("the matrix has {} axes, the limit is {MAX_AXES}", file.len());
        let problem = mistakes.at(first_too_many.span(), message, "one too many");
        mistakes.push(problem.with_help("an axis is a name with a list of values: are these values of one axis?"));
        return axes;
    }
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

/// Axes become variables of templates and, in upper case, of the script's environment.
fn check_axis_name(name: &At<String>, variables: &mut HashSet<String>, mistakes: &mut Mistakes) {
    let text = name.text();
    let problem = if ["image", "suite"].contains(&text) {
        mistakes
            .at(name.span(), format!("an axis cannot be named `{text}`"), "taken")
            .with_help(format!("`{text}` is reserved: choose another name"))
    } else if !text::is_identifier(text) {
        mistakes
            .at(name.span(), format!("{text:?} cannot name an axis"), "not an axis name")
            .with_help("use letters, digits and `_`, not beginning with a digit")
    } else if !variables.insert(text.to_ascii_uppercase()) {
        mistakes
            .at(name.span(), format!("the axis `{text}` differs from another one only in case"), "too similar")
            .with_help("the script sees both as one environment variable: rename one")
    } else {
        return;
    };
    mistakes.push(problem);
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

/// Checks the includes: each adds exactly one cell.
pub(crate) fn includes(
    file: &[At<IndexMap<At<String>, At<Scalar>>>],
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Include> {
    let mut includes = Vec::new();
    for rule in file {
        if mistakes.is_full() {
            break;
        }
        includes.extend(include(rule, dimensions, mistakes));
    }
    includes
}

fn include(
    rule: &At<IndexMap<At<String>, At<Scalar>>>,
    dimensions: &Dimensions<'_>,
    mistakes: &mut Mistakes,
) -> Option<Include> {
    let keys_known = rule.get().keys().filter(|key| dimensions.check_key(key, mistakes).is_none()).count() == 0;
    let value = |key: &str| rule.get().get(key).map(|value| (value.get().to_string(), value.span()));
    let missing = dimensions.names.iter().filter(|key| value(key).is_none());
    let missing: Vec<_> = missing.map(|key| format!("`{key}`")).collect();
    if !missing.is_empty() {
        let message = format!("this include does not name {}", missing.join(", "));
        let help = "an include adds one cell: name its image, its suite and a value of every axis";
        mistakes.push(mistakes.at(rule.span(), message, "incomplete").with_help(help));
    }
    let mut position = |dimension: usize| {
        let (name, span) = value(dimensions.names[dimension])?;
        dimensions.position(dimension, &name, span, mistakes)
    };
    let (image, suite) = (position(IMAGE), position(SUITE));
    let mut values = Vec::new();
    for axis in dimensions.names.iter().skip(SUITE + 1) {
        let (text, span) = value(axis)?;
        if text.chars().any(char::is_control) {
            let problem = mistakes.at(span, format!("{text:?} cannot be a value of an axis"), "control characters");
            mistakes.push(problem.with_help("values are names in reports: no line breaks or other control characters"));
        }
        values.push(text);
    }
    keys_known.then_some(Include { span: rule.span(), image: image?, suite: suite?, axes: values })
}
