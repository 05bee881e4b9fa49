//! A build directory: the folder of one build, and its removal, by its process or, after a crash, by the next one.
//!
//! ```text
//! builds/<id>/            locked for as long as its process lives
//!   image/                private; becomes the image by being renamed
//!     disk.raw            locked for as long as a process of the build's own tree lives
//!   work/                 where the tree grows, if other users may enter the store; or
//!   elsewhere ->          where it grows otherwise: TMPDIR/nestmatrix-<id>
//! ```
//!
//! An ordinary user's tree belongs to subordinate user ids: they must be able to enter its path, and only they can remove it.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::AtomicBool,
    time::Duration,
};

use crate::{
    error::{Failure, PrepareErrorKind},
    lock, tool,
};

const IMAGE: &str = "image";
const WORK: &str = "work";
const ELSEWHERE: &str = "elsewhere";
const ELSEWHERE_PREFIX: &str = "nestmatrix-";
pub(crate) const RAW_DISK: &str = "disk.raw";

/// Time limit of a removal.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(300);
/// Time limit until a killed tree is gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// A folder to build in; removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct BuildDir {
    folder: PathBuf,
    _lock: File,
}

impl BuildDir {
    /// Creates one in the store's `builds` folder. The caller holds the store's lock, so no sweep runs in between.
    pub(crate) fn create(builds: &Path) -> Result<Self, PrepareErrorKind> {
        let folder = tempfile::Builder::new()
            .prefix("b")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(builds)
            .map_err(PrepareErrorKind::io("create a folder in", builds))?;
        let lock = File::open(folder.path()).map_err(PrepareErrorKind::io("open", folder.path()))?;
        lock::try_exclusive(&lock).map_err(PrepareErrorKind::io("lock", folder.path()))?;
        let image = folder.path().join(IMAGE);
        DirBuilder::new().mode(0o700).create(&image).map_err(PrepareErrorKind::io("create", &image))?;
        Ok(Self { folder: folder.keep(), _lock: lock })
    }

    /// Where the finished files go.
    pub(crate) fn image(&self) -> PathBuf {
        image_of(&self.folder)
    }

    /// The build directory itself: on the store's file system, empty but for what this module makes.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the folder the tree grows in: in the store if every user may enter it, else in a temporary folder.
    pub(crate) fn make_work(&self) -> Result<PathBuf, PrepareErrorKind> {
        let make = |path: &Path| {
            let made = DirBuilder::new().mode(0o711).create(path);
            // The umask may have removed permissions that other users need.
            made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o711)))
        };
        let mut tried = Vec::new();
        match unsuitable(&self.folder) {
            None => {
                let work = self.folder.join(WORK);
                return make(&work).map(|()| work.clone()).map_err(PrepareErrorKind::io("create", &work));
            }
            Some(reason) => tried.push(reason),
        }
        let id = self.folder.file_name().unwrap_or_default().to_string_lossy();
        for base in temporary_folders() {
            if let Some(reason) = unsuitable(&base) {
                tried.push(reason);
                continue;
            }
            let work = base.join(format!("{ELSEWHERE_PREFIX}{id}"));
            // Recorded first: an unrecorded work folder would stay forever.
            let link = self.folder.join(ELSEWHERE);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&work, &link).map_err(PrepareErrorKind::io("create", &link))?;
            match make(&work) {
                Ok(()) => return Ok(work),
                Err(error) => tried.push(format!("{}: {error}", work.display())),
            }
        }
        Err(PrepareErrorKind::NoWorkFolder { tried: tried.join("; ") })
    }

    /// Waits until no process of the build's tree can write to the disk.
    pub(crate) fn wait_for_tree(&self) -> Result<(), PrepareErrorKind> {
        let path = self.image().join(RAW_DISK);
        let disk = File::open(&path).map_err(PrepareErrorKind::io("open", &path))?;
        match lock::exclusive_within(&disk, KILL_TIMEOUT).map_err(PrepareErrorKind::io("lock", &path))? {
            true => Ok(()),
            false => Err(PrepareErrorKind::Incomplete {
                what: "disk: timeout, a process of the build still runs".to_owned(),
            }),
        }
    }

    /// Removes what the tree left, keeping the image.
    pub(crate) fn remove_work(&self) -> io::Result<()> {
        remove_elsewhere(&self.folder)?;
        remove(&self.folder.join(WORK))
    }
}

