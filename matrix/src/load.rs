//! From a path to a [`Plan`]: the thin shell around parsing, validation and expansion.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Image, LoadError, LoadWarning, Package, Plan, Repository, Runner,
    error::{Mistakes, Problem},
    expand, near, parse, payload,
    read::read_file,
    repositories::MatrixRepository,
    snippet::Source,
    template::Templates,
    validate,
};

/// Maximum length of a matrix file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A valid matrix, expanded.
#[derive(Debug)]
pub struct Loaded {
    /// What to run.
    pub plan: Plan,
    /// The warnings.
    pub warnings: Vec<LoadWarning>,
}

/// Reads a matrix file and the files it names, and expands it. `catalog`: the names of the images that exist.
///
/// Reads nothing else and starts nothing. The error has every mistake that can be found in one pass.
pub fn load(file: &Path, catalog: &[&str]) -> Result<Loaded, LoadError> {
    let (text, folder) = read(file)?;
    let mut mistakes = Mistakes::new(Source::new(file, &text));
    let Some(parsed) = parse::parse(&mut mistakes) else {
        mistakes.check()?;
        return Err(Problem::file(file, "not a matrix file").into());
    };
    let matrix = validate::validate(parsed, catalog, &mut mistakes);
    let payload = payload::read(&matrix, &folder, &mut mistakes);
    let mut templates =
        Templates::new().map_err(|error| Problem::file(file, format!("the template engine failed: {error}")))?;
    let compiled = expand::compile(&matrix, &mut templates, &mut mistakes);
    expand::check_size(&matrix, &compiled, &mut mistakes);
    mistakes.check()?;

    let expand::Expanded { cells, prepares, scripts } =
        expand::expand(&matrix, &payload, &compiled, &templates, &mut mistakes);
    mistakes.check()?;
    let mut plan = Plan {
        digest: Digest::from_bytes([0; 32]),
        matrix: file.to_owned(),
        package: matrix.package.map(|package| Package {
            name: package.name.text().to_owned(),
            version: package.version.map(|version| version.text().to_owned()),
            artifacts: payload.artifacts,
        }),
        runner: at_home(matrix.runner, &folder),
        network: matrix.network,
        repositories: matrix
            .repositories
            .into_iter()
            .zip(payload.keys)
            .map(|(MatrixRepository { name, images, descriptions, key: _, hosts }, key)| Repository {
                name,
                images,
                descriptions,
                key,
                hosts,
            })
            .collect(),
        images: matrix
            .images
            .into_iter()
            .zip(prepares)
            .zip(payload.disks)
            .map(|((image, prepare), disk)| Image { prepare, ..image.image }.at(disk))
            .collect(),
        scripts,
        cells,
    };
    plan.keep_what_is_used();
    Ok(Loaded { plan, warnings: mistakes.into_warnings() })
}

/// Resolves the path of the key, which is relative to this folder or to the user's home.
fn at_home(mut runner: Runner, folder: &Path) -> Runner {
    runner.identity = runner.identity.map(|file| match file.strip_prefix("~") {
        Ok(inside) => std::env::home_dir().unwrap_or_default().join(inside),
        Err(_) => folder.join(file),
    });
    runner
}

/// The file's text, and its folder: absolute and without links, so that paths inside it can be recognized.
fn read(file: &Path) -> Result<(String, PathBuf), LoadError> {
    let wrong = |message: String, help: &str| LoadError::from(Problem::file(file, message).with_help(help));
    let unreadable = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => absent(file),
            io::ErrorKind::Unsupported => "name the matrix file itself, a TOML file".to_owned(),
            _ => "name a file that can be read".to_owned(),
        };
        wrong(format!("cannot read the matrix file: {error}"), &help)
    };
    let bytes = read_file(file, MAX_FILE_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            let size = file.metadata().map_or(0, |found| found.len());
            let help = "put scripts into files of their own (`run = \"...\"`), or split the matrix";
            wrong(format!("the matrix file is too large: {size} bytes, the limit is {MAX_FILE_BYTES}"), help)
        }
        _ => unreadable(error),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        wrong(format!("the matrix file is not UTF-8 text (line {line})"), "save it as UTF-8")
    })?;
    // Some editors begin a file with U+FEFF and end its lines with CR LF; neither is part of the text, nor of a script in it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let folder = file.canonicalize().map_err(unreadable)?.parent().map(Path::to_owned).unwrap_or_default();
    // The plan and the reports, which are text, contain both.
    if folder.to_str().is_none() || file.to_str().is_none() {
        return Err(wrong("the path of the matrix file is not UTF-8".into(), "rename the file or its folder"));
    }
    Ok((text, folder))
}

/// Suggestions for a file that does not exist.
fn absent(file: &Path) -> String {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = folder.read_dir() else {
        return format!("the folder {} does not exist or cannot be read", folder.display());
    };
    let mut there: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    there.sort();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    near::help(&name, &there, "name a matrix file: a TOML file with images and suites")
}
