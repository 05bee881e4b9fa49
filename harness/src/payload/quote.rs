//! Text that goes through a shell unchanged.

/// The text as one word of a POSIX shell.
///
/// NUL bytes cannot be in a word of any shell and are left out.
pub(crate) fn word(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', r"'\''"))
}

/// A pattern as one word of a POSIX shell in which `*`, `?` and `[...]` keep their meaning and nothing else has one.
pub(super) fn pattern(glob: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-+:,@%*?[]!^".contains(c);
    glob.chars().map(|c| if plain(c) { c.to_string() } else { word(&c.to_string()) }).collect()
}

/// A script with arguments: `$1` and so on.
pub fn script_with(text: &str, arguments: &[&str]) -> String {
    let arguments: String = arguments.iter().map(|argument| format!(" {}", word(argument))).collect();
    format!("set --{arguments}\n{text}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn sh(script: &str) -> Vec<u8> {
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_comes_out_of_a_real_shell_unchanged(text in "[^\0]{0,60}") {
            let quoted = word(&text);
            prop_assert_eq!(sh(&format!("printf %s {quoted}")), text.as_bytes());
            let printed = format!("{text}\n");
            prop_assert_eq!(sh(&format!("export {}; printenv V", word(&format!("V={text}")))), printed.as_bytes());
            prop_assert_eq!(sh(&script_with("printf %s \"$1\"", &[&text])), text.as_bytes());
        }

        #[test]
        fn a_pattern_that_matches_nothing_comes_out_of_a_real_shell_unchanged(text in "/nonexistent/[^\0]{0,40}") {
            prop_assert_eq!(sh(&format!("printf %s {}", pattern(&text))), text.as_bytes());
        }
    }

    #[test]
    fn newlines_quotes_and_commands_stay_text() {
        for text in ["", "'", "''", "a'b", "a\nb\n", "$(reboot)", "`reboot`", "\\", "-n", "é\u{1b}[2J", "!x ~ {a,b} #"]
        {
            assert_eq!(sh(&format!("printf %s {}", word(text))), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn patterns_expand_and_their_other_characters_do_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a b.log", "a$(x).log", "c.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let at = |glob: &str| {
            let glob = format!("{}/{glob}", dir.path().display());
            let words = sh(&format!("for p in {}; do basename \"$p\"; done", pattern(&glob)));
            String::from_utf8(words).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(at("*.log"), ["a b.log", "a$(x).log"]);
        assert_eq!(at("a b.?og"), ["a b.log"]);
        assert_eq!(at("[a-b]$*.log"), ["a$(x).log"]);
        assert_eq!(at("{c,d}.txt"), ["{c,d}.txt"]);
    }
}
