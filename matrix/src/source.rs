//! Where an image of the matrix comes from: checks the keys of `[[image]]` that say so.

use crate::{
    Arch, Checksum, Firmware, Image, ImageSource, Location,
    error::{Mistakes, Problem},
    file::ImageTable,
    located::At,
    near,
    scalar::OneOrMany,
};

/// Maximum length of an address.
const MAX_URL_LEN: usize = 2048;

/// Checks the source of an image. An incomplete source is a mistake.
pub(crate) fn check(
    name: &At<String>,
    table: Option<&ImageTable>,
    catalog: &[&str],
    mistakes: &mut Mistakes,
) -> Option<ImageSource> {
    let Some(table) = table else { return in_catalog(name, catalog, mistakes) };
    let given: Vec<(&str, std::ops::Range<usize>)> = [
        ("from", table.from.as_ref().map(At::span)),
        ("url", table.url.as_ref().map(At::span)),
        ("path", table.path.as_ref().map(At::span)),
        ("rootfs", table.rootfs.as_ref().map(At::span)),
    ]
    .into_iter()
    .filter_map(|(key, span)| Some((key, span?)))
    .collect();
    if let [(first, one), (second, other), ..] = given.as_slice() {
        let message = format!("the image `{}` comes from two places: `{first}` and `{second}`", name.text());
        let problem = mistakes.at(other.clone(), message, "a place").with_label(one.clone(), "and another");
        mistakes.push(problem.with_help("keep one of `from` (the catalog), `url`, `path` and `rootfs`"));
        return None;
    }
    let location = match (&table.url, &table.path, &table.rootfs) {
        (Some(url), ..) => addresses(url, mistakes).map(Location::Urls),
        (_, Some(path), _) => file(path, mistakes),
        (_, _, Some(rootfs)) if is_address(rootfs.text()) => {
            address(rootfs.text(), rootfs.span(), mistakes).map(|url| Location::Urls(vec![url]))
        }
        (_, _, Some(rootfs)) => file(rootfs, mistakes),
        (None, None, None) => {
            refuse_for_catalog(table, mistakes);
            return in_catalog(table.from.as_ref().unwrap_or(name), catalog, mistakes);
        }
    };
    if catalog.contains(&name.text()) {
        let message = format!("`{}` is the name of an image of the catalog", name.text());
        let problem = mistakes.at(name.span(), message, "this one comes from elsewhere");
        mistakes.push(problem.with_help("give it another name, so that reports are unambiguous"));
    }
    let digest = match (&table.digest, &location) {
        (Some(at), _) => Some(checksum(at, mistakes)?),
        (None, Some(Location::Urls(_))) => {
            let (_, span) = given.first().cloned().unwrap_or(("url", name.span()));
            mistakes.push(
                mistakes
                    .at(span, "the download has no digest, so it cannot be verified", "no digest")
                    .with_help("add `digest = \"sha256:...\"` as its publisher states it"),
            );
            return None;
        }
        (None, _) => None,
    };
    let arch = table.arch.unwrap_or(Arch::here());
    if let (Some(at), true) = (&table.firmware, table.rootfs.is_some()) {
        let problem = mistakes.at(at.span(), "a root file system has no boot loader", "nothing to start");
        mistakes.push(problem.with_help("remove `firmware`: nestmatrix boots it with its own kernel"));
    }
    if let Some(at) = &table.firmware
        && !at.get().exists_for(arch)
    {
        mistakes.push(no_such_firmware(at, mistakes));
    }
    if let (Some(at), None) = (&table.kernel_args, &table.rootfs) {
        let message = "`kernel_args` has no effect: this image's boot loader sets the kernel command line";
        let problem = mistakes.at(at.span(), message, "no effect");
        mistakes
            .push(problem.with_help("remove `kernel_args`; change them in `prepare`, and boot with `boot = \"cold\"`"));
    }
    let family = table.family;
    let login_user = table.login.as_ref().map(|at| login(at, mistakes));
    let login_user = match login_user {
        Some(login_user) => login_user?,
        None => "root".to_owned(),
    };
    Some(match (&table.rootfs, location?) {
        (Some(_), location) => ImageSource::Rootfs { location, digest, arch, family },
        (None, location) => {
            let firmware = table.firmware.as_ref().map(|at| *at.get());
            ImageSource::Disk { location, digest, arch, firmware, family, login_user }
        }
    })
}

/// The mistake of firmware that 64-bit Arm machines lack.
fn no_such_firmware(at: &At<Firmware>, mistakes: &Mistakes) -> Problem {
    let message = match at.get() {
        Firmware::Bios => "64-bit Arm machines have no BIOS",
        Firmware::Uefi | Firmware::UefiSecure => "Secure Boot is supported for x86_64 guests only",
    };
    let problem = mistakes.at(at.span(), message, "not on aarch64");
    problem.with_help("write `firmware = \"uefi\"`, or remove it")
}