/// Where a build's finished files go.
pub(crate) fn image_of(build_dir: &Path) -> PathBuf {
    build_dir.join(IMAGE)
}

impl Drop for BuildDir {
    fn drop(&mut self) {
        // The next sweep finds what cannot be removed now.
        let _ = self.wait_for_tree();
        let _ = remove_build_dir(&self.folder);
    }
}

/// Keeps other users out of a folder.
pub(crate) fn only_ours(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Removes the build directories of dead processes; returns a line for each, for people.
///
/// `store_lock` is held while they are found, and released before they are removed, because a removal may take long.
pub(crate) fn sweep<L>(builds: &Path, store_lock: L) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(builds)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            // Not ours, or a link: the link is removed, not its target.
            fs::remove_file(&path)?;
            continue;
        }
        let Ok(lock) = abandoned(&path) else { continue };
        found.push((path, lock));
    }
    drop(store_lock);
    let removed = found.into_iter().map(|(path, _lock)| match remove_build_dir(&path) {
        Ok(()) => format!("removed {}, left by a build that was killed", path.display()),
        Err(error) => format!("cannot remove {}, left by a build that was killed: {error}", path.display()),
    });
    Ok(removed.collect())
}

/// The lock of an unused build directory; an error if it is in use.
fn abandoned(build_dir: &Path) -> io::Result<File> {
    let in_use = || io::Error::from(io::ErrorKind::ResourceBusy);
    let lock = File::open(build_dir)?;
    if !lock::try_exclusive(&lock)? {
        return Err(in_use());
    }
    // Its process is dead; the tree dies a moment later.
    if let Ok(disk) = File::open(build_dir.join(IMAGE).join(RAW_DISK))
        && !lock::try_exclusive(&disk)?
    {
        return Err(in_use());
    }
    Ok(lock)
}

fn remove_build_dir(build_dir: &Path) -> io::Result<()> {
    remove_elsewhere(build_dir)?;
    remove(build_dir)
}

/// Removes the work folder outside of the store, if the link to it is one that we wrote.
fn remove_elsewhere(build_dir: &Path) -> io::Result<()> {
    let link = build_dir.join(ELSEWHERE);
    let Ok(work) = fs::read_link(&link) else { return Ok(()) };
    let id = build_dir.file_name().unwrap_or_default().to_string_lossy();
    let is_ours = work.is_absolute()
        && work.file_name().is_some_and(|name| name.to_string_lossy() == format!("{ELSEWHERE_PREFIX}{id}"))
        && fs::symlink_metadata(&work)
            .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw());
    if is_ours {
        remove(&work)?;
    }
    fs::remove_file(&link)
}

/// Removes a folder and its content, without following links or entering mounts.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    let ours = rustix::process::geteuid();
    // Trees of other users' ids are below: at `root` of a work folder, which is here or one level down.
    for tree in [path.join("root"), path.join(WORK).join("root")] {
        let of_another = fs::symlink_metadata(&tree).is_ok_and(|found| found.uid() != ours.as_raw());
        if !ours.is_root() && of_another {
            let mut helper = tool::command("mmdebstrap");
            helper.arg("--unshare-helper").args(["find"]).arg(&tree).args(["-xdev", "-mindepth", "1", "-delete"]);
            // It may fail for the folder itself, which is ours to remove; what stays is reported below.
            let _ = run_removal(helper);
        }
    }
    let mut rm = tool::command("rm");
    rm.args(["-rf", "--one-file-system", "--"]).arg(path);
    run_removal(rm)
}

fn run_removal(mut command: std::process::Command) -> io::Result<()> {
    command.current_dir("/").stdout(Stdio::null());
    tool::run(command, "rm", REMOVAL_TIMEOUT, &AtomicBool::new(false), |_| {})
        .map_err(|Failure { kind, tail }| io::Error::other(tail.last().cloned().unwrap_or_else(|| kind.to_string())))
}

fn temporary_folders() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain([PathBuf::from("/var/tmp"), PathBuf::from("/tmp")])
}

