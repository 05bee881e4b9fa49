//! Compares a file system with the tree it was made of.
//!
//! `debugfs` always succeeds, and `e2fsck` repairs what it finds. A file that both lost silently would be missing in a guest, and
//! its package would be blamed. So every folder is listed again: names, kinds, owners, modes, sizes, and hard links.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use super::{
    tarball::Unpacked,
    tree::{Kind, Node},
};
use crate::{
    Control,
    build_dir::RAW_DISK,
    error::{Failure, PrepareErrorKind},
    tool,
};

const LIMIT: Duration = Duration::from_secs(1800);
/// Maximum length of the whole listing, in bytes: a million files with long names.
const MAX_LISTING_BYTES: u64 = 1 << 29;
/// Present in the root of every ext4 file system.
const LOST_AND_FOUND: &str = "lost+found";

/// Lists the disk in the folder `image`; an error names the first wrong file.
pub(super) fn compare(unpacked: &Unpacked, image: &Path, work: &Path, control: &Control<'_>) -> Result<(), Failure> {
    let mut folders = Vec::new();
    collect(unpacked, String::new(), 0, &mut folders);
    let mut orders = String::new();
    for (path, _) in &folders {
        let shown = super::libss::quoted(if path.is_empty() { "/" } else { path });
        // (Writing to a string cannot fail.)
        let _ = writeln!(orders, "ls -p {shown}");
    }
    let script = work.join("listing");
    fs::write(&script, orders).map_err(PrepareErrorKind::io("write", &script))?;
    let mut debugfs = tool::command("debugfs");
    debugfs.arg("-f").arg(&script).arg(RAW_DISK).current_dir(image);
    let listing = tool::output(debugfs, "debugfs", LIMIT, MAX_LISTING_BYTES, control.cancel)?;
    let differs = |what: String| PrepareErrorKind::Incomplete { what: format!("file system: {what}") };
    let listing = String::from_utf8_lossy(&listing);
    differences(unpacked, &folders, &listing).map_err(differs)?;
    Ok(())
}

/// All folders: path (empty: the root) and number.
fn collect(unpacked: &Unpacked, path: String, number: usize, folders: &mut Vec<(String, usize)>) {
    let Kind::Folder(names) = &unpacked.tree.node(number).kind else { return };
    folders.push((path.clone(), number));
    for (name, &child) in names {
        collect(unpacked, format!("{path}/{name}"), child, folders);
    }
}

/// debugfs's output about one name.
struct Found<'a> {
    name: &'a str,
    inode: &'a str,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Nothing: a folder.
    size: Option<u64>,
}

/// `/inode/mode/uid/gid/name/size/`.
fn found(line: &str) -> Option<Found<'_>> {
    let mut fields = line.strip_prefix('/')?.strip_suffix('/')?.splitn(5, '/');
    let (inode, mode) = (fields.next()?, u32::from_str_radix(fields.next()?, 8).ok()?);
    // Some versions print them as signed numbers.
    let mut id = || Some(fields.next()?.parse::<i64>().ok()? as u32);
    let (uid, gid) = (id()?, id()?);
    let (name, size) = fields.next()?.rsplit_once('/')?;
    let size = if size.is_empty() { None } else { Some(size.parse().ok()?) };
    Some(Found { name, inode, mode, uid, gid, size })
}

/// Compares all folders with their listing in the same order; the error is the first difference.
fn differences(unpacked: &Unpacked, folders: &[(String, usize)], listing: &str) -> Result<(), String> {
    // debugfs repeats each command before its output. Every line of output begins with a slash.
    let listing = format!("\n{listing}");
    let mut answers = listing.split("\ndebugfs: ls -p ").skip(1);
    // Inodes of files by their number, and the reverse.
    let (mut inodes, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (path, number) in folders {
        let answer = answers.next().ok_or_else(|| format!("nothing is known of `{path}/` in it"))?;
        let Kind::Folder(names) = &unpacked.tree.node(*number).kind else { continue };
        let mut left = names.clone();
        for line in answer.lines().skip(1).filter(|line| !line.is_empty()) {
            let found = found(line).ok_or_else(|| format!("`debugfs` says `{line}`"))?;
            let known = left.remove(found.name);
            let Some(child) = known else {
                let expected = [".", ".."].contains(&found.name) || (path.is_empty() && found.name == LOST_AND_FOUND);
                if expected {
                    continue;
                }
                return Err(format!("`{path}/{}` is in it and should not be", found.name));
            };
            let wrong =
                |what: &str| Err(format!("`{path}/{}` in it has another {what} than it should have", found.name));
            if let Some(what) = difference(unpacked, unpacked.tree.node(child), &found)? {
                return wrong(what);
            }
            // A file has one inode, and an inode has one file.
            let inode = *inodes.entry(child).or_insert(found.inode);
            let file = *files.entry(found.inode).or_insert(child);
            if inode != found.inode || file != child {
                return wrong("file behind its name");
            }
        }
        if let Some(name) = left.keys().next() {
            return Err(format!("`{path}/{name}` is missing in it"));
        }
    }
    Ok(())
}

/// The property of a file that differs.
fn difference(unpacked: &Unpacked, node: &Node, found: &Found<'_>) -> Result<Option<&'static str>, String> {
    let (kind, size) = match &node.kind {
        Kind::Folder(_) => (0o040_000, None),
        Kind::File(blob) => {
            let blob = unpacked.blob(*blob);
            let bytes = fs::metadata(&blob).map_err(|error| format!("{}: {error}", blob.display()))?.len();
            (0o100_000, Some(bytes))
        }
        Kind::Link(target) => (0o120_000, Some(target.len() as u64)),
        Kind::Device { block, .. } => (if *block { 0o060_000 } else { 0o020_000 }, found.size),
        Kind::Pipe => (0o010_000, found.size),
    };
    let is_link = matches!(node.kind, Kind::Link(_));
    let mode = kind | if is_link { 0o777 } else { node.rights.mode };
    // Older versions show the lower half of an id.
    let same = |is: u32, should: u32| is == should || is == should & 0xffff;
    let wrong = [
        ("kind or mode", found.mode != mode),
        ("owner", !same(found.uid, node.rights.uid) || !same(found.gid, node.rights.gid)),
        ("size", found.size != size),
    ];
    Ok(wrong.into_iter().find(|(_, wrong)| *wrong).map(|(what, _)| what))
}

#[cfg(test)]
#[path = "read_back_tests.rs"]
mod tests;
