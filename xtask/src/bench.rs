//! `cargo xtask bench`: what nestmatrix costs, and what it saves.
//!
//! One file per benchmark. What is compared takes turns, so that a machine that grows slower or faster meanwhile does so for both.

mod bare;
mod figures;
mod files;
mod fork;
mod forks;
mod journal;
mod machine;
mod many;
mod memory;
mod prepare;
mod release;
mod workbench;

use std::{ffi::OsString, fs, path::PathBuf};

use serde_json::{Map, Value};

use crate::{
    build,
    failure::Failure,
    setup::{self, Purpose},
};
use workbench::{Workbench, at};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Benchmark {
    Bare,
    Fork,
    Matrix,
    MatrixQemu,
    Many,
    Forks,
    Prepare,
}

impl Benchmark {
    const ALL: [Self; 7] =
        [Self::Bare, Self::Fork, Self::Matrix, Self::MatrixQemu, Self::Many, Self::Forks, Self::Prepare];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Fork => "fork",
            Self::Matrix => "matrix",
            Self::MatrixQemu => "matrix-qemu",
            Self::Many => "many",
            Self::Forks => "forks",
            Self::Prepare => "prepare",
        }
    }

    const fn question(self) -> &'static str {
        match self {
            Self::Bare => "what a cell costs on top of a bare script that boots the same guest",
            Self::Fork => "how much sooner a forked guest is there than a booted one",
            Self::Matrix => "what forks save in the matrix `release`, on this machine",
            Self::MatrixQemu => "the same in an L1; slow, so only on request",
            Self::Many => "whether many guests fit into 8 GiB at once, and what each of them takes",
            Self::Forks => "whether many forks in a row are right: clock, randomness, nothing of another one",
            Self::Prepare => "whether published images are there as soon as bare tools have them",
        }
    }

    const fn is_slow(self) -> bool {
        matches!(self, Self::MatrixQemu)
    }

    fn measure(self, bench: &Workbench, options: &Options) -> Result<Report, Failure> {
        match self {
            Self::Bare => bare::measure(bench, options.pairs),
            Self::Fork => fork::measure(bench, options.pairs),
            Self::Matrix => release::measure(bench, "host", options.pairs),
            Self::MatrixQemu => release::measure(bench, "qemu", options.pairs),
            Self::Many => many::measure(bench, options.guests),
            Self::Forks => forks::measure(bench, options.forks),
            Self::Prepare => prepare::measure(bench, options.pairs),
        }
    }
}

/// What a benchmark found.
struct Report {
    /// For people: whole lines.
    text: String,
    /// For machines: an object; times in seconds.
    json: Value,
    /// What must hold and does not, a line for each.
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
    list: bool,
    yes: bool,
}

/// `bench [NAME...] [--list] [--pairs N] [--guests N] [--forks N] [--store DIR] [--json FILE] [--yes]`.
pub(crate) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let options = parse(args)?;
    if options.list {
        print!("{}", list());
        return Ok(());
    }
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
        // What is measured is not lost if the next one fails.
        if let Some(file) = &options.json {
            fs::write(file, format!("{:#}\n", Value::Object(all.clone()))).map_err(at(file))?;
        }
    }
    match broken.is_empty() {
        true => fs::remove_dir_all(&bench.folder).map_err(at(&bench.folder)),
        false => Err(Failure::Broken { what: broken, evidence: bench.folder }),
    }
}

fn parse(args: Vec<OsString>) -> Result<Options, Failure> {
    let mut options = Options {
        benchmarks: Vec::new(),
        pairs: 5,
        guests: 32,
        forks: 200,
        store: None,
        json: None,
        list: false,
        yes: false,
    };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("pairs") => options.pairs = number("--pairs", &mut parser)?,
            lexopt::Arg::Long("guests") => options.guests = number("--guests", &mut parser)?,
            lexopt::Arg::Long("forks") => options.forks = number("--forks", &mut parser)?,
            lexopt::Arg::Long("store") => options.store = Some(parser.value()?.into()),
            lexopt::Arg::Long("json") => options.json = Some(parser.value()?.into()),
            lexopt::Arg::Long("list") => options.list = true,
            lexopt::Arg::Long("yes") => options.yes = true,
            lexopt::Arg::Value(name) => {
                let known = Benchmark::ALL.into_iter().find(|benchmark| name == benchmark.name());
                let unknown = || Failure::Usage(format!("there is no benchmark `{}` (bench --list)", name.display()));
                options.benchmarks.push(known.ok_or_else(unknown)?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if options.benchmarks.is_empty() {
        options.benchmarks = Benchmark::ALL.into_iter().filter(|benchmark| !benchmark.is_slow()).collect();
    }
    Ok(options)
}

fn number(name: &str, parser: &mut lexopt::Parser) -> Result<usize, Failure> {
    match lexopt::ValueExt::parse(&parser.value()?)? {
        number @ 1..=1000 => Ok(number),
        _ => Err(Failure::Usage(format!("{name} takes a number from 1 to 1000"))),
    }
}

fn list() -> String {
    Benchmark::ALL.map(|benchmark| format!("{:<12} {}\n", benchmark.name(), benchmark.question())).concat()
}

/// Other work on the machine hits one run of a pair and not the other: then the figures say nothing.
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
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, Failure> {
        parse(args.iter().map(Into::into).collect())
    }

    #[test]
    fn slow_benchmarks_run_only_on_request() {
        let names = |args: &[&str]| parsed(args).map(|options| options.benchmarks).unwrap_or_default();
        assert!(!names(&[]).contains(&Benchmark::MatrixQemu));
        assert_eq!(names(&[]).len(), 6);
        assert_eq!(names(&["matrix-qemu", "--pairs", "1", "fork"]), [Benchmark::MatrixQemu, Benchmark::Fork]);
        assert!(list().contains("\nmatrix-qemu  the same in an L1"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [&["nonsense"][..], &["--pairs", "0"], &["--forks", "many"], &["--guests", "1001"], &["--what"]] {
            assert!(matches!(parsed(args), Err(Failure::Usage(_))), "{args:?}");
        }
    }
}
