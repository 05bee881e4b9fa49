//! What is different between what was pinned for an image and what is now, in one line. Pure.

use std::collections::{BTreeMap, BTreeSet};

use egress::PackagePin;
use matrix::Digest;

use super::file::LockedImage;

/// Most packages that are named.
const NAMED: usize = 8;

/// `image: what it pins; what is new about that`.
pub(crate) fn words(image: &str, old: Option<&LockedImage>, new: &LockedImage) -> String {
    let (packages, lists) = (new.pins.packages.len(), new.pins.metadata.len());
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let pinned = format!("{image}: {}, {}", plural(packages, "package"), plural(lists, "list"));
    let Some(old) = old else { return format!("{pinned} (new)") };
    if old == new {
        return format!("{pinned} (unchanged)");
    }
    let changed = packages_changed(old, new);
    let more = changed.len().saturating_sub(NAMED);
    let mut said: Vec<String> = changed.into_iter().take(NAMED).collect();
    if more > 0 {
        said.push(format!("and {more} more"));
    }
    if said.is_empty() {
        said.push(match old.image == new.image {
            true => "the same packages from other lists or addresses".to_owned(),
            false => "the same packages for another image".to_owned(),
        });
    }
    format!("{pinned}; {}", said.join(", "))
}

/// Versions and contents of each package by its name.
type ByName<'a> = BTreeMap<&'a str, (BTreeSet<&'a str>, BTreeSet<Digest>)>;

fn by_name(image: &LockedImage) -> ByName<'_> {
    let mut packages = ByName::new();
    for PackagePin { name, version, digest } in image.pins.packages.values() {
        let (versions, digests) = packages.entry(name).or_default();
        versions.insert(version);
        digests.insert(*digest);
    }
    packages
}

fn packages_changed(old: &LockedImage, new: &LockedImage) -> Vec<String> {
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let versions = |versions: &BTreeSet<&str>| versions.iter().copied().collect::<Vec<_>>().join("/");
    let said = names.into_iter().filter_map(|name| match (old.get(name), new.get(name)) {
        (Some(before), Some(now)) if before.0 != now.0 => {
            Some(format!("{name} {} -> {}", versions(&before.0), versions(&now.0)))
        }
        (Some(before), Some(now)) if before.1 != now.1 => {
            Some(format!("{name} {} has another content", versions(&now.0)))
        }
        (None, Some(now)) => Some(format!("+{name} {}", versions(&now.0))),
        (Some(before), None) => Some(format!("-{name} {}", versions(&before.0))),
        _ => None,
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use egress::Pins;

    use super::*;

    fn image(packages: &[(&str, &str, u8)]) -> LockedImage {
        let packages = packages.iter().map(|(name, version, byte)| {
            let pin = PackagePin {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                digest: Digest::from_bytes([*byte; 32]),
            };
            (format!("http://d.test/{name}_{version}_all.deb"), pin)
        });
        let metadata = [("http://d.test/Packages".to_owned(), Digest::of(b"list"))].into();
        LockedImage {
            image: Digest::of(b"image"),
            pins: Pins { metadata, packages: packages.collect(), ..Pins::default() },
        }
    }

    #[test]
    fn a_line_says_what_is_pinned_and_which_packages_are_others_than_before() {
        let old = image(&[("nginx", "1-9", 1), ("gone", "1", 1), ("same", "1", 1), ("rebuilt", "1", 1)]);
        let new = image(&[("nginx", "1-10", 2), ("more", "2", 1), ("same", "1", 1), ("rebuilt", "1", 2)]);
        insta::assert_snapshot!(words("debian-12", None, &image(&[("one", "1", 1)])), @"debian-12: 1 package, 1 list (new)");
        insta::assert_snapshot!(words("debian-12", Some(&old), &old), @"debian-12: 4 packages, 1 list (unchanged)");
        insta::assert_snapshot!(words("debian-12", Some(&old), &new), @"debian-12: 4 packages, 1 list; -gone 1, +more 2, nginx 1-9 -> 1-10, rebuilt 1 has another content");
        let mut listed = old.clone();
        listed.pins.metadata.clear();
        insta::assert_snapshot!(words("debian-12", Some(&old), &listed), @"debian-12: 4 packages, 0 lists; the same packages from other lists or addresses");
        let other = LockedImage { image: Digest::of(b"other"), ..old.clone() };
        insta::assert_snapshot!(words("debian-12", Some(&old), &other), @"debian-12: 4 packages, 1 list; the same packages for another image");
        let names: Vec<_> = (0..20).map(|number| format!("p{number:02}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1", 1)).collect();
        assert!(words("a", Some(&image(&[])), &image(&many)).ends_with("+p06 1, +p07 1, and 12 more"));
    }
}
