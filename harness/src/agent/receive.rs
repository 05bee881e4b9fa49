//! Takes files on a machine where guests are to run: images, with resume, and the bundle of a run.
//!
//! The sender is told first what is there already, and meanwhile that it has to wait for another run. Then each file comes as a header, pieces with the place they belong to (what is left out
//! is a hole), an empty piece, and the digest of the whole. Nothing has its name before its digest was compared.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use matrix::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{
    coming::{Coming, Reply, There, is_full, line, locked, name, remove, say},
    fetch::fetch,
    job_bundle::{DISK, INITRD, KERNEL},
    shared,
};
use crate::{host, scratch};

/// A file is looked at in blocks of this size: those that hold nothing but zeros are not sent.
pub(crate) const BLOCK: usize = 256 << 10;
/// The place of an empty piece that only says that the sender is there.
pub(crate) const ALIVE: u64 = u64::MAX;
/// Longest header.
const LONGEST: u64 = 4096;
/// A sender from which nothing has come for so long is gone: a connection that was cut may stand here for hours.
const SENDER_TIMEOUT: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };
/// How long a run may take to end by itself before its agent is ended.
const AGENT_END: Duration = Duration::from_secs(5);

/// What is to be received.
#[derive(Clone, Debug)]
pub(crate) enum Received {
    /// The files of an image, into the folder of this name.
    Image(String),
    /// Where an image is published: it is fetched, into the folder of this name.
    Fetch(String),
    /// The bundle of this run, as an archive.
    JobBundle(String),
    /// Nothing: ends this run and removes what it left.
    End(String),
}

/// What comes before a file; without a name: that was all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Which of [`FILES`].
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// Where it goes on.
    pub(crate) from: u64,
}

/// Files of an image, in the order they are sent.
pub(crate) const FILES: [&str; 3] = [KERNEL, INITRD, DISK];

/// Receives from standard input, into what is below `root`.
pub(crate) fn receive(root: &Path, what: &Received) -> io::Result<()> {
    let (mut input, mut output) = (io::BufReader::with_capacity(BLOCK, Sender), io::stdout().lock());
    let received = match what {
        Received::Image(name) => image(root, name, &mut input, &mut output),
        Received::Fetch(name) => fetch(root, name, &mut input, &mut output),
        Received::JobBundle(run) => {
            name(run).and_then(|run| tar::Archive::new(&mut input).unpack(shared::bundle(root, run)))
        }
        Received::End(run) => end(&shared::store(root), run, &mut output),
    };
    let reply = match received {
        Ok(()) => Reply::Done,
        Err(error) if is_full(&error) => Reply::Full(error.to_string()),
        Err(error) => Reply::Failed(error.to_string()),
    };
    say(&mut output, &reply)
}

/// Standard input.
struct Sender;

impl io::Read for Sender {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&SENDER_TIMEOUT))?;
        if ready == 0 {
            let reason = format!("timeout: nothing came from the sender for {} s", SENDER_TIMEOUT.tv_sec);
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        Ok(rustix::io::read(&stdin, buffer)?)
    }
}

