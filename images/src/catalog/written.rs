//! Parses a catalog file, and reports its mistakes.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use matrix::{Arch, Checksum, Firmware, PackageFamily};
use serde::Deserialize;
use toml::Spanned;

use crate::{Bootstrap, ChecksumFile, Entry, Origin, Published, Source, Suite, Upstream};

/// Maximum length of a catalog, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_NAME_LEN: usize = 100;
const MAX_URL_LEN: usize = 2048;

/// A catalog cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct CatalogError {
    /// The file.
    pub file: PathBuf,
    /// Line of the mistake, from 1; `None`: it is about the whole file.
    pub line: Option<usize>,
    /// The entry it is in, if known.
    pub entry: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
        self.entry.as_ref().map_or(Ok(()), |entry| write!(f, ": image `{entry}`"))?;
        write!(f, ": {}", self.message)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    image: Vec<Spanned<Image>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    name: Spanned<String>,
    title: Option<String>,
    arch: Option<Arch>,
    family: Option<PackageFamily>,
    end_of_life: Option<Spanned<String>>,
    // For images that are built.
    release: Option<Spanned<String>>,
    suites: Option<Vec<Suite>>,
    packages: Option<Vec<Spanned<String>>>,
    // For published images.
    url: Option<Spanned<Urls>>,
    digest: Option<Spanned<String>>,
    firmware: Option<Spanned<Firmware>>,
    login: Option<Spanned<String>>,
    default_user: Option<String>,
    checksums: Option<Spanned<ChecksumFile>>,
    latest: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

/// Offset, message and remedy.
struct Mistake(usize, String, &'static str);

type Checked<T> = Result<T, Mistake>;

/// Reads the catalog in a file.
pub(super) fn read(file: &Path) -> Result<Vec<Entry>, CatalogError> {
    let wrong = |message: String, help: &str| CatalogError {
        file: file.to_owned(),
        line: None,
        entry: None,
        message,
        help: help.to_owned(),
    };
    let unreadable =
        |error: io::Error| wrong(format!("the catalog cannot be read: {error}"), "name a file that can be read");
    // Excludes pipes and devices: reading them may never end.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(wrong("the catalog is not a file".to_owned(), "name a TOML file with tables `[[image]]`"));
    }
    let mut text = String::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong("the catalog is longer than 1 MiB".to_owned(), "remove what is not an entry"));
    }
    parse(file, &text)
}

