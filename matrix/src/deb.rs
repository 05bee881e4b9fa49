//! Debian packages of a few text files: an `ar` archive of two `tar` archives (deb(5)). Nothing is packed, which every dpkg reads.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

/// Any fixed time (2026-01-01), so that equal files make equal packages.
const TIMESTAMP: u64 = 1_767_225_600;

/// A file of a package.
pub(crate) struct File {
    /// Relative to the root of the system, or of the package's control files.
    pub(crate) path: &'static str,
    pub(crate) text: String,
    pub(crate) is_program: bool,
}

/// The package.
pub(crate) fn pack(control: &[File], data: &[File]) -> io::Result<Vec<u8>> {
    let mut package = b"!<arch>\n".to_vec();
    for (name, content) in
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar", tar(control)?), ("data.tar", tar(data)?)]
    {
        writeln!(package, "{name:<16}{TIMESTAMP:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, "100644", content.len())?;
        package.extend(&content);
        if content.len() % 2 == 1 {
            package.push(b'\n');
        }
    }
    Ok(package)
}

fn tar(files: &[File]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let above = |path: &'static str| path.match_indices('/').map(move |(end, _)| &path[..=end]);
    // Sorted: a folder comes before its content.
    for folder in files.iter().flat_map(|file| above(file.path)).collect::<BTreeSet<_>>() {
        append(&mut archive, folder, tar::EntryType::Directory, 0o755, "")?;
    }
    for File { path, text, is_program } in files {
        append(&mut archive, path, tar::EntryType::Regular, if *is_program { 0o755 } else { 0o644 }, text)?;
    }
    archive.into_inner()
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &str,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIMESTAMP);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_an_archive_of_archives_that_dpkg_reads() {
        let control = [File {
            path: "control",
            text: "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: y <y@z>\nDescription: x\n".into(),
            is_program: false,
        }];
        let data = [File { path: "usr/bin/x", text: "#!/bin/sh\n".into(), is_program: true }];
        let package = pack(&control, &data).unwrap();
        assert_eq!(package, pack(&control, &data).unwrap());
        let mut rest = &package[8..];
        let mut members = Vec::new();
        while !rest.is_empty() {
            let header = std::str::from_utf8(&rest[..60]).unwrap();
            assert!(header.ends_with("`\n"), "{header:?}");
            let size: usize = header[48..58].trim().parse().unwrap();
            members.push((header[..16].trim().to_owned(), &rest[60..60 + size]));
            rest = &rest[60 + size.next_multiple_of(2)..];
        }
        assert_eq!(members[0], ("debian-binary".to_owned(), b"2.0\n".as_slice()));
        assert_eq!(members[1].0, "control.tar");
        let mut data = tar::Archive::new(members[2].1);
        let data = data.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        });
        let data: Vec<_> = data.collect();
        assert_eq!(data, [("usr/".to_owned(), 0o755), ("usr/bin/".to_owned(), 0o755), ("usr/bin/x".to_owned(), 0o755)]);
    }
}
