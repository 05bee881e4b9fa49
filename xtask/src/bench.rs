//! `cargo xtask bench`: measures what forks save, and checks what must hold for many of them.
//!
//! One file per benchmark. Compared runs alternate, so that a machine that becomes slower or faster affects both.
//! Compare whole commands with hyperfine (see README.md); here is only what must be read from the journal of a run.

mod figures;
mod fork;
mod forks;
mod journal;
mod many;
mod memory;
mod workbench;

use std::{ffi::OsString, fs, path::PathBuf};

use serde_json::{Map, Value};

use crate::{
    build,
    failure::Failure,
    setup::{self, Purpose},
};
use workbench::Workbench;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Benchmark {
    Fork,
    Many,
    Forks,
}

impl Benchmark {
    const ALL: [Self; 3] = [Self::Fork, Self::Many, Self::Forks];

    const fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Many => "many",
            Self::Forks => "forks",
        }
    }

    const fn question(self) -> &'static str {
        match self {
            Self::Fork => "how much sooner a forked guest is there than a booted one",
            Self::Many => "whether many guests fit into 8 GiB at once, and what each of them takes",
            Self::Forks => "whether many forks in a row are right: clock, randomness, nothing of another one",
        }
    }

    fn measure(self, bench: &Workbench, options: &Options) -> Result<Report, Failure> {
        match self {
            Self::Fork => fork::measure(bench, options.pairs),
            Self::Many => many::measure(bench, options.guests),
            Self::Forks => forks::measure(bench, options.forks),
        }
    }
}

/// The result of a benchmark.
struct Report {
    /// For people: whole lines.
    text: String,
    /// For machines: an object; times in seconds.
    json: Value,
    /// Violated requirements, a line for each.
    broken: Vec<String>,
}

#[derive(Debug)]
struct Options {
    benchmarks: Vec<Benchmark>,
    pairs: usize,
    guests: usize,
    forks: usize,
    store: Option<PathBuf>,
    json: Option<PathBuf>,
    yes: bool,
}

/// `bench [NAME...] [--pairs N] [--guests N] [--forks N] [--store DIR] [--json FILE] [--yes]`.
pub(crate) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let options = parse(args)?;
    setup::ensure(Purpose::Run, options.yes)?;
    let bench = Workbench {
        nestmatrix: build::nestmatrix(build::Profile::Release)?,
        folder: fresh_folder()?,
        store: options.store.clone(),
    };
    warn_if_busy();
    let (mut all, mut broken) = (Map::new(), Vec::new());
    for benchmark in &options.benchmarks {
        let mut report = benchmark.measure(&bench, &options)?;
        println!("{}: {}\n{}", benchmark.name(), benchmark.question(), report.text);
        report.json["holds"] = report.broken.is_empty().into();
        all.insert(benchmark.name().to_owned(), report.json);
        broken.extend(report.broken.into_iter().map(|what| format!("{}: {what}", benchmark.name())));
        // Keeps the results if the next one fails.
        if let Some(file) = &options.json {
            fs::write(file, format!("{:#}\n", Value::Object(all.clone()))).map_err(Failure::at(file))?;
        }
    }
    match broken.is_empty() {
        true => fs::remove_dir_all(&bench.folder).map_err(Failure::at(&bench.folder)),
        false => Err(Failure::Violated { what: broken, evidence: bench.folder }),
    }
}

fn parse(args: Vec<OsString>) -> Result<Options, Failure> {
    let mut options =
        Options { benchmarks: Vec::new(), pairs: 5, guests: 32, forks: 200, store: None, json: None, yes: false };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("pairs") => options.pairs = number("--pairs", &mut parser)?,
            lexopt::Arg::Long("guests") => options.guests = number("--guests", &mut parser)?,
            lexopt::Arg::Long("forks") => options.forks = number("--forks", &mut parser)?,
            lexopt::Arg::Long("store") => options.store = Some(parser.value()?.into()),
            lexopt::Arg::Long("json") => options.json = Some(parser.value()?.into()),
            lexopt::Arg::Long("yes") => options.yes = true,
            lexopt::Arg::Value(name) => {
                let known = Benchmark::ALL.into_iter().find(|benchmark| name == benchmark.name());
                let unknown = || {
                    let names = Benchmark::ALL.map(Benchmark::name).join(", ");
                    Failure::Usage(format!("unknown benchmark `{}`; known are {names}", name.display()))
                };
                options.benchmarks.push(known.ok_or_else(unknown)?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if options.benchmarks.is_empty() {
        options.benchmarks = Benchmark::ALL.into();
    }
    Ok(options)
}

fn number(name: &str, parser: &mut lexopt::Parser) -> Result<usize, Failure> {
    match lexopt::ValueExt::parse(&parser.value()?)? {
        number @ 1..=1000 => Ok(number),
        _ => Err(Failure::Usage(format!("{name} takes a number from 1 to 1000"))),
    }
}

/// Other work on the machine may hit only one run of a pair, which makes the figures useless.
fn warn_if_busy() {
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    if load > 0.5 {
        eprintln!(
            "bench: the machine is busy (load {load:.1}): compare the pairs with each other before believing the median"
        );
    }
}

fn fresh_folder() -> Result<PathBuf, Failure> {
    let folder = build::output_folder().join("bench").join(std::process::id().to_string());
    fs::create_dir_all(&folder).map_err(Failure::at(&folder))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, Failure> {
        parse(args.iter().map(Into::into).collect())
    }

    #[test]
    fn all_benchmarks_run_if_none_is_named() {
        let names = |args: &[&str]| parsed(args).map(|options| options.benchmarks).unwrap_or_default();
        assert_eq!(names(&[]), Benchmark::ALL);
        assert_eq!(names(&["forks", "--pairs", "1", "fork"]), [Benchmark::Forks, Benchmark::Fork]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [&["nonsense"][..], &["--pairs", "0"], &["--forks", "many"], &["--guests", "1001"], &["--what"]] {
            assert!(matches!(parsed(args), Err(Failure::Usage(_))), "{args:?}");
        }
    }
}
