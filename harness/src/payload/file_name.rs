//! Paths of a guest as paths below a folder here.

/// Longest path, in bytes.
const LONGEST_PATH: usize = 1024;
/// Longest name of one file or folder, in bytes: a file system's limit.
const LONGEST_NAME: usize = 255;
/// Deepest folder.
const DEEPEST: usize = 60;

/// A path relative to the folder collected into, of names that any file system takes and any terminal shows, and whether a name had to
/// be changed for it.
///
/// # Errors
/// Why there is none.
pub(super) fn below(raw: &[u8]) -> Result<(String, bool), String> {
    if raw.len() > LONGEST_PATH {
        return Err(format!("its path has {} bytes, {LONGEST_PATH} may be", raw.len()));
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
            return Err(format!("a name in its path has {} bytes, {LONGEST_NAME} may be", name.len()));
        }
        names.push(name);
    }
    if names.len() > DEEPEST {
        return Err(format!("it lies {} folders deep, {DEEPEST} may be", names.len()));
    }
    if names.is_empty() {
        return Err("it has no name".to_owned());
    }
    Ok((names.join("/"), renamed))
}

fn is_fit(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\\' | char::REPLACEMENT_CHARACTER)
        // Characters that hide or turn around the text beside them.
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_up_to_what_a_file_system_takes_are_kept_and_longer_ones_refused() {
        for length in [1, 200, 201, 255] {
            let name = "n".repeat(length);
            assert_eq!(below(format!("/var/{name}").as_bytes()), Ok((format!("var/{name}"), false)));
        }
        let refused = |path: &str| below(path.as_bytes()).unwrap_err();
        assert_eq!(refused(&"n".repeat(256)), "a name in its path has 256 bytes, 255 may be");
        assert_eq!(refused(&("d/".repeat(100) + "f")), "it lies 101 folders deep, 60 may be");
        assert_eq!(refused(&"d/".repeat(600)), "its path has 1200 bytes, 1024 may be");
        assert_eq!(refused("/"), "it has no name");
        assert_eq!(refused("/a/../../up"), "its path leads upwards");
    }

    #[test]
    fn names_that_would_harm_a_terminal_are_changed() {
        let changed = |raw: &[u8]| below(raw).unwrap();
        assert_eq!(changed(b"/a\x1b[2Jb"), ("a_[2Jb".to_owned(), true));
        assert_eq!(changed(b"/new\nline"), ("new_line".to_owned(), true));
        assert_eq!(changed(b"/latin\xe9"), ("latin_".to_owned(), true));
        assert_eq!(changed("/turned\u{202e}txt".as_bytes()), ("turned_txt".to_owned(), true));
        assert_eq!(changed("//é/./x".as_bytes()), ("é/x".to_owned(), false));
    }

    proptest! {
        #[test]
        fn no_path_whatsoever_leads_out(raw in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((path, _)) = below(&raw) {
                let parts: Vec<_> = std::path::Path::new(&path).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
                prop_assert!(!path.chars().any(char::is_control));
            }
        }
    }
}
