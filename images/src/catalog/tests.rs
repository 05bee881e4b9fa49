//! The shipped catalog, and mistakes in a user's catalog.

use std::{collections::HashSet, path::PathBuf};

use matrix::{Checksum, Firmware};

use super::*;
use crate::{Bootstrap, Pin};

const DIGEST: &str = "sha256:4242424242424242424242424242424242424242424242424242424242424242";

fn parse(text: &str) -> Result<Vec<Entry>, CatalogError> {
    written::parse(Path::new("images.toml"), text)
}

/// The error for an entry with these lines.
fn said(lines: &str) -> String {
    let error = parse(&format!("# My own.\n\n[[image]]\nname = \"mine\"\n{lines}\n")).expect_err("a mistake");
    format!("{error}\nhelp: {}", error.help)
}

fn folder(catalog: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join(Catalog::FILE);
    std::fs::write(&file, catalog).expect("catalog");
    (folder, file)
}

#[test]
fn the_shipped_catalog_has_these_systems() {
    let mut listing = Vec::new();
    for arch in Arch::ALL {
        let names = Catalog::shipped().entries().iter().filter(|entry| entry.arch == arch);
        listing.push(format!("{arch}: {}", names.map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" ")));
    }
    insta::assert_snapshot!(listing.join("\n"));
    let published = Catalog::shipped().entries().iter().filter(|entry| matches!(entry.source, Source::Disk { .. }));
    assert_eq!(published.count(), 66, "33 published systems, for two kinds of CPU each");
}

#[test]
fn every_published_image_can_be_used_or_pinned() {
    let mut urls = HashSet::new();
    for entry in Catalog::shipped().entries() {
        let Source::Disk { file, firmware } = &entry.source else { continue };
        let Origin::Urls(list) = &file.origin else { panic!("{}: not published", entry.name) };
        assert!(urls.insert(list.clone()), "{}: two images have one address", entry.name);
        assert!(file.digest.is_some() || entry.upstream.checksums.is_some(), "{}: cannot be pinned", entry.name);
        assert!(entry.family.is_some() && entry.title != entry.name, "{}: family and title", entry.name);
        assert_eq!(entry.login_user, "root", "{}: our seed lets root in", entry.name);
        let is_uefi = entry.arch == Arch::Aarch64 || list[0].contains("uefi");
        assert_eq!(*firmware, Some(if is_uefi { Firmware::Uefi } else { Firmware::Bios }), "{}", entry.name);
        if let Some(latest) = &entry.upstream.latest {
            let glob = globset::Glob::new(latest).expect("a glob").compile_matcher();
            assert!(glob.is_match(list[0].rsplit('/').next().expect("a name")), "{}: {latest}", entry.name);
        }
    }
    let unpinned = Catalog::shipped()
        .entries()
        .iter()
        .filter(|entry| matches!(&entry.source, Source::Disk { file, .. } if file.digest.is_none()));
    let unpinned: HashSet<&str> = unpinned.map(|entry| entry.name.as_str()).collect();
    assert_eq!(unpinned, HashSet::from(["opensuse-leap-15", "opensuse-leap-16"]));
}

