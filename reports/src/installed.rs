//! A summary of the packages installed in the guests of each image.

use indexmap::IndexMap;
use matrix::InstallFrom;

use crate::Run;

/// `hello 2.12-1 (debian-12, debian-13)`: all installed packages, each with its images, and whether that was done by name.
pub(crate) fn by_image(run: &Run) -> Vec<String> {
    let mut images = IndexMap::<String, Vec<&str>>::new();
    for cell in &run.cells {
        let Some(attempt) = cell.last_attempt().filter(|attempt| !attempt.installed.is_empty()) else { continue };
        let packages: Vec<String> = attempt.installed.iter().map(ToString::to_string).collect();
        let how = match cell.install {
            InstallFrom::File => "",
            InstallFrom::Repository => ", the package by name",
        };
        let named = images.entry(packages.join(", ") + how).or_default();
        if !named.contains(&cell.image.as_str()) {
            named.push(&cell.image);
        }
    }
    images.into_iter().map(|(packages, images)| format!("{packages} ({})", images.join(", "))).collect()
}