/// The folder is locked for as long as its run lives.
fn end(store: &Path, run: &str, output: &mut impl io::Write) -> io::Result<()> {
    let folder = store.join("scratch").join(name(run)?);
    match File::open(folder.join("lock")) {
        Ok(lock) => {
            let began = Instant::now();
            locked(&lock, output, &mut || {
                if began.elapsed() >= AGENT_END {
                    scratch::end_owner(&folder);
                }
            })?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    scratch::sweep(store);
    match folder.try_exists()? {
        false => Ok(()),
        true => Err(io::Error::other(format!("{} is still there", folder.display()))),
    }
}

fn image(root: &Path, folder: &str, input: &mut impl io::BufRead, output: &mut impl io::Write) -> io::Result<()> {
    let Some(coming) = Coming::new(root, folder, output)? else {
        return say(output, &Reply::There(There { whole: true, bytes: [0; 3], allocated: 0, free: 0 }));
    };
    let part = &coming.part;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(part)?;
    let files = FILES.map(|name| fs::metadata(part.join(name)).ok());
    let bytes = files.each_ref().map(|file| file.as_ref().map_or(0, fs::Metadata::len));
    let allocated = files.iter().flatten().map(|file| file.blocks() * 512).sum();
    let free = host::free_bytes(part)?.bytes();
    say(output, &Reply::There(There { whole: false, bytes, allocated, free }))?;
    let taken = files_of_image(part, input);
    if taken.as_ref().is_err_and(is_full) {
        // Others need the room that it takes.
        let _ = remove(part);
    }
    taken?;
    coming.is_whole(part)
}

fn files_of_image(part: &Path, input: &mut impl io::BufRead) -> io::Result<()> {
    loop {
        let header: Header = line(input, LONGEST)?;
        if header.name.is_empty() {
            return Ok(());
        }
        if !FILES.contains(&header.name.as_str()) {
            return Err(io::Error::other("a file that no image has"));
        }
        file(&part.join(&header.name), &header, input)?;
    }
}

fn file(path: &PathBuf, header: &Header, input: &mut impl io::BufRead) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(header.from)?;
    let mut bytes = vec![0; BLOCK];
    loop {
        let mut number = [0; 8];
        input.read_exact(&mut number)?;
        let at = u64::from_le_bytes(number);
        let mut number = [0; 4];
        input.read_exact(&mut number)?;
        let length = u32::from_le_bytes(number) as usize;
        match (at, length) {
            (ALIVE, 0) => continue,
            (_, 0) => break,
            _ => {}
        }
        if length > BLOCK || at.saturating_add(length as u64) > header.bytes {
            return Err(io::Error::other("a piece that does not belong to the file"));
        }
        input.read_exact(&mut bytes[..length])?;
        file.write_all_at(&bytes[..length], at)?;
    }
    let mut theirs = [0; 32];
    input.read_exact(&mut theirs)?;
    file.set_len(header.bytes)?;
    let ours = content(&mut file)?;
    if ours == theirs {
        return file.sync_all();
    }
    // What is wrong in it nobody knows: it comes anew.
    fs::remove_file(path)?;
    let (ours, theirs) = (Digest::from_bytes(ours).short(), Digest::from_bytes(theirs).short());
    Err(io::Error::other(format!("{} came damaged: its digest is {ours}, not {theirs}", header.name)))
}

/// A file's digest: over its size, and its blocks that are not all zeros, each after its place. Holes cost no time.
fn content(file: &mut File) -> io::Result<[u8; 32]> {
    let mut hasher = hasher(file.metadata()?.len());
    blocks(file, &mut |at, block| {
        if !block.is_empty() {
            hasher.update(at.to_le_bytes());
            hasher.update(block);
        }
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}

/// What becomes the digest of a file of this size.
pub(super) fn hasher(bytes: u64) -> sha2::Sha256 {
    sha2::Sha256::new().chain_update(bytes.to_le_bytes())
}

/// Shows every block that is no hole; one of zeros as an empty one.
pub(super) fn blocks(file: &mut File, show: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut at = 0;
    loop {
        // Past the end, or where there are no holes, the answer is no offset.
        match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data / BLOCK as u64 * BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(_) => {}
        }
        file.seek(SeekFrom::Start(at))?;
        bytes.clear();
        file.take(BLOCK as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        show(at, if is_zero { &[] } else { &bytes })?;
        at += bytes.len() as u64;
    }
}

/// Where a file goes on of which so many bytes are there: at the beginning of a block. What is longer than the file is another one.
pub(crate) const fn resume_from(there: u64, bytes: u64) -> u64 {
    if there > bytes { 0 } else { there / BLOCK as u64 * BLOCK as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything the sender sends of these files, from where the receiver is.
    fn sent(folder: &Path, there: There) -> Vec<u8> {
        let mut bytes = Vec::new();
        let files = FILES.map(|name| Some(folder.join(name)));
        crate::agent::send_image(&mut bytes, &files, there, &|_| {}).unwrap();
        bytes
    }

    const NOTHING: There = There { whole: false, bytes: [0; 3], allocated: 0, free: 0 };

    fn made(folder: &Path) {
        let mut disk = vec![0; 3 * BLOCK + 7];
        disk[5] = 1;
        disk[2 * BLOCK + 1] = 2;
        fs::write(folder.join(DISK), &disk).unwrap();
        fs::write(folder.join(KERNEL), "kernel").unwrap();
        fs::write(folder.join(INITRD), "").unwrap();
    }

    fn take(root: &Path, mut input: &[u8]) -> (io::Result<()>, There) {
        let mut said = Vec::new();
        let taken = image(root, "abc", &mut input, &mut said);
        let said = said.split(|byte| *byte == b'\n').next().unwrap();
        let Ok(Reply::There(there)) = serde_json::from_slice(said) else { panic!("{said:?}") };
        (taken, there)
    }

    #[test]
    fn what_is_sent_arrives_with_its_holes_and_is_not_sent_again() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(from.path());
        let all = sent(from.path(), NOTHING);
        assert!(all.len() < 2 * BLOCK + 1024, "a block of zeros is not sent: {}", all.len());
        let (taken, there) = take(root.path(), &all);
        taken.unwrap();
        assert_eq!((there.whole, there.bytes), (false, [0; 3]));
        for name in FILES {
            let place = root.path().join("images/abc").join(name);
            assert_eq!(fs::read(place).unwrap(), fs::read(from.path().join(name)).unwrap(), "{name}");
        }
        let (taken, there) = take(root.path(), b"");
        taken.unwrap();
        assert!(there.whole);
    }

    #[test]
    fn a_sender_may_say_that_it_is_there_between_two_pieces() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(from.path());
        let mut all = sent(from.path(), NOTHING);
        let header = all.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let alive: Vec<u8> = ALIVE.to_le_bytes().into_iter().chain([0; 4]).collect();
        all.splice(header..header, alive.repeat(2));
        take(root.path(), &all).0.unwrap();
        assert_eq!(fs::read(root.path().join("images/abc").join(KERNEL)).unwrap(), b"kernel");
    }

    #[test]
    fn what_breaks_off_goes_on_from_where_it_was() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(from.path());
        let all = sent(from.path(), NOTHING);
        // Within the last piece of the disk.
        let (taken, _) = take(root.path(), &all[..all.len() - 100]);
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(!root.path().join("images/abc").exists(), "half an image has no name");
        let (taken, there) = take(root.path(), b"");
        taken.unwrap_err();
        assert_eq!(there.bytes[..2], [6, 0]);
        let rest = sent(from.path(), there);
        assert!(rest.len() < all.len(), "{} of {}", rest.len(), all.len());
        take(root.path(), &rest).0.unwrap();
        let disk = root.path().join("images/abc").join(DISK);
        assert_eq!(fs::read(disk).unwrap(), fs::read(from.path().join(DISK)).unwrap());
    }

    #[test]
    fn what_came_damaged_has_no_name_and_comes_anew() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(from.path());
        let mut all = sent(from.path(), NOTHING);
        let kernel = all.windows(6).position(|bytes| bytes == b"kernel").unwrap();
        all[kernel] ^= 1;
        let (taken, _) = take(root.path(), &all);
        assert!(taken.unwrap_err().to_string().contains("damaged"));
        let (_, there) = take(root.path(), b"");
        assert_eq!((there.whole, there.bytes), (false, [0; 3]));
    }

    #[test]
    fn a_file_goes_on_at_a_block_and_what_is_too_long_comes_anew() {
        let block = BLOCK as u64;
        for (there, bytes, from) in [
            (0, 10, 0),
            (5, 10, 0),
            (block, 2 * block, block),
            (block + 1, 2 * block, block),
            (2 * block, 2 * block, 2 * block),
            (2 * block + 1, 2 * block, 0),
        ] {
            assert_eq!(resume_from(there, bytes), from, "{there} of {bytes}");
        }
    }
}
