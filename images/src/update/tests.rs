//! Resolution of images with lists from memory; nothing is downloaded.

use std::{fs, path::Path, process::Command};

use matrix::Arch;
use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::{
    ChecksumFile, Published, Signature, Upstream,
    alone::alone,
    fetch::{MirrorFailure, Trouble},
};

const URL: &str = "https://m.test/9.8/disk-9.8-20260501.qcow2";

fn entry(upstream: Upstream) -> Entry {
    let file = Published { origin: Origin::Urls(vec![URL.to_owned()]), digest: None };
    Entry {
        name: "system-9".to_owned(),
        title: "System 9".to_owned(),
        arch: Arch::here(),
        family: None,
        login_user: "root".to_owned(),
        end_of_life: None,
        source: Source::Disk { file, firmware: None },
        upstream,
    }
}

fn listed_at(url: &str) -> Upstream {
    let checksums = ChecksumFile { url: url.to_owned(), signature: None };
    Upstream { checksums: Some(checksums), ..Upstream::default() }
}

fn hex(byte: &str) -> String {
    byte.repeat(32)
}

/// The result for an entry whose publisher has these files.
fn resolved(upstream: Upstream, files: &[(&str, &str)]) -> Result<Option<Resolved>, UpdateError> {
    resolve(&entry(upstream), &|url| {
        let found = files.iter().find(|(known, _)| *known == url);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
            let trouble = Trouble::Status { code: 404, name: "Not Found", line: None };
            FetchError::Mirrors { failures: vec![MirrorFailure { url: url.to_owned(), trouble, tries: 1 }] }
        })
    })
}

#[test]
fn the_digest_of_the_file_at_the_same_address_is_looked_up() {
    let sums = "https://m.test/9.8/CHECKSUM";
    let text = format!(
        "# disk-9.8-20260501.qcow2: 77 bytes\nSHA256 (disk-9.8-20260501.qcow2) = {}\nSHA256 (other) = {}\n",
        hex("aa"),
        hex("bb")
    );
    let found = resolved(listed_at(sums), &[(sums, &text)]).expect("listed").expect("published");
    assert_eq!((found.url.as_str(), found.digest.to_string()), (URL, format!("sha256:{}", hex("aa"))));
    assert_eq!(found.bytes, Some(77));
    assert_eq!(found.trust, Trust::NotChecked("no signature of its publisher is known".to_owned()));
}

#[test]
fn a_list_without_a_signature_that_came_over_http_is_said_to_be_anybodys() {
    let sums = "http://m.test/9.8/CHECKSUM";
    let text = format!("{}  disk-9.8-20260501.qcow2\n", hex("aa"));
    let found = resolved(listed_at(sums), &[(sums, &text)]).expect("listed").expect("published");
    let Trust::NotChecked(why) = found.trust else { panic!("nobody signed it") };
    assert!(why.contains("came over http"), "{why}");
}

#[test]
fn a_list_that_is_called_like_the_file_is_about_it_whatever_name_stands_in_it() {
    let sums = format!("{URL}.sha256");
    for text in [format!("{}  build-16.29.qcow2\n", hex("aa")), format!("{}\n", hex("aa"))] {
        let found = resolved(listed_at(&sums), &[(sums.as_str(), text.as_str())]).expect("listed").expect("published");
        assert_eq!(found.digest.hex(), hex("aa"));
    }
    let two = format!("{}  one\n{}  two\n", hex("aa"), hex("bb"));
    resolved(listed_at(&sums), &[(sums.as_str(), two.as_str())]).expect_err("which of them?");
}

#[test]
fn the_newest_of_several_files_lies_beside_their_list() {
    let sums = "https://m.test/9/CHECKSUM";
    let upstream = Upstream { latest: Some("disk-9.*-*.qcow2".to_owned()), ..listed_at(sums) };
    let line = |name: &str, byte: &str| format!("SHA256 ({name}) = {}\n", hex(byte));
    let text = line("disk-9.8-20260501.qcow2", "aa")
        + &line("disk-9.10-20260301.qcow2", "bb")
        + &line("disk-9.9-20260801.qcow2", "cc")
        + &line("disk-ext4-9.11-20260801.qcow2", "dd");
    let found = resolved(upstream.clone(), &[(sums, &text)]).expect("listed").expect("published");
    assert_eq!((found.url.as_str(), found.digest.hex()), ("https://m.test/9/disk-9.10-20260301.qcow2", hex("bb")));
    let error = resolved(upstream, &[(sums, &line("else.img", "aa"))]).expect_err("nothing matches");
    insta::assert_snapshot!(error, @"image `system-9`: https://m.test/9/CHECKSUM does not list disk-9.*-*.qcow2; it lists else.img");
}

#[test]
fn a_list_that_is_gone_or_has_other_files_is_an_error() {
    let sums = "https://m.test/9.8/CHECKSUM";
    let error = resolved(listed_at(sums), &[]).expect_err("gone");
    insta::assert_snapshot!(error, @"image `system-9`: https://m.test/9.8/CHECKSUM answered 404 Not Found");
    let text = format!("{}  disk-9.8-20260801.qcow2\n", hex("aa"));
    let error = resolved(listed_at(sums), &[(sums, &text)]).expect_err("moved");
    insta::assert_snapshot!(
        error,
        @"image `system-9`: https://m.test/9.8/CHECKSUM does not list disk-9.8-20260501.qcow2; it lists disk-9.8-20260801.qcow2"
    );
    assert_eq!(resolved(Upstream::default(), &[]).expect("nothing to ask"), None);
}

