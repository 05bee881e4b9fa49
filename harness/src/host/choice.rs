//! `auto`: which runner is right for this machine, and why.
//!
//! A machine that is virtual already is the L1; one more below the guests would put tests at L3, and a hosted CI runner is such
//! a machine. Bare metal whose KVM works and nests can boot an L1. Anywhere else an L1 and all its guests would be emulated
//! in software, which guests that run directly are at worst.

use std::fmt;

use super::nesting::{Extension, Hardware, Nesting};

/// A runner on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerChoice {
    /// This machine is the L1.
    Host,
    /// One L1 is booted on this machine.
    Qemu,
}

/// A runner, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The runner.
    pub kind: RunnerChoice,
    /// The reason, in words for a person.
    pub reason: String,
}

impl fmt::Display for RunnerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Qemu => "qemu",
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.kind, self.reason)
    }
}

/// Chooses. `asked`: what the user named, `None` for `auto`; `kvm_proved`: whether a guest ran under KVM here, `None` if nobody
/// has tried.
///
/// What was asked for is chosen whatever it costs; the reason then tells the cost.
pub fn choose(asked: Option<RunnerChoice>, nesting: &Nesting, kvm_proved: Option<bool>) -> Choice {
    match asked {
        Some(RunnerChoice::Host) => choice(RunnerChoice::Host, "it was asked for"),
        Some(RunnerChoice::Qemu) => choice(RunnerChoice::Qemu, asked_for_qemu(nesting, kvm_proved)),
        None => auto(nesting, kvm_proved),
    }
}

fn choice(kind: RunnerChoice, reason: impl Into<String>) -> Choice {
    Choice { kind, reason: reason.into() }
}

fn auto(nesting: &Nesting, kvm_proved: Option<bool>) -> Choice {
    let host = |reason: String| choice(RunnerChoice::Host, reason);
    if nesting.is_virtual {
        let which = nesting.system.as_ref().map(|system| format!(" ({system})")).unwrap_or_default();
        return host(format!("guests run directly: this machine is itself a VM{which}"));
    }
    let Some(hardware) = &nesting.hardware else {
        return host(
            "the CPU shows neither vmx nor svm, so an L1 could not virtualize: guests run directly".to_owned(),
        );
    };
    match (kvm_proved, &hardware.nested) {
        (None, _) => host("no guest has run under KVM here yet: until one has, guests run directly".to_owned()),
        (Some(false), _) => host("KVM does not work here: guests run directly".to_owned()),
        (Some(true), None) => host(format!(
            "KVM works here, but {} does not say whether it nests: guests run directly",
            hardware.extension.module()
        )),
        (Some(true), Some(value)) if hardware.nests() => choice(
            RunnerChoice::Qemu,
            format!("KVM works here and nests ({}): one L1 is booted", switch(hardware, value)),
        ),
        (Some(true), Some(value)) => host(format!(
            "KVM works here, but nesting is switched off ({}): guests run directly; to change that: `{}`",
            switch(hardware, value),
            switch_on(hardware.extension)
        )),
    }
}

fn asked_for_qemu(nesting: &Nesting, kvm_proved: Option<bool>) -> String {
    let nests = nesting.hardware.as_ref().is_some_and(Hardware::nests) && kvm_proved == Some(true);
    let mut reason = "it was asked for".to_owned();
    if nesting.is_virtual {
        reason += "; this machine is itself a VM, so guests are nested three levels deep";
    }
    if !nests {
        reason += "; its KVM does not work or does not nest, so the CPU of the L1 is emulated, which is slow";
    }
    reason
}

fn switch(hardware: &Hardware, value: &str) -> String {
    format!("{} nested={value}", hardware.extension.module())
}

/// The command that lets guests have virtual machines, until the next boot.
pub fn switch_on(extension: Extension) -> String {
    let module = extension.module();
    format!("sudo modprobe -r {module} && sudo modprobe {module} nested=1")
}

#[cfg(test)]
mod tests {
    use super::{super::nesting::KvmDevice, *};

    const PROVED: [Option<bool>; 3] = [None, Some(false), Some(true)];

    /// Every value of what the choice depends on.
    fn machines(is_virtual: bool) -> Vec<Nesting> {
        let hardware =
            |extension, nested: Option<&str>| Some(Hardware { extension, nested: nested.map(str::to_owned) });
        let all = [
            None,
            hardware(Extension::Vmx, None),
            hardware(Extension::Vmx, Some("N")),
            hardware(Extension::Vmx, Some("Y")),
            hardware(Extension::Svm, None),
            hardware(Extension::Svm, Some("0")),
            hardware(Extension::Svm, Some("1")),
        ];
        let machine = |hardware| Nesting {
            hardware,
            device: KvmDevice::Opens,
            modules: vec!["kvm".to_owned()],
            is_virtual,
            system: None,
        };
        all.into_iter().map(machine).collect()
    }

