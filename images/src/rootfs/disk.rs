//! Writes a tree into an unmounted ext4 file system with `debugfs`.
//!
//! So owners, modes and devices need no privilege and never appear on this machine (a set-user-id program unpacked by root could
//! be run by every user here).

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use super::{
    tarball::Unpacked,
    tree::{Kind, Rights},
};
use crate::{
    Control, DISK_BYTES,
    build_dir::RAW_DISK,
    error::{Failure, PrepareErrorKind},
    rootfs::{libss::quoted, read_back},
    tool,
};

const LIMIT: Duration = Duration::from_secs(1800);
/// The UUID of the file system: always the same, so that equal trees make equal disks.
const ID: &str = "6e657374-6d61-4472-8978-000000000002";
/// Bytes per block, which is the minimum size of a file, and disk bytes per inode.
const BLOCK: u64 = 4096;
/// Bytes of a folder's block for names: its end is a checksum.
const NAMES: usize = BLOCK as usize - 12;
/// Maximum number of links of a file (ext4: `EXT4_LINK_MAX`).
const MAX_NAMES: u32 = 65_000;
const BYTES_PER_FILE: u64 = 16384;

/// Makes the disk [`RAW_DISK`] in the folder `image`; returns its size in bytes.
pub(super) fn make(unpacked: &Unpacked, image: &Path, work: &Path, control: &Control<'_>) -> Result<u64, Failure> {
    let bytes = size(unpacked.bytes, unpacked.tree.len() as u64);
    let (disk, script) = (image.join(RAW_DISK), work.join("script"));
    File::create_new(&disk).and_then(|file| file.set_len(bytes)).map_err(PrepareErrorKind::io("create", &disk))?;
    let told = debugfs_script(unpacked)
        .map_err(|why| PrepareErrorKind::Incomplete { what: format!("file system of it: {why}") })?;
    fs::write(&script, told).map_err(PrepareErrorKind::io("write", &script))?;

    let run = |name: &'static str, args: &[&str]| {
        let mut complaint = None;
        let mut command = tool::command(name);
        // Time of creation and change of all files: always the same.
        command.env("E2FSPROGS_FAKE_TIME", "1700000000").args(args).current_dir(image).stdout(Stdio::null());
        tool::run(command, name, LIMIT, control.cancel, |line| tool::complaint(name, line, &mut complaint))?;
        Ok::<_, Failure>(complaint)
    };
    let options = format!("hash_seed={ID},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1");
    let inodes = (bytes / BYTES_PER_FILE).to_string();
    run(
        "mke2fs",
        &[
            "-q", "-F", "-t", "ext4", "-b", "4096", "-N", &inodes, "-L", "root", "-U", ID, "-m", "0", "-E", &options,
            RAW_DISK,
        ],
    )?;
    let script = script.to_str().ok_or_else(|| PrepareErrorKind::Incomplete { what: "path to write to".to_owned() })?;
    // It always exits with 0; its output shows what failed.
    if let Some(complaint) = run("debugfs", &["-w", "-f", script, RAW_DISK])? {
        return Err(PrepareErrorKind::Incomplete { what: format!("file system: {complaint}") }.into());
    }
    // Indexes large folders. Exit code 1: something was changed, which is that.
    let mut check = tool::command("sh");
    check.args(["-c", &format!("e2fsck -fyD {RAW_DISK} >&2; [ $? -le 1 ]")]).current_dir(image).stdout(Stdio::null());
    tool::run(check, "e2fsck", LIMIT, control.cancel, |_| {})?;
    read_back::compare(unpacked, image, work, control)?;
    Ok(bytes)
}

/// Disk size for this much content: guests get as much free room as from other images.
fn size(bytes: u64, files: u64) -> u64 {
    let content = bytes + files * BLOCK;
    let needed = (content + content / 8).max(files * 2 * BYTES_PER_FILE);
    DISK_BYTES.max((needed + DISK_BYTES / 2).next_multiple_of(1 << 20))
}

/// The commands for debugfs, one per line.
pub(super) fn debugfs_script(unpacked: &Unpacked) -> Result<String, String> {
    let written = vec![None; unpacked.tree.len()];
    let mut commands = Commands { unpacked, script: String::new(), written, refused: None };
    commands.rights("/", "04", &unpacked.tree.node(0).rights);
    commands.folder("", 0);
    for (path, names) in commands.written.iter().flatten().filter(|(_, names)| *names > 1) {
        if *names > MAX_NAMES {
            return Err(format!("{path} has {names} names, and a file can have {MAX_NAMES}"));
        }
        // It adds names to files without counting them. (Writing to a string cannot fail.)
        let _ = writeln!(commands.script, "sif {path} links_count {names}");
    }
    commands.refused.map_or(Ok(commands.script), Err)
}

