//! A guest's tar stream, read entry by entry as what it is: text by an adversary.
//!
//! Only regular files and folders come out, under names that are made safe, in bounded numbers and sizes. The stream's own
//! long names are read here and not by the tar crate, which would read a name of any length into memory.

use std::io::Read;

use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::Limits;

/// Longest path, in bytes.
const LONGEST_PATH: usize = 1024;
/// Longest name of one file or folder, in bytes: a file system's limit is 255.
const LONGEST_NAME: usize = 200;
/// Deepest folder.
const DEEPEST: usize = 40;
/// Largest header that only describes the next entry.
const LARGEST_EXTENSION: u64 = 64 * 1024;
/// Most lines about what was left out.
const MOST_WARNINGS: usize = 50;

/// Something in the stream that may be kept.
pub(super) struct Item<'a> {
    /// Relative, of safe names only, separated by `/`.
    pub(super) path: String,
    /// `None`: a folder. Reading it gives at most as many bytes as the entry said it has.
    pub(super) content: Option<&'a mut dyn Read>,
}

/// Lines about what was left out, of bounded number.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    lines: Vec<String>,
    more: usize,
    /// Something that was asked for is not there, or not whole.
    pub(super) lost: bool,
}

impl Warnings {
    /// Something is missing.
    pub(super) fn add(&mut self, line: impl AsRef<str>) {
        self.lost = true;
        self.note(line);
    }

    /// Everything is there, but a person should know this.
    pub(super) fn note(&mut self, line: impl AsRef<str>) {
        if self.lines.len() < MOST_WARNINGS {
            self.lines.push(reports::clean::line(line.as_ref()));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more of this kind", self.more));
        }
        self.lines
    }
}

/// Reads a stream to its end, or as far as the limits and its own form allow. `keep` is given each item and returns how many
/// bytes of it were kept, or why it could not be.
pub(super) fn unpack(
    stream: impl Read,
    limits: &Limits,
    warnings: &mut Warnings,
    mut keep: impl FnMut(Item<'_>) -> Result<u64, String>,
) {
    let mut archive = Archive::new(stream);
    let entries = match archive.entries() {
        Ok(entries) => entries.raw(true),
        Err(error) => return warnings.add(format!("the guest's tar stream cannot be read: {error}")),
    };
    let (mut count, mut total) = (0, 0_u64);
    let mut long_name = None;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return warnings.add(format!("the guest's tar stream breaks off: {error}")),
        };
        match entry.header().entry_type() {
            EntryType::GNULongName | EntryType::XHeader => {
                long_name = read_long_name(&mut entry).or(long_name);
                continue;
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let raw = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let shown = reports::clean::line(&String::from_utf8_lossy(&raw[..raw.len().min(LONGEST_NAME)]));
        let (path, renamed) = match safe_path(&raw) {
            Ok(safe) => safe,
            Err(reason) => {
                warnings.add(format!("`{shown}` was not fetched: {reason}"));
                continue;
            }
        };
        let size = entry.size();
        count += 1;
        if count > limits.count {
            return warnings.add(format!("more than {} files: the rest was not fetched", limits.count));
        }
        let kept = match entry.header().entry_type() {
            EntryType::Directory if path.is_empty() => Ok(0),
            EntryType::Directory => keep(Item { path, content: None }),
            EntryType::Regular | EntryType::Continuous => {
                if size > limits.per_file {
                    warnings.add(format!("`{shown}` was not fetched: it has {size} bytes, {} may be", limits.per_file));
                    continue;
                }
                total += size;
                if total > limits.total {
                    return warnings
                        .add(format!("more than {} bytes: `{shown}` and what follows was not fetched", limits.total));
                }
                if renamed {
                    warnings.note(format!("`{shown}` was fetched as `{path}`: its name is not fit for a file here"));
                }
                keep(Item { path, content: Some(&mut entry) }).and_then(|kept| {
                    if kept == size { Ok(kept) } else { Err(format!("only {kept} of its {size} bytes came")) }
                })
            }
            kind => Err(format!("it is {}", name_of(kind))),
        };
        if let Err(reason) = kept {
            warnings.add(format!("`{shown}` was not fetched: {reason}"));
        }
    }
}

fn read_long_name(entry: &mut Entry<'_, impl Read>) -> Option<Vec<u8>> {
    if entry.size() > LARGEST_EXTENSION {
        // The name stays unknown, and the shorter one in the next header is as good as any.
        return None;
    }
    let is_pax = entry.header().entry_type() == EntryType::XHeader;
    let mut content = Vec::new();
    entry.read_to_end(&mut content).ok()?;
    if is_pax {
        let mut extensions = PaxExtensions::new(&content).flatten();
        return extensions.find(|extension| extension.key_bytes() == b"path").map(|path| path.value_bytes().to_vec());
    }
    while content.last() == Some(&0) {
        content.pop();
    }
    Some(content)
}

/// A path below the folder collected into, of names any file system takes and any terminal shows, and whether a name had to be
/// changed for it; or why there is none.
fn safe_path(raw: &[u8]) -> Result<(String, bool), String> {
    if raw.first() == Some(&b'/') {
        return Err("its path is absolute".to_owned());
    }
    if raw.len() > LONGEST_PATH {
        return Err(format!("its path has {} bytes", raw.len()));
    }
    let mut names = Vec::new();
    let mut renamed = false;
    for name in raw.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            return Err("its path leads upwards".to_owned());
        }
        let said = String::from_utf8_lossy(name);
        let name: String = said.chars().map(|c| if is_fit(c) { c } else { '_' }).collect();
        renamed |= name != said;
        if name.len() > LONGEST_NAME {
            return Err(format!("a name in its path has {} bytes", name.len()));
        }
        names.push(name);
    }
    if names.len() > DEEPEST {
        return Err(format!("it lies {} folders deep", names.len()));
    }
    Ok((names.join("/"), renamed))
}

