//! Parses lists of digests, as publishers write them. They are untrusted: parsing is bounded.

use matrix::Checksum;

/// Maximum number of lines.
const MAX_LINES: usize = 100_000;
/// Maximum length of a name.
const MAX_NAME_LEN: usize = 1024;

/// A file and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name, without folders; empty: the list does not name the file.
    pub(super) name: String,
    pub(super) digest: Checksum,
    /// Its size in bytes, if a comment states it.
    pub(super) bytes: Option<u64>,
}

/// Every digest in a list: `SHA256 (file) = hex` (BSD), `hex  file` or `hex *file` (GNU), or hex digits alone. Other lines are
/// ignored; the algorithm follows from its name or from the number of digits.
pub(super) fn parse(text: &str) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    let mut size: Option<(String, u64)> = None;
    for line in text.lines().take(MAX_LINES).map(str::trim).filter(|line| line.len() <= 2 * MAX_NAME_LEN) {
        if let Some(comment) = line.strip_prefix('#') {
            size = bytes(comment);
        } else if let Some((name, digest)) = bsd(line).or_else(|| gnu(line)) {
            let bytes = size.take().filter(|(of, _)| of == name).map(|(_, bytes)| bytes);
            listed.push(Listed { name: name.to_owned(), digest, bytes });
        }
    }
    listed
}

/// `# disk.qcow2: 609746944 bytes`, before the line that it is about.
fn bytes(comment: &str) -> Option<(String, u64)> {
    let (name, size) = comment.trim().rsplit_once(": ")?;
    Some((name.to_owned(), size.strip_suffix(" bytes")?.trim().parse().ok()?))
}

fn bsd(line: &str) -> Option<(&str, Checksum)> {
    let (kind, rest) = line.split_once(" (")?;
    let (name, digits) = rest.rsplit_once(") = ")?;
    let kind = match kind {
        "SHA256" => "sha256",
        "SHA512" => "sha512",
        _ => return None,
    };
    Some((file_name(name)?, format!("{kind}:{digits}").parse().ok()?))
}

fn gnu(line: &str) -> Option<(&str, Checksum)> {
    let (digits, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let kind = match digits.len() {
        64 => "sha256",
        128 => "sha512",
        _ => return None,
    };
    let name = name.trim_start();
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = if name.is_empty() { "" } else { file_name(name)? };
    Some((name, format!("{kind}:{digits}").parse().ok()?))
}

/// The last part of a path; `None`: it cannot be a file name.
fn file_name(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let plain = !name.is_empty() && name.len() <= MAX_NAME_LEN && !name.chars().any(|c| c.is_control() || c == '\\');
    (plain && name != "." && name != "..").then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(text).into_iter().map(|listed| listed.name).collect()
    }

    #[test]
    fn both_ways_of_writing_are_read_and_everything_else_is_passed_over() {
        let (short, long) = ("ab".repeat(32), "cd".repeat(64));
        let text = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.qcow2: 4096 bytes\nSHA256 (a.qcow2) = {short}\n\
             # b: 1 bytes\nSHA512 (c (1).img) = {long}\n{short}  ./d.img\n{long} *e.img\nMD5 (f) = 00\n{short}\n\
             SHA256 (g) = {long}\nhello world\n{short}  ..\n-----BEGIN PGP SIGNATURE-----\n"
        );
        let listed = parse(&text);
        assert_eq!(names(&text), ["a.qcow2", "c (1).img", "d.img", "e.img", ""]);
        assert_eq!(listed[0].bytes, Some(4096));
        assert_eq!(listed[1].bytes, None, "the comment is about another file");
        assert!(matches!(listed[3].digest, Checksum::Sha512(_)) && matches!(listed[2].digest, Checksum::Sha256(_)));
    }

    proptest! {
        #[test]
        fn what_is_listed_is_found_whatever_stands_around_it(
            noise in ".{0,200}", name in "[a-z0-9][a-z0-9. ()_-]{0,40}[a-z0-9]", byte in any::<u8>(), is_bsd in any::<bool>()
        ) {
            let digits = format!("{byte:02x}").repeat(32);
            let line = if is_bsd { format!("SHA256 ({name}) = {digits}") } else { format!("{digits}  {name}") };
            let listed = parse(&format!("{noise}\n{line}\n{noise}"));
            let digest: Checksum = format!("sha256:{digits}").parse().expect("a digest");
            prop_assert!(listed.iter().any(|listed| listed.name == name && listed.digest == digest), "{listed:?}");
        }

        #[test]
        fn no_name_leads_out_of_its_folder(text in "(?s).{0,400}", path in "[./a]{0,12}") {
            let digits = "00".repeat(32);
            for name in names(&format!("{text}\n{digits}  {path}\nSHA256 ({path}) = {digits}\n")) {
                prop_assert!(!name.contains('/') && name != ".." && name != "." && !name.contains('\n'));
            }
        }
    }
}
