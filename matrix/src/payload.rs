//! The files a matrix names, read: artifacts of the package, scripts and the files beside them.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    io,
    path::{Component, Path, PathBuf},
};

use crate::{
    Artifact, Digest, PackageFamily, RepositoryKey, UploadFile,
    error::Mistakes,
    find::{find, unreadable},
    key,
    located::At,
    read::hash_file,
    script::{self, Script},
    validate::Matrix,
};
use rayon::prelude::*;

/// Maximum size of a file that is sent to guests, in bytes: longer files take hours, or are not real files (`/proc/kcore` has 128
/// TiB).
const MAX_UPLOAD_BYTES: u64 = 16 << 30;

/// The content of the named files.
pub(crate) struct Payload {
    /// The package's files, by file name.
    pub(crate) artifacts: Vec<Artifact>,
    /// For every suite of the matrix, in its order.
    pub(crate) suites: Vec<SuitePayload>,
    /// For every image of the matrix, in its order: the text of the script file it is prepared with.
    pub(crate) prepares: Vec<Option<String>>,
    /// For every image of the matrix, in its order: the file on this machine that it comes from (absolute).
    pub(crate) disks: Vec<Option<PathBuf>>,
    /// For every repository of the matrix, in its order: the key that signs it.
    pub(crate) keys: Vec<Option<RepositoryKey>>,
}

/// What was read for one suite.
pub(crate) struct SuitePayload {
    /// The text of its script file; `None` if the script is inline.
    pub(crate) script: Option<String>,
    /// The files beside it.
    pub(crate) files: Vec<UploadFile>,
}

/// Reads what the matrix names. `folder`: the matrix file's, absolute, without links.
pub(crate) fn read(matrix: &Matrix, folder: &Path, mistakes: &mut Mistakes) -> Payload {
    let globs = matrix.package.iter().flat_map(|package| package.artifacts());
    let artifacts = artifact_paths(globs, folder, mistakes);
    let uploads: Vec<_> = matrix.suites.iter().map(|suite| upload_paths(&suite.files, folder, mistakes)).collect();

    let named: HashMap<&Path, &At<String>> = artifacts
        .values()
        .chain(uploads.iter().flat_map(BTreeMap::values))
        .map(|(path, glob)| (path.as_path(), *glob))
        .collect();
    let hashed: HashMap<&Path, io::Result<(u64, Digest)>> =
        named.keys().par_bridge().map(|path| (*path, hash_file(path, MAX_UPLOAD_BYTES))).collect();
    let mut failed: Vec<_> = hashed.iter().filter_map(|(path, result)| Some((path, result.as_ref().err()?))).collect();
    failed.sort_by_key(|(path, _)| **path);
    for (path, error) in failed {
        unreadable(named[path], path, error, mistakes);
    }
    let known = |path: &Path| hashed.get(path).and_then(|result| result.as_ref().ok()).copied();

    let suites = matrix.suites.iter().zip(&uploads).map(|(suite, uploads)| SuitePayload {
        script: match &suite.script {
            Script::File(file) => script::read(file, folder, mistakes),
            Script::Inline(_) => None,
        },
        files: uploads
            .iter()
            .filter_map(|(relative, (path, _))| {
                let (bytes, digest) = known(path)?;
                Some(UploadFile { path: path.clone(), relative: relative.clone(), bytes, digest })
            })
            .collect(),
    });
    let suites = suites.collect();
    let mut prepares = Vec::new();
    for image in &matrix.images {
        prepares.push(match image.prepare.as_ref().and_then(|prepare| prepare.script.as_ref()) {
            Some(Script::File(file)) => script::read(file, folder, mistakes),
            Some(Script::Inline(_)) | None => None,
        });
    }
    let artifacts = artifacts
        .iter()
        .filter_map(|(file_name, (path, _))| {
            let (bytes, digest) = known(path)?;
            Some(Artifact { path: path.clone(), file_name: file_name.clone(), bytes, digest })
        })
        .collect();
    let disks = matrix.images.iter().map(|image| image.file.as_ref().and_then(|at| disk(at, folder, mistakes)));
    let disks = disks.collect();
    let keys = matrix.repositories.iter().map(|repository| repository.key.as_ref());
    let keys = keys.map(|file| file.and_then(|file| key::read(file, folder, mistakes))).collect();
    Payload { artifacts, suites, prepares, disks, keys }
}

