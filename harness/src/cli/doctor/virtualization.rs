//! Can guests have hardware virtualization, can they have guests of their own, and what does `auto` make of it.
//!
//! The order is that in which Google's pages lead to a first nested VM, so that the first warning is the one to mend: may it
//! be and is the machine of a kind that can ("Manage the nested virtualization constraint"; restrictions in "About nested
//! virtualization"), does the CPU show it ("Enabling Nested Virtualization for VM Instances": `grep -cw vmx /proc/cpuinfo` is not
//! 0), and only then KVM. The first two cannot be seen from inside a machine: they are the remedy of the third. Where
//! Google's pages end, Linux's "Running nested guests with KVM" goes on with the parameter `nested`.

use super::{
    facts::{Accelerated, L1_IMAGE, Virtualization},
    finding::{Finding, State},
    remedy,
};
use crate::{
    guest::Accelerator,
    host::{Hardware, KvmDevice, Nesting, RunnerChoice, choose},
};

/// KVM without hardware virtualization (pagetable-based): it runs no stock kernel, only such as are built for it, and until then
/// its `/dev/kvm` looks like any other. README of cocoonstack/pvm, which packages virt-pvm/linux.
const PVM: &str = "kvm_pvm";

pub(super) fn findings(found: &Virtualization) -> Vec<Finding> {
    let Virtualization { nesting, accelerator, l1_image } = found;
    let choice = choose(None, nesting, accelerator.kvm());
    vec![
        flags(nesting),
        kvm(nesting),
        proof(accelerator),
        nested(nesting),
        machine(nesting),
        Finding::new("runner", State::Good, format!("`auto` chooses {choice}")),
        l1(l1_image.as_deref(), choice.kind),
    ]
}

fn flags(nesting: &Nesting) -> Finding {
    match &nesting.hardware {
        Some(Hardware { extension, .. }) => {
            Finding::new("CPU flags", State::Good, format!("{} ({})", extension.flag(), extension.name()))
        }
        None => Finding::new("CPU flags", State::Weak, "neither vmx nor svm: no hardware virtualization")
            .with_remedy(remedy::no_hardware(nesting)),
    }
}

fn kvm(nesting: &Nesting) -> Finding {
    let modules = match nesting.modules.as_slice() {
        [] => "no module of KVM".to_owned(),
        names => format!("modules {}", names.join(", ")),
    };
    let finding = |state, words: &str| Finding::new("KVM", state, format!("{words}; {modules}"));
    match (&nesting.device, &nesting.hardware) {
        (KvmDevice::Opens, Some(_)) => finding(State::Good, "/dev/kvm opens"),
        (KvmDevice::Opens, None) if nesting.modules.iter().any(|module| module == PVM) => {
            finding(State::Weak, "/dev/kvm opens, but is that of kvm_pvm, which runs only kernels built for it")
        }
        (KvmDevice::Opens, None) => {
            finding(State::Weak, "/dev/kvm opens, which without hardware virtualization means little")
        }
        // Nothing that could be done about it would help.
        (KvmDevice::Missing, None) => finding(State::Plain, "there is no /dev/kvm"),
        (KvmDevice::Missing, Some(hardware)) => {
            let module = hardware.extension.module();
            let remedy = if nesting.modules.iter().any(|loaded| loaded == module) {
                "its module is loaded, so this may be a container: start it with `--device /dev/kvm`".to_owned()
            } else {
                format!(
                    "`sudo modprobe {module}`; if it says that the operation is not supported, virtualization is off in the \
                     firmware (`sudo dmesg | grep kvm` tells)"
                )
            };
            finding(State::Weak, "there is no /dev/kvm").with_remedy(remedy)
        }
        (KvmDevice::Denied, _) => finding(State::Weak, "/dev/kvm may not be opened by this user")
            .with_remedy("`sudo usermod -aG kvm $USER`, then log in again"),
        (KvmDevice::Fails(error), _) => finding(State::Weak, &format!("/dev/kvm cannot be opened: {error}")),
    }
}

