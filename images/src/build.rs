//! Which maker makes an image, and the digest of everything that decides what it makes.

use matrix::Digest;

use crate::{
    Catalog, Control, Entry, Origin, PrepareErrorKind, PreparedImage, Source, Store, bootstrap,
    error::Failure,
    prepared::Made,
    published,
    recipe::{FORMAT, Recipe},
    rootfs,
    site::Site,
};

/// Something that makes the files of an image in [`Site::image`].
pub(crate) trait Build: Sync {
    /// Leaves exactly the files of an image there, or fails.
    fn build(&self, entry: &Entry, site: &Site, control: &Control<'_>) -> Result<Made, Failure>;
}

/// Makes each image in the way of its source.
pub(crate) struct Makers<'a> {
    /// Where an image is that another one is made with, and where downloads that were interrupted are kept.
    pub(crate) store: &'a Store,
}

impl Build for Makers<'_> {
    fn build(&self, entry: &Entry, site: &Site, control: &Control<'_>) -> Result<Made, Failure> {
        match &entry.source {
            Source::Bootstrap(bootstrap) => bootstrap::make(bootstrap, entry.arch, site, control),
            Source::Disk { file, firmware } => {
                published::make(entry, (file, *firmware), site, &self.store.part(recipe(entry)), control)
            }
            Source::Rootfs(file) => {
                rootfs::possible(entry.arch)?;
                let kit = self.kit(control)?;
                match &file.origin {
                    Origin::Path(path) => rootfs::make(entry, (path, true), file.digest, &kit, site, control),
                    Origin::Urls(urls) => {
                        let part = self.store.part(recipe(entry));
                        let (tarball, _) = published::download(urls, file.digest, site, &part, control)?;
                        // What came is what it should be; nobody needs it when its disk is made.
                        let made = rootfs::make(entry, (&tarball, false), None, &kit, site, control)?;
                        std::fs::remove_file(&tarball).map_err(PrepareErrorKind::io("remove", &tarball))?;
                        Ok(made)
                    }
                }
            }
        }
    }
}

impl Makers<'_> {
    /// The image that gives root file systems what they lack.
    fn kit(&self, control: &Control<'_>) -> Result<PreparedImage, Failure> {
        let kit = kit()
            .ok_or_else(|| PrepareErrorKind::Incomplete { what: format!("{}: nobody knows it", rootfs::kit::IMAGE) })?;
        let progress = |line: &str| (control.progress)(&format!("{}: {line}", kit.name));
        let control = Control { refresh: false, cancel: control.cancel, progress: &progress };
        self.store.prepare(kit, &control).map_err(|error| Failure { kind: error.kind, tail: error.tail })
    }
}

fn kit() -> Option<&'static Entry> {
    Catalog::shipped().get(rootfs::kit::IMAGE)
}

/// The digest of all that decides what is made of an entry: the key it is found by in the store.
pub(crate) fn recipe(entry: &Entry) -> Digest {
    let (file, kind) = match &entry.source {
        Source::Bootstrap(bootstrap) => return Recipe::of(bootstrap, entry.arch).digest(),
        Source::Disk { file, firmware } => (file, format!("disk {firmware:?}")),
        Source::Rootfs(file) => {
            let kit = kit().map(recipe);
            (file, format!("rootfs {} {kit:?}", rootfs::kit::digest()))
        }
    };
    // Where the same bytes come from decides nothing; a file here is used where it lies.
    let origin = match (&file.origin, file.digest) {
        (Origin::Path(path), digest) => format!("{digest:?} {}", path.display()),
        (Origin::Urls(_), Some(digest)) => digest.to_string(),
        (Origin::Urls(urls), None) => urls.join(" "),
    };
    let Entry { arch, family, login_user, .. } = entry;
    Digest::of(format!("nestmatrix source {FORMAT}\n{kind}\n{arch}\n{family:?}\n{login_user}\n{origin}\n").as_bytes())
}