/// A publisher with a key of its own.
struct Publisher(tempfile::TempDir);

impl Publisher {
    fn new() -> Self {
        let publisher = Self(tempfile::tempdir().expect("temporary folder"));
        publisher.gpg(&["--quick-gen-key", "publisher@m.test", "ed25519", "sign", "never"]);
        publisher.gpg(&["--output", &publisher.path("keys.gpg"), "--export"]);
        publisher
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn gpg(&self, args: &[&str]) {
        let mut gpg = Command::new("gpg");
        gpg.env("GNUPGHOME", self.0.path()).args(["--batch", "--quiet", "--yes", "--passphrase", ""]).args(args);
        let output = gpg.output().expect("gpg");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn signed(&self, how: &str, text: &str) -> String {
        fs::write(self.path("text"), text).expect("text");
        self.gpg(&["--armor", "--output", &self.path("out"), how, &self.path("text")]);
        fs::read_to_string(self.path("out")).expect("signed")
    }

    fn upstream(&self, signature: Option<&str>) -> Upstream {
        let signature = Signature { url: signature.map(str::to_owned), keyring: self.path("keys.gpg").into() };
        let checksums = ChecksumFile { url: "https://m.test/SUMS".to_owned(), signature: Some(signature) };
        Upstream { checksums: Some(checksums), ..Upstream::default() }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).output();
    }
}

#[test]
fn a_signature_is_verified_bad_or_not_checked() {
    let _alone = alone();
    let publisher = Publisher::new();
    let (sums, signature) = ("https://m.test/SUMS", "https://m.test/SUMS.gpg");
    let text = format!("{}  disk-9.8-20260501.qcow2\n", hex("aa"));
    let changed = text.replace('a', "b");
    let detached = publisher.signed("--detach-sign", &text);
    let upstream = publisher.upstream(Some(signature));
    let with = |text: &str| resolved(upstream.clone(), &[(sums, text), (signature, &detached)]);
    assert_eq!(with(&text).expect("signed").expect("published").trust, Trust::Verified);
    let error = with(&changed).expect_err("changed on its way");
    assert!(matches!(error.kind, UpdateErrorKind::Signature(_)), "{error}");
    insta::assert_snapshot!(error, @r#"image `system-9`: the signature of its list of digests is bad: BAD signature from "publisher@m.test""#);

    fs::remove_file(publisher.path("keys.gpg")).expect("keys");
    let Trust::NotChecked(why) = with(&text).expect("unproved").expect("published").trust else { panic!("no keys") };
    assert!(why.starts_with("the publisher's keys are not on this machine"), "{why}");
}

#[test]
fn of_a_list_with_its_signature_inside_only_what_is_signed_counts() {
    let _alone = alone();
    let publisher = Publisher::new();
    let sums = "https://m.test/SUMS";
    let text = format!("{}  disk-9.8-20260501.qcow2\n", hex("aa"));
    let signed = publisher.signed("--clear-sign", &text);
    let around = format!("{}  disk-9.8-20260501.qcow2\n{signed}", "ff".repeat(64));
    let found = |text: &str| resolved(publisher.upstream(None), &[(sums, text)]);
    let plain = found(&signed).expect("signed").expect("published");
    assert_eq!((plain.trust, plain.digest.hex()), (Trust::Verified, hex("aa")));
    if let Ok(Some(found)) = found(&around) {
        assert_eq!(found.digest.hex(), hex("aa"), "what stands before the signed text is not believed");
    }
    found(&text).expect_err("nobody signed it");
    assert!(Path::new(&publisher.path("keys.gpg")).is_file());
}

#[test]
fn no_changed_byte_of_a_list_or_its_signature_is_taken_for_the_publishers_word() {
    let _alone = alone();
    let publisher = Publisher::new();
    let text = format!("{}  disk-9.8-20260501.qcow2\n", hex("aa"));
    let (beside, around) = (publisher.signed("--detach-sign", &text), publisher.signed("--clear-sign", &text));
    let (sums, signature) = ("https://m.test/SUMS", "https://m.test/SUMS.gpg");
    let with_detached =
        |text: &str, beside: &str| resolved(publisher.upstream(Some(signature)), &[(sums, text), (signature, beside)]);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) });
    let tried = runner.run(&(any::<prop::sample::Index>(), 0..7_u8), |(place, bit)| {
        let change = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            String::from_utf8(bytes).expect("ASCII")
        };
        prop_assert!(with_detached(&change(&text), &beside).is_err());
        // Not every letter belongs to the signature or the signed text.
        let others =
            [with_detached(&text, &change(&beside)), resolved(publisher.upstream(None), &[(sums, &change(&around))])];
        for found in others.into_iter().flatten().flatten() {
            prop_assert_eq!((found.trust, found.digest.hex()), (Trust::Verified, hex("aa")));
        }
        Ok(())
    });
    tried.expect("whatever is changed");
}
