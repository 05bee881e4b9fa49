//! Lines about what a guest did not hand over, of bounded number.

/// Most lines.
pub(super) const MOST: usize = 50;

/// What is to be said of files that were fetched, and whether any is missing.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    lines: Vec<String>,
    more: usize,
    /// The first of what was asked for and is not there, or not whole.
    pub(super) lost: Option<String>,
}

impl Warnings {
    /// Something is missing.
    pub(super) fn add(&mut self, line: impl AsRef<str>) {
        let line = reports::clean::line(line.as_ref());
        self.lost.get_or_insert_with(|| line.clone());
        self.note(line);
    }

    /// Everything is there, but a person should know this.
    pub(super) fn note(&mut self, line: impl AsRef<str>) {
        if self.lines.len() < MOST {
            self.lines.push(reports::clean::line(line.as_ref()));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more of this kind", self.more));
        }
        self.lines
    }
}
