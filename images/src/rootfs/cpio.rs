//! Writes an initial RAM disk (kernel docs: early-userspace/buffer-format, "newc").

/// An archive in progress.
pub(super) struct Archive {
    bytes: Vec<u8>,
    /// The number of the next file.
    next: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

impl Archive {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), next: 1 }
    }

    /// Adds a folder; its parents come first.
    pub(super) fn folder(&mut self, path: &str, mode: u32) {
        self.member(path, FOLDER | mode, &[]);
    }

    /// Adds a file to an existing folder.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.member(path, FILE | mode, content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.member(path, LINK | 0o777, target.as_bytes());
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.member("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn member(&mut self, path: &str, mode: u32, content: &[u8]) {
        let number = self.next;
        self.next += 1;
        // Number, mode, user, group, names, time, size, device (two numbers), device it is (two), length of the name, checksum.
        let fields = [number, mode, 0, 0, 1, 1, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_where_the_kernel_looks_for_them() {
        let mut archive = Archive::new();
        archive.folder("a", 0o755);
        archive.file("a/bc", 0o644, b"hello");
        archive.link("d", "a/bc");
        let bytes = archive.finish();
        let begin = |at: usize| str::from_utf8(&bytes[at..at + 6]).expect("text");
        // 110 bytes of header and the name with its NUL, padded to four bytes; then the content, padded.
        assert_eq!((begin(0), begin(112), begin(112 + 116 + 8)), ("070701", "070701", "070701"));
        assert_eq!(&bytes[112 + 116..112 + 116 + 5], b"hello");
        assert_eq!(&bytes[112 + 14..112 + 22], b"000081a4");
        assert_eq!(bytes.len() % 4, 0);
    }
}
