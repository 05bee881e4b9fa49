//! The tree of files in a tarball, as data, before it becomes a file system.
//!
//! Names, links, owners and modes of a tarball never become those of a file on this machine, so a hostile one cannot reach out of
//! its folder. What makes no sense in a file system is refused here.

use std::collections::BTreeMap;

/// Maximum length of a name in the file system, in bytes.
const MAX_NAME_LEN: usize = 255;
/// Maximum length of a path; also the line limit of the program that writes the file system.
pub(super) const MAX_PATH_LEN: usize = 3000;
/// Maximum number of links that are followed, as in Linux.
const MAX_LINKS: usize = 40;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder: its content, by name.
    Folder(BTreeMap<String, usize>),
    /// A file, with the number of the blob that is its content.
    File(usize),
    /// A symbolic link.
    Link(String),
    /// A character or block device: major and minor number.
    Device { block: bool, major: u32, minor: u32 },
    /// A named pipe.
    Pipe,
}

/// Owner, mode and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// The lower twelve bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) modified: u32,
    /// Extended attributes: name, and the number of the value's blob.
    pub(super) attributes: Vec<(String, usize)>,
}

/// A file without its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) rights: Rights,
}

/// A whole tree.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first is the root.
    nodes: Vec<Node>,
}

/// The steps of a path in a tarball; the error says what is wrong with it.
pub(super) fn steps(path: &[u8]) -> Result<Vec<String>, String> {
    let shown = String::from_utf8_lossy(path).escape_debug().to_string();
    let Ok(text) = str::from_utf8(path) else { return Err(format!("the name `{shown}` in it is not in UTF-8")) };
    if text.chars().any(char::is_control) {
        return Err(format!("the name `{shown}` in it has control characters"));
    }
    // Absolute paths are relative to the root of the tree, as in every tar program.
    let steps: Vec<String> =
        text.split('/').filter(|step| !step.is_empty() && *step != ".").map(str::to_owned).collect();
    if steps.iter().any(|step| step == "..") {
        return Err(format!("the name `{shown}` in it leads out of its folder"));
    }
    if text.len() > MAX_PATH_LEN || steps.iter().any(|step| step.len() > MAX_NAME_LEN) {
        return Err(format!("the name `{}...` in it is too long", shown.chars().take(60).collect::<String>()));
    }
    Ok(steps)
}

impl Tree {
    /// A tree with only a root.
    pub(super) fn new() -> Self {
        let rights = Rights { mode: 0o755, ..Rights::default() };
        Self { nodes: vec![Node { kind: Kind::Folder(BTreeMap::new()), rights }] }
    }

    /// The file of this number; 0 is the root.
    pub(super) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Puts a file there, replacing an existing one; a folder keeps its content.
    pub(super) fn put(&mut self, steps: &[String], node: Node) -> Result<(), String> {
        let Some((name, parents)) = steps.split_last() else {
            if let Kind::Folder(_) = node.kind {
                self.nodes[0].rights = node.rights;
                return Ok(());
            }
            return Err("its root is not a folder".to_owned());
        };
        let parent = self.folder(parents)?;
        let known = self.child(parent, name);
        if let (Kind::Folder(_), Some(known)) = (&node.kind, known)
            && let Kind::Folder(_) = self.nodes[known].kind
        {
            self.nodes[known].rights = node.rights;
            return Ok(());
        }
        self.nodes.push(node);
        self.name(parent, name, self.nodes.len() - 1);
        Ok(())
    }

    /// Gives the file at `target` another name.
    pub(super) fn link(&mut self, steps: &[String], target: &[String]) -> Result<(), String> {
        let shown = || format!("`{}` in it is another name of `{}`", steps.join("/"), target.join("/"));
        let mut number = 0;
        for step in target {
            number = self.child(number, step).ok_or_else(|| format!("{}, which is not in it", shown()))?;
        }
        if let Kind::Folder(_) = self.nodes[number].kind {
            return Err(format!("{}, which is a folder", shown()));
        }
        let Some((name, parents)) = steps.split_last() else { return Err("its root is not a folder".to_owned()) };
        let parent = self.folder(parents)?;
        self.name(parent, name, number);
        Ok(())
    }

