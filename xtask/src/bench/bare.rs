//! `bare`: what nestmatrix costs on top of the virtual machine.
//!
//! One trivial cell, its image in the store, booted, from start to exit; against `bare.sh`, which boots the same machine and runs
//! the same command with nothing but QEMU and OpenSSH.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::json;

use crate::{command, failure::Failure};

use super::{
    Report,
    figures::Figures,
    machine,
    workbench::{Ran, Workbench, at},
};

/// Everything that decides the guest is spelled out, because the bare script must make the same one.
pub(super) const MATRIX: &str = r#"images = ["debian-12-minimal"]

[guest]
disk = "4GiB"

[[suite]]
name = "true"
inline = "true"
"#;
const DISK: &str = "4G";
const SCRIPT: &str = include_str!("bare.sh");
const COLD: [&str; 3] = ["--cold", "--runner", "host"];

pub(super) fn measure(bench: &Workbench, pairs: usize) -> Result<Report, Failure> {
    let matrix = bench.matrix("bare", MATRIX)?;
    // Builds the image if need be, warms the page cache, and tells how QEMU is called.
    eprintln!("bench: bare: a first run that does not count");
    let first = bench.run(&matrix, "bare-first", &COLD)?;
    first.only()?;
    let mut figures = Vec::new();
    for number in 1..=pairs {
        let nestmatrix = bench.run(&matrix, &format!("bare-{number}"), &COLD)?;
        nestmatrix.only()?;
        let bare = bare(bench, &first, &bench.folder.join(format!("bare-{number}.script")))?;
        eprintln!("bench: bare: pair {number} of {pairs}: {:.2} s, {bare:.2} s", nestmatrix.wall);
        figures.push([nestmatrix.wall, bare]);
    }
    Ok(report(&Figures::new(["nestmatrix", "bare script"], figures)))
}

fn report(figures: &Figures) -> Report {
    let [nestmatrix, bare] = figures.medians();
    let within = nestmatrix <= bare * 1.05 + 1.0;
    let verdict = if within { "within" } else { "NOT within" };
    let mut json = figures.json();
    json["within"] = json!(within);
    // On a busy machine it is not, and nobody is to blame: said, and no more.
    Report {
        text: format!("{figures}nestmatrix is {verdict} 5 % + 1 s of the bare script\n"),
        json,
        broken: Vec::new(),
    }
}

/// One run of the script with the machine of the run `like`; how many seconds it took.
fn bare(bench: &Workbench, like: &Ran, work: &Path) -> Result<f64, Failure> {
    fs::create_dir_all(work).map_err(at(work))?;
    let args = like.folder.join("cells").join(&like.only()?.cell).join("attempt-1/qemu.args");
    let text = fs::read_to_string(&args).map_err(at(&args))?;
    let port = free_port().map_err(at(work))?;
    let machine = machine::standing_alone(&text, work, port).ok_or(Failure::NewShape(args))?;
    let image = disk(&machine.image).map_err(at(&machine.image))?;
    let script = bench.folder.join("bare.sh");
    fs::write(&script, SCRIPT).map_err(at(&script))?;
    let out = bench.folder.join("bare.out");
    let file = File::create(&out).map_err(at(&out))?;
    let mut command = Command::new("sh");
    command.arg(script).arg(work).arg(image).arg(DISK).arg(port.to_string()).args(&machine.qemu);
    let began = Instant::now();
    command::run(command.stdin(Stdio::null()).stdout(file))?;
    Ok(began.elapsed().as_secs_f64())
}

/// The disk in an image's folder.
fn disk(image: &Path) -> io::Result<PathBuf> {
    let files = fs::read_dir(image)?.collect::<Result<Vec<_>, _>>()?;
    let mut files = files.into_iter().map(|file| file.path());
    files.find(|file| file.extension().is_some_and(|end| end == "qcow2")).ok_or(io::ErrorKind::NotFound.into())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_take_a_twentieth_and_a_second_more_than_the_script() {
        let report = |nestmatrix| report(&Figures::new(["nestmatrix", "bare script"], vec![[nestmatrix, 20.0]]));
        assert!(report(22.001).text.ends_with("nestmatrix is NOT within 5 % + 1 s of the bare script\n"));
        assert!(report(21.999).text.ends_with("nestmatrix is within 5 % + 1 s of the bare script\n"));
        assert_eq!(report(21.0).json["within"], true);
    }
}
