//! `report.html`: one file for people, that needs nothing else to be read.
//!
//! What is shown is gathered as plain data ([`page`]) and rendered by a template that escapes everything (its name ends in
//! `.html`, and nothing in it is marked safe). A content security policy forbids the page everything but its own style and its own
//! script, so even text that got past both could not act. Size is bounded: logs share a budget, the whole log is one link away.

mod budget;
mod cell;
mod page;
mod runner;
mod template;

use std::{error::Error, path::Path};

use tera::{Context, Tera};

use crate::Run;

const TEMPLATE: &str = include_str!("../templates/report.html");
const SCRIPT: &str = include_str!("../templates/report.js");

/// Renders the file.
pub(crate) fn render(run: &Run, run_dir: &Path) -> Result<Vec<u8>, String> {
    let mut tera = Tera::new();
    let mut html = Vec::new();
    tera.add_raw_templates([("report.js", SCRIPT), ("report.html", TEMPLATE)])
        .and_then(|()| Context::from_serialize(&page::Page::new(run, run_dir)))
        .and_then(|context| tera.render_to("report.html", &context, &mut html))
        .map_err(|error| explain(&error))?;
    Ok(html)
}

/// An error with its causes: the template engine says little in the outermost one.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
