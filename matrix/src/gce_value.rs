//! Values of the runner `gce`, checked by the rules of Compute Engine: one function a kind of value, for the matrix file and the command
//! line alike.
//!
//! Source of the rules: Compute Engine's pages "Naming resources" (RFC 1035 labels), "Labels", and Resource Manager's "Creating projects".

use std::{ops::RangeInclusive, time::Duration};

use jiff::{Span, SpanRelativeTo};

use crate::ByteSize;

/// Maximum number of zones that are tried.
pub const MAX_ZONES: usize = 32;
/// Maximum number of the user's labels. Compute Engine allows 64, of which some are nestmatrix's own.
pub const MAX_LABELS: usize = 50;

/// Keys of labels that begin with it are set by nestmatrix itself.
const OWN_LABELS: &str = "nestmatrix";
/// Maximum length of a proxy command, in bytes.
const MAX_COMMAND_LEN: usize = 4096;
/// Compute Engine's own limit is 64TiB for one persistent disk.
const DISK_RANGE: RangeInclusive<ByteSize> = ByteSize::from_mib(10 << 10)..=ByteSize::from_mib(64 << 20);
const DURATION_RANGE: RangeInclusive<Duration> = Duration::from_secs(10 * 60)..=Duration::from_secs(7 * 24 * 60 * 60);

/// A value that Compute Engine would not take: what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GceValueError(pub(crate) String);

/// What checks a value that is text.
pub(crate) type TextCheck = fn(&str) -> Result<String, GceValueError>;

fn accept(is_right: bool, text: &str, remedy: &str) -> Result<String, GceValueError> {
    if is_right { Ok(text.to_owned()) } else { Err(GceValueError(remedy.to_owned())) }
}

/// `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`: the name of any resource.
fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.ends_with('-')
}

/// An id such as `my-project-7`, of old ones also `example.com:my-project`.
fn is_project(text: &str) -> bool {
    match text.split_once(':') {
        None => (6..=30).contains(&text.len()) && is_name(text),
        Some((domain, name)) => {
            let is_part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
            domain.len() <= 253
                && domain.contains('.')
                && domain.split('.').all(is_part)
                && domain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c))
                && is_name(name)
        }
    }
}

/// The id of a project.
pub fn project(text: &str) -> Result<String, GceValueError> {
    let remedy = "write a project's id (not its name or number): 6 to 30 lowercase letters, digits and `-`, beginning with a letter";
    accept(is_project(text), text, remedy)
}

/// The name of a zone.
pub fn zone(text: &str) -> Result<String, GceValueError> {
    // `us-central1` is a region: the zone's letter is missing.
    let is_zone = is_name(text) && text.rsplit_once('-').is_some_and(|(region, _)| region.contains('-'));
    accept(is_zone, text, "write a region and the letter of a zone in it, such as `us-central1-a`")
}

/// The zones to try: at least one, each once.
pub(crate) fn check_zones(zones: &[String]) -> Result<(), GceValueError> {
    if let Some(twice) = zones.iter().enumerate().find_map(|(at, zone)| zones[..at].contains(zone).then_some(zone)) {
        return Err(GceValueError(format!("the zone `{twice}` is named twice: name each zone once")));
    }
    match zones.len() {
        0..=MAX_ZONES => zones.iter().try_for_each(|name| zone(name).map(drop)),
        count => Err(GceValueError(format!("{count} zones are named, the limit is {MAX_ZONES}"))),
    }
}

/// A machine type, predefined or custom.
pub fn machine_type(text: &str) -> Result<String, GceValueError> {
    accept(is_name(text), text, "write a machine type such as `n2-standard-8` or `n2-custom-6-16384`")
}

/// The size of a boot disk: whole gibibytes.
pub fn disk(text: &str) -> Result<ByteSize, GceValueError> {
    let size: ByteSize = text.parse().map_err(|_| GceValueError(disk_remedy()))?;
    check_disk(size).map(|()| size)
}

pub(crate) fn check_disk(size: ByteSize) -> Result<(), GceValueError> {
    let is_whole = size.bytes().is_multiple_of(ByteSize::from_mib(1 << 10).bytes());
    if is_whole && DISK_RANGE.contains(&size) { Ok(()) } else { Err(GceValueError(disk_remedy())) }
}

fn disk_remedy() -> String {
    format!("write whole gibibytes from `{}` to `{}`", DISK_RANGE.start(), DISK_RANGE.end())
}