/// Checks firmware against an image, as far as the matrix alone shows it.
pub(crate) fn check_firmware(image: &Image, at: &At<Firmware>, mistakes: &mut Mistakes) {
    let problem = match &image.source {
        ImageSource::Rootfs { .. } => {
            let message = format!("guests of `{}` have no boot loader that firmware could start", image.name);
            mistakes.at(at.span(), message, "nothing to start").with_help(
                "nestmatrix boots them with its own kernel: remove `firmware`, or exclude the image from this suite",
            )
        }
        ImageSource::Disk { arch, .. } if !at.get().exists_for(*arch) => no_such_firmware(at, mistakes),
        ImageSource::Disk { .. } | ImageSource::Catalog => return,
    };
    mistakes.push(problem);
}

/// The file on this machine that an image comes from, as written.
pub(crate) fn file_of(table: &ImageTable) -> Option<&At<String>> {
    table.path.as_ref().or(table.rootfs.as_ref()).filter(|at| !is_address(at.text()) && !at.text().is_empty())
}

/// Refuses keys that the catalog sets for its images.
fn refuse_for_catalog(table: &ImageTable, mistakes: &mut Mistakes) {
    let known = [
        ("digest", table.digest.as_ref().map(At::span)),
        ("firmware", table.firmware.as_ref().map(At::span)),
        ("login", table.login.as_ref().map(At::span)),
    ];
    for (key, span) in known.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let problem = mistakes.at(span, format!("`{key}` is already set by the catalog"), "set by the catalog");
        mistakes.push(problem.with_help("remove it, or name another source: `url`, `path` or `rootfs`"));
    }
}

fn in_catalog(at: &At<String>, catalog: &[&str], mistakes: &mut Mistakes) -> Option<ImageSource> {
    check_in_catalog(at, catalog, mistakes).then_some(ImageSource::Catalog)
}

/// `false`, and a mistake, if the catalog has no such image.
pub(crate) fn check_in_catalog(name: &At<String>, catalog: &[&str], mistakes: &mut Mistakes) -> bool {
    let there = catalog.contains(&name.text());
    if !there {
        let help = near::help(name.text(), catalog, "`nestmatrix images list` shows the images there are");
        let message = format!("unknown image `{}`", name.text());
        mistakes.push(mistakes.at(name.span(), message, "not in the catalog").with_help(help));
    }
    there
}

fn checksum(at: &At<String>, mistakes: &mut Mistakes) -> Option<Checksum> {
    at.text()
        .parse()
        .map_err(|error| {
            let problem = mistakes.at(at.span(), format!("{error}"), "not a digest");
            mistakes.push(problem.with_help("`sha256sum FILE` prints the digits; write `sha256:` before them"));
        })
        .ok()
}

fn is_address(text: &str) -> bool {
    text.contains("://")
}

fn addresses(at: &At<OneOrMany>, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let listed: Vec<_> = match at.get() {
        OneOrMany::One(one) => vec![(one, at.span())],
        OneOrMany::Many(many) => many.iter().map(|one| (one.get(), one.span())).collect(),
    };
    if listed.is_empty() {
        let problem = mistakes.at(at.span(), "the list of addresses is empty", "empty");
        mistakes.push(problem.with_help("write one, or several mirrors of the same file"));
        return None;
    }
    let checked: Vec<_> = listed.into_iter().map(|(one, span)| address(&one.to_string(), span, mistakes)).collect();
    checked.into_iter().collect()
}

fn address(text: &str, span: std::ops::Range<usize>, mistakes: &mut Mistakes) -> Option<String> {
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace()) && text.len() <= MAX_URL_LEN;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if plain && host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Some(text.to_owned());
    }
    let shown: String = text.chars().take(100).collect();
    let problem = mistakes.at(span, format!("{shown:?} is not an address"), "not http or https");
    mistakes.push(problem.with_help("write `https://HOST/PATH`; a file on this machine is a `path`"));
    None
}

fn file(at: &At<String>, mistakes: &mut Mistakes) -> Option<Location> {
    if at.text().is_empty() || at.text().contains('\0') || is_address(at.text()) {
        let problem = mistakes.at(at.span(), format!("{:?} is not a path", at.text()), "not a file on this machine");
        mistakes.push(problem.with_help("write a path, relative to the matrix file; an address goes to `url`"));
        return None;
    }
    Some(Location::Path(at.text().into()))
}

fn login(at: &At<String>, mistakes: &mut Mistakes) -> Option<String> {
    let name = at.text();
    let valid = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if valid {
        return Some(name.to_owned());
    }
    let problem = mistakes.at(at.span(), format!("{name:?} cannot be a user"), "not a user's name");
    mistakes.push(problem.with_help("write a user's name, such as `root`; other users need `sudo` without a password"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_scheme_is_an_address_and_no_path() {
        assert!(is_address("https://x/y") && is_address("ftp://x") && !is_address("a/b.tar.gz"));
    }
}
