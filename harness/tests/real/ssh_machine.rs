//! Guests on a virtual machine that one logs in to: what a private SSH server on this machine cannot show, a disk of its own that fills up and
//! KVM of its own.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nestmatrix::ssh::Keys;

use crate::{
    lab::{Finished, Lab},
    store,
};

/// What makes the machine ready: KVM, and a disk for the cache.
const SET_UP: &str = "set -e; modprobe kvm_amd; disk=/dev/$(grep -l cache /sys/class/block/*/serial | cut -d/ -f5); mkfs.ext4 -q $disk; \
                      mkdir -p /root/.cache; mount $disk /root/.cache";

const TWO: &str = "
images = ['debian-12-minimal']
[[suite]]
name = 'passes'
inline = 'test \"$(systemd-detect-virt)\" = kvm'
[[suite]]
name = 'fails'
inline = 'exit 3'
";

/// An image of the catalog, booted with an SSH server that the lab's user knows.
struct Machine {
    qemu: Child,
    port: u16,
    folder: PathBuf,
}

impl Machine {
    fn boot(lab: &Lab, image: &str) -> Self {
        let path = lab.nestmatrix().args(["images", "path", image]).output().unwrap();
        let disk = PathBuf::from(String::from_utf8(path.stdout).unwrap().trim());
        let stored = disk.parent().unwrap();
        let folder = lab.path(image);
        fs::create_dir_all(&folder).unwrap();
        let (login, host) = (Keys::generate("login").unwrap(), Keys::generate("host").unwrap());
        login.write_private(&folder, ["id_ecdsa", "id_ed25519"]).unwrap();
        host.write_private(&folder, ["host_ecdsa", "host_ed25519"]).unwrap();
        fs::write(folder.join("authorized_keys"), login.public().join("\n") + "\n").unwrap();
        fs::write(folder.join("hostname"), "lab").unwrap();
        let overlay = folder.join("root.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(&disk)
            .arg(&overlay)
            .status();
        assert!(made.unwrap().success());
        fs::File::create(folder.join("cache.raw")).unwrap().set_len(16 << 30).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(folder.join("known_hosts"), host.known_hosts(port)).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "UserKnownHostsFile {}\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\n",
            at("known_hosts"),
            at("id_ed25519")
        );
        fs::write(at("config"), config).unwrap();
        fs::write(at("ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n", at("config"))).unwrap();
        fs::set_permissions(at("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,accel=tcg,hpet=off"]);
        qemu.args(["-cpu", "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm,+nx", "-m", "3072"]);
        qemu.arg("-kernel").arg(stored.join("vmlinuz")).arg("-initrd").arg(stored.join("initrd.img"));
        let words = "no_timer_check root=/dev/vda rw console=ttyS0,115200 net.ifnames=0 panic=-1 rootfstype=ext4 quiet";
        qemu.args(["-append", words, "-serial", &format!("file:{}", at("console.log"))]);
        for (id, format) in [("root", "qcow2"), ("cache", "raw")] {
            qemu.args(["-drive", &format!("if=none,id={id},format={format},cache=unsafe,file={}.{format}", at(id))]);
            qemu.args(["-device", &format!("virtio-blk-pci,drive={id},serial={id}")]);
        }
        qemu.args(["-netdev", &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22")]);
        qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        qemu.args(["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"]);
        for (item, file) in [
            ("authorized_keys", "authorized_keys"),
            ("ssh_host_ecdsa_key", "host_ecdsa"),
            ("ssh_host_ed25519_key", "host_ed25519"),
            ("hostname", "hostname"),
        ] {
            qemu.args(["-fw_cfg", &format!("name=opt/nestmatrix/{item},file={}", at(file))]);
        }
        let machine = Self { qemu: qemu.stdin(Stdio::null()).spawn().unwrap(), port, folder };
        let began = Instant::now();
        // Its SSH server takes connections when it is up; until then QEMU takes them and closes them.
        while !machine.shell("true").status.success() {
            assert!(began.elapsed() < Duration::from_secs(300), "{image} did not come up");
        }
        machine
    }

    fn shell(&self, script: &str) -> Output {
        let port = self.port.to_string();
        let options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", &port, "root@127.0.0.1", script];
        Command::new(self.folder.join("ssh")).args(options).output().unwrap()
    }

    #[track_caller]
    fn does(&self, script: &str) -> String {
        let output = self.shell(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, lab: &Lab, matrix: &str, out: &str) -> Finished {
        let file = lab.write(&format!("{out}.toml"), matrix);
        let path = format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap());
        let runner = format!("ssh:root@127.0.0.1:{}", self.port);
        let mut command = lab.nestmatrix();
        let command = command.env("PATH", path).arg("run").arg(file).args(["--runner", &runner, "--out"]);
        lab.finish(command.arg(lab.path(out)).spawn().unwrap(), out)
    }

    #[track_caller]
    fn has_nothing_left(&self) {
        let left = self
            .does("ls -d /root/.cache/nestmatrix/runner/store/scratch/*/ 2>/dev/null; pgrep -x qemu-system-x86 || :");
        assert_eq!(left, "", "left there");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = fs::remove_file(self.folder.join("cache.raw"));
        let _ = fs::remove_file(self.folder.join("root.qcow2"));
    }
}

#[test]
#[ignore = "takes ten minutes where the machine's CPU is emulated"]
fn a_virtual_machine_runs_guests_of_its_own_forks_them_the_second_time_and_may_be_full() {
    store::the_rest();
    let lab = Lab::warm();
    let machine = Machine::boot(&lab, "debian-13-runner");
    machine.does(SET_UP);
    for (out, uploads) in [("first", true), ("second", false)] {
        let run = machine.run(&lab, TWO, out);
        run.assert_code(1);
        assert_eq!(run.verdict("debian-12-minimal.passes"), "passed", "{}", run.stderr);
        assert_eq!(run.verdict("debian-12-minimal.fails"), "failed(test)", "{}", run.stderr);
        assert_eq!(run.file("events.jsonl").contains("uploading"), uploads, "{}", run.stderr);
        let record = run.json();
        let facts = &record["runners"][0]["facts"];
        assert_eq!((&facts["kind"], &facts["accelerator"], &facts["depth"]), (&"ssh".into(), &"kvm".into(), &2.into()));
        machine.has_nothing_left();
    }
    // Room for the run's folder, and for no image.
    let images = "/root/.cache/nestmatrix/runner/images";
    machine.does(&format!(
        "rm -rf {images}; fallocate -l $(($(df --output=avail -B1 /root/.cache | tail -n 1) - 300000000)) /root/.cache/full"
    ));
    let run = machine.run(&lab, TWO, "full");
    run.assert_code(3);
    assert_eq!(run.verdict("debian-12-minimal.passes"), "error(runner)", "{}", run.stderr);
    assert!(run.stderr.contains("disk full") && run.stderr.contains("make room"), "{}", run.stderr);
    machine.has_nothing_left();
    machine.does("rm /root/.cache/full");
    for (out, change, words, back) in [
        ("noexec", "mount -o remount,noexec /root/.cache", "mounted noexec", "mount -o remount,exec /root/.cache"),
        (
            "qemu",
            "mv /usr/bin/qemu-system-x86_64 /root",
            "no `qemu-system-x86_64`",
            "mv /root/qemu-system-x86_64 /usr/bin",
        ),
    ] {
        machine.does(change);
        let run = machine.run(&lab, TWO, out);
        run.assert_code(3);
        assert_eq!(run.verdict("debian-12-minimal.passes"), "error(runner)", "{}", run.stderr);
        assert!(run.stderr.contains(words), "{}", run.stderr);
        machine.does(back);
        machine.has_nothing_left();
    }
    drop(machine);
    lab.assert_nothing_left();
}
