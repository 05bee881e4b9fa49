//! What is sent into a guest, and what the guest says of itself meanwhile.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use indexmap::IndexMap;
use matrix::{Arch, Artifact, Digest, PackageFamily};
use nestmatrix::payload::{self, SuiteOutcome, Upload, UploadError};

use super::guest::{Guest, upload_file};
use crate::sshd::{Tools, within};

#[tokio::test]
async fn a_second_upload_starts_from_an_empty_folder() {
    let guest = Guest::start().await;
    guest.suite("touch left-over").await;
    assert_eq!(guest.suite("ls -A").await.outcome, SuiteOutcome::Exited(0));
    assert_eq!(guest.stdout_log(), ".nestmatrix-suite\n");
}

#[tokio::test]
async fn a_file_that_changed_since_the_plan_is_named_and_nothing_runs() {
    let guest = Guest::start().await;
    let path = guest.here("data.bin");
    fs::write(&path, vec![1; 300_000]).unwrap();
    let planned = upload_file(&path, "data.bin");

    let mut content = vec![1; 300_000];
    content[299_999] = 2;
    fs::write(&path, content).unwrap();
    let error = guest.upload("true", &[], std::slice::from_ref(&planned)).await.unwrap_err();
    assert!(matches!(&error, UploadError::Changed { path: named, .. } if *named == path), "{error}");

    fs::write(&path, "shorter").unwrap();
    let error = guest.upload("true", &[], std::slice::from_ref(&planned)).await.unwrap_err();
    assert!(error.to_string().contains("300000 bytes then, 7 now"), "{error}");

    fs::remove_file(&path).unwrap();
    let error = guest.upload("true", &[], &[planned]).await.unwrap_err();
    assert!(matches!(error, UploadError::Read { .. }), "{error}");
    // The session is as good as before.
    assert_eq!(guest.suite("exit 0").await.outcome, SuiteOutcome::Exited(0));
}

#[tokio::test]
async fn only_artifacts_the_guest_can_install_are_sent() {
    let guest = Guest::start().await;
    let artifacts: Vec<Artifact> = ["a.deb", "b_arm64.deb", "c.rpm", "d-any.pkg.tar.zst"]
        .iter()
        .map(|name| {
            let path = guest.here(name);
            fs::write(&path, *name).unwrap();
            Artifact {
                path,
                file_name: (*name).to_owned(),
                bytes: name.len() as u64,
                digest: Digest::of(name.as_bytes()),
            }
        })
        .collect();
    let env = IndexMap::new();
    for (family, expected) in [
        (Some(PackageFamily::Deb), "a.deb\n"),
        (Some(PackageFamily::Rpm), "c.rpm\n"),
        (Some(PackageFamily::Pacman), "d-any.pkg.tar.zst\n"),
        (None, ""),
    ] {
        let (script, arch) = ("ls ../artifacts", Arch::X86_64);
        let upload =
            Upload { script, env: &env, files: &[], artifacts: &artifacts, family, arch, network: None, facts: false };
        payload::upload(&guest.session, &upload, within(30)).await.unwrap();
        guest.run_for(Duration::from_secs(20)).await.unwrap();
        assert_eq!(guest.stdout_log(), expected, "{family:?}");
    }
}

#[tokio::test]
async fn a_guest_says_what_it_is_while_the_payload_arrives() {
    let guest = Guest::start().await;
    let env = IndexMap::new();
    let (script, arch) = ("ls ..", Arch::X86_64);
    let upload =
        Upload { script, env: &env, files: &[], artifacts: &[], family: None, arch, network: None, facts: true };
    let facts = payload::upload(&guest.session, &upload, within(30)).await.unwrap().unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts.kernel.as_deref(), Some(kernel.trim()), "{facts:?}");
    assert!(facts.name.is_some() && facts.cgroups.is_some() && facts.init.is_some(), "{facts:?}");
    assert_eq!(guest.run_for(Duration::from_secs(20)).await.unwrap().outcome, SuiteOutcome::Exited(0));
}

#[tokio::test]
async fn a_guest_whose_family_nobody_tells_is_asked_for_it() {
    let guest = Guest::start().await;
    let found = payload::detect_family(&guest.session, within(30)).await.unwrap();
    let here = ["/usr/bin/apt-get", "/usr/bin/dnf", "/usr/bin/zypper", "/sbin/apk", "/usr/bin/pacman"];
    assert_eq!(found.is_some(), here.iter().any(|path| fs::exists(path).unwrap()), "{found:?}");
}

#[tokio::test]
async fn a_guest_that_cannot_unpack_says_why_in_its_own_words() {
    let guest = Guest::start().await;
    let large = guest.here("large.bin");
    fs::write(&large, vec![0; 20 << 20]).unwrap();
    let planned = upload_file(&large, "large.bin");
    guest.server.set_root("/proc/nestmatrix");
    let guest = Guest { session: guest.server.session().await, ..guest };
    let error = guest.upload("true", &[], &[planned]).await.unwrap_err();
    let UploadError::Unpack { words } = &error else { panic!("{error}") };
    assert!(words.contains("/proc/nestmatrix"), "{words}");
}

#[tokio::test]
async fn a_guest_with_a_shell_and_few_tools_takes_a_payload_and_gives_back_files() {
    let guest = Guest::start_with(Tools::Few).await;
    let (tool, text) = (guest.here("tool"), guest.here("text"));
    fs::write(&tool, "#!/bin/sh\necho tool ran >../tmp/said\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&text, vec![7; 300_000]).unwrap();
    let files = [upload_file(&tool, "bin/deep/tool"), upload_file(&text, "it's text.txt")];
    let env = IndexMap::from([("TEXT".to_owned(), "a\nb".to_owned())]);
    let script = "bin/deep/tool; cat 'it'\\''s text.txt' >../tmp/copy; echo \"$TEXT\"; exit 4";
    let upload = Upload {
        script,
        env: &env,
        files: &files,
        artifacts: &[],
        family: None,
        arch: Arch::X86_64,
        network: None,
        facts: true,
    };
    // Without `timeout` it is not asked what it is.
    assert_eq!(payload::upload(&guest.session, &upload, within(30)).await.unwrap(), None);
    assert_eq!(guest.run_for(Duration::from_secs(20)).await.unwrap().outcome, SuiteOutcome::Exited(4));
    assert_eq!(guest.stdout_log(), "a\nb\n");
    let collection = guest.collect(&[format!("{}/guest/tmp", guest.here("").display())]).await;
    let names = collection.files.iter().map(|file| (file.path.rsplit('/').next().unwrap(), file.bytes));
    assert_eq!(names.collect::<Vec<_>>(), [("copy", 300_000), ("said", 9)]);
    assert_eq!(collection.warnings, [""; 0]);

    fs::write(&text, vec![8; 300_000]).unwrap();
    let error = payload::upload(&guest.session, &upload, within(30)).await.unwrap_err();
    assert!(matches!(error, UploadError::Changed { .. }), "{error}");
}