/// The two parts of `PROJECT/FAMILY` or `FAMILY`.
pub(crate) fn image(text: &str) -> Result<(Option<String>, String), GceValueError> {
    let (project, family) = match text.rsplit_once('/') {
        Some((project, family)) => (Some(project), family),
        None => (None, text),
    };
    if !is_name(family) || project.is_some_and(|project| !is_project(project)) {
        let remedy =
            "write an image family, `FAMILY` of your own project or `PROJECT/FAMILY`, such as `debian-cloud/debian-13`";
        return Err(GceValueError(remedy.to_owned()));
    }
    Ok((project.map(str::to_owned), family.to_owned()))
}

/// A family of images that are named after it and the time they were made at: at most 47 of an image name's 63 characters.
pub fn family(text: &str) -> Result<String, GceValueError> {
    accept(is_name(text) && text.len() <= 47, text, "write a name of at most 47 letters, digits and dashes")
}

/// A network: its name, or its path with the project it belongs to.
pub fn network(text: &str) -> Result<String, GceValueError> {
    let is_right = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => is_name(name),
        ["projects", project, "global", "networks", name] => is_project(project) && is_name(name),
        _ => false,
    };
    accept(is_right, text, "write a network's name, or `projects/PROJECT/global/networks/NAME`")
}

/// A subnet: its name, or its path with the project it belongs to.
pub fn subnet(text: &str) -> Result<String, GceValueError> {
    let is_right = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => is_name(name),
        ["projects", project, "regions", region, "subnetworks", name] => {
            is_project(project) && is_name(region) && is_name(name)
        }
        _ => false,
    };
    accept(is_right, text, "write a subnet's name, or `projects/PROJECT/regions/REGION/subnetworks/NAME`")
}

/// A command as in `ProxyCommand` of ssh_config: one line of text.
pub fn proxy_command(text: &str) -> Result<String, GceValueError> {
    let is_right = !text.trim().is_empty() && text.len() <= MAX_COMMAND_LEN && !text.chars().any(char::is_control);
    let remedy =
        "write one line of at most 4096 bytes: a command that connects its input and output to `%h`, port `%p`";
    accept(is_right, text, remedy)
}

/// The key of a label that is not reserved.
pub fn label_key(text: &str) -> Result<String, GceValueError> {
    if text.starts_with(OWN_LABELS) {
        let remedy = format!("keys that begin with `{OWN_LABELS}` are set by nestmatrix itself: choose another one");
        return Err(GceValueError(remedy));
    }
    let is_right = text.starts_with(|c: char| c.is_ascii_lowercase()) && is_label(text);
    let remedy = "write a key of at most 63 lowercase letters, digits, `-` and `_`, beginning with a letter";
    accept(is_right, text, remedy)
}

/// The value of a label, which may be empty.
pub fn label_value(text: &str) -> Result<String, GceValueError> {
    accept(is_label(text), text, "write a value of at most 63 lowercase letters, digits, `-` and `_`")
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
}

/// A label, `KEY=VALUE`.
pub fn label(text: &str) -> Result<(String, String), GceValueError> {
    let (key, value) = text.split_once('=').ok_or_else(|| GceValueError("write `KEY=VALUE`".to_owned()))?;
    Ok((label_key(key)?, label_value(value)?))
}

/// The number of labels.
pub(crate) fn check_label_count(count: usize) -> Result<(), GceValueError> {
    if count <= MAX_LABELS {
        return Ok(());
    }
    Err(GceValueError(format!("there are {count} labels, the limit is {MAX_LABELS}")))
}

/// The name of a persistent disk.
pub fn cache_disk(text: &str) -> Result<String, GceValueError> {
    let remedy = "write a disk's name: at most 63 lowercase letters, digits and `-`, beginning with a letter, not ending with `-`";
    accept(is_name(text), text, remedy)
}

/// After how long an instance is deleted; days have 24 hours.
pub fn max_duration(text: &str) -> Result<Duration, GceValueError> {
    let span: Span = text.parse().map_err(|_| GceValueError(duration_remedy()))?;
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| GceValueError(duration_remedy()))?;
    let duration = Duration::try_from(duration).map_err(|_| GceValueError(duration_remedy()))?;
    check_max_duration(duration).map(|()| duration)
}

pub(crate) fn check_max_duration(duration: Duration) -> Result<(), GceValueError> {
    // Compute Engine counts whole seconds.
    let is_right = DURATION_RANGE.contains(&duration) && duration.subsec_nanos() == 0;
    if is_right { Ok(()) } else { Err(GceValueError(duration_remedy())) }
}

