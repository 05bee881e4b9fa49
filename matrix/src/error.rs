//! Errors of a matrix file, each with file, line, the text itself and a remedy.
//!
//! One mistake is a [`Problem`]. A file may have several, and its author wants to see all of them at once, so a [`LoadError`]
//! carries every problem that was found. Both are miette diagnostics (the binary draws them with the matrix file's text), and
//! both contain `file:line:` in their plain text, so that a log without drawings is enough.

use std::{fmt, ops::Range, path::Path, sync::OnceLock};

use miette::{Diagnostic, LabeledSpan, Severity, SourceCode};

use crate::snippet::{Snippet, Source, clip, plain};

/// Maximum length of a message and of a remedy, in characters. They quote the file, whose values may be a megabyte long.
const MAX_MESSAGE_LEN: usize = 300;
const MAX_HELP_LEN: usize = 1000;

/// Maximum number of mistakes that are reported: a file may be built to have a million.
pub(crate) const MAX_REPORTED: usize = 20;

/// Everything found wrong or odd so far.
pub(crate) struct Mistakes {
    source: Source,
    found: Vec<Problem>,
    odd: Vec<LoadWarning>,
}

impl Mistakes {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, found: Vec::new(), odd: Vec::new() }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// A problem at these bytes, to be pushed or warned of.
    pub(crate) fn at(&self, span: Range<usize>, message: impl Into<String>, label: &str) -> Problem {
        Problem::at(&self.source, span, message, label)
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.found.push(problem);
        }
    }

    pub(crate) fn warn(&mut self, problem: Problem) {
        if self.odd.len() < MAX_REPORTED {
            self.odd.push(problem.into_warning());
        }
    }

    /// True if no further mistake would be reported.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_REPORTED
    }

    /// Fails if anything was wrong so far.
    pub(crate) fn check(&mut self) -> Result<(), LoadError> {
        LoadError::from_problems(std::mem::take(&mut self.found)).map_or(Ok(()), Err)
    }

    /// The warnings, in the order of the file.
    pub(crate) fn into_warnings(mut self) -> Vec<LoadWarning> {
        self.odd.sort_by_key(|warning| warning.0.offset());
        self.odd
    }
}

/// One mistake in a matrix file (or one thing to be warned of): a diagnostic with labels and, mostly, a remedy.
#[derive(Debug)]
pub struct Problem {
    severity: Severity,
    /// `file:line`, or `file` if no line is to blame.
    place: String,
    message: String,
    help: Option<String>,
    labels: Vec<LabeledSpan>,
    source: Option<Source>,
    /// The drawn source lines with their labels; made on demand.
    shown: OnceLock<(Snippet, Vec<LabeledSpan>)>,
}

impl Problem {
    /// A mistake in the file as a whole, for example that it cannot be read.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: plain(&path.display().to_string()),
            message: clip(&message.into(), MAX_MESSAGE_LEN),
            help: None,
            labels: Vec::new(),
            source: None,
            shown: OnceLock::new(),
        }
    }

    /// A mistake in these bytes of the file; `label` describes them in a few words.
    pub(crate) fn at(source: &Source, span: Range<usize>, message: impl Into<String>, label: &str) -> Self {
        Self {
            severity: Severity::Error,
            place: source.place(span.start),
            message: clip(&message.into(), MAX_MESSAGE_LEN),
            help: None,
            labels: vec![LabeledSpan::new_primary_with_span(Some(clip(label, MAX_MESSAGE_LEN)), span)],
            source: Some(source.clone()),
            shown: OnceLock::new(),
        }
    }

    /// Points at a second, related place.
    #[must_use]
    pub(crate) fn with_label(mut self, span: Range<usize>, label: &str) -> Self {
        self.labels.push(LabeledSpan::new_with_span(Some(clip(label, MAX_MESSAGE_LEN)), span));
        self
    }

    /// The remedy.
    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(clip(&help.into(), MAX_HELP_LEN));
        self
    }

    /// Makes it a warning.
    fn into_warning(mut self) -> LoadWarning {
        self.severity = Severity::Warning;
        LoadWarning(self)
    }

    fn shown(&self) -> Option<&(Snippet, Vec<LabeledSpan>)> {
        let source = self.source.as_ref()?;
        Some(self.shown.get_or_init(|| Snippet::new(source, &self.labels)))
    }

    /// Start of its first label.
    fn offset(&self) -> usize {
        self.labels.first().map_or(0, LabeledSpan::offset)
    }

    /// The message, without file and line.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.shown().map(|(snippet, _)| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, labels) = self.shown()?;
        Some(Box::new(labels.iter().cloned()))
    }
}

/// Why there is no plan: the mistakes that were found (at most 20), in the order of the file.
///
/// As a diagnostic it is its first mistake, with the others as related ones.
#[derive(Debug)]
pub struct LoadError {
    first: Box<Problem>,
    more: Vec<Problem>,
}

impl LoadError {
    /// `None` if there is no problem.
    fn from_problems(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(Problem::offset);
        let mut problems = problems.into_iter();
        let first = Box::new(problems.next()?);
        Some(Self { first, more: problems.collect() })
    }

    /// Every mistake, at least one.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&*self.first).chain(&self.more)
    }
}

impl From<Problem> for LoadError {
    fn from(first: Problem) -> Self {
        Self { first: Box::new(first), more: Vec::new() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.more.len() {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more mistake)"),
            more => write!(f, " (and {more} more mistakes)"),
        }
    }
}

impl std::error::Error for LoadError {}

impl Diagnostic for LoadError {
    fn severity(&self) -> Option<Severity> {
        self.first.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Diagnostic::help(&*self.first)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.first.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.first.labels()
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        (!self.more.is_empty()).then(|| {
            Box::new(self.more.iter().map(|problem| problem as &dyn Diagnostic)) as Box<dyn Iterator<Item = _>>
        })
    }
}

/// Something odd in a matrix file that stops nothing: an exclude that matches no cell.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error(transparent)]
#[diagnostic(transparent)]
pub struct LoadWarning(Problem);
