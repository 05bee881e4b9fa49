//! Templates of the matrix file: values of environment variables, and inline scripts.
//!
//! They are shell text, so nothing is escaped, and `{#` begins no comment, because `${#name}` is shell. An undefined variable is
//! an error.

use std::{io, ops::Range};

use indexmap::IndexMap;
use tera::{Context, Delimiters, ErrorKind, Tera};

use crate::{
    error::{Mistakes, Problem},
    located::At,
    script::MAX_SCRIPT_BYTES,
};

/// Maximum number of templates: each new one makes the engine check all others again.
const MAX_TEMPLATES: usize = 1000;

/// Compiled templates.
pub(crate) struct Templates {
    tera: Tera,
    /// Text -> whether it may differ from cell to cell; `None`: its syntax is wrong.
    known: IndexMap<String, Option<bool>>,
}

/// One template, compiled once, rendered often.
pub(crate) struct Template {
    at: At<String>,
    kind: Kind,
}

enum Kind {
    /// No template at all.
    Plain,
    /// A template of this name.
    Tera { name: String, per_cell: bool },
}

impl Template {
    /// True if it may differ between cells of the same image and suite.
    pub(crate) fn is_per_cell(&self) -> bool {
        matches!(self.kind, Kind::Tera { per_cell: true, .. })
    }

    /// Its bytes in the file.
    pub(crate) fn span(&self) -> Range<usize> {
        self.at.span()
    }
}

impl Templates {
    pub(crate) fn new() -> Result<Self, tera::Error> {
        let mut tera = Tera::new();
        tera.autoescape_on(Vec::<&str>::new());
        // Comments cannot be disabled; no text of a matrix file contains these.
        let comment = "\u{1}\u{1}";
        tera.set_delimiters(Delimiters {
            comment_start: comment.into(),
            comment_end: comment.into(),
            ..Delimiters::default()
        })?;
        Ok(Self { tera, known: IndexMap::new() })
    }

    /// Compiles this value; `None`, and a mistake, if its syntax is wrong.
    pub(crate) fn compile(&mut self, at: &At<String>, mistakes: &mut Mistakes) -> Option<Template> {
        let text = at.text();
        if !["{{", "{%", "\u{1}\u{1}"].iter().any(|sign| text.contains(sign)) {
            return Some(Template { at: at.clone(), kind: Kind::Plain });
        }
        let template =
            |number, per_cell| Template { at: at.clone(), kind: Kind::Tera { name: name(number), per_cell } };
        if let Some((number, _, Some(per_cell))) = self.known.get_full(text) {
            return Some(template(number, *per_cell));
        }
        let number = self.known.len();
        if number >= MAX_TEMPLATES {
            let message = format!("the matrix has too many different templates, the limit is {MAX_TEMPLATES}");
            let help = "use the same template everywhere, and axes for what differs";
            mistakes.push(mistakes.at(at.span(), message, "one too many").with_help(help));
            return None;
        }
        let name = name(number);
        let compiled = self.tera.add_raw_template(&name, text).and_then(|()| self.tera.get_template_variables(&name));
        let per_cell =
            compiled.map(|variables| variables.iter().any(|name| !["package", "image", "suite"].contains(name)));
        self.known.insert(text.to_owned(), per_cell.as_ref().ok().copied());
        match per_cell {
            Ok(per_cell) => Some(template(number, per_cell)),
            Err(error) => {
                let help = "`{{ package.version }}` inserts a value; wrap text that is not a template in {% raw %} and {% endraw %}";
                mistakes.push(problem(at, &error, mistakes).with_help(help));
                None
            }
        }
    }

    /// The template's text for this context.
    pub(crate) fn render(
        &self,
        template: &Template,
        context: &Context,
        mistakes: &Mistakes,
    ) -> Result<String, Box<Problem>> {
        let Kind::Tera { name, .. } = &template.kind else {
            return Ok(template.at.text().to_owned());
        };
        let mut text = Bounded(Vec::new());
        self.tera
            .render_to(name, context, &mut text)
            .and_then(|()| Ok(String::from_utf8(text.0)?))
            .map_err(|error| Box::new(problem(&template.at, &error, mistakes)))
    }
}

fn name(number: usize) -> String {
    format!("template {number}")
}

/// tera's error, at the characters it is about.
fn problem(at: &At<String>, error: &tera::Error, mistakes: &Mistakes) -> Problem {
    let (message, range) = match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            (report.message().to_owned(), Some(report.span().range.clone()))
        }
        ErrorKind::Io(_) => ("the text is longer than 1 MiB".to_owned(), None),
        // Some kinds come as a drawing of many lines; the first one has the message.
        kind => (kind.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(), None),
    };
    let span = range.and_then(|range| inside(at, &range, mistakes)).unwrap_or_else(|| at.span());
    mistakes.at(span, format!("template: {}", message.trim_end()), "in this template")
}

/// Bytes of the template -> bytes of the file; `None` where escapes make them differ.
fn inside(at: &At<String>, range: &Range<usize>, mistakes: &Mistakes) -> Option<Range<usize>> {
    let written = mistakes.source().text().get(at.span())?;
    let start = at.span().start + written.find(at.text())?;
    at.text().get(range.clone())?;
    Some(start + range.start..start + range.end)
}

/// Bounds the memory of a loop in a template.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_SCRIPT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snippet::Source;

    #[test]
    fn more_different_templates_than_can_be_compiled_in_time_are_refused() {
        let text = |number: usize| format!("{number} {{{{ image.name }}}}");
        let file = format!("known = '{}'\none_more = '{}'\n", text(0), text(MAX_TEMPLATES));
        let values: IndexMap<String, At<String>> = toml::from_str(&file).expect("a file");
        let mut templates = Templates::new().expect("an engine");
        templates.known.extend((0..MAX_TEMPLATES).map(|number| (text(number), Some(false))));
        let mut mistakes = Mistakes::new(Source::new("m.toml".as_ref(), &file));
        assert!(templates.compile(&values["known"], &mut mistakes).is_some());
        assert!(templates.compile(&values["one_more"], &mut mistakes).is_none());
        let said = mistakes.check().expect_err("a mistake").problems().next().expect("one").message().to_owned();
        assert!(said.ends_with("too many different templates, the limit is 1000"), "{said}");
    }
}
