//! A summary of the packages installed in the guests of each image.

use indexmap::IndexMap;

use crate::Run;

/// `hello 2.12-1 (debian-12, debian-13)`: all installed packages, each with its images.
pub(crate) fn by_image(run: &Run) -> Vec<String> {
    let mut images = IndexMap::<String, Vec<&str>>::new();
    for cell in &run.cells {
        let Some(attempt) = cell.last_attempt().filter(|attempt| !attempt.installed.is_empty()) else { continue };
        let packages: Vec<String> = attempt.installed.iter().map(ToString::to_string).collect();
        let named = images.entry(packages.join(", ")).or_default();
        if !named.contains(&cell.image.as_str()) {
            named.push(&cell.image);
        }
    }
    images.into_iter().map(|(packages, images)| format!("{packages} ({})", images.join(", "))).collect()
}
