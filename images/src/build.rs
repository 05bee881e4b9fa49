//! Which maker makes an image, and the digest of everything that decides what it makes.

use std::path::Path;

use matrix::Digest;

use crate::{
    Control, Entry, Origin, Source, bootstrap,
    error::Failure,
    prepared::Made,
    published,
    recipe::{FORMAT, Recipe},
    site::Site,
};

/// Something that makes the files of an image in [`Site::image`].
pub(crate) trait Build: Sync {
    /// Leaves exactly the files of an image there, or fails.
    fn build(&self, entry: &Entry, site: &Site, control: &Control<'_>) -> Result<Made, Failure>;
}

/// Makes each image in the way of its source.
pub(crate) struct Makers<'a> {
    /// Where downloads that were interrupted are kept.
    pub(crate) downloads: &'a Path,
}

impl Build for Makers<'_> {
    fn build(&self, entry: &Entry, site: &Site, control: &Control<'_>) -> Result<Made, Failure> {
        match &entry.source {
            Source::Bootstrap(bootstrap) => bootstrap::make(bootstrap, entry.arch, site, control),
            Source::Disk { file, firmware } => {
                let part = self.downloads.join(format!("{}.part", recipe(entry).hex()));
                published::make(entry, (file, *firmware), site, &part, control)
            }
            Source::Rootfs(_) => Err(crate::PrepareErrorKind::Absent.into()),
        }
    }
}

/// The digest of all that decides what is made of an entry: the key it is found by in the store.
pub(crate) fn recipe(entry: &Entry) -> Digest {
    let (file, kind) = match &entry.source {
        Source::Bootstrap(bootstrap) => return Recipe::of(bootstrap, entry.arch).digest(),
        Source::Disk { file, firmware } => (file, format!("disk {firmware:?}")),
        Source::Rootfs(file) => (file, "rootfs".to_owned()),
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
