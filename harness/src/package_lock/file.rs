//! The file: sorted, one value a line, without times. Equal pins write equal bytes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use egress::{PackageName, PackagePin, Pins, Snapshot, is_file_url};
use images::committed::{Committed, LockError, line};
use jiff::Timestamp;
use matrix::Digest;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::snapshots::{MOST, is_repository, is_service};

const KIND: Committed = Committed { version: 1, written_by: "nestmatrix run MATRIX --lock" };
const HEAD: &str = "\
# Which packages the guests of this matrix got from repositories. `nestmatrix run --locked` lets them get no others.
# Written by `nestmatrix run --lock`, which also renews it; commit it.
";

/// All pins, by the image's name in the matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile(BTreeMap<String, LockedImage>);

/// What is pinned for guests of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedImage {
    /// Digest of the image that they were guests of.
    pub image: Digest,
    /// What they got.
    pub pins: Pins,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image: Vec<WrittenImage>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenImage {
    name: Spanned<String>,
    image: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<WrittenFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    package: Vec<WrittenPackage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    snapshot: Vec<WrittenSnapshot>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    url: Spanned<String>,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPackage {
    name: String,
    version: String,
    url: Spanned<String>,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSnapshot {
    of: Spanned<String>,
    at: Spanned<String>,
    date: Timestamp,
}

impl LockFile {
    /// Its file name, beside its matrix file.
    pub const FILE: &str = "repositories.lock";

    /// Where that of this matrix file is or would be.
    pub fn beside(matrix: &Path) -> PathBuf {
        matrix.with_file_name(Self::FILE)
    }

    /// The pins of a file; `None`: the file does not exist.
    ///
    /// # Errors
    ///
    /// It cannot be read, or was not written by nestmatrix.
    pub fn read(file: &Path) -> Result<Option<Self>, LockError> {
        KIND.read(file)?.map(|text| Self::parse(file, &text)).transpose()
    }

    fn parse(file: &Path, text: &str) -> Result<Self, LockError> {
        let Written { version: _, image } = KIND.parse(file, text)?;
        let at = |of: &Spanned<String>, message| KIND.wrong(file, Some(line(text, of.span().start)), message);
        let mut lock = Self::default();
        for WrittenImage { name, image, metadata, package, snapshot } in image {
            let mut pins = Pins::default();
            for WrittenFile { url, digest } in metadata {
                if !is_file_url(url.as_ref()) || PackageName::of(url.as_ref()).is_some() {
                    return Err(at(
                        &url,
                        format!("`{}` is not the address (http) of a list of packages", url.as_ref()),
                    ));
                }
                if pins.metadata.insert(url.as_ref().clone(), digest).is_some() {
                    return Err(at(&url, format!("`{}` is pinned twice for {}", url.as_ref(), name.as_ref())));
                }
            }
            for WrittenPackage { name: package, version, url, digest } in package {
                if !is_file_url(url.as_ref()) || PackageName::of(url.as_ref()).is_none() {
                    return Err(at(&url, format!("`{}` is not the address (http) of a package", url.as_ref())));
                }
                let pin = PackagePin { name: package, version, digest };
                if pins.packages.insert(url.as_ref().clone(), pin).is_some() {
                    return Err(at(&url, format!("`{}` is pinned twice for {}", url.as_ref(), name.as_ref())));
                }
            }
            for WrittenSnapshot { of, at: service, date } in snapshot {
                if !is_repository(of.as_ref()) {
                    return Err(at(&of, format!("`{}` is not the address (http) of a repository", of.as_ref())));
                }
                if !is_service(service.as_ref()) {
                    let id = Snapshot::ID;
                    return Err(at(
                        &service,
                        format!(
                            "`{}` is not the address (http or https) of a service, with {id} for the date",
                            service.as_ref()
                        ),
                    ));
                }
                if pins.snapshots.len() == MOST {
                    return Err(at(&of, format!("{} has more than {MOST} repositories with a service", name.as_ref())));
                }
                pins.snapshots.push(Snapshot { of: of.into_inner(), at: service.into_inner(), date });
            }
            if lock.0.contains_key(name.as_ref()) {
                return Err(at(&name, format!("the image `{}` has two entries", name.as_ref())));
            }
            lock.set(name.into_inner(), LockedImage { image, pins });
        }
        Ok(lock)
    }

    /// Its text.
    fn text(&self) -> Result<String, toml::ser::Error> {
        let spanned = |text: &String| Spanned::new(0..0, text.clone());
        let image = self.0.iter().map(|(name, LockedImage { image, pins })| {
            let metadata = pins.metadata.iter().map(|(url, digest)| WrittenFile { url: spanned(url), digest: *digest });
            let mut packages: Vec<_> = pins.packages.iter().collect();
            packages.sort_by_key(|(url, pin)| (&pin.name, &pin.version, *url));
            let package = packages.into_iter().map(|(url, PackagePin { name, version, digest })| WrittenPackage {
                name: name.clone(),
                version: version.clone(),
                url: spanned(url),
                digest: *digest,
            });
            let snapshot = pins.snapshots.iter().map(|Snapshot { of, at, date }| WrittenSnapshot {
                of: spanned(of),
                at: spanned(at),
                date: *date,
            });
            WrittenImage {
                name: spanned(name),
                image: *image,
                metadata: metadata.collect(),
                package: package.collect(),
                snapshot: snapshot.collect(),
            }
        });
        Ok(format!("{HEAD}{}", toml::to_string(&Written { version: KIND.version, image: image.collect() })?))
    }

    /// Replaces the file atomically.
    ///
    /// # Errors
    ///
    /// It cannot be written, or would be too large to be read again.
    pub fn write(&self, file: &Path) -> Result<(), LockError> {
        KIND.write(file, self.text())
    }

    /// What is pinned for an image.
    pub fn get(&self, image: &str) -> Option<&LockedImage> {
        self.0.get(image)
    }

    /// Pins this for an image, instead of what was.
    pub fn set(&mut self, image: String, locked: LockedImage) {
        self.0.insert(image, locked);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn locked(files: &[(&str, u8)]) -> LockedImage {
        let mut pins = Pins::default();
        for (path, byte) in files {
            let (url, digest) = (format!("http://d.test{path}"), Digest::from_bytes([*byte; 32]));
            match PackageName::of(&url) {
                Some(PackageName { name, version }) => {
                    drop(pins.packages.insert(url, PackagePin { name, version, digest }))
                }
                None => drop(pins.metadata.insert(url, digest)),
            }
        }
        LockedImage { image: Digest::from_bytes([9; 32]), pins }
    }

    fn lock() -> LockFile {
        let mut lock = LockFile::default();
        lock.set("rocky-9".to_owned(), locked(&[]));
        let files = [("/a/zlib_1_all.deb", 1), ("/b/hello_2_all.deb", 2), ("/Packages", 3), ("/InRelease", 4)];
        let mut debian = locked(&files);
        let (of, at) = ("http://d.test".to_owned(), "https://s.test/@SNAPSHOTID@".to_owned());
        debian.pins.snapshots = vec![Snapshot { of, at, date: "2026-11-27T02:10:32Z".parse().unwrap() }];
        lock.set("debian-12".to_owned(), debian);
        lock
    }

    fn parsed(text: &str) -> Result<LockFile, LockError> {
        LockFile::parse(Path::new("repositories.lock"), text)
    }

    #[test]
    fn it_is_written_sorted_and_for_people_to_compare() {
        insta::assert_snapshot!(lock().text().unwrap(), @r#"
        # Which packages the guests of this matrix got from repositories. `nestmatrix run --locked` lets them get no others.
        # Written by `nestmatrix run --lock`, which also renews it; commit it.
        version = 1

        [[image]]
        name = "debian-12"
        image = "sha256:0909090909090909090909090909090909090909090909090909090909090909"

        [[image.metadata]]
        url = "http://d.test/InRelease"
        digest = "sha256:0404040404040404040404040404040404040404040404040404040404040404"

        [[image.metadata]]
        url = "http://d.test/Packages"
        digest = "sha256:0303030303030303030303030303030303030303030303030303030303030303"

        [[image.package]]
        name = "hello"
        version = "2"
        url = "http://d.test/b/hello_2_all.deb"
        digest = "sha256:0202020202020202020202020202020202020202020202020202020202020202"

        [[image.package]]
        name = "zlib"
        version = "1"
        url = "http://d.test/a/zlib_1_all.deb"
        digest = "sha256:0101010101010101010101010101010101010101010101010101010101010101"

        [[image.snapshot]]
        of = "http://d.test"
        at = "https://s.test/@SNAPSHOTID@"
        date = "2026-11-27T02:10:32Z"

        [[image]]
        name = "rocky-9"
        image = "sha256:0909090909090909090909090909090909090909090909090909090909090909"
        "#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_written_the_same(
            images in proptest::collection::vec(("[a-z]{1,8}", proptest::collection::vec(("/[a-z%0-9]{1,8}(_[0-9]_all\\.deb)?", any::<u8>()), 0..8)), 0..6)
        ) {
            let mut lock = LockFile::default();
            for (name, files) in images {
                let files: Vec<_> = files.iter().map(|(path, byte)| (path.as_str(), *byte)).collect();
                lock.set(name, locked(&files));
            }
            let text = lock.text().unwrap();
            let read = parsed(&text).unwrap();
            prop_assert_eq!(read.text().unwrap(), text);
            prop_assert_eq!(read, lock);
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in ".{0,400}") {
            let _ = parsed(&text);
        }
    }

    #[test]
    fn a_file_that_is_not_there_pins_nothing_and_one_that_is_replaced_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = LockFile::beside(&folder.path().join("m.toml"));
        assert_eq!(LockFile::read(&file).unwrap(), None);
        LockFile::default().write(&file).unwrap();
        lock().write(&file).unwrap();
        assert_eq!(LockFile::read(&file).unwrap(), Some(lock()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert!(
            LockFile::read(&file).unwrap_err().to_string().contains("cannot be read"),
            "it is not the same as none"
        );
    }

    #[test]
    fn a_lock_that_is_wrong_says_where_and_what_to_do() {
        let said = |text: &str| {
            let error = parsed(text).unwrap_err();
            assert!(error.help.contains("--lock"), "{}", error.help);
            error.to_string()
        };
        let digest = format!("sha256:{}", "00".repeat(32));
        let image = |rest: &str| format!("version = 1\n[[image]]\nname = \"a\"\nimage = \"{digest}\"\n{rest}");
        let list = |url: &str| format!("[[image.metadata]]\nurl = \"{url}\"\ndigest = \"{digest}\"\n");
        let package = |url: &str| {
            format!("[[image.package]]\nname = \"x\"\nversion = \"1\"\nurl = \"{url}\"\ndigest = \"{digest}\"\n")
        };
        insta::assert_snapshot!(said("version = 2\n"), @"repositories.lock: its version is 2, this nestmatrix supports 1");
        insta::assert_snapshot!(said("version = 1\ncolour = 1\n"), @"repositories.lock:2: unknown field `colour`, expected `version` or `image`");
        insta::assert_snapshot!(said(&image("colour = 1\n")), @"repositories.lock:5: unknown field `colour`, expected one of `name`, `image`, `metadata`, `package`, `snapshot`");
        insta::assert_snapshot!(said(&image(&list("https://d.test/Packages"))), @"repositories.lock:6: `https://d.test/Packages` is not the address (http) of a list of packages");
        insta::assert_snapshot!(said(&image(&list("http://d.test/x_1_all.deb"))), @"repositories.lock:6: `http://d.test/x_1_all.deb` is not the address (http) of a list of packages");
        insta::assert_snapshot!(said(&image(&package("http://d.test/Packages"))), @"repositories.lock:8: `http://d.test/Packages` is not the address (http) of a package");
        let snapshot = |of: &str, at: &str| {
            image(&format!("[[image.snapshot]]\nof = \"{of}\"\nat = \"{at}\"\ndate = \"2026-11-27T02:10:32Z\"\n"))
        };
        insta::assert_snapshot!(said(&snapshot("d.test", "http://s.test/@SNAPSHOTID@")), @"repositories.lock:6: `d.test` is not the address (http) of a repository");
        insta::assert_snapshot!(said(&snapshot("http://d.test", "http://s.test/")), @"repositories.lock:7: `http://s.test/` is not the address (http or https) of a service, with @SNAPSHOTID@ for the date");
        let twice = package("http://d.test/x_1_all.deb").repeat(2);
        insta::assert_snapshot!(said(&image(&twice)), @"repositories.lock:13: `http://d.test/x_1_all.deb` is pinned twice for a");
        insta::assert_snapshot!(said(&image("[[image]]\nname = \"a\"\nimage = \"sha256:0\"\n")), @"repositories.lock:7: `sha256:0` is not a digest: expected `sha256:` and 64 hex digits");
        let again = image("").split_off("version = 1\n".len());
        insta::assert_snapshot!(said(&image(&again)), @"repositories.lock:6: the image `a` has two entries");
        parsed(&image(&package("http://d.test/x_1_all.deb"))).unwrap();
    }
}
