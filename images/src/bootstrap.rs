//! Builds a Debian system from its distribution's packages: mmdebstrap for the tree, mke2fs for the disk.
//!
//! No root, no loop device: an ordinary user's build runs in a name space of that user's subordinate ids. The steps that
//! need those ids are in `images/recipe/build.sh`; what follows only reads the finished disk.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::Duration,
};

use matrix::Arch;

use crate::{
    Bootstrap, Control,
    build_dir::{BuildDir, RAW_DISK},
    error::{Failure, PrepareErrorKind},
    foreign::{self, Foreign},
    lock, mirror,
    prepared::{DISK, INITRD, KERNEL, Made, PACKAGES},
    recipe::{DISK_BYTES, Recipe},
    space, tool,
};

/// Room that a build takes, measured and rounded up: the tree with the packages, and the disk twice (raw and qcow2).
const WORK_BYTES: u64 = 1 << 30;
const STORE_BYTES: u64 = 1 << 30;
/// If less than this is free after a failure, the disk was full, whatever the tool reported.
const FULL_BYTES: u64 = 8 << 20;
const READ_TIMEOUT: Duration = Duration::from_secs(600);
/// Maximum length of the listing of one folder, in bytes.
const MAX_LISTING_BYTES: u64 = 1 << 20;

/// Makes the files of an image in [`BuildDir::image`], with mmdebstrap.
pub(crate) fn make(
    bootstrap: &Bootstrap,
    arch: Arch,
    build_dir: &BuildDir,
    control: &Control<'_>,
) -> Result<Made, Failure> {
    let recipe = &Recipe::of(bootstrap, arch);
    if let Some(tool) = tool::missing(&["mmdebstrap", "mke2fs", "debugfs", "qemu-img"]) {
        return Err(PrepareErrorKind::ToolMissing { tool: tool.to_owned() }.into());
    }
    let foreign = Foreign::of(arch)?;
    let work = build_dir.make_work()?;
    let image = build_dir.image();
    space::require(&[(&work, WORK_BYTES), (&image, STORE_BYTES)]).map_err(PrepareErrorKind::from)?;
    let ended = bootstrap_tree((bootstrap, recipe, foreign.as_ref()), &work, build_dir, control)
        .and_then(|()| extract(&image, control.cancel))
        .and_then(|()| convert(&image, control));
    ended.map_err(|failure| blame_full_disk(failure, &[&work, &image]))?;
    Ok(Made::with_kernel(recipe.cmdline))
}

/// Bootstraps the tree and makes a raw disk of it.
fn bootstrap_tree(
    (bootstrap, recipe, foreign): (&Bootstrap, &Recipe, Option<&Foreign>),
    work: &Path,
    build_dir: &BuildDir,
    control: &Control<'_>,
) -> Result<(), Failure> {
    let own = recipe.scripts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    for (name, text) in own.chain(foreign::SCRIPTS) {
        write(&work.join(name), text.as_bytes(), 0o755)?;
    }
    let archive = recipe.tar().map_err(PrepareErrorKind::io("make an archive in", work))?;
    write(&work.join("files.tar"), &archive, 0o644)?;

    let path = build_dir.image().join(RAW_DISK);
    let disk = OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(&path);
    let disk = disk.map_err(PrepareErrorKind::io("create", &path))?;
    // Writable by all: only a process that can enter the private folder around it, or has it open, reaches it.
    disk.set_permissions(fs::Permissions::from_mode(0o666)).map_err(PrepareErrorKind::io("set the mode of", &path))?;
    disk.set_len(DISK_BYTES).map_err(PrepareErrorKind::io("size", &path))?;
    lock::try_exclusive(&disk).map_err(PrepareErrorKind::io("lock", &path))?;

    let mut build = tool::command("/bin/sh");
    match foreign {
        None => build.arg(work.join("build.sh")),
        Some(foreign) => build.arg(work.join("foreign.sh")).args(foreign.args()),
    };
    build.arg(&recipe.release).arg(recipe.packages.join(",")).arg(work);
    if let Some(sources) = mirror::sources_for(&recipe.release, &bootstrap.suites, Path::new("/etc/apt")) {
        write(&work.join("sources.list"), sources.as_bytes(), 0o644)?;
    }
    write(&work.join("apt.conf"), mirror::apt_settings(control.cancel)?.as_bytes(), 0o644)?;
    build.stdout(disk);
    let usual = if foreign.is_some() { "5 to 15 minutes: its programs are emulated" } else { "1 to 2 minutes" };
    (control.progress)(&format!("building it from packages, usually {usual}"));
    let progress = |line: &str| {
        if let Some(step) = line.strip_prefix("I: ") {
            (control.progress)(step.trim_end_matches('.'));
        }
    };
    let ended = tool::run(build, "mmdebstrap", tool::BUILD_TIMEOUT, control.cancel, progress);
    // Also after a failure: the tree is removed next.
    build_dir.wait_for_tree()?;
    ended?;
    (control.progress)("removing the tree it was built in");
    build_dir.remove_work().map_err(PrepareErrorKind::io("remove", work))?;
    Ok(())
}

