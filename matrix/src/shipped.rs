//! The matrices that ship with nestmatrix, compiled into the program: they run wherever it is copied.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::Digest as _;

use crate::{Digest, deb};

/// Files of the definitions: path, content.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../definitions/", $path)))),*]
    };
}

const MATRICES: [(&str, &str); 2] = files!["release.toml", "nested.toml"];

/// What their suites run.
const SCRIPTS: [(&str, &str); 3] = files!["nestling/checks.sh", "nestling/smoke.sh", "nestling/upgrade.sh"];

/// The parts of the sample package.
const PROGRAM: &str = include_str!("../definitions/nestling/nestling");
const SERVICE: &str = include_str!("../definitions/nestling/nestling.service");
const CONFIGURATION: &str = include_str!("../definitions/nestling/nestling.conf");
const CONTROL: [(&str, &str); 5] = [
    ("conffiles", include_str!("../definitions/nestling/debian/conffiles")),
    ("control", include_str!("../definitions/nestling/debian/control")),
    ("postinst", include_str!("../definitions/nestling/debian/postinst")),
    ("postrm", include_str!("../definitions/nestling/debian/postrm")),
    ("prerm", include_str!("../definitions/nestling/debian/prerm")),
];

/// Names of the shipped matrices.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    MATRICES.iter().map(|(path, _)| path.trim_end_matches(".toml"))
}

/// Writes the shipped matrices, with all files they name, into a folder of their own below `folder`; returns the matrix file of
/// this name, `None` if there is none. Correct files are left alone, so that two processes may do this at once.
///
/// # Errors
///
/// A file cannot be written.
pub fn unpack_shipped(name: &str, folder: &Path) -> io::Result<Option<PathBuf>> {
    if !shipped().any(|shipped| shipped == name) {
        return Ok(None);
    }
    let files = files()?;
    let mut hasher = sha2::Sha256::new();
    for (path, content) in &files {
        hasher.update(path);
        hasher.update(content);
    }
    // Another version of nestmatrix may ship others: a resumed run finds those it began with.
    let folder = folder.join(Digest::from_bytes(hasher.finalize().into()).short());
    for (path, content) in &files {
        let path = folder.join(path);
        if fs::read(&path).is_ok_and(|there| there == *content) {
            continue;
        }
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent)?;
        let temporary = parent.join(format!(".{}.part", std::process::id()));
        fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path))?;
    }
    Ok(Some(folder.join(name).with_extension("toml")))
}

fn files() -> io::Result<Vec<(String, Vec<u8>)>> {
    let plain = MATRICES.iter().chain(&SCRIPTS).map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    let mut files: Vec<_> = plain.collect();
    for version in ["1.0", "2.0"] {
        files.push((format!("nestling/dist/nestling_{version}_all.deb"), nestling(version)?));
    }
    Ok(files)
}

/// The sample package.
fn nestling(version: &str) -> io::Result<Vec<u8>> {
    let versioned = |text: &str| text.replace("@VERSION@", version);
    let script = |name: &str| ["postinst", "postrm", "prerm"].contains(&name);
    let control = CONTROL.map(|(name, text)| deb::File { path: name, text: versioned(text), is_program: script(name) });
    // The configuration file of 2.0 differs, so that an upgrade must choose between it and the administrator's.
    let more = if version == "1.0" { "" } else { "# Number the answers.\nnumbered = yes\n" };
    let data = [
        deb::File { path: "etc/nestling.conf", text: format!("{CONFIGURATION}{more}"), is_program: false },
        // Not usr/lib: on Debian 11 deb-systemd-helper looks for units here only.
        deb::File { path: "lib/systemd/system/nestling.service", text: SERVICE.to_owned(), is_program: false },
        deb::File { path: "usr/bin/nestling", text: versioned(PROGRAM), is_program: true },
    ];
    deb::pack(&control, &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_matrix_is_a_plan_wherever_it_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let images = ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"];
        let digests = shipped().map(|name| {
            let file = unpack_shipped(name, folder.path()).unwrap().expect("shipped");
            let loaded = crate::load(&file, &images).expect("valid");
            assert!(loaded.warnings.is_empty());
            // Changed files are restored.
            fs::write(&file, "images = []").unwrap();
            let again = unpack_shipped(name, folder.path()).unwrap().expect("shipped");
            assert_eq!(crate::load(&again, &images).expect("valid").plan, loaded.plan);
            (loaded.plan.cells.len(), loaded.plan.digest)
        });
        let digests: Vec<_> = digests.collect();
        assert_eq!((digests[0].0, digests[1].0), (6, 2));
        assert_eq!(unpack_shipped("relaese", folder.path()).unwrap(), None);
        let elsewhere = tempfile::tempdir().unwrap();
        let file = unpack_shipped("release", elsewhere.path()).unwrap().expect("shipped");
        assert_eq!(crate::load(&file, &images).expect("valid").plan.digest, digests[0].1);
    }
}