fn duration_remedy() -> String {
    "write whole seconds from `10m` to `7d`, such as `90m`, `4h` or `1d 12h`".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> bool;

    #[test]
    fn each_value_is_taken_by_the_rules_of_compute_engine() {
        let long = "a".repeat(63);
        let longer = "a".repeat(64);
        let table: [(&str, Check, &[&str], &[&str]); 12] = [
            (
                "project",
                |text| project(text).is_ok(),
                &["my-project-7", "abcdef", "example.com:proj", "a.b-c.org:x"],
                &[
                    "",
                    "abcde",
                    "My-project",
                    "123456789",
                    "my-project-",
                    "-my-project",
                    "my_project",
                    "com:proj",
                    ":proj",
                    "a..b:proj",
                    "example.com:",
                    "my-project/x",
                    "a234567890123456789012345678901",
                ],
            ),
            (
                "zone",
                |text| zone(text).is_ok(),
                &["us-central1-a", "northamerica-northeast1-b", "us-central1-ai1a"],
                &[
                    "",
                    "us-central1",
                    "uscentral1a",
                    "us-central1-",
                    "US-central1-a",
                    "us-central1-a/../x",
                    "us-central1-a?x=1",
                ],
            ),
            (
                "machine_type",
                |text| machine_type(text).is_ok(),
                &["n2-standard-8", "n2-custom-6-16384", &long],
                &["", "8-core", "n2 standard", "zones/z/machineTypes/n2-standard-8", &longer],
            ),
            (
                "disk",
                |text| disk(text).is_ok(),
                &["10GiB", "64TiB", "20480MiB"],
                &["", "10", "9GiB", "10241MiB", "65TiB", "-10GiB", "10GB"],
            ),
            (
                "image",
                |text| image(text).is_ok(),
                &["debian-13", "debian-cloud/debian-13", "example.com:proj/family"],
                &[
                    "",
                    "/debian-13",
                    "debian-cloud/",
                    "debian-cloud/debian/13",
                    "global/images/family/debian-13",
                    "Debian",
                ],
            ),
            (
                "family",
                |text| family(text).is_ok(),
                &["nestmatrix-l1"],
                &["", "Debian", "a/b", "a23456789-123456789-123456789-123456789-12345678"],
            ),
            (
                "network",
                |text| network(text).is_ok(),
                &["default", "projects/host-project/global/networks/shared"],
                &[
                    "",
                    "global/networks/default",
                    "projects/host-project/global/networks/",
                    "projects/x/global/networks/shared",
                    "https://x/projects/host-project/global/networks/shared",
                ],
            ),
            (
                "subnet",
                |text| subnet(text).is_ok(),
                &["tests", "projects/host-project/regions/us-central1/subnetworks/tests"],
                &[
                    "",
                    "regions/us-central1/subnetworks/tests",
                    "projects/host-project/regions//subnetworks/tests",
                    "projects/host-project/global/networks/shared",
                ],
            ),
            (
                "proxy_command",
                |text| proxy_command(text).is_ok(),
                &["ssh -W %h:%p bastion", "none"],
                &["", " ", "nc %h\n%p", "nc\0", &"x".repeat(4097)],
            ),
            (
                "label",
                |text| label(text).is_ok(),
                &["team=release", "a=", "a_b-1=1-x_"],
                &[
                    "",
                    "team",
                    "=x",
                    "Team=x",
                    "1a=x",
                    "a=X",
                    "a=b=c",
                    "nestmatrix-run=x",
                    "nestmatrix=x",
                    &format!("{longer}=x"),
                    &format!("a={longer}"),
                ],
            ),
            (
                "cache_disk",
                |text| cache_disk(text).is_ok(),
                &["nm-cache", "a", &long],
                &["", "nm-cache-", "1cache", "zones/z/disks/nm-cache", "cache_disk", &longer],
            ),
            (
                "max_duration",
                |text| max_duration(text).is_ok(),
                &["10m", "4h", "1h30m", "7d", "600s", "1d 12h"],
                &["", "4", "9m", "-4h", "7d1s", "1mo", "600500ms", "four hours"],
            ),
        ];
        for (what, check, right, wrong) in table {
            for text in right {
                assert!(check(text), "{what} {text:?} is right");
            }
            for text in wrong {
                assert!(!check(text), "{what} {text:?} is wrong");
            }
        }
    }

    #[test]
    fn a_list_of_zones_is_bounded_and_names_each_once() {
        let zones = |count: usize| (0..count).map(|number| format!("us-central{number}-a")).collect::<Vec<_>>();
        assert_eq!(check_zones(&zones(MAX_ZONES)), Ok(()));
        let message = |zones: &[String]| check_zones(zones).expect_err("wrong").to_string();
        assert_eq!(message(&zones(MAX_ZONES + 1)), "33 zones are named, the limit is 32");
        let twice = ["us-central1-a", "us-central1-b", "us-central1-a"].map(str::to_owned);
        assert_eq!(message(&twice), "the zone `us-central1-a` is named twice: name each zone once");
    }
}