fn proof(accelerator: &Accelerated) -> Finding {
    let what = "accelerator";
    match accelerator {
        Accelerated::NoQemu => Finding::new(what, State::Bad, "unknown without QEMU"),
        Accelerated::NoImage => {
            Finding::new(what, State::Weak, "not proved yet: there is no image in the store to boot").with_remedy(
                "`nestmatrix images prepare debian-12-minimal` makes one; the first run proves it by itself",
            )
        }
        Accelerated::Proved { accelerator, speed, reason } => {
            let state = if *accelerator == Accelerator::Tcg { State::Weak } else { State::Good };
            Finding::new(what, state, format!("{accelerator} (time limits x {speed}): {reason}"))
        }
        Accelerated::Failed(error) => Finding::new(what, State::Bad, error),
    }
}

fn nested(nesting: &Nesting) -> Finding {
    let finding = |state, words: String| Finding::new("nested", state, words);
    let Some(hardware) = &nesting.hardware else {
        return finding(State::Plain, "nothing to pass on to guests".to_owned());
    };
    let module = hardware.extension.module();
    match &hardware.nested {
        None => finding(State::Plain, format!("unknown: {module} is not loaded")),
        Some(value) if hardware.nests() => {
            finding(State::Good, format!("{module} nested={value}: guests can have guests of their own"))
        }
        Some(value) if nesting.is_virtual => {
            finding(State::Plain, format!("{module} nested={value}: guests cannot have guests, and need none here"))
        }
        Some(value) => finding(State::Weak, format!("{module} nested={value}: guests cannot have guests of their own"))
            .with_remedy(remedy::nesting_off(hardware.extension)),
    }
}

fn machine(nesting: &Nesting) -> Finding {
    let kind = if nesting.is_virtual { "a virtual machine" } else { "bare metal" };
    let words = match &nesting.system {
        Some(system) => format!("{kind}: {system}"),
        None => kind.to_owned(),
    };
    Finding::new("machine", State::Plain, words)
}

