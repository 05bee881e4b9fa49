//! What to change so that this machine gets hardware virtualization: it depends on whose machine it is.

use crate::host::{Extension, Nesting, switch_on};

/// What a virtual machine's firmware names it by, and what to change where it was made.
const PLACES: [(&str, &str); 5] = [
    // Google, "About nested virtualization" (restrictions) and "Manage the nested virtualization constraint".
    (
        "Google Compute Engine",
        "on Compute Engine, in this order: the organization policy must not enforce the constraint \
         `constraints/compute.disableNestedVirtualization`; the machine type must be an Intel one, but not E2, A3 or \
         memory-optimized (AMD and Arm types do not nest); the instance must have been created with \
         `--enable-nested-virtualization` (E2 may take it and ignore it). Then `grep -cw vmx /proc/cpuinfo` prints more than 0",
    ),
    // AWS, "Use nested virtualization to run hypervisors in Amazon EC2 instances".
    (
        "Amazon EC2",
        "on EC2: take a type that nests (C8i, M8i or R8i, with nested virtualization enabled in its CPU options) or a \
         bare-metal type (`.metal`)",
    ),
    (
        "Microsoft Corporation Virtual Machine",
        "on Azure: take a size that supports nested virtualization; on Hyper-V, while this machine is off: `Set-VMProcessor \
         -VMName NAME -ExposeVirtualizationExtensions $true`",
    ),
    ("VMware", "on VMware, while this machine is off: `vhv.enable = \"TRUE\"` in its .vmx file"),
    ("VirtualBox", "on VirtualBox, while this machine is off: `VBoxManage modifyvm NAME --nested-hw-virt on`"),
];
/// Where none of them is named. Linux, "Running nested guests with KVM".
const ELSEWHERE: &str = "nested virtualization must be switched on below this virtual machine: in a cloud, take an instance type \
                         that has it and create the instance with it; on KVM, load its module with `nested=1` and give this \
                         machine the CPU model `host` (libvirt: `host-passthrough`)";
const BARE_METAL: &str = "switch virtualization on in the firmware (Intel: VT-x or Virtualization Technology; AMD: SVM Mode), then start again";

/// The CPU shows no virtualization.
pub(super) fn no_hardware(nesting: &Nesting) -> &'static str {
    if !nesting.is_virtual {
        return BARE_METAL;
    }
    let system = nesting.system.as_deref().unwrap_or_default();
    PLACES.iter().find(|(name, _)| system.contains(name)).map_or(ELSEWHERE, |(_, remedy)| remedy)
}

/// KVM works, but its guests get no virtualization. Linux, "Running nested guests with KVM".
pub(super) fn nesting_off(extension: Extension) -> String {
    let module = extension.module();
    format!(
        "end all virtual machines, then `{}`; to keep it over a restart: `echo 'options {module} nested=1' | sudo tee \
         /etc/modprobe.d/{module}-nested.conf`",
        switch_on(extension)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::KvmDevice;

    fn remedy(is_virtual: bool, system: Option<&str>) -> &'static str {
        let system = system.map(str::to_owned);
        no_hardware(&Nesting { hardware: None, device: KvmDevice::Missing, modules: vec![], is_virtual, system })
    }

    #[test]
    fn the_place_decides_what_to_change() {
        let begins = |system, beginning: &str| assert!(remedy(true, Some(system)).starts_with(beginning), "{system}");
        begins("Google Compute Engine", "on Compute Engine");
        begins("Amazon EC2 m5.large", "on EC2");
        begins("Microsoft Corporation Virtual Machine", "on Azure");
        begins("VMware, Inc. VMware20,1", "on VMware");
        begins("innotek GmbH VirtualBox", "on VirtualBox");
        begins("QEMU Standard PC (Q35 + ICH9, 2009)", "nested virtualization must be switched on below");
        assert_eq!(remedy(true, None), ELSEWHERE);
    }

    #[test]
    fn bare_metal_is_changed_in_its_firmware_for_any_vendor() {
        for system in [None, Some("Dell Inc. PowerEdge R640"), Some("Microsoft Corporation Virtual Machine")] {
            assert_eq!(remedy(false, system), BARE_METAL);
        }
    }
}
