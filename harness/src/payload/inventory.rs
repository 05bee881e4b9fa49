//! What a guest's package manager says of the artifacts and of what is installed.
//!
//! Asked in commands of their own, before and after an installation: nothing that a package's script prints while it is installed is
//! taken for an answer, and nothing that a package is made of can begin a line as answers do.

use std::time::Instant;

use tokio::sync::mpsc;

use super::{quote, words};
use crate::ssh::{End, Exec, Exit, Session, Sink, SshError, Stdin};

/// Asks what the artifacts are.
pub(super) const ARTIFACTS: &str = "list_artifacts\n";
/// Asks what is installed.
pub(super) const PACKAGES: &str = "list_packages\n";

/// How every question begins.
const BEGINNING: &str = include_str!("inventory.sh");
/// How every question ends.
const END: &str = "record end\n";
/// Most bytes of an answer: some 10,000 packages.
const MOST_BYTES: usize = 4 << 20;
/// Most characters of one field.
const LONGEST: usize = 300;

/// A package, as its name, version and CPU tell it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) arch: String,
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub(super) id: Id,
    /// What is known of it once it is installed, and of no other content.
    pub(super) identity: String,
    /// The file's name.
    pub(super) file: String,
}

/// A package that the package manager knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) id: Id,
    /// `installed`, or how far it came.
    pub(super) state: String,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// Artifacts that are for this system.
    pub(super) artifacts: Vec<Artifact>,
    /// Artifacts that are not; they were put aside.
    pub(super) left_out: Vec<(Id, String)>,
    /// Names of artifacts of which the package manager says nothing: it is to say why when it installs them.
    pub(super) unread: Vec<String>,
    /// What is installed, in part or whole.
    pub(super) packages: Vec<Package>,
    /// What is known of the content of installed packages.
    pub(super) proofs: Vec<(Id, String)>,
}

/// No answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The guest gave none that can be read, and why.
    Unreadable(String),
    /// The connection, the deadline or the cancellation.
    Ssh(SshError),
}

/// Asks a guest with its family's functions, one question after the other; `of` these packages the last one is to say what proves their
/// content.
pub(super) async fn ask(
    session: &Session,
    functions: &str,
    questions: &[&str],
    of: &[Artifact],
    deadline: Instant,
) -> Result<Inventory, NoAnswer> {
    let mark = format!("nestmatrix-{:032x}", rand::random::<u128>());
    let command = quote::script_with(&script(functions, questions), &[&mark]);
    let asked = Exec::new(command, Stdin::Bytes(named(of).into_bytes()), deadline);
    let (exit, output) = output(session, asked, MOST_BYTES).await.map_err(NoAnswer::Ssh)?;
    match exit.end {
        End::Exited(0) => read(&output, &mark).map_err(NoAnswer::Unreadable),
        End::Cut => Err(NoAnswer::Unreadable(format!("it is longer than {MOST_BYTES} bytes"))),
        end => {
            let said = words::last_lines(&exit.stderr_tail, 3).join("; ");
            let said = if said.is_empty() { said } else { format!(": {said}") };
            Err(NoAnswer::Unreadable(format!("the query failed with {end}{said}")))
        }
    }
}

/// What a command says, whose end is [`End::Cut`] if that is more than so many bytes.
pub(super) async fn output(session: &Session, exec: Exec, most: usize) -> Result<(Exit, Vec<u8>), SshError> {
    let (pieces, mut taken) = mpsc::channel::<Vec<u8>>(16);
    let exec = session.exec(Exec { stdout: Sink::Pieces(pieces), ..exec });
    let take = async move {
        let mut all = Vec::new();
        while let Some(piece) = taken.recv().await {
            all.extend(piece);
            if all.len() > most {
                break;
            }
        }
        all
    };
    let (exit, output) = tokio::join!(exec, take);
    Ok((exit?, output))
}

/// Packages as a script reads them.
fn named(of: &[Artifact]) -> String {
    of.iter().map(|Artifact { id, .. }| format!("{}\t{}\t{}\n", id.name, id.version, id.arch)).collect()
}

/// One script; its first argument is the mark.
pub(super) fn script(functions: &str, questions: &[&str]) -> String {
    [&[BEGINNING, functions], questions, &[END]].concat().concat()
}

/// Reads an answer whose lines begin with `mark`. Others are somebody else's.
pub(super) fn read(output: &[u8], mark: &str) -> Result<Inventory, String> {
    let output = String::from_utf8_lossy(output);
    let mut inventory = Inventory::default();
    let mut ended = false;
    for line in output.split('\n') {
        let Some(record) = line.strip_prefix(mark) else { continue };
        if ended {
            return Err("it goes on after its end".to_owned());
        }
        let fields: Vec<&str> = record.split('\t').skip(1).collect();
        let unfit = |field: &&&str| field.chars().count() > LONGEST || field.chars().any(char::is_control);
        if let Some(field) = fields.iter().find(unfit) {
            return Err(format!("`{}` is no name or version of a package", shown(field)));
        }
        match fields.as_slice() {
            ["end"] => ended = true,
            ["file", name, version, arch, identity, file @ ..] => {
                let (id, identity) = (id(name, version, arch)?, (*identity).to_owned());
                inventory.artifacts.push(Artifact { id, identity, file: file_name(file) });
            }
            ["left", name, version, arch, file @ ..] => {
                inventory.left_out.push((id(name, version, arch)?, file_name(file)));
            }
            ["unread", file @ ..] => inventory.unread.push(file_name(file)),
            ["have", name, version, arch, status] => {
                // dpkg says before it what is wanted, and whether there is an error.
                let state = status.rsplit(' ').next().unwrap_or(status);
                // What the package manager remembers, but is not there.
                if !["config-files", "not-installed"].contains(&state) {
                    inventory.packages.push(Package { id: id(name, version, arch)?, state: state.to_owned() });
                }
            }
            ["proof", name, version, arch, proof] => {
                inventory.proofs.push((id(name, version, arch)?, (*proof).to_owned()));
            }
            _ => return Err(format!("`{}` says nothing", shown(&fields.join(" ")))),
        }
    }
    if ended { Ok(inventory) } else { Err("it has no end".to_owned()) }
}