#[test]
fn a_name_means_this_machine_and_a_longer_one_a_certain_kind_of_cpu() {
    let catalog = Catalog::shipped();
    assert_eq!(catalog.get("debian-12").expect("here").arch, Arch::here());
    for arch in Arch::ALL {
        let entry = catalog.get(&format!("debian-12-{arch}")).expect("both");
        assert_eq!((entry.name.as_str(), entry.arch), ("debian-12", arch));
    }
    assert!(catalog.get("debian-12-riscv64").is_none() && catalog.get("debian").is_none());
    let names = catalog.names();
    assert!(
        names.contains(&"debian-12") && names.contains(&"debian-12-aarch64") && names.contains(&"debian-12-x86_64")
    );
    assert!(names.iter().all(|name| catalog.get(name).is_some()));
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

#[test]
fn releases_are_safe_as_arguments() {
    for entry in Catalog::shipped().entries() {
        let Source::Bootstrap(Bootstrap { release, .. }) = &entry.source else { continue };
        assert!(release.chars().all(|c| c.is_ascii_lowercase()), "{release}");
    }
}

#[test]
fn a_catalog_of_ones_own_adds_and_replaces() {
    let (_folder, file) = folder(&format!(
        "[[image]]\nname = \"mine\"\nurl = [\"https://a.test/x\", \"https://b.test/x\"]\ndigest = \"{DIGEST}\"\nlogin = \"admin\"\n\
         [[image]]\nname = \"debian-12\"\narch = \"x86_64\"\nurl = \"https://a.test/y\"\n\
         [[image]]\nname = \"tools\"\nrelease = \"trixie\"\nsuites = [\"security\"]\npackages = [\"gcc\"]\nfamily = \"deb\"\n"
    ));
    let catalog = Catalog::shipped().with_file(&file).expect("a catalog");
    assert_eq!(catalog.entries().len(), Catalog::shipped().entries().len() + 2);
    let mine = catalog.get("mine").expect("added");
    assert_eq!((mine.login_user.as_str(), mine.arch, mine.title.as_str()), ("admin", Arch::here(), "mine"));
    let Source::Disk { file, .. } = &catalog.get("debian-12-x86_64").expect("replaced").source else { panic!("disk") };
    assert_eq!(file.origin, Origin::Urls(vec!["https://a.test/y".to_owned()]));
    assert_eq!(catalog.get("debian-12-aarch64"), Catalog::shipped().get("debian-12-aarch64"));
    let Source::Bootstrap(tools) = &catalog.get("tools-x86_64").expect("built").source else { panic!("bootstrap") };
    assert_eq!((tools.release.as_str(), tools.packages.as_slice()), ("trixie", ["gcc".to_owned()].as_slice()));
}

#[test]
fn what_is_pinned_wins_and_mirrors_of_the_same_file_stay() {
    let (_folder, file) = folder("[[image]]\nname = \"mine\"\nurl = [\"https://a.test/x\", \"https://b.test/x\"]\n");
    let catalog = Catalog::shipped().with_file(&file).expect("a catalog");
    let digest: Checksum = DIGEST.parse().expect("a digest");
    let pinned = |url: &str| {
        let (name, arch, url) = ("mine".to_owned(), Arch::here(), url.to_owned());
        let mut pins = Pins::default();
        pins.insert(Pin { name, arch, url, digest, bytes: None, resolved: jiff::civil::date(2026, 8, 1) });
        let Source::Disk { file, .. } = catalog.pinned(&pins).get("mine").expect("there").source.clone() else {
            panic!("a disk")
        };
        assert_eq!(file.digest, Some(digest));
        match file.origin {
            Origin::Urls(urls) => urls.join(" "),
            Origin::Path(path) => path.display().to_string(),
        }
    };
    assert_eq!(pinned("https://b.test/x"), "https://a.test/x https://b.test/x");
    assert_eq!(pinned("https://a.test/newer"), "https://a.test/newer");
}

#[test]
fn a_mistake_names_file_line_entry_and_remedy() {
    let url = "url = \"https://m.test/a\"\n";
    let mistakes = [
        "colour = 1".to_owned(),
        "arch = \"mips\"\nurl = \"https://m.test/a\"".to_owned(),
        String::new(),
        format!("{url}release = \"trixie\""),
        "url = \"file:///etc/passwd\"".to_owned(),
        "url = []".to_owned(),
        format!("{url}digest = \"sha256:00\""),
        format!("{url}packages = [\"gcc\"]"),
        format!("release = \"trixie\"\ndigest = \"{DIGEST}\""),
        "release = \"--help\"".to_owned(),
        "release = \"trixie\"\npackages = [\"-o\"]".to_owned(),
        format!("{url}arch = \"aarch64\"\nfirmware = \"bios\""),
        format!("{url}login = \"a b\""),
        format!("{url}end-of-life = \"soon\""),
        format!("{url}latest = \"a*\""),
        format!("{url}checksums = {{ url = \"https://m.test/c\" }}\nlatest = \"a[\""),
        format!("{url}checksums = {{ url = \"https://m.test/c\", signature = {{ keyring = \"keys.gpg\" }} }}"),
        format!("{url}checksums = {{ url = \"gopher://m.test/c\" }}"),
    ];
    let all: Vec<String> = mistakes.iter().map(|lines| said(lines)).collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn names_are_plain_and_taken_once() {
    let said = |text: &str| parse(text).expect_err("a mistake").to_string();
    let image = |name: &str| format!("[[image]]\nname = \"{name}\"\nurl = \"https://m.test/a\"\n");
    insta::assert_snapshot!(said(&image("../etc")), @r#"images.toml:2: image `../etc`: "../etc" cannot name an image"#);
    insta::assert_snapshot!(said(&image("a-aarch64")), @r#"images.toml:2: image `a-aarch64`: "a-aarch64" ends with an architecture"#);
    let twice = format!("{}{}", image("a"), image("a"));
    let error = said(&twice);
    assert!(error.starts_with("images.toml:5: image `a`: line 2 has an image of this name for"), "{error}");
    insta::assert_snapshot!(said("[[image]\n"), @"images.toml:1: unclosed array table, expected `]`");
}

#[test]
fn a_file_that_is_no_catalog_is_said_to_be_none() {
    let said = |path: &Path| Catalog::shipped().with_file(path).expect_err("no catalog").to_string();
    insta::assert_snapshot!(
        said(Path::new("/nonexistent/images.toml")),
        @"/nonexistent/images.toml: the catalog cannot be read: No such file or directory (os error 2)"
    );
    insta::assert_snapshot!(said(Path::new("/dev/null")), @"/dev/null: the catalog is not a file");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    #[test]
    fn no_change_of_a_catalog_is_more_than_a_mistake_or_another_catalog(
        file in 0..SHIPPED.len(), place in proptest::prelude::any::<proptest::sample::Index>(), byte in b'\t'..b'~', cut in proptest::prelude::any::<bool>()
    ) {
        let mut bytes = SHIPPED[file].1.as_bytes().to_vec();
        let at = place.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        match parse(&String::from_utf8_lossy(&bytes)) {
            Ok(entries) => for entry in entries {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                proptest::prop_assert!(!entry.name.is_empty() && entry.name.chars().all(plain), "{}", entry.name);
                if let Source::Disk { file, .. } | Source::Rootfs(file) = &entry.source
                    && let Origin::Urls(urls) = &file.origin
                {
                    proptest::prop_assert!(urls.iter().all(|url| url.starts_with("http")), "{:?}", urls);
                }
            },
            Err(mistake) => proptest::prop_assert!(mistake.to_string().starts_with("images.toml"), "{}", mistake),
        }
    }
}
