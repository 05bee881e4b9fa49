//! One line of the answer, and all of them as text.

use super::super::table;

/// One line of the answer.
pub(super) struct Finding {
    /// What was looked at: short, unique.
    pub(super) what: &'static str,
    pub(super) state: State,
    /// What was found.
    pub(super) words: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
    Good,
    /// A fact that is neither good nor bad here, or follows from one that another line warns of.
    Plain,
    /// Works, but not as well as it could.
    Weak,
    /// Does not work.
    Bad,
}

impl Finding {
    pub(super) fn new(what: &'static str, state: State, words: impl Into<String>) -> Self {
        Self { what, state, words: words.into(), remedy: None }
    }

    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// A table of what was found, then what to do, one paragraph each.
pub(super) fn render(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        let state = match finding.state {
            State::Good => "ok",
            State::Plain => "-",
            State::Weak => "warning",
            State::Bad => "MISSING",
        };
        vec![state.to_owned(), finding.what.to_owned(), finding.words.clone()]
    });
    let mut text = table(rows);
    for finding in findings {
        if let Some(remedy) = &finding.remedy {
            text += &format!("\n{}: {remedy}\n", finding.what);
        }
    }
    text
}