/// Copies kernel, initrd and the list of packages out of the disk.
fn extract(image: &Path, cancel: &AtomicBool) -> Result<(), Failure> {
    let said = tool::output(debugfs("ls -p /boot", image), "debugfs", READ_TIMEOUT, MAX_LISTING_BYTES, cancel)?;
    let listing = String::from_utf8_lossy(&said);
    for (prefix, file) in [("vmlinuz-", KERNEL), ("initrd.img-", INITRD)] {
        let name = only_name(&listing, prefix)
            .ok_or_else(|| PrepareErrorKind::Incomplete { what: format!("/boot/{prefix}*") })?;
        dump(&format!("/boot/{name}"), file, image, cancel)?;
    }
    dump("/usr/lib/nestmatrix/packages.tsv", PACKAGES, image, cancel)
}

/// The one name with this prefix in the output of `debugfs -R 'ls -p'`: `/inode/mode/uid/gid/name/size/`.
fn only_name<'a>(listing: &'a str, prefix: &str) -> Option<&'a str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    let names = listing.lines().filter_map(|line| line.split('/').nth(5));
    let mut names = names.filter(|name| name.starts_with(prefix) && name.chars().all(plain));
    names.next().filter(|_| names.next().is_none())
}

fn debugfs(request: &str, image: &Path) -> Command {
    let mut debugfs = tool::command("debugfs");
    debugfs.current_dir(image).args(["-R", request, RAW_DISK]).stdout(Stdio::null());
    debugfs
}

fn dump(from: &str, to: &'static str, image: &Path, cancel: &AtomicBool) -> Result<(), Failure> {
    let mut complaint = None;
    tool::run(debugfs(&format!("dump {from} {to}"), image), "debugfs", READ_TIMEOUT, cancel, |line| {
        tool::complaint("debugfs", line, &mut complaint);
    })?;
    // debugfs always exits with 0: its output shows what failed.
    match (complaint, fs::metadata(image.join(to))) {
        (Some(words), _) => Err(PrepareErrorKind::Incomplete { what: format!("{from}: {words}") }.into()),
        (None, Ok(found)) if found.len() > 0 => Ok(()),
        (None, _) => Err(PrepareErrorKind::Incomplete { what: from.to_owned() }.into()),
    }
}

/// Converts the raw disk to qcow2, which stays as small as its content wherever it is copied.
pub(crate) fn convert(image: &Path, control: &Control<'_>) -> Result<(), Failure> {
    (control.progress)("writing the disk to the store");
    let mut convert = tool::command("qemu-img");
    convert.current_dir(image).args(["convert", "-f", "raw", "-O", "qcow2", RAW_DISK, DISK]).stdout(Stdio::null());
    tool::run(convert, "qemu-img", READ_TIMEOUT, control.cancel, |_| {})?;
    let raw = image.join(RAW_DISK);
    fs::remove_file(&raw).map_err(PrepareErrorKind::io("remove", &raw))?;
    Ok(())
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), PrepareErrorKind> {
    let mut file = fs::File::create(path).map_err(PrepareErrorKind::io("create", path))?;
    file.write_all(content).map_err(PrepareErrorKind::io("write", path))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(PrepareErrorKind::io("set the mode of", path))
}

/// Turns a tool's own message about a full disk into our error.
pub(crate) fn blame_full_disk(failure: Failure, folders: &[&Path]) -> Failure {
    if !matches!(failure.kind, PrepareErrorKind::ToolFailed { .. } | PrepareErrorKind::Incomplete { .. }) {
        return failure;
    }
    let said = failure.tail.iter().any(|line| line.contains("No space left on device"));
    // The work folder may be gone already; its file system is not.
    let room = |folder: &Path| folder.ancestors().find_map(space::free).unwrap_or(u64::MAX);
    let fullest = folders.iter().map(|folder| (room(folder), *folder)).min();
    match fullest {
        Some((free, path)) if said || free < FULL_BYTES => Failure {
            kind: PrepareErrorKind::DiskFull { path: path.to_owned(), free, needed: None },
            tail: failure.tail,
        },
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_kernel_is_found_and_two_are_not_guessed_between() {
        let listing =
            "/12/040755/0/0/.//\n/99/100644/0/0/vmlinuz-6.1.0-40-cloud-amd64/8000000/\n/98/100644/0/0/config-6.1/9/\n";
        assert_eq!(only_name(listing, "vmlinuz-"), Some("vmlinuz-6.1.0-40-cloud-amd64"));
        assert_eq!(only_name(&format!("{listing}/97/100644/0/0/vmlinuz-6.2/9/\n"), "vmlinuz-"), None);
        assert_eq!(only_name("/1/100644/0/0/vmlinuz-$(id) x/9/\n", "vmlinuz-"), None);
        assert_eq!(only_name("debugfs: no such file", "vmlinuz-"), None);
    }

    #[test]
    fn a_tool_that_ran_out_of_room_is_reported_as_a_full_disk() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let kind = PrepareErrorKind::ToolFailed { tool: "qemu-img".to_owned(), status: "exit status: 1".to_owned() };
        let failure = Failure { kind, tail: vec!["error while writing: No space left on device".to_owned()] };
        let failure = blame_full_disk(failure, &[folder.path()]);
        assert!(matches!(failure.kind, PrepareErrorKind::DiskFull { .. }), "{failure:?}");
    }
}
