//! `report.html`: one self-contained file for people.
//!
//! The content is gathered as plain data ([`page`]) and rendered by a template that escapes everything (its name ends in `.html`,
//! and nothing in it is marked safe). A content security policy allows only the page's own style and script, so even text that
//! got past both could not act. The size is bounded: logs share a budget, and link to the whole file.

mod budget;
mod cell;
mod network;
mod page;
mod runner;
mod template;

use std::{error::Error, path::Path};

use tera::{Context, Tera};

use crate::Run;

const TEMPLATE: &str = include_str!("../templates/report.html");
const NETWORK: &str = include_str!("../templates/network.html");
const SCRIPT: &str = include_str!("../templates/report.js");

/// Renders the file.
pub(crate) fn render(run: &Run, run_dir: &Path) -> Result<Vec<u8>, String> {
    let mut tera = Tera::new();
    let mut html = Vec::new();
    tera.add_raw_templates([("report.js", SCRIPT), ("network.html", NETWORK), ("report.html", TEMPLATE)])
        .and_then(|()| Context::from_serialize(&page::Page::new(run, run_dir)))
        .and_then(|context| tera.render_to("report.html", &context, &mut html))
        .map_err(|error| explain(&error))?;
    Ok(html)
}

/// An error with its causes: the template engine's outermost one says little.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