/// Why no tree can grow below this folder; `None` if one can.
fn unsuitable(folder: &Path) -> Option<String> {
    let shown = folder.display();
    // apt cannot quote it, mmdebstrap splits at blanks.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%=:,".contains(c);
    if !folder.to_str().is_some_and(|path| path.chars().all(plain)) {
        return Some(format!("{shown}: apt does not support the characters in this path"));
    }
    for step in folder.ancestors() {
        match fs::metadata(step) {
            Ok(found) if found.is_dir() && found.mode() & 0o001 != 0 => {}
            Ok(_) => return Some(format!("{shown}: other users may not enter {}", step.display())),
            Err(error) => return Some(format!("{}: {error}", step.display())),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, alone};

    struct Builds {
        folder: tempfile::TempDir,
        _alone: Alone,
    }

    impl Builds {
        fn path(&self) -> &Path {
            self.folder.path()
        }
    }

    fn builds() -> Builds {
        let alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        Builds { folder, _alone: alone }
    }

    /// A build directory as a killed process leaves it: the folder without its lock.
    fn left_behind(builds: &Path, prepare: impl FnOnce(&BuildDir)) -> PathBuf {
        let build_dir = BuildDir::create(builds).expect("build_dir");
        prepare(&build_dir);
        let copy = builds.join(format!("{}x", build_dir.folder.file_name().expect("name").to_string_lossy()));
        fs::rename(&build_dir.folder, &copy).expect("rename");
        copy
    }

    #[test]
    fn a_site_is_gone_when_its_build_is_over() {
        let builds = builds();
        let build_dir = BuildDir::create(builds.path()).expect("build_dir");
        let work = build_dir.make_work().expect("work folder");
        fs::write(work.join("file"), "x").expect("file");
        drop(build_dir);
        assert!(!work.exists());
        assert_eq!(fs::read_dir(builds.path()).expect("folder").count(), 0);
    }

    #[test]
    fn the_sweep_removes_what_a_dead_process_left_and_nothing_a_living_one_works_on() {
        let builds = builds();
        let living = BuildDir::create(builds.path()).expect("build_dir");
        let dead = left_behind(builds.path(), |build_dir| {
            fs::write(build_dir.image().join(RAW_DISK), "half").expect("file");
        });
        let swept = sweep(builds.path(), ()).expect("sweep");
        assert_eq!(swept.len(), 1, "{swept:?}");
        assert!(!dead.exists() && living.folder.exists());
    }

    #[test]
    fn the_sweep_waits_for_the_tree_of_a_killed_build_to_die() {
        let builds = builds();
        let dead = left_behind(builds.path(), |build_dir| {
            fs::write(build_dir.image().join(RAW_DISK), "half").expect("file");
        });
        let tree = File::open(dead.join(IMAGE).join(RAW_DISK)).expect("file");
        assert!(lock::try_exclusive(&tree).expect("lock"));
        assert!(sweep(builds.path(), ()).expect("sweep").is_empty());
        drop(tree);
        assert_eq!(sweep(builds.path(), ()).expect("sweep").len(), 1);
    }

    #[test]
    fn the_sweep_follows_no_link_out_of_the_store() {
        let (builds, outside) = (builds(), tempfile::tempdir().expect("temporary folder"));
        let precious = outside.path().join("precious");
        fs::create_dir(&precious).expect("folder");
        fs::write(precious.join("file"), "x").expect("file");
        let dead = left_behind(builds.path(), |build_dir| {
            std::os::unix::fs::symlink(&precious, build_dir.folder.join("work")).expect("link");
            std::os::unix::fs::symlink(&precious, build_dir.folder.join(ELSEWHERE)).expect("link");
            std::os::unix::fs::symlink(&precious, build_dir.image().join("root")).expect("link");
        });
        std::os::unix::fs::symlink(&precious, builds.path().join("link")).expect("link");
        sweep(builds.path(), ()).expect("sweep");
        assert!(!dead.exists());
        assert_eq!(fs::read_dir(builds.path()).expect("folder").count(), 0);
        assert!(precious.join("file").exists());
    }

    #[test]
    fn a_store_nobody_may_pass_through_is_built_elsewhere_and_that_is_swept_too() {
        let builds = builds();
        fs::set_permissions(builds.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
        let build_dir = BuildDir::create(builds.path()).expect("build_dir");
        let work = build_dir.make_work().expect("work folder");
        assert!(!work.starts_with(builds.path()), "{}", work.display());
        fs::write(work.join("file"), "x").expect("file");
        drop(build_dir);
        assert!(!work.exists());
    }
}