/// Number of empty blocks of a folder that hold names of these lengths, whatever room the others have. First fit in the given
/// order, so that this many always suffice.
fn blocks(names: impl Iterator<Item = usize>) -> usize {
    let (mut blocks, mut left) = (0, 0);
    for length in names {
        // `struct ext4_dir_entry_2`: eight bytes and the name, padded to four.
        let entry = (8 + length).next_multiple_of(4);
        if entry > left {
            (blocks, left) = (blocks + 1, NAMES);
        }
        left -= entry;
    }
    blocks
}

struct Commands<'a> {
    unpacked: &'a Unpacked,
    script: String,
    /// The first name of a file, quoted, and the number of its names.
    written: Vec<Option<(String, u32)>>,
    /// Why debugfs would refuse a command.
    refused: Option<String>,
}

/// debugfs reads lines of at most 8 KiB (`BUFSIZ` of its C library) and takes the rest of a longer one for another command, which
/// could run a program here.
const MAX_COMMAND_LEN: usize = 4096;

impl Commands<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let line = line.to_string();
        if line.len() >= MAX_COMMAND_LEN || line.contains(['\n', '\0']) {
            let begin: String = line.chars().take(80).collect();
            self.refused.get_or_insert_with(|| format!("its paths are too long: {begin}"));
            return;
        }
        self.script.push_str(&line);
        self.script.push('\n');
    }

    fn folder(&mut self, path: &str, number: usize) {
        let Kind::Folder(names) = &self.unpacked.tree.node(number).kind else { return };
        // Each command names a file in the current folder.
        self.line(format_args!("cd {}", quoted(if path.is_empty() { "/" } else { path })));
        let mut more_names = Vec::new();
        for (name, &child) in names {
            let (node, full) = (self.unpacked.tree.node(child), format!("{path}/{name}"));
            let (here, place) = (quoted(name), quoted(&full));
            if self.written[child].is_some() {
                more_names.push((name, child));
                continue;
            }
            self.written[child] = Some((place.clone(), 1));
            let kind = match &node.kind {
                Kind::Folder(_) => {
                    self.line(format_args!("mkdir {place}"));
                    self.written[child] = None;
                    "04"
                }
                Kind::File(blob) => {
                    let blob = quoted(&self.unpacked.blob(*blob).to_string_lossy());
                    self.line(format_args!("write {blob} {here}"));
                    "010"
                }
                Kind::Link(target) => {
                    self.line(format_args!("symlink {here} {}", quoted(target)));
                    "012"
                }
                Kind::Device { block, major, minor } => {
                    let letter = if *block { 'b' } else { 'c' };
                    self.line(format_args!("mknod {here} {letter} {major} {minor}"));
                    if *block { "06" } else { "02" }
                }
                Kind::Pipe => {
                    self.line(format_args!("mknod {here} p"));
                    "01"
                }
            };
            self.rights(&place, kind, &node.rights);
        }
        // `ln` alone does not extend a full folder.
        for _ in 0..blocks(more_names.iter().map(|(name, _)| name.len())) {
            self.line(format_args!("expand_dir ."));
        }
        for (name, child) in more_names {
            let Some((first, names)) = &mut self.written[child] else { continue };
            *names += 1;
            let line = format!("ln {first} {}", quoted(name));
            self.line(format_args!("{line}"));
        }
        for (name, &child) in names {
            if let Kind::Folder(_) = self.unpacked.tree.node(child).kind {
                self.folder(&format!("{path}/{name}"), child);
            }
        }
    }

    /// Owner, mode and time; `kind`: the octal digits before the mode.
    fn rights(&mut self, place: &str, kind: &str, rights: &Rights) {
        let mode = if kind == "012" { 0o777 } else { rights.mode };
        self.line(format_args!("sif {place} mode {kind}{mode:04o}"));
        for (field, id) in [("uid", rights.uid), ("gid", rights.gid)] {
            if id != 0 {
                self.line(format_args!("sif {place} {field} {id}"));
            }
        }
        self.line(format_args!("sif {place} mtime @{}", rights.modified));
        for (name, blob) in &rights.attributes {
            let value = quoted(&self.unpacked.blob(*blob).to_string_lossy());
            self.line(format_args!("ea_set -f {value} {place} {name}"));
        }
    }
}
