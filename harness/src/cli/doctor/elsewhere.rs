//! Another machine as a place for guests: what it lacks.

use super::finding::{Finding, State};
use crate::runner::{Found, Kvm};

/// Least room for a run: images, and overlays of its guests.
const ROOM_MIB: u64 = 5 << 10;

pub(super) fn findings(found: &Found) -> Vec<Finding> {
    let lacks = found.lacks();
    let judged = |what: &'static str, words: String| match lacks.iter().find(|(lack, _, _)| *lack == what) {
        Some((_, why, help)) => Finding::new(what, State::Bad, why.clone()).with_remedy(help.clone()),
        None => Finding::new(what, State::Good, words),
    };
    let kind = if found.is_virtual { "a virtual machine" } else { "bare metal, or it hides what it is" };
    vec![
        judged("machine", format!("{} on {}, {kind}", found.system, found.arch)),
        judged("store", format!("{} can be written to by {}", found.root, found.user)),
        disk(found),
        judged("QEMU", found.qemu.clone().unwrap_or_default()),
        judged("qemu-img", "it is there".to_owned()),
        judged("sha256sum", "it is there".to_owned()),
        Finding::new(
            "swtpm",
            State::Plain,
            if found.has_swtpm { "it is there" } else { "it is not there: guests have no TPM (`guest.tpm`)" },
        ),
        kvm(found.kvm),
        Finding::new(
            "runs",
            State::Plain,
            match found.runs {
                0 => "none there".to_owned(),
                runs => format!("{runs} there, alive or dead; the next run removes what dead ones left"),
            },
        ),
    ]
}

fn disk(found: &Found) -> Finding {
    match found.free {
        Some(free) if free.mib() >= ROOM_MIB => Finding::new("disk", State::Good, format!("{} MiB free", free.mib())),
        Some(free) => Finding::new("disk", State::Weak, format!("{} MiB free, less than {ROOM_MIB} MiB", free.mib()))
            .with_remedy("make room there, or set XDG_CACHE_HOME for that user"),
        None => Finding::new("disk", State::Weak, "how much room there is could not be read"),
    }
}

fn kvm(kvm: Kvm) -> Finding {
    match kvm {
        Kvm::Opens => Finding::new("KVM", State::Good, "/dev/kvm opens; the first run proves that guests run"),
        Kvm::Missing => Finding::new("KVM", State::Weak, "there is no /dev/kvm: guests are emulated, which is slow")
            .with_remedy("run `nestmatrix doctor` on that machine: it says what virtualization lacks there"),
        Kvm::Denied => Finding::new("KVM", State::Weak, "/dev/kvm may not be opened by that user")
            .with_remedy("`sudo usermod -aG kvm $USER` there, then log in again"),
    }
}

#[cfg(test)]
mod tests {
    use matrix::{Arch, ByteSize};

    use super::{super::finding::render, *};

    #[test]
    fn a_machine_without_qemu_and_with_a_closed_kvm_is_told_what_it_lacks() {
        let found = Found {
            system: "Linux".to_owned(),
            arch: Arch::here().to_string(),
            user: "me".to_owned(),
            root: "/home/me/.cache/nestmatrix/runner".to_owned(),
            writable: Ok(()),
            free: Some(ByteSize::from_mib(100)),
            has_program: false,
            has_sha256sum: true,
            has_qemu_img: false,
            has_swtpm: false,
            qemu: None,
            kvm: Kvm::Denied,
            is_virtual: false,
            runs: 2,
        };
        let text = render(&findings(&found));
        for words in ["MISSING  QEMU", "apt-get install", "usermod -aG kvm", "100 MiB free", "2 there"] {
            assert!(text.contains(words), "`{words}` is missing in {text}");
        }
        assert!(findings(&found).iter().any(|finding| finding.state == State::Bad));
    }
}