    #[test]
    fn auto_on_bare_metal() {
        let mut table = String::new();
        for machine in machines(false) {
            let hardware = machine.hardware.as_ref();
            let flag = hardware.map_or("-", |hardware| hardware.extension.flag());
            let nested = hardware.and_then(|hardware| hardware.nested.as_deref()).unwrap_or("-");
            for proved in PROVED {
                let proved_word = proved.map_or("unknown", |works| if works { "works" } else { "fails" });
                table +=
                    &format!("{flag:3} nested={nested} kvm {proved_word:7} -> {}\n", choose(None, &machine, proved));
            }
        }
        insta::assert_snapshot!(table, @"
        -   nested=- kvm unknown -> `host`: the CPU shows neither vmx nor svm, so an L1 could not virtualize: guests run directly
        -   nested=- kvm fails   -> `host`: the CPU shows neither vmx nor svm, so an L1 could not virtualize: guests run directly
        -   nested=- kvm works   -> `host`: the CPU shows neither vmx nor svm, so an L1 could not virtualize: guests run directly
        vmx nested=- kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        vmx nested=- kvm fails   -> `host`: KVM does not work here: guests run directly
        vmx nested=- kvm works   -> `host`: KVM works here, but kvm_intel does not say whether it nests: guests run directly
        vmx nested=N kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        vmx nested=N kvm fails   -> `host`: KVM does not work here: guests run directly
        vmx nested=N kvm works   -> `host`: KVM works here, but nesting is switched off (kvm_intel nested=N): guests run directly; to change that: `sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1`
        vmx nested=Y kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        vmx nested=Y kvm fails   -> `host`: KVM does not work here: guests run directly
        vmx nested=Y kvm works   -> `qemu`: KVM works here and nests (kvm_intel nested=Y): one L1 is booted
        svm nested=- kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        svm nested=- kvm fails   -> `host`: KVM does not work here: guests run directly
        svm nested=- kvm works   -> `host`: KVM works here, but kvm_amd does not say whether it nests: guests run directly
        svm nested=0 kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        svm nested=0 kvm fails   -> `host`: KVM does not work here: guests run directly
        svm nested=0 kvm works   -> `host`: KVM works here, but nesting is switched off (kvm_amd nested=0): guests run directly; to change that: `sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1`
        svm nested=1 kvm unknown -> `host`: no guest has run under KVM here yet: until one has, guests run directly
        svm nested=1 kvm fails   -> `host`: KVM does not work here: guests run directly
        svm nested=1 kvm works   -> `qemu`: KVM works here and nests (kvm_amd nested=1): one L1 is booted
        ");
    }

    #[test]
    fn auto_in_a_virtual_machine_never_nests_deeper() {
        for machine in machines(true) {
            for proved in PROVED {
                let choice = choose(None, &machine, proved);
                assert_eq!(choice.to_string(), "`host`: guests run directly: this machine is itself a VM");
            }
        }
    }

    #[test]
    fn auto_names_the_cloud_it_is_in() {
        let machine = Nesting { system: Some("Google Compute Engine".to_owned()), ..machines(true).remove(0) };
        let choice = choose(None, &machine, None);
        assert_eq!(choice.reason, "guests run directly: this machine is itself a VM (Google Compute Engine)");
    }

    #[test]
    fn auto_boots_an_l1_only_on_bare_metal_with_proved_kvm_that_nests() {
        for machine in [machines(true), machines(false)].concat() {
            for proved in PROVED {
                let nests = machine.hardware.as_ref().is_some_and(Hardware::nests);
                let may = !machine.is_virtual && nests && proved == Some(true);
                let kind = choose(None, &machine, proved).kind;
                assert_eq!(kind == RunnerChoice::Qemu, may, "{machine:?}, proved: {proved:?}");
            }
        }
    }

    #[test]
    fn what_was_asked_for_is_chosen_everywhere() {
        for machine in [machines(true), machines(false)].concat() {
            for proved in PROVED {
                for asked in [RunnerChoice::Host, RunnerChoice::Qemu] {
                    let choice = choose(Some(asked), &machine, proved);
                    assert_eq!(choice.kind, asked);
                    assert!(choice.reason.starts_with("it was asked for"), "{choice}");
                }
            }
        }
    }

    #[test]
    fn asking_for_an_l1_tells_what_it_costs_here() {
        let costs =
            |is_virtual, at: usize, proved| choose(Some(RunnerChoice::Qemu), &machines(is_virtual)[at], proved).reason;
        assert_eq!(costs(false, 3, Some(true)), "it was asked for");
        let (deep, slow) = ("three levels deep", "CPU of the L1 is emulated");
        let of = |reason: String| (reason.contains(deep), reason.contains(slow));
        assert_eq!(of(costs(true, 3, Some(true))), (true, false));
        assert_eq!(of(costs(false, 3, Some(false))), (false, true));
        assert_eq!(of(costs(false, 2, Some(true))), (false, true));
        assert_eq!(of(costs(true, 0, None)), (true, true));
    }
}