    /// The blob behind this path as the system itself resolves it, following links; `None`: there is no file.
    pub(super) fn file(&self, path: &str) -> Option<usize> {
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut way, mut links) = (vec![0], 0);
        while let Some(step) = left.pop() {
            match step.as_str() {
                "" | "." => {}
                ".." => drop((way.len() > 1).then(|| way.pop())),
                name => {
                    let number = self.child(*way.last()?, name)?;
                    if let Kind::Link(target) = &self.nodes[number].kind {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        if target.starts_with('/') {
                            way.truncate(1);
                        }
                        left.extend(target.split('/').rev().map(str::to_owned));
                    } else {
                        way.push(number);
                    }
                }
            }
        }
        match self.nodes[*way.last()?].kind {
            Kind::File(blob) => Some(blob),
            _ => None,
        }
    }

    fn child(&self, folder: usize, name: &str) -> Option<usize> {
        match &self.nodes[folder].kind {
            Kind::Folder(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn name(&mut self, folder: usize, name: &str, number: usize) {
        if let Kind::Folder(names) = &mut self.nodes[folder].kind {
            names.insert(name.to_owned(), number);
        }
    }

    /// The folder there; created with its parents if missing.
    fn folder(&mut self, steps: &[String]) -> Result<usize, String> {
        let mut number = 0;
        for (index, step) in steps.iter().enumerate() {
            number = match self.child(number, step) {
                Some(child) if matches!(self.nodes[child].kind, Kind::Folder(_)) => child,
                Some(_) => {
                    return Err(format!(
                        "something in it lies in `{}`, which is not a folder",
                        steps[..=index].join("/")
                    ));
                }
                None => {
                    let rights = Rights { mode: 0o755, ..Rights::default() };
                    self.nodes.push(Node { kind: Kind::Folder(BTreeMap::new()), rights });
                    self.name(number, step, self.nodes.len() - 1);
                    self.nodes.len() - 1
                }
            };
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(tree: &mut Tree, path: &str, kind: Kind) -> Result<(), String> {
        tree.put(&steps(path.as_bytes())?, Node { kind, rights: Rights::default() })
    }

    #[test]
    fn names_that_lead_out_or_cannot_be_names_are_refused_and_absolute_ones_begin_at_the_root() {
        for bad in ["../x", "a/../../x", "..", "a/..", "a\nb", "a\0b", "a\u{1b}[31m"] {
            steps(bad.as_bytes()).expect_err(bad);
        }
        steps(b"\xff").expect_err("not UTF-8");
        steps("x".repeat(256).as_bytes()).expect_err("longer than a name can be");
        steps("x/".repeat(1501).as_bytes()).expect_err("longer than a path can be");
        assert_eq!(steps(b"/etc/./passwd").expect("a path"), ["etc", "passwd"]);
        assert_eq!(steps(b"./").expect("the root"), [""; 0]);
        assert_eq!(steps(br#"a "b" <7>"#).expect("a name"), [r#"a "b" <7>"#]);
    }

    #[test]
    fn nothing_is_put_behind_a_link() {
        let mut tree = Tree::new();
        put(&mut tree, "out", Kind::Link("/etc".to_owned())).expect("a link");
        let error = put(&mut tree, "out/passwd", Kind::File(1)).expect_err("it would be in another place");
        assert!(error.contains("`out`"), "{error}");
    }

    #[test]
    fn another_name_is_only_given_to_what_is_there() {
        let mut tree = Tree::new();
        put(&mut tree, "a", Kind::File(1)).expect("a file");
        put(&mut tree, "folder", Kind::Folder(BTreeMap::new())).expect("a folder");
        let mut link = |name: &str, target: &[u8]| tree.link(&[name.to_owned()], &steps(target)?);
        link("b", b"/a").expect("it is there");
        link("c", b"etc/shadow").expect_err("it is not");
        link("d", b"../../etc/shadow").expect_err("outside");
        link("e", b"folder").expect_err("a folder");
        assert_eq!((tree.file("/a"), tree.file("/b")), (Some(1), Some(1)));
    }

    #[test]
    fn what_comes_later_replaces_what_came_before_but_a_folder_keeps_what_is_in_it() {
        let mut tree = Tree::new();
        put(&mut tree, "a/b", Kind::File(1)).expect("a file");
        put(&mut tree, "a", Kind::Folder(BTreeMap::new())).expect("a folder");
        assert_eq!(tree.file("/a/b"), Some(1));
        put(&mut tree, "a/b", Kind::File(2)).expect("a file");
        assert_eq!(tree.file("/a/b"), Some(2));
        put(&mut tree, "a", Kind::File(3)).expect("a file");
        assert_eq!((tree.file("/a"), tree.file("/a/b")), (Some(3), None));
    }

    #[test]
    fn a_program_is_found_as_the_system_finds_it_and_circles_have_an_end() {
        let mut tree = Tree::new();
        put(&mut tree, "bin", Kind::Link("usr/bin".to_owned())).expect("a link");
        put(&mut tree, "usr/bin/sh", Kind::Link("/../bin/./busybox".to_owned())).expect("a link");
        put(&mut tree, "usr/bin/busybox", Kind::File(7)).expect("a file");
        put(&mut tree, "usr/bin/loop", Kind::Link("loop".to_owned())).expect("a link");
        assert_eq!(tree.file("/bin/sh"), Some(7));
        assert_eq!((tree.file("/bin/loop"), tree.file("/bin"), tree.file("/nothing")), (None, None, None));
    }
}
