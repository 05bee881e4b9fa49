//! `[[repository]]`: checks the tables. For the key, which is a file, see [`crate::key`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use crate::{
    HostPattern, PackageFamily,
    error::Mistakes,
    file::RepositoryTable,
    host_pattern::HostPatternError,
    located::At,
    near,
    repository::{self, MAX_NAME_LEN},
    rules,
    text::{self, GLOB_HELP},
};

/// Maximum number of repositories.
const MAX_REPOSITORIES: usize = 32;
/// Maximum length of a description, in bytes.
const MAX_DESCRIPTION_LEN: usize = 16 << 10;
/// Maximum number of hosts of a repository: each request of a guest is compared with all of them.
const MAX_HOSTS: usize = 64;
/// Maximum number of comparisons of globs with names of images: far below a second.
const MAX_COMPARISONS: usize = 500_000;

/// The checked table. Its key is not read yet.
pub(crate) struct MatrixRepository {
    pub(crate) name: String,
    pub(crate) images: Vec<String>,
    pub(crate) descriptions: BTreeMap<PackageFamily, String>,
    /// As written.
    pub(crate) key: Option<At<String>>,
    pub(crate) hosts: Vec<HostPattern>,
}

/// Checks the tables. `images`: the names of the matrix's images.
pub(crate) fn check(tables: &[RepositoryTable], images: &[&str], mistakes: &mut Mistakes) -> Vec<MatrixRepository> {
    if let Some(first_too_many) = tables.get(MAX_REPOSITORIES) {
        let message = format!("the matrix has {} repositories, the limit is {MAX_REPOSITORIES}", tables.len());
        let problem = mistakes.at(first_too_many.name.span(), message, "one too many");
        mistakes.push(problem.with_help("a description may hold several repositories of one vendor"));
        return Vec::new();
    }
    let globs = tables.iter().filter_map(|table| table.images.as_ref()).map(|globs| globs.get().len()).sum::<usize>();
    if globs.saturating_mul(images.len()) > MAX_COMPARISONS {
        let message = format!("{globs} globs of repositories and {} images are too many to compare", images.len());
        mistakes.push(mistakes.at(0..0, message, "this file").with_help("write fewer and wider globs"));
        return Vec::new();
    }
    let mut names = HashMap::new();
    tables
        .iter()
        .map(|table| {
            check_name(&table.name, &mut names, mistakes);
            let descriptions = descriptions(table, mistakes);
            MatrixRepository {
                name: table.name.text().to_owned(),
                images: matching(table.images.as_ref(), images, mistakes),
                hosts: hosts(&descriptions, mistakes),
                descriptions: descriptions.into_iter().map(|(family, at)| (family, at.text().to_owned())).collect(),
                key: table.key.clone(),
            }
        })
        .collect()
}

fn check_name<'a>(at: &'a At<String>, names: &mut HashMap<&'a str, Range<usize>>, mistakes: &mut Mistakes) {
    if !repository::is_name(at.text()) {
        let message = format!("{:?} cannot name a repository", at.text());
        let help = format!("write 1 to {MAX_NAME_LEN} letters, digits and `-`, not beginning with `-`");
        mistakes.push(mistakes.at(at.span(), message, "not a name").with_help(help));
    }
    if let Some(first) = names.insert(at.text(), at.span()) {
        let message = format!("two repositories are named `{}`", at.text());
        let problem = mistakes.at(at.span(), message, "the second").with_label(first, "the first");
        mistakes.push(problem.with_help("rename one: the name is part of the names of files in the guest"));
    }
}

/// The names of the images that match any of these globs, in the order of the matrix; without globs all of them.
fn matching(globs: Option<&At<Vec<At<String>>>>, images: &[&str], mistakes: &mut Mistakes) -> Vec<String> {
    let all = || images.iter().map(|name| (*name).to_owned());
    let Some(globs) = globs else { return all().collect() };
    if globs.get().is_empty() {
        let problem = mistakes.at(globs.span(), "no guest would be given this repository", "empty");
        mistakes.push(problem.with_help("name images, or remove this line: the default is every image"));
    }
    let mut found = HashSet::new();
    for at in globs.get() {
        let matcher = match text::name_glob(at.text()) {
            Ok(matcher) => matcher,
            Err(error) => {
                let message = format!("`{}` is not a glob: {error}", at.text());
                mistakes.push(mistakes.at(at.span(), message, "not a glob").with_help(GLOB_HELP));
                continue;
            }
        };
        // A name always matches itself, whatever characters it holds.
        let matches: Vec<_> =
            images.iter().filter(|name| **name == at.text() || matcher.is_match(name)).copied().collect();
        if matches.is_empty() {
            let help = format!("this matrix has {}", rules::some(images));
            let help = near::help(at.text().trim_matches('*'), images, &help);
            let message = format!("no image of this matrix matches `{}`", at.text());
            mistakes.push(mistakes.at(at.span(), message, "matches nothing").with_help(help));
        }
        found.extend(matches);
    }
    all().filter(|name| found.contains(name.as_str())).collect()
}

