//! Where the payload goes, in "guests" some of whose folders do not let programs run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use super::upload::{NO_TAR, NOEXEC, UNPACK};

/// A guest with some folders in its root, of which those in `noexec` are mounted so.
struct Guest {
    root: tempfile::TempDir,
    noexec: &'static str,
    tar: bool,
}

impl Guest {
    fn new(noexec: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["bin", "var/tmp", "var/lib", "opt", "root", "usr/local", "run"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Self { root, noexec, tar: true }
    }

    /// How the script ends, whose payload is one program.
    fn unpack(&self, what: &str) -> i32 {
        let (root, bin) = (self.root.path().display(), self.root.path().join("bin"));
        for tool in ["rm", "mkdir", "ln", "readlink", "tar", "sh"] {
            let _ = std::os::unix::fs::symlink(Path::new("/bin").join(tool), bin.join(tool));
        }
        // Without the right to be run, a program cannot be run by root either: the same as on such a mount.
        let chmod = format!(
            "#!/bin/sh\nfor d in {}; do case $2 in {root}$d/*) exit; esac; done\nexec /bin/chmod \"$@\"\n",
            self.noexec
        );
        fs::write(bin.join("chmod"), chmod).unwrap();
        fs::set_permissions(bin.join("chmod"), fs::Permissions::from_mode(0o755)).unwrap();
        if !self.tar {
            fs::remove_file(bin.join("tar")).unwrap();
        }
        let mut script = UNPACK.replace("/var/tmp/nestmatrix", &format!("{root}/var/tmp/nestmatrix"));
        for folder in ["/var/lib", "/opt", "/usr/local", "/run"] {
            script = script.replace(&format!(" {folder} "), &format!(" {root}{folder} "));
        }
        let script = script.replace("/run \"\"", &format!("/run {root}"));
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(17);
        tar.append_data(&mut header, "tool", &b"#!/bin/sh\nexit 9\n"[..]).unwrap();
        fs::write(self.root.path().join("tar"), tar.into_inner().unwrap()).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &script, "sh", what])
            .env_clear()
            .env("PATH", &bin)
            .env("HOME", self.root.path().join("root"));
        let status = shell.stdin(fs::File::open(self.root.path().join("tar")).unwrap()).status().unwrap();
        status.code().unwrap()
    }

    /// Where the payload really is, below the root.
    fn place(&self) -> String {
        let place = fs::canonicalize(self.root.path().join("var/tmp/nestmatrix")).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(place.join("tool").exists());
        place.strip_prefix(fs::canonicalize(self.root.path()).unwrap()).unwrap().display().to_string()
    }

    /// Every folder of that name.
    fn all(&self) -> usize {
        let folders = ["", "var/lib", "opt", "root", "usr/local", "run"];
        folders.iter().filter(|folder| self.root.path().join(folder).join("nestmatrix-payload").exists()).count()
    }
}

#[test]
fn the_payload_lies_where_programs_can_be_run_and_is_found_where_it_always_is() {
    assert_eq!((Guest::new("").unpack("programs"), Guest::new("").unpack("")), (0, 0));
    for (noexec, place) in [
        ("/none", "var/tmp/nestmatrix"),
        ("/var/tmp", "var/lib/nestmatrix-payload"),
        ("/var", "root/nestmatrix-payload"),
        ("/var /root", "opt/nestmatrix-payload"),
        ("/var /root /opt /usr", "run/nestmatrix-payload"),
        ("/var /root /opt /usr /run", "nestmatrix-payload"),
    ] {
        let guest = Guest::new(noexec);
        // The second upload of a guest finds what the first one left.
        for _ in 0..2 {
            assert_eq!(guest.unpack("programs"), 0, "{noexec}");
            assert_eq!(guest.place(), place, "{noexec}");
        }
        assert_eq!(guest.all(), usize::from(noexec != "/none"), "{noexec}");
    }
}

#[test]
fn a_guest_in_which_no_program_can_be_run_takes_a_payload_without_programs() {
    let guest = Guest::new("''");
    assert_eq!(guest.unpack("programs"), NOEXEC);
    assert_eq!(guest.unpack(""), 0);
    assert_eq!((guest.place().as_str(), guest.all()), ("var/tmp/nestmatrix", 0));
}

#[test]
fn a_guest_without_tar_says_so_when_the_folder_is_there() {
    let guest = Guest { tar: false, ..Guest::new("/var/tmp") };
    assert_eq!(guest.unpack(""), NO_TAR);
    assert!(guest.root.path().join("var/tmp/nestmatrix/").is_dir());
}
