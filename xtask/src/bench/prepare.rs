//! `prepare`: whether getting published images ready is bounded by the network and the CPU, or by nestmatrix.
//!
//! Four packed disks from a server on this machine, at once, into an empty store: against `prepare.sh`, which downloads, digests and
//! unpacks the same four side by side with the tools that everybody has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::json;

use crate::{command, failure::Failure};

use super::{
    Report,
    figures::Figures,
    files::Server,
    workbench::{Workbench, at},
};

const SCRIPT: &str = include_str!("prepare.sh");
/// Makes a disk that looks like one, of what is installed here, and packs it.
const DISK: &str = include_str!("prepare-disk.sh");
/// How the four are packed: the ways publishers do it.
const PACKED: [(&str, &str); 4] = [("one", "zst"), ("two", "zst"), ("three", "gz"), ("four", "xz")];
/// MiB of each disk.
const SIZE: u64 = 192;

pub(super) fn measure(bench: &Workbench, pairs: usize) -> Result<Report, Failure> {
    let served = bench.folder.join("served");
    fs::create_dir_all(&served).map_err(at(&served))?;
    eprintln!("bench: prepare: making four disks of {SIZE} MiB");
    let script = bench.folder.join("prepare-disk.sh");
    fs::write(&script, DISK).map_err(at(&script))?;
    let mut matrix = "[[suite]]\nname = 'none'\ninline = 'true'\n".to_owned();
    let server = Server::start(served.clone()).map_err(at(&served))?;
    let mut urls = Vec::new();
    for (number, (name, packing)) in PACKED.iter().enumerate() {
        let file = format!("{name}.raw.{packing}");
        let mut make = Command::new("sh");
        make.arg(&script).arg(served.join(&file)).args([&SIZE.to_string(), &(number + 1).to_string(), *packing]);
        command::run(make.stdin(Stdio::null()))?;
        let url = server.url(&file);
        let digest = fs::read_to_string(served.join(format!("{file}.sha256"))).map_err(at(&served))?;
        matrix += &format!("[[image]]\nname = '{name}'\nurl = '{url}'\ndigest = 'sha256:{}'\n", digest.trim());
        urls.push(url);
    }
    let matrix = bench.matrix("prepare", &matrix)?;
    let mut figures = Vec::new();
    for number in 1..=pairs {
        let ours = prepare(bench, &matrix, &fresh(bench, &format!("prepare-{number}.store"))?)?;
        let bare = script_run(bench, &urls, &fresh(bench, &format!("prepare-{number}.script"))?)?;
        eprintln!("bench: prepare: pair {number} of {pairs}: {ours:.2} s, {bare:.2} s");
        figures.push([ours, bare]);
    }
    Ok(report(&Figures::new(["nestmatrix", "bare tools"], figures)))
}

fn fresh(bench: &Workbench, name: &str) -> Result<PathBuf, Failure> {
    let folder = bench.folder.join(name);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    Ok(folder)
}

/// Seconds until all four are in the store; the store is removed afterwards.
fn prepare(bench: &Workbench, matrix: &Path, store: &Path) -> Result<f64, Failure> {
    let mut prepare = Command::new(&bench.nestmatrix);
    prepare.args(["images", "prepare", "--matrix"]).arg(matrix).arg("--store").arg(store);
    timed(prepare.stdin(Stdio::null()).stderr(Stdio::null()), store)
}

/// Seconds until the tools have done the same.
fn script_run(bench: &Workbench, urls: &[String], work: &Path) -> Result<f64, Failure> {
    let script = bench.folder.join("prepare.sh");
    fs::write(&script, SCRIPT).map_err(at(&script))?;
    timed(Command::new("sh").arg(script).arg(work).args(urls).stdin(Stdio::null()), work)
}

fn timed(command: &mut Command, leaves: &Path) -> Result<f64, Failure> {
    let began = Instant::now();
    command::run(command)?;
    let took = began.elapsed().as_secs_f64();
    fs::remove_dir_all(leaves).map_err(at(leaves))?;
    Ok(took)
}

fn report(figures: &Figures) -> Report {
    let within = figures.ratio() <= 1.25;
    let verdict = if within { "no slower than" } else { "SLOWER than" };
    let mut json = figures.json();
    json["within"] = json!(within);
    let broken = (!within).then(|| format!("it takes {:.2} times as long as the bare tools", figures.ratio()));
    Report {
        text: format!("{figures}nestmatrix is {verdict} the bare tools, a quarter granted\n"),
        json,
        broken: broken.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_slower_than_the_tools_breaks_the_benchmark() {
        let of = |ours| report(&Figures::new(["nestmatrix", "bare tools"], vec![[ours, 10.0]]));
        assert!(of(10.0).broken.is_empty() && of(10.0).text.contains("no slower"));
        assert!(of(20.0).broken[0].contains("2.00 times"));
    }
}
