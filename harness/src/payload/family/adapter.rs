//! What has to be known of a family of package managers.

use matrix::Arch;

use super::reasons::{self, Grammar};
use crate::payload::signer::Signing;

/// Before each of the functions that change something.
const BEGINNING: &str = "\
got=$root/tmp/dependencies names=$root/tmp/names
# Physical: apt names files by their real paths.
cd -P \"$root/artifacts\" || exit
# One stream: what is said on both only makes sense in its order.
exec 2>&1
";

/// Downloads dependencies. The file `$got` has the way to the proxy; `install_artifacts` sees by it that they were downloaded.
const GET_DEPENDENCIES: &str = "\
unusable=UNUSABLE
(
    . \"$got.new\"
    get_dependencies
) || exit
mv \"$got.new\" \"$got\"
";

/// Makes a repository of the artifacts. $1 stands before and after what is to be signed, which is all that it says on its output.
const MAKE_REPOSITORY: &str = "\
names=$root/tmp/names repository=$root-repository unsigned=$root/tmp/unsigned
exec 3>&1 >&2
rm -rf \"$repository\"
mkdir \"$repository\" && cd -P \"$root/artifacts\" || exit
: >\"$names\" || exit

# `take FILE NAME`: an artifact as a file of the repository.
take() {
    rm -f \"$repository/$2\"
    ln \"$1\" \"$repository/$2\" 2>/dev/null || cp \"$1\" \"$repository/$2\" || exit
}

make_repository
printf '%s\\n' \"$1\" >&3 && cat \"$unsigned\" >&3 && printf '%s\\n' \"$1\" >&3
";

/// Opens it to the package manager.
const OPEN_REPOSITORY: &str = "\
names=$root/tmp/names repository=$root-repository unsigned=$root/tmp/unsigned signature=$root/tmp/signature
exec 2>&1
open_repository
";

const SHELL: &str = "\
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin root=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}
umask 022
";

const ADD_REPOSITORY: &str = "\
add_repository \"$1\" \"$2\" \"$3\"
";

/// A script that gets dependencies exits with this if the repositories are unusable: no package was looked for yet.
pub(crate) const UNUSABLE: i32 = 81;

/// A family. Its scripts are for any POSIX shell, and say everything on standard output, in order.
pub(crate) struct Adapter {
    /// What it takes, for people.
    pub(crate) takes: &'static str,
    /// CPUs besides its own whose packages such a system may have been told to take: its package manager knows.
    pub(super) also: fn(Arch) -> &'static [&'static str],
    /// Functions without arguments; `$root` is the payload's folder, and they start in its folder `artifacts`:
    ///
    /// - `install_artifacts` installs everything in there, with nobody to answer questions; offline, but for what was got before: the
    ///   file `$got` is there then. Where the file `$names` is there, it installs these from the artifacts' repository, by name.
    /// - `get_dependencies` gets from the system's repositories what they depend on, and exits with `$unusable` if those are. It runs
    ///   nothing of a package.
    /// - `add_repository` adds one: its name, its description and the name of its key's file are `$1` to `$3`, the key is its input.
    /// - `make_repository` makes one of the artifacts in the folder `$repository`, puts the names to install into `$names`, and what is to
    ///   be signed into `$unsigned`; `open_repository` gets the signature in `$signature` and the key as its input, and has the package
    ///   manager prefer the repository and read it, and that one alone.
    /// - `list_artifacts` answers what the files in there are; see `inventory` for answers. Those for other systems it renames.
    /// - `list_packages` answers what is installed; and of the packages that its input names, a line for each with name, version and
    ///   CPU, what is known of their content.
    pub(crate) functions: &'static str,
    /// How the repository of the artifacts is signed; `None`: this family can have none.
    pub(crate) signing: Option<Signing>,
    /// Installs the packages named by its arguments from wherever the guest's package manager gets them.
    pub(super) by_name: &'static str,
    /// Does what a payload does, without doing anything.
    pub(super) rehearsal: &'static str,
    /// Says `package`, of each of its programs that is there: name, version and `installed`. Has the functions of `facts.sh`.
    pub(super) facts: &'static str,
    /// How its output reads.
    pub(super) grammar: Grammar,
    /// Whether a line of its output says that a package's own script failed, where it exits with 0 all the same; `None`: it does not.
    pub(crate) unsaid: Option<fn(&str) -> bool>,
}

impl Adapter {
    /// A script that installs the artifacts.
    pub(crate) fn install(&self) -> String {
        format!("{}{BEGINNING}install_artifacts\n", self.functions)
    }

    /// A script that gets what the artifacts depend on; `environment`: commands that set the way to the repositories.
    pub(crate) fn get_dependencies(&self, environment: &str) -> String {
        let get = GET_DEPENDENCIES.replace("UNUSABLE", &UNUSABLE.to_string());
        format!("{}{BEGINNING}cat >\"$got.new\" <<'end' || exit\n{environment}end\n{get}", self.functions)
    }

    /// A script that adds a repository; its arguments and input are those of `add_repository`.
    pub(crate) fn add_repository(&self) -> String {
        format!("{}{SHELL}{ADD_REPOSITORY}", self.functions)
    }

    /// A script that makes a repository of the artifacts.
    pub(crate) fn make_repository(&self) -> String {
        format!("{}{SHELL}{MAKE_REPOSITORY}", self.functions)
    }

    /// A script that opens it to the package manager, once it is signed.
    pub(crate) fn open_repository(&self) -> String {
        format!("{}{SHELL}{OPEN_REPOSITORY}", self.functions)
    }

    /// Whether these lines, all that it said, say that a package is missing or was not downloaded, before anything of a package ran.
    pub(crate) fn lacks_packages(&self, lines: &[String]) -> bool {
        let any = |of: &[&str]| lines.iter().any(|line| of.iter().any(|word| line.contains(word)));
        let begun =
            |line: &String| reasons::starts(line.trim_start(), self.grammar.begun) || line.contains("scriptlet");
        (any(self.grammar.missing) || any(self.grammar.unfetched)) && !lines.iter().any(begun)
    }

    /// Whether these lines, all that it said, say that artifacts cannot be installed with what there is, and nothing of a repository
    /// that cannot be used.
    pub(crate) fn is_unsolvable(&self, lines: &[String]) -> bool {
        let any = |of: &[&str]| lines.iter().any(|line| of.iter().any(|word| line.contains(word)));
        any(self.grammar.unsolvable) && !any(self.grammar.unfetched) && !any(self.grammar.unusable)
    }

    /// The lines of its output that say why it failed.
    pub(crate) fn words(&self, output: &[u8]) -> Vec<String> {
        reasons::of(output, &self.grammar)
    }

    /// The line that says that another program held its lock, unless a script of a package ran into that.
    pub(crate) fn locked(&self, lines: &[String]) -> Option<String> {
        let line = lines.iter().find(|line| reasons::starts(line, self.grammar.locked))?;
        let begun =
            |line: &String| reasons::starts(line.trim_start(), self.grammar.begun) || line.contains("scriptlet");
        (!lines.iter().any(begun)).then(|| line.clone())
    }

    /// Whether these words say that a package is missing which others depend on.
    pub(crate) fn misses_packages(&self, words: &[String]) -> bool {
        let any = |of: &[&str]| words.iter().any(|line| of.iter().any(|word| line.contains(word)));
        any(self.grammar.missing) && !any(self.grammar.not_missing)
    }
}
