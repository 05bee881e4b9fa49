//! A script of the matrix file: a file beside it, or its text.

use crate::{error::Mistakes, located::At};

/// Where a script comes from.
pub(crate) enum Script {
    /// This file, relative to the matrix file.
    File(At<String>),
    /// This text, a template.
    Inline(At<String>),
}

impl Script {
    /// For people: a path relative to the matrix file, or `inline`.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::File(file) => file.text().to_owned(),
            Self::Inline(_) => "inline".to_owned(),
        }
    }
}

/// Says that there are two scripts where one can run.
pub(crate) fn two_scripts(owner: &str, file: &At<String>, text: &At<String>, mistakes: &mut Mistakes) {
    let problem = mistakes.at(text.span(), format!("the {owner} has two scripts"), "a script");
    mistakes.push(problem.with_label(file.span(), "and another").with_help("keep `run` or `inline`, not both"));
}
