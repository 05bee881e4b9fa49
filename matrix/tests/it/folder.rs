//! A folder with a matrix file in it.

use std::{fs, path::PathBuf};

use matrix::{LoadError, Loaded};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

pub(crate) const CATALOG: [&str; 5] =
    ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal", "debian-testing-minimal", "debian-sid-minimal"];

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn with(matrix: &str) -> Self {
        Self::new().file("m.toml", matrix)
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside the folder")).expect("folders");
        fs::write(path, content).expect("a file");
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("the folder").join(name)
    }

    pub(crate) fn try_load(&self) -> Result<Loaded, LoadError> {
        matrix::load(&self.path("m.toml"), &CATALOG)
    }

    pub(crate) fn load(&self) -> Loaded {
        self.try_load().unwrap_or_else(|error| panic!("{}", self.shown(&error)))
    }

    /// The error as drawn for people, without the folder.
    pub(crate) fn error(&self) -> String {
        self.shown(&self.try_load().expect_err("a mistake"))
    }

    /// The error's plain text, one line per mistake.
    pub(crate) fn plain(&self) -> String {
        let error = self.try_load().expect_err("a mistake");
        self.anywhere(&error.problems().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// A warning as drawn for people.
    pub(crate) fn shown(&self, diagnostic: &dyn Diagnostic) -> String {
        let mut text = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_width(300)
            .render_report(&mut text, diagnostic)
            .expect("text");
        self.anywhere(text.trim_end())
    }

    fn anywhere(&self, text: &str) -> String {
        let root = self.path("");
        let root = root.to_str().expect("plain text");
        let lines = text.replace(root, "").replace(root.trim_end_matches('/'), "(folder)");
        lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A matrix with these lines added at its end, each kind of mistake alone.
pub(crate) fn with(lines: &str) -> Folder {
    Folder::with(&format!(
        "images = [\"debian-12-minimal\", \"debian-13-minimal\"]\nsuite = [{{ name = \"smoke\", inline = \"true\" }}]\n{lines}"
    ))
}
