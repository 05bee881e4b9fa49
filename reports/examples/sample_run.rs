//! Writes the folder of a made-up run with all its reports, to look at while working on the reports.
//!
//! `cargo run -p reports --example sample_run -- DIR [CELLS]`; with a number of cells, a run of about that size.

#[path = "../tests/reports/fixture.rs"]
mod fixture;
#[path = "../tests/reports/large.rs"]
mod large;

use std::{path::PathBuf, time::Instant};

use reports::{Terminal, TerminalStyle};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: sample_run DIR [CELLS]")?);
    std::fs::create_dir_all(&dir)?;
    let plan = match args.next() {
        None => fixture::write(&dir),
        Some(cells) => large::write(&dir, cells.parse()?),
    };
    let mut terminal =
        Terminal::plain(&plan, TerminalStyle { live: false, color: true, width: 100 }, std::io::stderr())
            .quoting_logs(&dir);
    reports::journal::for_each(&dir, |event| terminal.event(&event))?;
    let start = Instant::now();
    let rendered = reports::render::all(&dir)?;
    terminal.finish(&rendered.run, &dir);
    println!("rendered in {:?}", start.elapsed());
    Ok(())
}
