//! `cargo xtask bench`: what nestmatrix costs on top of the virtual machine.
//!
//! One trivial cell, its image in the store, from start to exit; against `bench/bare.sh`, which boots the same
//! machine and runs the same command with nothing but QEMU and OpenSSH. Both take turns, so that a machine that grows slower
//! or faster meanwhile does so for both.

mod figures;
mod machine;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    build,
    failure::Failure,
    setup::{self, Purpose},
};
use figures::{Figures, Pair};

/// Everything that decides the guest is spelled out, because the bare script must make the same one.
const MATRIX: &str = r#"images = ["debian-12-minimal"]

[guest]
disk = "4GiB"

[[suite]]
name = "true"
inline = "true"
"#;
const DISK: &str = "4G";
const BARE: &str = include_str!("bench/bare.sh");

struct Options {
    pairs: usize,
    store: Option<PathBuf>,
    json: Option<PathBuf>,
    yes: bool,
}

/// `bench [--pairs N] [--store DIR] [--json FILE] [--yes]`.
pub(crate) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let options = parse(args)?;
    setup::ensure(Purpose::Run, options.yes)?;
    let bench = Bench { nestmatrix: build::nestmatrix()?, folder: fresh_folder()?, store: options.store };
    warn_if_busy();
    // Builds the image if need be, warms the page cache, and tells how QEMU is called.
    eprintln!("bench: a first run that does not count");
    let first = bench.folder.join("first");
    bench.nestmatrix(&first)?;
    let mut pairs = Vec::new();
    for number in 1..=options.pairs {
        let folder = bench.folder.join(number.to_string());
        let nestmatrix = bench.nestmatrix(&folder.join("nestmatrix"))?;
        let bare = bench.bare(&first, &folder.join("bare"))?;
        eprintln!(
            "bench: pair {number} of {}: {:.2} s, {:.2} s",
            options.pairs,
            nestmatrix.as_secs_f64(),
            bare.as_secs_f64()
        );
        pairs.push(Pair { nestmatrix, bare });
    }
    let figures = Figures(pairs);
    print!("{figures}");
    if let Some(file) = options.json {
        fs::write(&file, figures.json()).map_err(at(&file))?;
    }
    fs::remove_dir_all(&bench.folder).map_err(at(&bench.folder))
}

fn parse(args: Vec<OsString>) -> Result<Options, Failure> {
    let mut options = Options { pairs: 5, store: None, json: None, yes: false };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("pairs") => options.pairs = lexopt::ValueExt::parse(&parser.value()?)?,
            lexopt::Arg::Long("store") => options.store = Some(parser.value()?.into()),
            lexopt::Arg::Long("json") => options.json = Some(parser.value()?.into()),
            lexopt::Arg::Long("yes") => options.yes = true,
            other => return Err(other.unexpected().into()),
        }
    }
    match options.pairs {
        1..=1000 => Ok(options),
        _ => Err(Failure::Usage("--pairs takes a number from 1 to 1000".into())),
    }
}

struct Bench {
    nestmatrix: PathBuf,
    /// Removed when everything went well; else the evidence is in it.
    folder: PathBuf,
    store: Option<PathBuf>,
}

impl Bench {
    /// One run of the trivial cell into `out`; how long it took.
    fn nestmatrix(&self, out: &Path) -> Result<Duration, Failure> {
        let matrix = self.folder.join("bench.toml");
        fs::write(&matrix, MATRIX).map_err(at(&matrix))?;
        let mut command = Command::new(&self.nestmatrix);
        command.arg("run").arg(matrix).arg("--out").arg(out).args(["--message-format", "json"]);
        command.args(self.store.iter().flat_map(|store| ["--store".as_ref(), store.as_os_str()]));
        let took = self.timed(&mut command, "nestmatrix.out")?;
        if attempt(out, 2).is_ok_and(|second| second.exists()) {
            eprintln!("bench: nestmatrix needed a second guest in that run: its time is not that of one boot");
        }
        Ok(took)
    }

    /// One run of the bare script with the machine of the run in `like`; how long it took.
    fn bare(&self, like: &Path, work: &Path) -> Result<Duration, Failure> {
        fs::create_dir_all(work).map_err(at(work))?;
        let args = attempt(like, 1).map_err(at(like))?.join("qemu.args");
        let text = fs::read_to_string(&args).map_err(at(&args))?;
        let port = free_port().map_err(at(work))?;
        let machine = machine::standing_alone(&text, work, port).ok_or(Failure::NewShape(args))?;
        let image = disk(&machine.image).map_err(at(&machine.image))?;
        let script = self.folder.join("bare.sh");
        fs::write(&script, BARE).map_err(at(&script))?;
        let mut command = Command::new("sh");
        command.arg(script).arg(work).arg(image).arg(DISK).arg(port.to_string()).args(&machine.qemu);
        self.timed(&mut command, "bare.out")
    }

    fn timed(&self, command: &mut Command, stdout: &str) -> Result<Duration, Failure> {
        let stdout = self.folder.join(stdout);
        let file = File::create(&stdout).map_err(at(&stdout))?;
        let began = Instant::now();
        build::run(command.stdin(Stdio::null()).stdout(file))?;
        Ok(began.elapsed())
    }
}

/// `cells/<the only cell>/attempt-<number>` of a run.
fn attempt(run: &Path, number: u32) -> io::Result<PathBuf> {
    let cell = fs::read_dir(run.join("cells"))?.next().ok_or(io::ErrorKind::NotFound)??;
    Ok(cell.path().join(format!("attempt-{number}")))
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

/// The disk in an image's folder.
fn disk(image: &Path) -> io::Result<PathBuf> {
    let files = fs::read_dir(image)?.collect::<Result<Vec<_>, _>>()?;
    let mut files = files.into_iter().map(|file| file.path());
    files.find(|file| file.extension().is_some_and(|end| end == "qcow2")).ok_or(io::ErrorKind::NotFound.into())
}

fn fresh_folder() -> Result<PathBuf, Failure> {
    let folder = build::output_folder().join("bench").join(std::process::id().to_string());
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    Ok(folder)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    |source| Failure::File { path, source }
}
