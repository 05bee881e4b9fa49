//! Sources of a matrix's own images, and the messages for unclear ones.

use insta::assert_snapshot;
use matrix::{Arch, Firmware, ImageSource, Location};

use crate::folder::Folder;

const SUITE: &str = "[[suite]]\nname = 's'\ninline = 'true'\n";

fn folder(images: &str) -> Folder {
    Folder::with(&format!("{SUITE}{images}")).file("disk.raw", "x").file("root.tar.gz", "x")
}

#[test]
fn an_image_comes_from_an_address_a_file_or_a_tarball() {
    let digest = "ab".repeat(32);
    let images = format!(
        "[[image]]\nname = 'a'\nurl = ['https://one.example/d.qcow2', 'http://two.example/d.qcow2']\ndigest = 'sha256:{digest}'\n\
         firmware = 'uefi'\nlogin = 'fedora'\nfamily = 'rpm'\narch = 'aarch64'\n\
         [[image]]\nname = 'b'\npath = 'disk.raw'\n\
         [[image]]\nname = 'c'\nrootfs = 'root.tar.gz'\nkernel_args = 'quiet'\n\
         [[image]]\nname = 'd'\nrootfs = 'https://one.example/root.tar.xz'\ndigest = 'sha256:{digest}'\n"
    );
    let folder = folder(&images);
    let plan = folder.load().plan;
    let source = |index: usize| &plan.images[index].source;
    let ImageSource::Disk { location: Location::Urls(urls), digest: Some(stated), arch, firmware, login_user, .. } =
        source(0)
    else {
        panic!("{:?}", source(0))
    };
    assert_eq!((urls.len(), stated.hex(), *arch), (2, digest, Arch::Aarch64));
    assert_eq!((*firmware, login_user.as_str()), (Some(Firmware::Uefi), "fedora"));
    let ImageSource::Disk { location: Location::Path(path), digest: None, arch, firmware: None, login_user, .. } =
        source(1)
    else {
        panic!("{:?}", source(1))
    };
    assert_eq!((path, *arch, login_user.as_str()), (&folder.path("disk.raw"), Arch::here(), "root"));
    assert!(matches!(source(2), ImageSource::Rootfs { location: Location::Path(_), .. }), "{:?}", source(2));
    assert!(matches!(source(3), ImageSource::Rootfs { location: Location::Urls(_), .. }), "{:?}", source(3));
    assert_eq!(plan.images[1].from, "b");
}

#[test]
fn where_its_file_lies_on_this_machine_decides_no_plan_but_its_digest_does() {
    let plan = |digest: &str| folder(&format!("[[image]]\nname = 'b'\npath = 'disk.raw'\n{digest}")).load().plan.digest;
    assert_eq!(plan(""), plan(""), "in two folders");
    assert_ne!(plan(""), plan(&format!("digest = 'sha256:{}'\n", "ab".repeat(32))));
}

#[test]
fn what_cannot_be_a_source_is_a_mistake_with_its_place() {
    let images = "\
[[image]]
name = 'two'
path = 'disk.raw'
url = 'https://one.example/d'
[[image]]
name = 'unpinned'
url = 'https://one.example/d'
[[image]]
name = 'odd'
path = 'disk.raw'
digest = 'md5:00'
[[image]]
name = 'ftp'
url = 'ftp://one.example/d'
digest = 'sha256:00'
[[image]]
name = 'absent'
path = 'nothing.raw'
[[image]]
name = 'debian-12-minimal'
path = 'disk.raw'
[[image]]
name = 'arm'
path = 'disk.raw'
arch = 'aarch64'
firmware = 'bios'
[[image]]
name = 'words'
path = 'disk.raw'
kernel_args = 'quiet'
[[image]]
name = 'tree'
rootfs = 'root.tar.gz'
firmware = 'uefi'
[[image]]
name = 'who'
path = 'disk.raw'
login = 'Root User'
[[image]]
name = 'known'
from = 'debian-13-minimal'
digest = 'sha256:00'
";
    let folder = folder(images);
    assert_snapshot!(folder.plain(), @r#"
    m.toml:6: the image `two` comes from two places: `url` and `path`
    m.toml:10: the download has no digest, so it cannot be verified
    m.toml:14: `md5:00` is not a digest: expected `sha256:` and 64 hex digits, or `sha512:` and 128
    m.toml:17: "ftp://one.example/d" is not an address
    m.toml:18: `sha256:00` is not a digest: expected `sha256:` and 64 hex digits, or `sha512:` and 128
    m.toml:21: cannot use nothing.raw: No such file or directory (os error 2)
    m.toml:23: `debian-12-minimal` is the name of an image of the catalog
    m.toml:29: 64-bit Arm machines have no BIOS
    m.toml:33: `kernel_args` has no effect: this image's boot loader sets the kernel command line
    m.toml:37: a root file system has no boot loader
    m.toml:41: "Root User" cannot be a user
    m.toml:45: `digest` is already set by the catalog
    "#);
}

#[test]
fn a_mistake_is_shown_with_what_to_do() {
    assert_snapshot!(folder("[[image]]\nname = 'a'\nurl = 'https://one.example/d'\n").error(), @r#"
     × m.toml:6: the download has no digest, so it cannot be verified
      ╭─[m.toml:6:7]
    5 │ name = 'a'
    6 │ url = 'https://one.example/d'
      ·       ───────────┬───────────
      ·                  ╰── no digest
      ╰────
     help: add `digest = "sha256:..."` as its publisher states it
    "#);
}
