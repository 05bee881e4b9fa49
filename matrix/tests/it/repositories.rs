//! `[[repository]]`: third-party repositories, and the messages for invalid ones.

use std::fs;

use insta::assert_snapshot;
use matrix::{Digest, PackageFamily, Plan, RunnerKind};

use crate::folder::{Folder, with};

const VENDOR: &str = r#"
[[repository]]
name = "vendor"
images = ["debian-13*"]
key = "keys/vendor.asc"
deb = """
# See http://docs.example.com.
Types: deb
URIs: http://apt.example.com:8080/debian https://Mirror.example.com/debian
Suites: stable
Components: main
"""
rpm = """
[vendor]
baseurl=https://rpm.example.com/$releasever/
"""

[[repository]]
name = "everywhere"
apk = "http://apk.example.com/main"
"#;

fn folder() -> Folder {
    with(VENDOR).file("keys/vendor.asc", b"\x99\x00key")
}

/// A matrix with one repository of these lines, from line 5 on.
fn repository(lines: &str) -> Folder {
    with(&format!("[[repository]]\nname = \"vendor\"\n{lines}\n"))
}

#[test]
fn a_repository_is_given_to_the_guests_of_its_images_in_the_words_of_their_package_manager() {
    let plan = folder().load().plan;
    let [vendor, everywhere] = plan.repositories.as_slice() else { panic!("{:?}", plan.repositories) };
    assert_eq!((vendor.name.as_str(), vendor.images.as_slice()), ("vendor", &["debian-13-minimal".to_owned()][..]));
    assert_eq!(vendor.descriptions.keys().copied().collect::<Vec<_>>(), [PackageFamily::Deb, PackageFamily::Rpm]);
    assert!(vendor.descriptions[&PackageFamily::Deb].starts_with("# See http://docs.example.com.\nTypes: deb\n"));
    let hosts: Vec<_> = vendor.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["apt.example.com:8080", "mirror.example.com", "rpm.example.com"], "not that of a comment");
    let key = vendor.key.as_ref().expect("a key");
    assert_eq!((key.file_name.as_str(), key.content.as_slice()), ("vendor.asc", &b"\x99\x00key"[..]));
    assert_eq!(key.digest, Digest::of(&key.content));
    assert_eq!(everywhere.images, ["debian-12-minimal", "debian-13-minimal"]);
    assert_eq!(everywhere.key, None);
}

#[test]
fn a_part_of_a_plan_has_the_repositories_of_its_images() {
    let plan = folder().load().plan;
    let part = plan.select(&["debian-12*"]).expect("a part");
    assert_eq!(part.repositories.len(), 1);
    assert_eq!((part.repositories[0].name.as_str(), part.repositories[0].images.len()), ("everywhere", 1));
    let excluded = with(&format!("{VENDOR}[[exclude]]\nimage = \"debian-13*\"\n")).file("keys/vendor.asc", "key");
    assert_eq!(excluded.load().plan.repositories, part.repositories, "no guest of its image is left");
}

#[test]
fn a_plan_with_repositories_is_read_back_and_nothing_in_it_can_be_another_file_of_a_guest() {
    let folder = folder();
    let file = folder.path("plan.json");
    let whole = folder.load().plan;
    let read = |change: &dyn Fn(&mut Plan)| {
        let mut plan = whole.clone();
        change(&mut plan);
        // With the digest of its own content, as a forger would write it.
        plan.on(RunnerKind::Host).write(&file).expect("written");
        Plan::read(&file)
    };
    assert_eq!(read(&|_| {}).expect("read"), whole.clone().on(RunnerKind::Host));
    assert!(fs::read_to_string(&file).expect("text").contains("\"content\": \"mQBrZXk=\""));
    let name = read(&|plan| plan.repositories[0].name = "../vendor".to_owned()).expect_err("a path").to_string();
    assert!(name.ends_with("the repository \"../vendor\": its name is invalid"), "{name}");
    read(&|plan| plan.repositories[0].key.as_mut().expect("a key").file_name = "../k".to_owned()).expect_err("a path");
    read(&|plan| plan.repositories[0].key.as_mut().expect("a key").content.push(0)).expect_err("another key");
}

#[test]
fn every_byte_of_a_repository_decides_the_plan_and_the_place_of_its_key_does_not() {
    let digest = |from: &str, to: &str| {
        let folder = with(&VENDOR.replace(from, to)).file("keys/vendor.asc", "key").file("keys/other.asc", "key");
        folder.file("elsewhere/vendor.asc", "key").file("new/vendor.asc", "new").load().plan.digest
    };
    let usual = digest("", "");
    for (from, to) in [
        ("\"vendor\"", "\"seller\""),
        ("debian-13*", "debian-12*"),
        ("stable", "testing"),
        ("keys/vendor.asc", "keys/other.asc"),
        ("keys/vendor.asc", "new/vendor.asc"),
        ("key = \"keys/vendor.asc\"", ""),
    ] {
        assert_ne!(digest(from, to), usual, "{from} -> {to}");
    }
    assert_eq!(digest("keys/", "elsewhere/"), usual);
}