/// The file of an image. It is not read here: it may be large, and is read when needed.
fn disk(at: &At<String>, folder: &Path, mistakes: &mut Mistakes) -> Option<PathBuf> {
    let path = folder.join(at.text());
    let found = path.metadata();
    let wrong = match &found {
        // The kernel's own files report a size of 0, whatever they contain.
        Ok(found) if found.is_file() && found.len() == 0 => Some("it is empty".to_owned()),
        Ok(found) if found.is_file() => None,
        Ok(_) => Some("it is not a file".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    let Some(wrong) = wrong else {
        return path.canonicalize().ok().filter(|path| path.to_str().is_some()).or(Some(path));
    };
    let problem = mistakes.at(at.span(), format!("cannot use {}: {wrong}", path.display()), "no such image");
    mistakes.push(problem.with_help("paths are relative to the matrix file; block devices are not images"));
    None
}

/// Name in the guest -> where it is here, and the glob that named it.
type Named<'a> = BTreeMap<String, (PathBuf, &'a At<String>)>;

fn artifact_paths<'a>(
    globs: impl Iterator<Item = &'a At<String>>,
    folder: &Path,
    mistakes: &mut Mistakes,
) -> Named<'a> {
    let mut named = Named::new();
    let mut no_packages = Vec::new();
    for glob in globs {
        let mut others = Vec::new();
        for path in find(glob, folder, mistakes) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)) else {
                not_plain_text(&path, glob, mistakes);
                continue;
            };
            if !is_package(name) {
                others.push(name.to_owned());
            }
            match named.entry(name.to_owned()) {
                btree_map::Entry::Vacant(entry) => {
                    entry.insert((path, glob));
                }
                btree_map::Entry::Occupied(entry) => {
                    let (first, first_glob) = entry.get();
                    if *first == path {
                        continue;
                    }
                    let message =
                        format!("two artifacts are named `{name}`: {} and {}", first.display(), path.display());
                    let problem = mistakes.at(glob.span(), message, "names the second");
                    let problem = if *first_glob == glob {
                        problem
                    } else {
                        problem.with_label(first_glob.span(), "names the first")
                    };
                    mistakes.push(problem.with_help(
                        "all artifacts go into one folder in the guest: rename one, or write narrower globs",
                    ));
                }
            }
        }
        no_packages.push((glob, others));
    }
    // Without any package there is nothing to install anywhere.
    let none = !named.keys().any(|name| is_package(name));
    for (glob, others) in no_packages {
        report_non_packages(&others, glob, none, mistakes);
    }
    named
}

fn is_package(name: &str) -> bool {
    PackageFamily::ALL.iter().any(|family| family.stem(name).is_some())
}

/// Reports artifacts that no package manager accepts: no guest gets them.
fn report_non_packages(names: &[String], glob: &At<String>, is_mistake: bool, mistakes: &mut Mistakes) {
    let Some(first) = names.first() else { return };
    let message = match names.len() {
        1 => format!("`{first}` is not a package: no guest installs it"),
        several => format!("{several} artifacts are not packages: no guest installs them; the first is `{first}`"),
    };
    let endings = PackageFamily::ALL.map(PackageFamily::ending).join(", ");
    let help = format!("packages end in one of {endings}; what a suite itself needs goes into its `files`");
    let problem = mistakes.at(glob.span(), message, "names it").with_help(help);
    if is_mistake { mistakes.push(problem) } else { mistakes.warn(problem) }
}

fn upload_paths<'a>(globs: &'a [At<String>], folder: &Path, mistakes: &mut Mistakes) -> Named<'a> {
    let mut named = Named::new();
    for glob in globs {
        let text = glob.text();
        if text.starts_with('/') || text.split('/').any(|part| part == "..") {
            mistakes.push(
                mistakes
                    .at(glob.span(), format!("`{text}` is outside of the matrix file's folder"), "outside")
                    .with_help("in the guest, files keep their path relative to that folder: name files inside it"),
            );
            continue;
        }
        for path in find(glob, folder, mistakes) {
            match path.canonicalize() {
                Ok(target) if !target.starts_with(folder) => {
                    let message = format!("{} is a link that leads out of the matrix file's folder", path.display());
                    mistakes.push(mistakes.at(glob.span(), message, "named here").with_help("copy the file there"));
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    unreadable(glob, &path, &error, mistakes);
                    continue;
                }
            }
            match relative(&path, folder) {
                Some(relative) => {
                    named.insert(relative, (path, glob));
                }
                None => not_plain_text(&path, glob, mistakes),
            }
        }
    }
    named
}

/// The path relative to the folder, with `/`; `None` if it is not plain text.
fn relative(path: &Path, folder: &Path) -> Option<String> {
    let parts: Option<Vec<_>> = path
        .strip_prefix(folder)
        .ok()?
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str().filter(|part| is_plain(part)),
            _ => None,
        })
        .collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

fn is_plain(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

fn not_plain_text(path: &Path, glob: &At<String>, mistakes: &mut Mistakes) {
    let message = format!("the name of {path:?} is not plain text");
    mistakes.push(
        mistakes.at(glob.span(), message, "matched by this").with_help("rename the file, or write a narrower glob"),
    );
}