fn is_fit(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\\' | char::REPLACEMENT_CHARACTER)
        // Characters that hide or turn around the text beside them.
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link to another file",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file in a form of its own",
        _ => "of a kind of its own",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;

    const LIMITS: Limits = Limits { per_file: 100, total: 250, count: 6 };

    /// A header with a name tar itself would not write.
    fn entry(name: &[u8], kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o7777);
        header.set_cksum();
        header
    }

    fn tar(entries: &[(&[u8], EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            tar.append(&entry(name, *kind, content.len() as u64), *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// What is kept of a stream, as `path=content`, and the warnings.
    fn read(stream: &[u8]) -> (Vec<String>, Vec<String>) {
        let (mut kept, mut warnings) = (Vec::new(), Warnings::default());
        unpack(stream, &LIMITS, &mut warnings, |item| {
            let mut text = Vec::new();
            match item.content {
                Some(content) => content.read_to_end(&mut text).map_err(|error| error.to_string())?,
                None => 0,
            };
            kept.push(format!("{}={}", item.path, String::from_utf8_lossy(&text)));
            Ok(text.len() as u64)
        });
        (kept, warnings.into_lines())
    }

    #[test]
    fn files_and_folders_come_out_as_they_are() {
        let stream = tar(&[
            (b"./var/", EntryType::Directory, b""),
            (b"./var/log.txt", EntryType::Regular, b"hello"),
            (b"./", EntryType::Directory, b""),
        ]);
        assert_eq!(read(&stream), (vec!["var=".to_owned(), "var/log.txt=hello".to_owned()], vec![]));
    }

    #[test]
    fn nothing_that_leads_elsewhere_comes_out() {
        let stream = tar(&[
            (b"/etc/passwd", EntryType::Regular, b"x"),
            (b"../up", EntryType::Regular, b"x"),
            (b"a/../../up", EntryType::Regular, b"x"),
            (b"link", EntryType::Symlink, b""),
            (b"hard", EntryType::Link, b""),
            (b"null", EntryType::Char, b""),
            (b"disk", EntryType::Block, b""),
            (b"pipe", EntryType::Fifo, b""),
        ]);
        let (kept, warnings) = read(&stream);
        assert_eq!(kept, [""; 0]);
        insta::assert_snapshot!(warnings.join("\n"), @r"
        `/etc/passwd` was not fetched: its path is absolute
        `../up` was not fetched: its path leads upwards
        `a/../../up` was not fetched: its path leads upwards
        `link` was not fetched: it is a symbolic link
        `hard` was not fetched: it is a hard link to another file
        `null` was not fetched: it is a device
        `disk` was not fetched: it is a device
        `pipe` was not fetched: it is a pipe
        ");
    }

    #[test]
    fn names_that_would_harm_a_terminal_are_changed_and_it_is_said() {
        let stream = tar(&[
            (b"a\x1b[2Jb", EntryType::Regular, b"1"),
            (b"new\nline", EntryType::Regular, b"2"),
            (b"latin\xe9", EntryType::Regular, b"3"),
            ("turned\u{202e}txt".as_bytes(), EntryType::Regular, b"4"),
        ]);
        let (kept, warnings) = read(&stream);
        assert_eq!(kept, ["a_[2Jb=1", "new_line=2", "latin_=3", "turned_txt=4"]);
        assert_eq!(warnings.len(), 4);
        assert!(warnings.iter().all(|line| !line.chars().any(char::is_control)), "{warnings:?}");
    }

    #[test]
    fn a_changed_name_is_no_loss_but_anything_left_out_is() {
        let lost = |stream: &[u8]| {
            let mut warnings = Warnings::default();
            unpack(stream, &LIMITS, &mut warnings, |item| {
                item.content.map_or(Ok(0), |content| {
                    std::io::copy(content, &mut std::io::sink()).map_err(|error| error.to_string())
                })
            });
            warnings.lost
        };
        let good: (&[u8], EntryType, &[u8]) = (b"a.xml", EntryType::Regular, b"1");
        assert!(!lost(&tar(&[good, (b"new\nline", EntryType::Regular, b"2")])));
        assert!(lost(&tar(&[good, (b"b.xml", EntryType::Symlink, b"")])));
        assert!(lost(&tar(&[good, (b"b.xml", EntryType::Regular, &[b'x'; 101])])));
        let whole = tar(&[good, good]);
        assert!(lost(&whole[..1024 + 512]), "a stream that breaks off");
    }

    #[test]
    fn long_names_of_both_kinds_are_understood_and_too_long_ones_refused() {
        let long = format!("deep/{}", "n".repeat(150));
        let mut stream = Builder::new(Vec::new());
        stream.append_data(&mut entry(b"", EntryType::Regular, 1), &long, &b"1"[..]).unwrap();
        stream.append_pax_extensions([("path", "pax/name.txt".as_bytes())]).unwrap();
        stream.append(&entry(b"short", EntryType::Regular, 1), &b"2"[..]).unwrap();
        stream.append_data(&mut entry(b"", EntryType::Regular, 1), "m".repeat(230), &b"3"[..]).unwrap();
        stream.append_data(&mut entry(b"", EntryType::Regular, 1), "d/".repeat(100) + "f", &b"4"[..]).unwrap();
        let (kept, warnings) = read(&stream.into_inner().unwrap());
        assert_eq!(kept, [format!("{long}=1"), "pax/name.txt=2".to_owned()]);
        assert!(warnings[0].ends_with("a name in its path has 230 bytes"), "{warnings:?}");
        assert!(warnings[1].ends_with("it lies 101 folders deep"), "{warnings:?}");
    }

    #[test]
    fn a_name_of_megabytes_is_not_read_into_memory() {
        let name = vec![b'n'; 1 << 20];
        let stream = tar(&[(b"././@LongLink", EntryType::GNULongName, &name), (b"short", EntryType::Regular, b"1")]);
        assert_eq!(read(&stream).0, ["short=1"]);
    }

    #[test]
    fn a_file_that_is_too_large_is_left_out_and_the_next_still_comes() {
        let stream = tar(&[(b"large", EntryType::Regular, &[b'x'; 101]), (b"small", EntryType::Regular, b"1")]);
        let (kept, warnings) = read(&stream);
        assert_eq!(kept, ["small=1"]);
        assert_eq!(warnings, ["`large` was not fetched: it has 101 bytes, 100 may be"]);
    }

    #[test]
    fn the_sum_of_all_files_and_their_number_are_bounded() {
        let names: Vec<String> = (0..9).map(|n| format!("f{n}")).collect();
        let of = |size: usize| {
            let content = vec![b'x'; size];
            let entries: Vec<_> = names.iter().map(|n| (n.as_bytes(), EntryType::Regular, &content[..])).collect();
            let (kept, warnings) = read(&tar(&entries));
            (kept.len(), warnings)
        };
        assert_eq!(of(100), (2, vec!["more than 250 bytes: `f2` and what follows was not fetched".to_owned()]));
        assert_eq!(of(1), (6, vec!["more than 6 files: the rest was not fetched".to_owned()]));
    }

    #[test]
    fn a_size_that_lies_gives_no_more_than_what_is_there() {
        let mut stream = entry(b"short", EntryType::Regular, 90).as_bytes().to_vec();
        stream.extend_from_slice(b"only this");
        let (kept, warnings) = read(&stream);
        assert_eq!(kept, ["short=only this"]);
        assert_eq!(warnings[0], "`short` was not fetched: only 9 of its 90 bytes came");

        let mut huge = entry(b"huge", EntryType::Regular, 0);
        huge.as_old_mut().size = [0xff; 12];
        huge.set_cksum();
        let (kept, warnings) = read(huge.as_bytes());
        assert_eq!(kept, [""; 0]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn sparse_files_cannot_grow_beyond_what_was_sent() {
        let stream = tar(&[(b"bomb", EntryType::GNUSparse, b"x")]);
        let (kept, warnings) = read(&stream);
        assert_eq!(kept, [""; 0]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn a_guest_cannot_flood_us_with_warnings() {
        let entries: Vec<(&[u8], EntryType, &[u8])> = vec![(b"../up", EntryType::Regular, b""); 500];
        let (_, warnings) = read(&tar(&entries));
        assert_eq!(warnings.len(), MOST_WARNINGS + 1);
        assert_eq!(warnings.last().unwrap(), "and 450 more of this kind");
    }

    proptest! {
        #[test]
        fn no_name_whatsoever_leads_out(raw in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((path, _)) = safe_path(&raw) {
                let parts: Vec<_> = std::path::Path::new(&path).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
                prop_assert!(!path.chars().any(char::is_control));
            }
        }

        #[test]
        fn no_stream_whatsoever_does_harm(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
            read(&noise);
        }
    }
}
