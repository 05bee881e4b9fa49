//! `plan`: what would run.

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
    if let Some(package) = &plan.package {
        let version = package.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        text += &format!("\npackage {}{version}\n", package.name);
        for artifact in &package.artifacts {
            text += &format!("  {} ({} bytes, {})\n", artifact.file_name, artifact.bytes, artifact.digest);
        }
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (cells, images) = (count(plan.cells.len(), "cell"), count(plan.images.len(), "image"));
    text += &format!("\n{cells} on {images}; plan {}\n", plan.digest.short());
    text
}

fn row(cell: &Cell) -> Vec<String> {
    let guest = &cell.guest;
    let limit = format!("{} s", cell.timeouts.suite.as_secs());
    let cpus = if guest.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", guest.cpus) };
    let size = format!("{cpus}, {}", guest.memory);
    vec![cell.id.to_string(), cell.image.clone(), cell.suite.clone(), size, limit]
}
