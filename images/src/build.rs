//! Chooses the maker of an image, and computes the digest of everything that decides the result.

use matrix::Digest;

use crate::{
    Catalog, Control, Entry, Origin, PrepareErrorKind, PreparedImage, Source, Store, bootstrap,
    build_dir::BuildDir,
    error::Failure,
    prepared::Made,
    published,
    recipe::{FORMAT, Recipe},
    rootfs,
};

/// Makes the files of an image in [`BuildDir::image`].
pub(crate) trait Build: Sync {
    /// Leaves exactly the files of an image there, or fails.
    fn build(&self, entry: &Entry, build_dir: &BuildDir, control: &Control<'_>) -> Result<Made, Failure>;
}

/// Makes each image by the kind of its source.
pub(crate) struct Makers<'a> {
    /// The store that has the donor image, and keeps interrupted downloads.
    pub(crate) store: &'a Store,
}

impl Build for Makers<'_> {
    fn build(&self, entry: &Entry, build_dir: &BuildDir, control: &Control<'_>) -> Result<Made, Failure> {
        match &entry.source {
            Source::Bootstrap(bootstrap) => bootstrap::make(bootstrap, entry.arch, build_dir, control),
            Source::Disk { file, firmware } => {
                published::make(entry, (file, *firmware), build_dir, &self.store.part(recipe(entry)), control)
            }
            Source::Rootfs(file) => {
                rootfs::possible(entry.arch)?;
                let donor = self.donor(control)?;
                match &file.origin {
                    Origin::Path(path) => rootfs::make(entry, (path, true), file.digest, &donor, build_dir, control),
                    Origin::Urls(urls) => {
                        let part = self.store.part(recipe(entry));
                        let (tarball, _) = published::download(urls, file.digest, build_dir, &part, control)?;
                        // The download is verified; it is not needed once its disk is made.
                        let made = rootfs::make(entry, (&tarball, false), None, &donor, build_dir, control)?;
                        std::fs::remove_file(&tarball).map_err(PrepareErrorKind::io("remove", &tarball))?;
                        Ok(made)
                    }
                }
            }
        }
    }
}

impl Makers<'_> {
    /// The image that provides kernel and server for root file systems.
    fn donor(&self, control: &Control<'_>) -> Result<PreparedImage, Failure> {
        let donor = donor_entry().ok_or_else(|| PrepareErrorKind::Incomplete {
            what: format!("{} (not in the catalog)", rootfs::boot_files::IMAGE),
        })?;
        let progress = |line: &str| (control.progress)(&format!("{}: {line}", donor.name));
        let control = Control { refresh: false, cancel: control.cancel, progress: &progress };
        self.store.prepare(donor, &control).map_err(|error| Failure { kind: error.kind, tail: error.tail })
    }
}

fn donor_entry() -> Option<&'static Entry> {
    Catalog::shipped().get(rootfs::boot_files::IMAGE)
}

/// The digest of everything that decides what is made of an entry: its key in the store.
pub(crate) fn recipe(entry: &Entry) -> Digest {
    let (file, kind) = match &entry.source {
        Source::Bootstrap(bootstrap) => return Recipe::of(bootstrap, entry.arch).digest(),
        Source::Disk { file, firmware } => (file, format!("disk {firmware:?}")),
        Source::Rootfs(file) => {
            let donor = donor_entry().map(recipe);
            (
                file,
                format!(
                    "rootfs {} {}",
                    rootfs::boot_files::digest(),
                    donor.map(|donor| donor.to_string()).unwrap_or_default()
                ),
            )
        }
    };
    // The address of the same bytes decides nothing; a local file is used where it lies.
    let origin = match (&file.origin, file.digest) {
        (Origin::Path(path), digest) => {
            format!("{} {}", digest.map(|digest| digest.to_string()).unwrap_or_default(), path.display())
        }
        (Origin::Urls(_), Some(digest)) => digest.to_string(),
        (Origin::Urls(urls), None) => urls.join(" "),
    };
    let Entry { arch, family, login_user, .. } = entry;
    Digest::of(format!("nestmatrix source {FORMAT}\n{kind}\n{arch}\n{family:?}\n{login_user}\n{origin}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use matrix::{Arch, Checksum, Firmware};

    use super::*;
    use crate::Published;

    fn disk(origin: Origin, digest: Option<&str>, firmware: Option<Firmware>, login_user: &str) -> Digest {
        let digest = digest.map(|digest| digest.parse::<Checksum>().expect("a digest"));
        recipe(&Entry {
            name: "a".into(),
            title: "a".into(),
            arch: Arch::X86_64,
            family: None,
            login_user: login_user.into(),
            end_of_life: None,
            source: Source::Disk { file: Published { origin, digest }, firmware },
            upstream: crate::Upstream::default(),
        })
    }

    #[test]
    fn whatever_decides_an_image_decides_the_key_it_is_found_by() {
        let path = || Origin::Path("/a.qcow2".into());
        let digest = |end: char| format!("sha256:{}{end}", "a".repeat(63));
        let (one, other) = (digest('1'), digest('2'));
        let first = disk(path(), Some(&one), None, "root");
        assert_eq!(disk(path(), Some(&one), None, "root"), first);
        let others = [
            disk(path(), Some(&other), None, "root"),
            disk(path(), None, None, "root"),
            disk(Origin::Path("/b.qcow2".into()), Some(&one), None, "root"),
            disk(path(), Some(&one), Some(Firmware::Uefi), "root"),
            disk(path(), Some(&one), None, "admin"),
        ];
        for (index, other) in others.into_iter().enumerate() {
            assert_ne!(other, first, "{index}");
        }
        let urls = |host: &str| Origin::Urls(vec![format!("https://{host}/a")]);
        let downloaded = disk(urls("one"), Some(&one), None, "root");
        assert_eq!(disk(urls("two"), Some(&one), None, "root"), downloaded, "the same bytes from another mirror");
        assert_ne!(disk(urls("one"), Some(&other), None, "root"), downloaded, "the last digit counts");
    }
}
