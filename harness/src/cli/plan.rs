//! `plan`: what would run.

use std::collections::BTreeMap;

use matrix::{Cell, Plan};

use super::{Outcome, args, matrix_file, pretty, print, table};

pub(super) fn plan(args: &args::Plan) -> Outcome {
    let plan = matrix_file::load_to_run(&args.which)?.plan;
    match args.format {
        args::Format::Json => print(&pretty(&plan)?),
        args::Format::Table => print(&text(&plan)),
    }
}

fn text(plan: &Plan) -> String {
    let header = ["CELL", "IMAGE", "SUITE", "GUEST", "TIME LIMIT"].map(str::to_owned).to_vec();
    let rows = std::iter::once(header).chain(plan.cells.iter().map(row));
    let mut text = table(rows);
    // One line for all cells of a suite: their steps are the same.
    let installable = plan.package.as_ref().is_some_and(|package| !package.artifacts.is_empty());
    let steps = plan.cells.iter().filter_map(|cell| Some((&cell.suite, cell.unusual_steps(installable)?)));
    for (suite, steps) in steps.collect::<BTreeMap<_, _>>() {
        text += &format!("\nsteps of {suite}: {steps}\n");
    }
    if let Some(package) = &plan.package {
        let version = package.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        text += &format!("\npackage {}{version}\n", package.name);
        for artifact in &package.artifacts {
            text += &format!("  {} ({} bytes, {})\n", artifact.file_name, artifact.bytes, artifact.digest);
        }
    }
    if let (matrix::RunnerKind::Ssh, Some(host)) = (plan.runner.kind, &plan.runner.host) {
        text += &format!("\nguests run on {host}, over SSH\n");
    }
    if let Some(gce) = &plan.runner.gce {
        text += &format!("\nguests run on Compute Engine: {}\n", machine(gce));
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (cells, images) = (count(plan.cells.len(), "cell"), count(plan.images.len(), "image"));
    text += &format!("\n{cells} on {images}; plan {}\n", plan.digest.short());
    text
}

/// The machine on Compute Engine, as far as the matrix says.
fn machine(gce: &matrix::GceRunner) -> String {
    let mut text = gce.machine_type.clone().unwrap_or_else(|| "an instance".to_owned());
    if gce.spot {
        text += " (Spot)";
    }
    if !gce.zones.is_empty() {
        text += &format!(" in {}", gce.zones.join(", else "));
    }
    if let Some(project) = &gce.project {
        text += &format!(", project {project}");
    }
    let at_most = jiff::SignedDuration::try_from(gce.max_duration).unwrap_or(jiff::SignedDuration::MAX);
    text + &format!(", {}; deleted after {at_most:#} at the latest", gce.image)
}

fn row(cell: &Cell) -> Vec<String> {
    let guest = &cell.guest;
    let limit = format!("{} s", cell.timeouts.suite.as_secs());
    let cpus = if guest.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", guest.cpus) };
    let size = format!("{cpus}, {}", guest.memory);
    vec![cell.id.to_string(), cell.image.clone(), cell.suite.clone(), size, limit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_where_they_are_not_the_usual_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let suites = "[[suite]]\nname = 'usual'\ninline = 'true'\n[[suite]]\nname = 'own'\ninline = 'true'\n\
                      steps = ['prepare', 'reboot', 'run']\nreboot = true\n";
        std::fs::write(&file, format!("images = ['a', 'b']\n{suites}")).unwrap();
        let text = text(&matrix::load(&file, &["a", "b"]).unwrap().plan);
        assert!(text.contains("\nsteps of own: prepare, reboot, run (may reboot)\n"), "{text}");
        assert_eq!(text.matches("steps of").count(), 1, "{text}");
    }

    #[test]
    fn a_machine_on_compute_engine_is_shown_as_far_as_the_matrix_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let gce = "kind = 'gce'\nproject = 'my-project'\nzones = ['us-central1-a', 'us-east1-b']\nspot = true\nmax_duration = '90m'\n";
        let suite = "suite = [{ name = 'a', inline = 'true' }]";
        std::fs::write(&file, format!("images = ['a']\n{suite}\n[runner]\n{gce}")).unwrap();
        let text = text(&matrix::load(&file, &["a"]).unwrap().plan);
        let line = "guests run on Compute Engine: an instance (Spot) in us-central1-a, else us-east1-b, project my-project, \
                    debian-cloud/debian-13; deleted after 1h 30m at the latest\n";
        assert!(text.contains(line), "{text}");
    }
}