#[test]
fn a_repository_has_a_plain_name_of_its_own() {
    let named = |name: &str| with(&format!("[[repository]]\nname = \"{name}\"\ndeb = \"deb http://a.example ./\"\n"));
    for good in ["v", "Vendor-2", &"x".repeat(40)] {
        assert!(named(good).try_load().is_ok(), "{good}");
    }
    for bad in ["", "-v", "a b", "a/b", "a.list", "größe", "a_b", &"x".repeat(41)] {
        assert_eq!(named(bad).plain(), format!("m.toml:4: {bad:?} cannot name a repository"));
    }
    let twice = "[[repository]]\nname = \"v\"\napk = \"http://a.example\"\n".repeat(2);
    assert_snapshot!(with(&twice).error(), @r#"
     × m.toml:7: two repositories are named `v`
      ╭─[m.toml:7:8]
    3 │ [[repository]]
    4 │ name = "v"
      ·        ─┬─
      ·         ╰── the first
    5 │ apk = "http://a.example"
    6 │ [[repository]]
    7 │ name = "v"
      ·        ─┬─
      ·         ╰── the second
    8 │ apk = "http://a.example"
      ╰────
     help: rename one: the name is part of the names of files in the guest
    "#);
}

#[test]
fn a_repository_has_a_description_that_names_an_address() {
    assert_snapshot!(repository("").error(), @r#"
     × m.toml:4: the repository `vendor` has no description
      ╭─[m.toml:4:8]
    3 │ [[repository]]
    4 │ name = "vendor"
      ·        ────┬───
      ·            ╰── described for no guest
    5 │
      ╰────
     help: add `deb`, `rpm`, `apk`, `pacman` or `pkg`: its description as that package manager writes it
    "#);
    assert_snapshot!(repository("deb = \"deb file:///srv ./\"\nrpm = '# http://a.example'").error(), @r#"
      × m.toml:5: the description names no address (and 1 more mistake)
       ╭─[m.toml:5:7]
     4 │ name = "vendor"
     5 │ deb = "deb file:///srv ./"
       ·       ──────────┬─────────
       ·                 ╰── without `http://` or `https://`
     6 │ rpm = '# http://a.example'
       ╰────
      help: write the repository's address in full: guests may reach the hosts that a description names, and no others

    Error:
      × m.toml:6: the description names no address
       ╭─[m.toml:6:7]
     5 │ deb = "deb file:///srv ./"
     6 │ rpm = '# http://a.example'
       ·       ──────────┬─────────
       ·                 ╰── without `http://` or `https://`
       ╰────
      help: write the repository's address in full: guests may reach the hosts that a description names, and no others
    "#);
    assert_snapshot!(repository("rpm = \"baseurl=https://$mirror.example.com/el9\"").error(), @r#"
     × m.toml:5: the host `$mirror.example.com` of an address cannot be allowed: it is neither a DNS name nor an IP address
      ╭─[m.toml:5:7]
    4 │ name = "vendor"
    5 │ rpm = "baseurl=https://$mirror.example.com/el9"
      ·       ────────────────────┬────────────────────
      ·                           ╰── in this description
      ╰────
     help: write the host itself, a DNS name or an IP address; variables may follow after it
    "#);
    assert_snapshot!(repository("apk = \"http://a.example\\u001b\"").plain(), @"
    m.toml:5: the description holds control characters
    m.toml:5: the host `a.example␛` of an address cannot be allowed: it is neither a DNS name nor an IP address
    ");
    assert_snapshot!(repository(&format!("apk = \"http://a.example{}\"", " ".repeat(16 << 10))).plain(), @"m.toml:5: the description has 16400 bytes, the limit is 16384");
    let many = (0..65).map(|number| format!("http://h{number}.example")).collect::<Vec<_>>().join(" ");
    assert_snapshot!(repository(&format!("deb = \"{many}\"")).plain(), @"m.toml:5: the descriptions of a repository name more than 64 hosts");
}

#[test]
fn a_glob_over_images_matches_one() {
    let images = |list: &str| repository(&format!("images = {list}\napk = \"http://a.example\""));
    assert_snapshot!(images("[\"debian-12*\", \"debain-13-minimal\", \"rocky-*\"]").error(), @r#"
      × m.toml:5: no image of this matrix matches `debain-13-minimal` (and 1 more mistake)
       ╭─[m.toml:5:25]
     4 │ name = "vendor"
     5 │ images = ["debian-12*", "debain-13-minimal", "rocky-*"]
       ·                         ─────────┬─────────
       ·                                  ╰── matches nothing
     6 │ apk = "http://a.example"
       ╰────
      help: did you mean `debian-13-minimal` or `debian-12-minimal`? this matrix has debian-12-minimal, debian-13-minimal

    Error:
      × m.toml:5: no image of this matrix matches `rocky-*`
       ╭─[m.toml:5:46]
     4 │ name = "vendor"
     5 │ images = ["debian-12*", "debain-13-minimal", "rocky-*"]
       ·                                              ────┬────
       ·                                                  ╰── matches nothing
     6 │ apk = "http://a.example"
       ╰────
      help: this matrix has debian-12-minimal, debian-13-minimal
    "#);
    assert_snapshot!(images("[]").error(), @r#"
     × m.toml:5: no guest would be given this repository
      ╭─[m.toml:5:10]
    4 │ name = "vendor"
    5 │ images = []
      ·          ─┬
      ·           ╰── empty
    6 │ apk = "http://a.example"
      ╰────
     help: name images, or remove this line: the default is every image
    "#);
    assert_snapshot!(images("[\"debian-{12\"]").plain(), @"m.toml:5: `debian-{12` is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)");
}

#[test]
fn the_key_is_named_once() {
    let deb = "deb = \"\"\"\nTypes: deb\nURIs: http://a.example\nSigned-By: /etc/apt/keyrings/a.asc\n\"\"\"";
    assert!(repository(deb).try_load().is_ok(), "without `key` it is the author's");
    let both = repository(&format!("key = \"a.asc\"\n{deb}")).file("a.asc", "key");
    assert_snapshot!(both.error(), @r#"
     × m.toml:6: `Signed-By` and `key` both say which key signs it
      ╭─[m.toml:6:7]
    4 │ name = "vendor"
    5 │ key = "a.asc"
      ·       ───┬───
      ·          ╰── and the key
    6 │ deb = """
      ·       ─┬─
      ·        ╰── holds `Signed-By`
    7 │ Types: deb
      ╰────
     help: remove `Signed-By` from the text: the key is put where apt finds it
    "#);
}

#[test]
fn a_key_is_a_short_file_with_a_public_key() {
    let key = |file: &str| repository(&format!("key = \"{file}\"\napk = \"http://a.example\""));
    assert_snapshot!(key("a.asc").file("b.asc", "key").error(), @r#"
     × m.toml:5: the key `a.asc` does not exist
      ╭─[m.toml:5:7]
    4 │ name = "vendor"
    5 │ key = "a.asc"
      ·       ───┬───
      ·          ╰── looked in (folder)
    6 │ apk = "http://a.example"
      ╰────
     help: did you mean `b.asc`? the folder holds b.asc, m.toml
    "#);
    assert_snapshot!(key("a.asc").file("a.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n").error(), @r#"
     × m.toml:5: the key `a.asc` is a private key, and guests would read it
      ╭─[m.toml:5:7]
    4 │ name = "vendor"
    5 │ key = "a.asc"
      ·       ───┬───
      ·          ╰── this key
    6 │ apk = "http://a.example"
      ╰────
     help: export the public key: `gpg --armor --export KEY`, for apk or pkg `openssl rsa -pubout`
    "#);
    assert_snapshot!(key("a.asc").file("a.asc", "").plain(), @"m.toml:5: the key `a.asc` is empty");
    assert_snapshot!(key("a.asc").file("a.asc", vec![b'k'; (64 << 10) + 1]).plain(), @"m.toml:5: the key `a.asc` is too large: 65537 bytes, the limit is 65536");
    assert_snapshot!(key("a b.asc").file("a b.asc", "key").error(), @r#"
     × m.toml:5: the key `a b.asc` has a file name that cannot be used in a guest
      ╭─[m.toml:5:7]
    4 │ name = "vendor"
    5 │ key = "a b.asc"
      ·       ────┬────
      ·           ╰── this key
    6 │ apk = "http://a.example"
      ╰────
     help: rename it: letters, digits and `._@+-`, beginning with a letter or a digit
    "#);
    assert!(key("a.asc").file("a.asc", vec![b'k'; 64 << 10]).try_load().is_ok());
    assert!(
        key("dev@lists.example.org-4a6a.rsa.pub").file("dev@lists.example.org-4a6a.rsa.pub", "key").try_load().is_ok()
    );
}

#[test]
fn there_are_at_most_32_repositories_and_no_more_globs_than_can_be_compared() {
    let repositories = |count: usize| {
        let one = |number: usize| format!("[[repository]]\nname = \"v{number}\"\napk = \"http://a.example\"\n");
        with(&(0..count).map(one).collect::<String>())
    };
    assert_eq!(repositories(32).load().plan.repositories.len(), 32);
    assert_eq!(repositories(33).plain(), "m.toml:100: the matrix has 33 repositories, the limit is 32");
    let images = (0..1000).map(|number| format!("[[image]]\nname = \"i{number}\"\nfrom = \"debian-12-minimal\"\n"));
    let globs = vec!["\"i*\""; 500].join(",");
    let many = repository(&format!("apk = \"http://a.example\"\nimages = [{globs}]\n{}", images.collect::<String>()));
    assert_eq!(many.plain(), "m.toml:1: 500 globs of repositories and 1002 images are too many to compare");
}
