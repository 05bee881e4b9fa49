//! `[image.prepare]`: what is done to an image's guests before any cell. Checks the table, and computes its identity.

use std::time::Duration;

use sha2::Digest as _;

use crate::{
    Digest, Network, Prepare,
    error::Mistakes,
    file::PrepareTable,
    fingerprint::hash_json,
    located::At,
    quantity,
    script::{Script, two_scripts},
    text,
};

/// Default time limit.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Raised with every change of what [`Prepare::digest`] covers.
const FORM: &str = "prepare 1";

/// The checked table. Its file is not read yet.
pub(crate) struct ImagePrepare {
    pub(crate) script: Option<Script>,
    pub(crate) packages: Vec<String>,
    pub(crate) network: Network,
    pub(crate) timeout: Duration,
}

/// Checks the table; `None`, and a mistake, if it does nothing.
pub(crate) fn check(at: &At<PrepareTable>, mistakes: &mut Mistakes) -> Option<ImagePrepare> {
    let table = at.get();
    for name in table.packages.iter().filter(|name| !text::is_package(name.text())) {
        mistakes.push(
            mistakes
                .at(name.span(), format!("{:?} is not the name of a package", name.text()), "not a package")
                .with_help("write one name as the guest's package manager knows it, such as `gcc` or `libssl-dev`: letters, digits and `+._:=~-`, not beginning with a sign"),
        );
    }
    // Packages come from the repositories of the system, so an isolated guest is never what their author means by default.
    let usual = if table.packages.is_empty() { Network::Isolated } else { Network::Repositories };
    let network = table.network.unwrap_or(usual);
    if let (Some(first), Network::Isolated) = (table.packages.first(), network) {
        let problem =
            mistakes.at(first.span(), "these packages cannot be downloaded", "an isolated guest reaches nothing");
        mistakes.warn(
            problem
                .with_help("write `network = \"repositories\"` in this `prepare`: it applies to the preparation only"),
        );
    }
    let timeout = table.timeout.as_ref().map_or(Some(TIMEOUT), |timeout| quantity::duration(timeout, mistakes));
    let script =
        match (&table.run, &table.inline) {
            (Some(file), None) => Some(Script::File(file.clone())),
            (None, Some(text)) => Some(Script::Inline(text.clone())),
            (Some(file), Some(text)) => {
                two_scripts("table `prepare`", file, text, mistakes);
                return None;
            }
            (None, None) if table.packages.is_empty() => {
                mistakes.push(mistakes.at(at.span(), "this `prepare` prepares nothing", "nothing to do").with_help(
                    "add `packages = [\"gcc\"]`, `run = \"prepare.sh\"` or `inline = \"...\"`, or remove it",
                ));
                return None;
            }
            (None, None) => None,
        };
    Some(ImagePrepare {
        script,
        packages: table.packages.iter().map(|name| name.text().to_owned()).collect(),
        network,
        timeout: timeout.unwrap_or(TIMEOUT),
    })
}

impl Prepare {
    /// Identity of the preparation: equal digests mean the same packages in the same order, the same script and the same network.
    /// The time limit is not part of it: it does not change the template.
    pub fn digest(&self) -> Digest {
        let Self { script, script_origin: _, packages, network, timeout: _ } = self;
        let mut hasher = sha2::Sha256::new();
        hash_json(&mut hasher, &(FORM, script, packages, network));
        Digest::from_bytes(hasher.finalize().into())
    }
}
