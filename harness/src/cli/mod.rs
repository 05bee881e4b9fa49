//! The command line: one file a verb, nothing but asking the other rooms and printing what they say.

mod args;
mod bench_nesting;
mod catalog;
mod doctor;
mod dry_run;
mod gce;
mod gce_flags;
mod images;
mod limits;
mod matrix_file;
mod panics;
mod plan;
mod report;
mod run;
mod shell;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use miette::IntoDiagnostic as _;

use self::args::{Args, Verb};
use crate::agent::{Ground, receive::Received};

/// What a verb comes to when it does not end by itself: it says why and gives the exit code.
struct Failure {
    report: miette::Report,
    code: u8,
}

impl Failure {
    /// A usage, matrix or configuration error: nothing was started.
    fn usage(error: impl Into<miette::Report>) -> Self {
        Self { report: error.into(), code: 2 }
    }

    /// An error with everything that led to it.
    fn caused(code: u8, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let words = error.to_string();
        let report = Err::<(), _>(error).into_diagnostic().err().unwrap_or_else(|| miette::Report::msg(words));
        Self { report, code }
    }

    fn message(code: u8, message: impl std::fmt::Display) -> Self {
        Self { report: miette::Report::msg(message.to_string()), code }
    }
}

type Outcome = Result<u8, Failure>;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    panics::watch();
    // Past a limit on the size of files (`ulimit -f`) a write is to fail with words, not to end the process.
    if let Err(error) = limits::let_large_writes_fail() {
        say!("nestmatrix: cannot ignore SIGXFSZ: {error}");
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = match error.print() {
                Err(failed) if failed.kind() != std::io::ErrorKind::BrokenPipe => 2,
                _ => error.exit_code(),
            };
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("nestmatrix: cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = panics::caught(|| runtime.block_on(verb(args)));
    // A blocking read that never returns must not hold up the exit.
    runtime.shutdown_background();
    let code = match outcome {
        Some(Ok(code)) => code,
        Some(Err(Failure { report, code })) => {
            say!("{report:?}");
            code
        }
        None => 3,
    };
    ExitCode::from(panics::judged(code))
}

async fn verb(args: Args) -> Outcome {
    match args.verb {
        Verb::Run(args) => run::run(*args).await,
        Verb::Plan(args) => plan::plan(&args),
        Verb::Doctor(args) => doctor::doctor(&args).await,
        Verb::BenchNesting(args) => bench_nesting::bench_nesting(args).await,
        Verb::BenchWork(args) => bench_nesting::bench_work(&args),
        Verb::Images { verb, catalog } => images::images(verb, &catalog).await,
        Verb::Gce { verb } => gce::gce(verb).await,
        Verb::Report(args) => report::report(&args),
        Verb::Shell(args) => shell::shell(args).await,
        Verb::Agent(args::Agent { bundle, shared }) => {
            let run = bundle.to_string_lossy();
            let ground = match &shared {
                Some(root) => Ground::Shared { root, run: &run },
                None => Ground::Own(&bundle),
            };
            match crate::agent::serve(ground).await {
                Ok(()) => Ok(0),
                Err(error) => Err(Failure::message(3, error)),
            }
        }
        Verb::Receive { what } => {
            let (shared, what) = match what {
                args::Receive::Image { shared, name } => (shared, Received::Image(name)),
                args::Receive::Fetch { shared, name } => (shared, Received::Fetch(name)),
                args::Receive::Bundle { shared, run } => (shared, Received::JobBundle(run)),
                args::Receive::End { shared, run } => (shared, Received::End(run)),
            };
            match crate::agent::receive::receive(&shared, &what) {
                Ok(()) => Ok(0),
                Err(error) => Err(Failure::message(3, error)),
            }
        }
        Verb::Schema => print(&pretty(&matrix::schema())?),
        Verb::Completions { shell } => {
            // By way of memory: it panics on an output that fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "nestmatrix", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::message(2, error))
}

/// Prints for programs; a reader that went away (`| head`) is no error.
fn print(text: &str) -> Outcome {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::message(2, format!("standard output cannot be written: {error}")))
        }
        _ => Ok(0),
    }
}

/// Columns without lines, for terminals and for `grep`.
fn table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