/// The descriptions of a table: at least one, or a mistake.
fn descriptions<'a>(table: &'a RepositoryTable, mistakes: &mut Mistakes) -> BTreeMap<PackageFamily, &'a At<String>> {
    let RepositoryTable { name, images: _, key, deb, rpm, apk, pacman, pkg } = table;
    let given = [
        (PackageFamily::Deb, deb),
        (PackageFamily::Rpm, rpm),
        (PackageFamily::Apk, apk),
        (PackageFamily::Pacman, pacman),
        (PackageFamily::Pkg, pkg),
    ];
    let given: BTreeMap<_, _> = given.into_iter().filter_map(|(family, text)| Some((family, text.as_ref()?))).collect();
    if given.is_empty() {
        let message = format!("the repository `{}` has no description", name.text());
        let help = "add `deb`, `rpm`, `apk`, `pacman` or `pkg`: its description as that package manager writes it";
        mistakes.push(mistakes.at(name.span(), message, "described for no guest").with_help(help));
    }
    for at in given.values() {
        check_text(at, mistakes);
    }
    if let (Some(deb), Some(key)) = (deb, key)
        && code(deb.text()).any(names_a_key)
    {
        let problem = mistakes.at(deb.span(), "`Signed-By` and `key` both say which key signs it", "holds `Signed-By`");
        let problem = problem.with_label(key.span(), "and the key");
        mistakes.push(problem.with_help("remove `Signed-By` from the text: the key is put where apt finds it"));
    }
    given
}

fn check_text(at: &At<String>, mistakes: &mut Mistakes) {
    let text = at.text();
    if text.len() > MAX_DESCRIPTION_LEN {
        let message = format!("the description has {} bytes, the limit is {MAX_DESCRIPTION_LEN}", text.len());
        let help = "a description only says where a repository is; a long key belongs into a file, named by `key`";
        mistakes.push(mistakes.at(at.span(), message, "too long").with_help(help));
    }
    if text.chars().any(|c| c.is_control() && !"\n\t".contains(c)) {
        let problem = mistakes.at(at.span(), "the description holds control characters", "not plain text");
        mistakes.push(problem.with_help("only line breaks and tabs are allowed: it becomes a file in the guest"));
    }
}

/// The lines of a description that are no comments: `#` begins one for every package manager.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#'))
}

/// True for a line for apt that names the key: a field of a deb822 stanza, or an option of a one-line entry (sources.list(5)).
fn names_a_key(line: &str) -> bool {
    let line = line.trim_start().to_ascii_lowercase();
    line.starts_with("signed-by:") || line.contains("signed-by=")
}

/// The hosts of all addresses in these descriptions, each once. One without any is a mistake.
fn hosts(descriptions: &BTreeMap<PackageFamily, &At<String>>, mistakes: &mut Mistakes) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    for at in descriptions.values() {
        let mut is_without = true;
        for authority in code(at.text()).flat_map(authorities) {
            is_without = false;
            match HostPattern::of_authority(authority) {
                Ok(host) if hosts.contains(&host) => {}
                Ok(host) if hosts.len() < MAX_HOSTS => hosts.push(host),
                Ok(_) => {
                    let message = format!("the descriptions of a repository name more than {MAX_HOSTS} hosts");
                    let problem = mistakes.at(at.span(), message, "too many");
                    mistakes.push(problem.with_help("name fewer mirrors"));
                    return hosts;
                }
                Err(HostPatternError { why, .. }) => {
                    let message = format!("the host `{authority}` of an address cannot be allowed: {why}");
                    let help = "write the host itself, a DNS name or an IP address; variables may follow after it";
                    mistakes.push(mistakes.at(at.span(), message, "in this description").with_help(help));
                    return hosts;
                }
            }
        }
        if is_without {
            let problem = mistakes.at(at.span(), "the description names no address", "without `http://` or `https://`");
            let help = "write the repository's address in full: guests may reach the hosts that a description names, and no others";
            mistakes.push(problem.with_help(help));
        }
    }
    hosts
}

/// Host and port of every http or https address in a line: what is between `://` (and the user, if there is one) and the path.
fn authorities(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").filter_map(|(at, slashes)| {
        let (before, after) = (&line[..at], &line[at + slashes.len()..]);
        let is = |scheme: &str| {
            let end = before.len().checked_sub(scheme.len()).and_then(|start| before.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(scheme))
        };
        if !is("http") && !is("https") {
            return None;
        }
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>,;".contains(c)).unwrap_or(after.len());
        Some(after[..end].rsplit('@').next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_description_are_those_of_its_addresses() {
        for (line, expected) in [
            ("URIs: http://apt.example.com/debian https://b.example:8443", &["apt.example.com", "b.example:8443"][..]),
            ("deb [arch=amd64] HTTPS://User:p%40ss@apt.example.com/ stable main", &["apt.example.com"]),
            ("baseurl=http://[2001:db8::7]:80/$releasever/,http://c.example", &["[2001:db8::7]:80", "c.example"]),
            ("@vendor https://apk.example/v3.20/main", &["apk.example"]),
            ("Server = https://pac.example/$repo/os/$arch", &["pac.example"]),
            ("vendor: { url: \"pkg+https://pkg.example/${ABI}/latest\", mirror_type: \"srv\" }", &["pkg.example"]),
            ("Types: deb ftp://ftp.example file:///srv http:// https:x", &[""]),
            ("", &[]),
        ] {
            assert_eq!(authorities(line).collect::<Vec<_>>(), expected, "{line}");
        }
    }

    #[test]
    fn a_key_is_named_as_a_field_or_as_an_option() {
        assert!(names_a_key("signed-by: /usr/share/keyrings/a.gpg") && names_a_key("Signed-By:"));
        assert!(names_a_key("deb [arch=amd64 signed-by=/a.gpg] http://a.example stable main"));
        assert!(!names_a_key("URIs: http://a.example/signed-by") && !code(" # Signed-By: x\n").any(names_a_key));
    }
}
