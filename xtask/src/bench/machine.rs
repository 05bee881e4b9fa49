//! The machine that nestmatrix boots, changed so that it stands alone: its disk, its keys and its port are the script's own,
//! and nobody speaks QMP to it. Everything else, so everything that costs time in the guest, stays.

use std::path::{Path, PathBuf};

/// A command line of QEMU and what the script must know about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// The program and its arguments.
    pub(super) qemu: Vec<String>,
    /// The folder in the store that holds the image: the kernel lies beside the disk.
    pub(super) image: PathBuf,
}

/// What is replaced in nestmatrix's command line: one disk, one network, four firmware items.
const REPLACED: usize = 6;

/// `args`: a program and its arguments, one per line, as a run leaves them in `qemu.args`. The script keeps `disk.qcow2` and
/// the seeds in `work`. `None`: the command line is not of the expected shape.
pub(super) fn standing_alone(args: &str, work: &Path, port: u16) -> Option<Machine> {
    let work = |name: &str| work.join(name).display().to_string();
    let (mut image, mut replaced) = (None, 0);
    let mut words = args.lines().peekable();
    let mut qemu = vec![words.next()?.to_owned()];
    while let Some(flag) = words.next() {
        let Some(value) = words.next_if(|word| !word.starts_with('-')) else {
            qemu.push(flag.to_owned());
            continue;
        };
        let new = match (flag, value) {
            ("-mon", _) => continue,
            ("-chardev", value) if value.starts_with("socket,id=qmp") => continue,
            ("-drive", value) => {
                let (before, rest) = value.split_once("file=")?;
                format!("{before}file={},format={}", work("disk.qcow2"), rest.split_once(",format=")?.1)
            }
            ("-fw_cfg", value) => {
                let before = value.split_once("file=")?.0;
                let name = before.trim_end_matches(',').rsplit('/').next()?;
                format!("{before}file={}", work(name))
            }
            ("-netdev", value) => value.replace("tcp:127.0.0.1:0-", &format!("tcp:127.0.0.1:{port}-")),
            ("-kernel", value) => {
                image = Path::new(value).parent();
                value.to_owned()
            }
            (_, value) => value.to_owned(),
        };
        replaced += usize::from(new != value);
        qemu.push(flag.to_owned());
        qemu.push(new);
    }
    (replaced == REPLACED).then_some(Machine { qemu, image: image?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: &str = "/usr/bin/qemu-system-x86_64
-nodefaults
-no-user-config
-m
512
-kernel
/store/images/1/vmlinuz
-drive
if=none,id=root,file=/scratch/a,,b/disk.qcow2,format=qcow2,cache=unsafe
-netdev
user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22
-chardev
stdio,id=console,signal=off
-chardev
socket,id=qmp,fd=7
-mon
chardev=qmp,mode=control
-fw_cfg
name=opt/nestmatrix/authorized_keys,file=/scratch/authorized_keys
-fw_cfg
name=opt/nestmatrix/ssh_host_ecdsa_key,file=/scratch/ssh_host_ecdsa_key
-fw_cfg
name=opt/nestmatrix/ssh_host_ed25519_key,file=/scratch/ssh_host_ed25519_key
-fw_cfg
name=opt/nestmatrix/hostname,file=/scratch/hostname
";

    #[test]
    fn the_script_boots_the_same_machine_with_a_disk_keys_and_a_port_of_its_own() {
        let machine = standing_alone(ARGS, Path::new("/work"), 2222).expect("the shape is the expected one");
        assert_eq!(machine.image, Path::new("/store/images/1"));
        assert_eq!(
            machine.qemu.join(" "),
            "/usr/bin/qemu-system-x86_64 -nodefaults -no-user-config -m 512 -kernel /store/images/1/vmlinuz \
             -drive if=none,id=root,file=/work/disk.qcow2,format=qcow2,cache=unsafe \
             -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22 -chardev stdio,id=console,signal=off \
             -fw_cfg name=opt/nestmatrix/authorized_keys,file=/work/authorized_keys \
             -fw_cfg name=opt/nestmatrix/ssh_host_ecdsa_key,file=/work/ssh_host_ecdsa_key \
             -fw_cfg name=opt/nestmatrix/ssh_host_ed25519_key,file=/work/ssh_host_ed25519_key \
             -fw_cfg name=opt/nestmatrix/hostname,file=/work/hostname"
        );
    }

    #[test]
    fn a_command_line_of_another_shape_is_refused_and_not_half_changed() {
        for args in ["", "qemu-system-x86_64\n-m\n512\n", &ARGS.replace("127.0.0.1:0-", "127.0.0.1:5555-")] {
            assert_eq!(standing_alone(args, Path::new("/work"), 2222), None, "{args}");
        }
    }
}