/// The entries in a catalog's text, in its order; each name once per architecture.
pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, CatalogError> {
    let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let about = |offset, message, help: &str| CatalogError {
        file: file.to_owned(),
        line: Some(line(offset)),
        entry: name_at(text, offset),
        message,
        help: help.to_owned(),
    };
    let written: Written = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or_default();
        // The remedy lists the keys.
        about(offset, message.split(", expected one of").next().unwrap_or_default().to_owned(), KEYS)
    })?;
    let mut seen: HashMap<(String, Arch), usize> = HashMap::new();
    let mut entries = Vec::new();
    for image in written.image {
        let at = image.get_ref().name.span().start;
        let entry = entry(image.into_inner()).map_err(|Mistake(at, message, help)| about(at, message, help))?;
        if let Some(first) = seen.insert((entry.name.clone(), entry.arch), at) {
            let message = format!("line {} has an image of this name for {} already", line(first), entry.arch);
            return Err(about(at, message, "rename one of them, or remove it"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The remedy for an unknown key or a wrong value.
const KEYS: &str = "an image has `name`, `title`, `arch`, `family`, `end-of-life`, and either `release`, `suites`, `packages` or \
                    `url`, `digest`, `firmware`, `login`, `default-user`, `checksums`, `latest`";

/// The name of the entry with these bytes, even if the file as a whole cannot be parsed.
fn name_at(text: &str, offset: usize) -> Option<String> {
    let end = (offset..=text.len()).find(|end| text.is_char_boundary(*end))?;
    let begin = match text[..end].rfind("[[image]]") {
        Some(begin) => begin,
        None if text[end..].starts_with("[[image]]") => end,
        None => return None,
    };
    let table = &text[begin + "[[image]]".len()..];
    let table = table.find("[[").map_or(table, |end| &table[..end]);
    let value = table.lines().find_map(|line| line.trim_start().strip_prefix("name")?.trim_start().strip_prefix('='));
    let name = value?.trim().split(['"', '\'']).nth(1)?;
    (!name.is_empty()).then(|| name.chars().take(MAX_NAME_LEN).collect())
}

fn entry(image: Image) -> Checked<Entry> {
    let at = image.name.span().start;
    let name = name(&image.name)?;
    let end_of_life = image.end_of_life.as_ref().map(date).transpose()?;
    let arch = image.arch;
    let title = image.title.clone().unwrap_or_else(|| name.clone());
    let family = image.family;
    let (arch, login_user, source, upstream) = match (&image.release, &image.url) {
        (Some(release), None) => {
            refuse(&image, false)?;
            let source = Source::Bootstrap(bootstrap(release, &image)?);
            (arch.unwrap_or(Arch::X86_64), "root".to_owned(), source, Upstream::default())
        }
        (None, Some(url)) => {
            refuse(&image, true)?;
            let arch = arch.unwrap_or(Arch::here());
            let login_user = image.login.as_ref().map(login).transpose()?.unwrap_or_else(|| "root".to_owned());
            (arch, login_user, disk(url, &image, arch)?, upstream(&image)?)
        }
        (None, None) => {
            let help = "add `url` (a disk that somebody publishes) or `release` (a Debian that is built here)";
            return Err(Mistake(at, "it has no source".to_owned(), help));
        }
        (Some(release), Some(_)) => {
            let message = "it has two sources: `url` and `release`".to_owned();
            return Err(Mistake(release.span().start, message, "keep one of them"));
        }
    };
    Ok(Entry { name, title, arch, family, login_user, end_of_life, source, upstream })
}

/// Refuses keys that do not apply to this kind of image.
fn refuse(image: &Image, is_published: bool) -> Checked<()> {
    let at = image.name.span().start;
    let place = |span: Option<std::ops::Range<usize>>| span.map(|span| span.start);
    let keys = if is_published {
        [("suites", image.suites.as_ref().map(|_| at)), ("packages", image.packages.as_ref().map(|_| at))].to_vec()
    } else {
        vec![
            ("digest", place(image.digest.as_ref().map(Spanned::span))),
            ("firmware", place(image.firmware.as_ref().map(Spanned::span))),
            ("login", place(image.login.as_ref().map(Spanned::span))),
            ("default-user", image.default_user.as_ref().map(|_| at)),
            ("checksums", place(image.checksums.as_ref().map(Spanned::span))),
            ("latest", place(image.latest.as_ref().map(Spanned::span))),
        ]
    };
    match keys.into_iter().find_map(|(key, at)| Some((key, at?))) {
        None => Ok(()),
        Some((key, at)) if is_published => {
            Err(Mistake(at, format!("`{key}` of a published disk is what its publisher chose"), "remove it"))
        }
        Some((key, at)) => {
            Err(Mistake(at, format!("`{key}` does not apply to an image that is built here"), "remove it"))
        }
    }
}

fn name(at: &Spanned<String>) -> Checked<String> {
    let name = at.get_ref();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= MAX_NAME_LEN
        && name.chars().all(plain);
    let suffix = Arch::ALL.into_iter().find(|arch| name.ends_with(&format!("-{arch}")));
    match (is_name, suffix) {
        (true, None) => Ok(name.clone()),
        (true, Some(_)) => {
            let message = format!("{name:?} ends with an architecture");
            Err(Mistake(at.span().start, message, "write it as `arch`: the image then has both names"))
        }
        (false, _) => {
            let shown: String = name.chars().take(MAX_NAME_LEN).collect();
            let help = "write small letters, digits, `-`, `.` and `_`, beginning with a letter or digit";
            Err(Mistake(at.span().start, format!("{shown:?} cannot name an image"), help))
        }
    }
}

fn date(at: &Spanned<String>) -> Checked<String> {
    match at.get_ref().parse::<jiff::civil::Date>() {
        Ok(date) if date.to_string() == *at.get_ref() => Ok(date.to_string()),
        _ => {
            let shown: String = at.get_ref().chars().take(40).collect();
            Err(Mistake(at.span().start, format!("{shown:?} is not a date"), "write it like `2028-06-30`"))
        }
    }
}

fn login(at: &Spanned<String>) -> Checked<String> {
    let name = at.get_ref();
    let valid = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    let help = "write a user's name, such as `root`; other users need `sudo` without a password";
    valid.then(|| name.clone()).ok_or_else(|| Mistake(at.span().start, format!("{name:?} cannot be a user"), help))
}

fn bootstrap(release: &Spanned<String>, image: &Image) -> Checked<Bootstrap> {
    // Both become arguments of programs.
    let word = |at: &Spanned<String>, what: &str| {
        let text = at.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
        let is_one = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if is_one && text.len() <= MAX_NAME_LEN && text.chars().all(plain) {
            return Ok(text.clone());
        }
        let help = "write a Debian release such as `trixie`, and names of Debian packages";
        Err(Mistake(at.span().start, format!("{text:?} is no {what}"), help))
    };
    let packages = image.packages.iter().flatten().map(|package| word(package, "package")).collect::<Checked<_>>()?;
    Ok(Bootstrap { release: word(release, "release")?, suites: image.suites.clone().unwrap_or_default(), packages })
}

fn disk(url: &Spanned<Urls>, image: &Image, arch: Arch) -> Checked<Source> {
    let at = url.span().start;
    let urls = match url.get_ref() {
        Urls::One(one) => vec![one.clone()],
        Urls::Many(many) => many.clone(),
    };
    if urls.is_empty() {
        return Err(Mistake(
            at,
            "the list of addresses is empty".to_owned(),
            "write one, or several mirrors of the same file",
        ));
    }
    urls.iter().try_for_each(|url| address(url, at))?;
    let digest = image.digest.as_ref().map(|digest| {
        let help = "write `sha256:` or `sha512:` and the digits as the publisher states them; or leave it out, and pin it with \
                    `nestmatrix images update`";
        digest.get_ref().parse::<Checksum>().map_err(|error| Mistake(digest.span().start, error.to_string(), help))
    });
    let firmware = image.firmware.as_ref();
    if let Some(firmware) = firmware.filter(|firmware| !firmware.get_ref().exists_for(arch)) {
        let message = format!("64-bit Arm machines have no firmware `{}`", firmware.get_ref());
        return Err(Mistake(firmware.span().start, message, "write `firmware = \"uefi\"`, or remove it"));
    }
    let file = Published { origin: Origin::Urls(urls), digest: digest.transpose()? };
    Ok(Source::Disk { file, firmware: firmware.map(|firmware| *firmware.get_ref()) })
}

fn upstream(image: &Image) -> Checked<Upstream> {
    if let Some(checksums) = &image.checksums {
        let at = checksums.span().start;
        let signature = checksums.get_ref().signature.as_ref();
        address(&checksums.get_ref().url, at)?;
        signature.and_then(|signature| signature.url.as_ref()).map_or(Ok(()), |url| address(url, at))?;
        if signature.is_some_and(|signature| !signature.keyring.is_absolute()) {
            let message = "the keyring of the signature is not an absolute path".to_owned();
            return Err(Mistake(
                at,
                message,
                "write where the publisher's keys lie, as in /usr/share/keyrings/NAME.gpg",
            ));
        }
    }
    if let Some(latest) = &image.latest {
        let at = latest.span().start;
        globset::Glob::new(latest.get_ref()).map_err(|error| {
            Mistake(at, format!("`latest` is not a glob: {}", error.kind()), "`*` and `?` match within a file's name")
        })?;
        if image.checksums.is_none() {
            let message = "`latest` chooses from the file with the checksums, but `checksums` is missing".to_owned();
            return Err(Mistake(at, message, "add `checksums = { url = \"...\" }`, or remove it"));
        }
    }
    let checksums = image.checksums.as_ref().map(|at| at.get_ref().clone());
    let latest = image.latest.as_ref().map(|at| at.get_ref().clone());
    Ok(Upstream { default_user: image.default_user.clone(), checksums, latest })
}

fn address(url: &str, at: usize) -> Checked<()> {
    let plain = !url.chars().any(|c| c.is_control() || c.is_whitespace()) && url.len() <= MAX_URL_LEN;
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if plain && host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Ok(());
    }
    let shown: String = url.chars().take(100).collect();
    Err(Mistake(at, format!("{shown:?} is not an address"), "write `https://HOST/PATH`"))
}
