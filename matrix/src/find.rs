//! Globs of the matrix file -> files on this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::Mistakes,
    located::At,
    near,
    text::{GLOB_HELP, MAX_PATH_LEN},
};

/// Maximum number of files: more are probably a mistake (`**/*` in a home folder), and reading them takes hours.
const MAX_FILES: usize = 10_000;

/// The regular files that match this glob, sorted. None at all is a mistake.
pub(crate) fn find(glob: &At<String>, folder: &Path, mistakes: &mut Mistakes) -> Vec<PathBuf> {
    match matches(glob, folder, mistakes) {
        Some(files) if files.is_empty() => {
            let (looked, help) = missing(glob.text(), folder);
            let message = format!("no file matches `{}`", glob.text());
            mistakes.push(mistakes.at(glob.span(), message, &looked).with_help(help));
            files
        }
        Some(files) => files,
        None => Vec::new(),
    }
}

fn matches(glob: &At<String>, folder: &Path, mistakes: &mut Mistakes) -> Option<Vec<PathBuf>> {
    let wrong = |mistakes: &mut Mistakes, message: String, help: &str| {
        mistakes.push(mistakes.at(glob.span(), message, "this glob").with_help(help));
    };
    let text = glob.text();
    if text.len() > MAX_PATH_LEN {
        wrong(mistakes, format!("the glob has {} bytes, the limit is {MAX_PATH_LEN}", text.len()), GLOB_HELP);
        return None;
    }
    if let Err(error) = glob::Pattern::new(text) {
        wrong(mistakes, format!("`{text}` is not a glob: {}", error.msg), GLOB_HELP);
        return None;
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        wrong(mistakes, format!("{text:?} names no file"), "write a path or a glob, relative to the matrix file");
        return None;
    }
    // The library takes a `**` at the end for folders only; users mean their content.
    let everything = if text == "**" || text.ends_with("/**") { "/*" } else { "" };
    let pattern = if text.starts_with('/') {
        format!("{text}{everything}")
    } else {
        // The folder's own name may contain `[` or `*`; it is not a pattern.
        format!("{}/{text}{everything}", glob::Pattern::escape(folder.to_str()?))
    };
    let paths = match glob::glob(&pattern) {
        Ok(paths) => paths,
        // Each name of the path is a pattern of its own: `[a/b]` is valid, but neither `[a` nor `b]` is.
        Err(error) => {
            wrong(mistakes, format!("`{text}` is not a glob: {}", error.msg), GLOB_HELP);
            return None;
        }
    };
    let mut files = Vec::new();
    for found in paths {
        let file =
            found.map_err(|error| (error.path().to_owned(), error.into())).and_then(|path| match fs::metadata(&path) {
                Ok(metadata) => Ok(metadata.is_file().then_some(path)),
                Err(error) => Err((path, error)),
            });
        match file {
            Ok(file) => files.extend(file),
            Err((path, error)) => {
                unreadable(glob, &path, &error, mistakes);
                return None;
            }
        }
        if files.len() > MAX_FILES {
            wrong(
                mistakes,
                format!("`{text}` matches more than {MAX_FILES} files"),
                "write a narrower glob, or pack them into one file",
            );
            return None;
        }
    }
    files.sort();
    Some(files)
}

/// A file that was named cannot be read.
pub(crate) fn unreadable(at: &At<String>, path: &Path, error: &io::Error, mistakes: &mut Mistakes) {
    let message = format!("cannot read {}: {error}", path.display());
    mistakes.push(
        mistakes.at(at.span(), message, "named here").with_help("make it readable, or remove it from the matrix"),
    );
}

/// Where a file was expected, and what is there instead.
pub(crate) fn missing(text: &str, folder: &Path) -> (String, String) {
    let is_plain = |part: &&str| !part.contains(['*', '?', '[']);
    let parts: Vec<_> = text.split('/').collect();
    let (last, parents) = parts.split_last().unwrap_or((&"", &[]));
    let start = if text.starts_with('/') { Path::new("/") } else { folder };
    let looked = parents.iter().take_while(|part| is_plain(part)).fold(start.to_owned(), |path, part| path.join(part));
    let label = format!("looked in {}", looked.display());
    let Ok(entries) = fs::read_dir(&looked) else {
        return (
            label,
            format!("the folder {} cannot be read or does not exist: build the files first?", looked.display()),
        );
    };
    let mut there: Vec<_> = entries
        .flatten()
        .take(MAX_FILES)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.chars().any(char::is_control))
        .collect();
    there.sort();
    let help = if there.is_empty() {
        "the folder is empty: build the files first?".to_owned()
    } else {
        let more = there.len().saturating_sub(5);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let some = there.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        near::help(last, &there, &format!("the folder holds {some}{more}"))
    };
    (label, help)
}