fn l1(present: Option<&str>, choice: RunnerChoice) -> Finding {
    let builds = format!("`nestmatrix images prepare {L1_IMAGE}` builds it");
    let finding = |state, words: String| Finding::new("L1 image", state, format!("{L1_IMAGE} {words}"));
    match (present, choice) {
        (Some(present), _) => finding(State::Good, format!("is in the store ({present})")),
        (None, RunnerChoice::Qemu) => finding(State::Weak, "is not in the store".to_owned()).with_remedy(builds),
        (None, RunnerChoice::Host) => {
            finding(State::Plain, format!("is not in the store; only the runner `qemu` needs it ({builds})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::render, *};
    use crate::host::Extension;

    /// Bare metal where all is well.
    fn bare_metal(extension: Extension, nested: &str) -> Virtualization {
        Virtualization {
            nesting: Nesting {
                hardware: Some(Hardware { extension, nested: Some(nested.to_owned()) }),
                device: KvmDevice::Opens,
                modules: vec!["kvm".to_owned(), extension.module().to_owned()],
                is_virtual: false,
                system: Some("Dell Inc. PowerEdge R640".to_owned()),
            },
            accelerator: Accelerated::Proved {
                accelerator: Accelerator::Kvm,
                speed: 1.0,
                reason: "a guest ran under it with 0.9 s of CPU time".to_owned(),
            },
            l1_image: None,
        }
    }

    fn emulated(why: &str) -> Accelerated {
        let reason = format!("KVM is unusable here, using slower emulation: {why}");
        Accelerated::Proved { accelerator: Accelerator::Tcg, speed: 7.5, reason }
    }

    /// A virtual machine without hardware virtualization.
    fn virtual_machine(system: Option<&str>) -> Virtualization {
        let mut found = bare_metal(Extension::Vmx, "Y");
        found.accelerator = emulated("/dev/kvm does not exist");
        found.nesting = Nesting {
            hardware: None,
            device: KvmDevice::Missing,
            modules: vec![],
            is_virtual: true,
            system: system.map(str::to_owned),
        };
        found
    }

    fn text(found: &Virtualization) -> String {
        render(&findings(found))
    }

    #[test]
    fn a_virtual_machine_whose_dev_kvm_lies() {
        let mut found = virtual_machine(None);
        found.nesting.device = KvmDevice::Opens;
        found.nesting.modules = vec!["kvm".to_owned(), PVM.to_owned()];
        found.accelerator = emulated("a stock kernel booted with it hangs: nothing after 30 s");
        insta::assert_snapshot!(text(&found), @"
         warning  CPU flags    neither vmx nor svm: no hardware virtualization
         warning  KVM          /dev/kvm opens, but is that of kvm_pvm, which runs only kernels built for it; modules kvm, kvm_pvm
         warning  accelerator  tcg (time limits x 7.5): KVM is unusable here, using slower emulation: a stock kernel booted with it hangs: nothing after 30 s
         -        nested       nothing to pass on to guests
         -        machine      a virtual machine
         ok       runner       `auto` chooses `host`: guests run directly: this machine is itself a VM
         -        L1 image     debian-13-runner is not in the store; only the runner `qemu` needs it (`nestmatrix images prepare debian-13-runner` builds it)

        CPU flags: nested virtualization must be switched on below this virtual machine: in a cloud, take an instance type that has it and create the instance with it; on KVM, load its module with `nested=1` and give this machine the CPU model `host` (libvirt: `host-passthrough`)
        ");
    }

    #[test]
    fn a_compute_engine_instance_made_without_nested_virtualization() {
        insta::assert_snapshot!(text(&virtual_machine(Some("Google Compute Engine"))), @"
         warning  CPU flags    neither vmx nor svm: no hardware virtualization
         -        KVM          there is no /dev/kvm; no module of KVM
         warning  accelerator  tcg (time limits x 7.5): KVM is unusable here, using slower emulation: /dev/kvm does not exist
         -        nested       nothing to pass on to guests
         -        machine      a virtual machine: Google Compute Engine
         ok       runner       `auto` chooses `host`: guests run directly: this machine is itself a VM (Google Compute Engine)
         -        L1 image     debian-13-runner is not in the store; only the runner `qemu` needs it (`nestmatrix images prepare debian-13-runner` builds it)

        CPU flags: on Compute Engine, in this order: the organization policy must not enforce the constraint `constraints/compute.disableNestedVirtualization`; the machine type must be an Intel one, but not E2, A3 or memory-optimized (AMD and Arm types do not nest); the instance must have been created with `--enable-nested-virtualization` (E2 may take it and ignore it). Then `grep -cw vmx /proc/cpuinfo` prints more than 0
        ");
    }

    #[test]
    fn a_compute_engine_instance_that_can_be_the_l1() {
        let mut found = bare_metal(Extension::Vmx, "N");
        found.nesting.is_virtual = true;
        found.nesting.system = Some("Google Compute Engine".to_owned());
        insta::assert_snapshot!(text(&found), @"
        ok  CPU flags    vmx (Intel VT-x)
        ok  KVM          /dev/kvm opens; modules kvm, kvm_intel
        ok  accelerator  kvm (time limits x 1): a guest ran under it with 0.9 s of CPU time
        -   nested       kvm_intel nested=N: guests cannot have guests, and need none here
        -   machine      a virtual machine: Google Compute Engine
        ok  runner       `auto` chooses `host`: guests run directly: this machine is itself a VM (Google Compute Engine)
        -   L1 image     debian-13-runner is not in the store; only the runner `qemu` needs it (`nestmatrix images prepare debian-13-runner` builds it)
        ");
    }

    #[test]
    fn bare_metal_by_intel_that_nests() {
        let mut found = bare_metal(Extension::Vmx, "Y");
        found.l1_image = Some("fe5301aad249, built 2026-11-24".to_owned());
        insta::assert_snapshot!(text(&found), @"
        ok  CPU flags    vmx (Intel VT-x)
        ok  KVM          /dev/kvm opens; modules kvm, kvm_intel
        ok  accelerator  kvm (time limits x 1): a guest ran under it with 0.9 s of CPU time
        ok  nested       kvm_intel nested=Y: guests can have guests of their own
        -   machine      bare metal: Dell Inc. PowerEdge R640
        ok  runner       `auto` chooses `qemu`: KVM works here and nests (kvm_intel nested=Y): one L1 is booted
        ok  L1 image     debian-13-runner is in the store (fe5301aad249, built 2026-11-24)
        ");
    }

    #[test]
    fn bare_metal_that_nests_needs_the_image_of_the_l1() {
        let lines = text(&bare_metal(Extension::Svm, "1"));
        assert!(lines.contains("warning  L1 image"), "{lines}");
        assert!(lines.contains("\nL1 image: `nestmatrix images prepare debian-13-runner` builds it"), "{lines}");
    }

    #[test]
    fn bare_metal_by_amd_with_nesting_switched_off() {
        insta::assert_snapshot!(text(&bare_metal(Extension::Svm, "0")), @"
         ok       CPU flags    svm (AMD-V)
         ok       KVM          /dev/kvm opens; modules kvm, kvm_amd
         ok       accelerator  kvm (time limits x 1): a guest ran under it with 0.9 s of CPU time
         warning  nested       kvm_amd nested=0: guests cannot have guests of their own
         -        machine      bare metal: Dell Inc. PowerEdge R640
         ok       runner       `auto` chooses `host`: KVM works here, but nesting is switched off (kvm_amd nested=0): guests run directly; to change that: `sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1`
         -        L1 image     debian-13-runner is not in the store; only the runner `qemu` needs it (`nestmatrix images prepare debian-13-runner` builds it)

        nested: end all virtual machines, then `sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1`; to keep it over a restart: `echo 'options kvm_amd nested=1' | sudo tee /etc/modprobe.d/kvm_amd-nested.conf`
        ");
    }

    #[test]
    fn bare_metal_without_dev_kvm() {
        let mut found = bare_metal(Extension::Vmx, "Y");
        found.nesting.hardware = Some(Hardware { extension: Extension::Vmx, nested: None });
        found.nesting.device = KvmDevice::Missing;
        found.nesting.modules = vec![];
        found.accelerator = Accelerated::NoImage;
        insta::assert_snapshot!(text(&found), @"
         ok       CPU flags    vmx (Intel VT-x)
         warning  KVM          there is no /dev/kvm; no module of KVM
         warning  accelerator  not proved yet: there is no image in the store to boot
         -        nested       unknown: kvm_intel is not loaded
         -        machine      bare metal: Dell Inc. PowerEdge R640
         ok       runner       `auto` chooses `host`: no guest has run under KVM here yet: until one has, guests run directly
         -        L1 image     debian-13-runner is not in the store; only the runner `qemu` needs it (`nestmatrix images prepare debian-13-runner` builds it)

        KVM: `sudo modprobe kvm_intel`; if it says that the operation is not supported, virtualization is off in the firmware (`sudo dmesg | grep kvm` tells)

        accelerator: `nestmatrix images prepare debian-12-minimal` makes one; the first run proves it by itself
        ");
    }

    #[test]
    fn bare_metal_with_virtualization_off_in_its_firmware() {
        let mut found = virtual_machine(None);
        found.nesting.is_virtual = false;
        let lines = text(&found);
        assert!(lines.contains("\nCPU flags: switch virtualization on in the firmware"), "{lines}");
    }

    #[test]
    fn a_module_that_is_loaded_is_not_to_be_loaded_again() {
        let mut found = bare_metal(Extension::Svm, "1");
        found.nesting.device = KvmDevice::Missing;
        let remedy = kvm(&found.nesting).remedy.unwrap();
        assert!(remedy.contains("--device /dev/kvm") && !remedy.contains("modprobe"), "{remedy}");
    }

    #[test]
    fn who_may_not_open_the_device_is_told_the_group() {
        let mut found = bare_metal(Extension::Vmx, "Y");
        found.nesting.device = KvmDevice::Denied;
        assert!(kvm(&found.nesting).remedy.unwrap().contains("usermod -aG kvm"));
    }

    #[test]
    fn without_a_working_accelerator_the_machine_is_unfit() {
        for accelerator in [Accelerated::NoQemu, Accelerated::Failed("nothing works".to_owned())] {
            assert!(proof(&accelerator).state == State::Bad);
        }
    }
}