fn id(name: &str, version: &str, arch: &str) -> Result<Id, String> {
    if name.is_empty() || version.is_empty() {
        return Err(format!("`{name} {version}` is no name and version of a package"));
    }
    Ok(Id { name: name.to_owned(), version: version.to_owned(), arch: arch.to_owned() })
}

/// The beginning of something unfit to be shown.
fn shown(text: &str) -> String {
    reports::clean::line(text).chars().take(80).collect()
}

fn file_name(file: &[&str]) -> String {
    let file = file.join(" ");
    file.strip_prefix("./").map_or_else(|| file.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "nestmatrix-5eed";

    /// An answer, with the mark for `>`.
    fn answer(lines: &str) -> Result<Inventory, String> {
        read(lines.replace('>', MARK).as_bytes(), MARK)
    }

    fn id_of(name: &str, version: &str) -> Id {
        id(name, version, "all").unwrap()
    }

    #[test]
    fn an_answer_is_read_line_by_line() {
        let inventory = answer(
            ">\tfile\thello\t1.0\tall\tabc\t./hello.deb\n>\tleft\thello\t1.0\tarm64\t./a b.deb\n>\tunread\t./broken.deb\n\
             >\thave\tlibc6\t2.36-9\tall\tinstalled\n>\thave\told\t1\tall\tconfig-files\n>\thave\thalf\t1\tall\thalf-configured\n\
             >\tproof\tlibc6\t2.36-9\tall\tunpacked\n>\tend\n",
        );
        let inventory = inventory.unwrap();
        let hello = Artifact { id: id_of("hello", "1.0"), identity: "abc".into(), file: "hello.deb".into() };
        assert_eq!(inventory.artifacts, [hello]);
        assert_eq!(inventory.left_out, [(id("hello", "1.0", "arm64").unwrap(), "a b.deb".to_owned())]);
        assert_eq!(inventory.unread, ["broken.deb"]);
        let states: Vec<_> = inventory.packages.iter().map(|found| (&*found.id.name, &*found.state)).collect();
        assert_eq!(states, [("libc6", "installed"), ("half", "half-configured")]);
        assert_eq!(inventory.proofs, [(id_of("libc6", "2.36-9"), "unpacked".to_owned())]);
    }

    #[test]
    fn of_what_dpkg_says_of_a_package_the_last_word_is_how_far_it_came() {
        let inventory = answer(
            ">\thave\ta\t1\tall\tinstall ok installed\n>\thave\tb\t1\tall\thold ok installed\n\
             >\thave\tc\t1\tall\tinstall reinstreq half-installed\n>\thave\td\t1\tall\tdeinstall ok config-files\n>\tend\n",
        );
        let found = inventory.unwrap().packages;
        let states: Vec<_> = found.iter().map(|found| (&*found.id.name, &*found.state)).collect();
        assert_eq!(states, [("a", "installed"), ("b", "installed"), ("c", "half-installed")]);
    }

    #[test]
    fn only_lines_with_the_mark_of_this_question_are_answers() {
        let output = format!(
            "welcome\n\tend\nnestmatrix-0\thave\tforged\t1\tall\tinstalled\n{MARK}\thave\ta\t1\tall\tinstalled\n\
             x{MARK}\thave\tforged\t1\tall\tinstalled\nhave\tforged\t1\tall\tinstalled\n{MARK}\tend\n"
        );
        let names: Vec<_> =
            read(output.as_bytes(), MARK).unwrap().packages.into_iter().map(|found| found.id.name).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn an_answer_that_is_not_whole_or_not_one_is_none() {
        for (lines, why) in [
            ("", "no end"),
            (">\thave\ta\t1\tall\tinstalled\n", "no end"),
            (">\tend\n>\thave\ta\t1\tall\tinstalled\n", "goes on after its end"),
            (">\thave\ta\t1\tall\n>\tend\n", "says nothing"),
            (">\thave\t\t1\tall\tinstalled\n>\tend\n", "no name and version"),
            (">\tproof\ta\t1\tall\n>\tend\n", "says nothing"),
            (">\tfile\ta\t1\tall\n>\tend\n", "says nothing"),
            (">\n>\tend\n", "says nothing"),
            (">\thave\ta\u{1b}[2J\t1\tall\tinstalled\n>\tend\n", "no name or version"),
            (">\tend\r\n", "no name or version"),
        ] {
            let found = answer(lines);
            assert!(found.as_ref().is_err_and(|error| error.contains(why)), "{lines:?}: {found:?}");
        }
        assert!(answer(&format!(">\thave\t{}\t1\tall\tinstalled\n>\tend\n", "a".repeat(LONGEST + 1))).is_err());
    }
}
