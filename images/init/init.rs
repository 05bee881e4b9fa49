//! The init of a guest that is booted from a root file system: it provides what such a system lacks.
//!
//! It lies in the initial RAM disk together with an SSH server and its libraries; neither is ever put into the system under test.
//! The system's disk becomes the root of everything but the server, which stays in a root of its own that nothing else sees. A
//! login leaves that root through the server's only login shell, which is this program again.
//!
//! ```text
//! pid 1      in the RAM disk: drivers, identity, network; then the disk is its root, and it becomes the system's own
//!            /sbin/init, or stays and reaps processes
//!  `- keeper   in the RAM disk: restarts the SSH server whenever it ends
//!      `- sshd   in the RAM disk
//!          `- /enter   goes to the root of pid 1 and becomes /bin/sh there
//! ```
//!
//! A fork of a guest is entered through a server that is started while the guest waits to be resumed: `/run/nestmatrix/sshd` is a
//! link to this program, which goes back into the RAM disk's root and becomes the server.
//!
//! It is compiled by itself, without any crate.

use std::{
    env,
    ffi::{CStr, CString, OsString},
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        raw::{c_char, c_int, c_ulong, c_void},
        unix::{
            ffi::OsStrExt as _,
            fs::{PermissionsExt as _, chroot, symlink},
            process::CommandExt as _,
        },
    },
    path::Path,
    process::{Command, Stdio},
    ptr, thread,
    time::Duration,
};

/// What a kernel runs that is to prove that it runs programs: nothing.
const TRUE: &str = "/bin/true";
/// The login shell in the server's root.
const ENTER: &str = "enter";
/// The server, as a process inside the guest starts another one.
const SSHD: &str = "/run/nestmatrix/sshd";
/// The disk, before it becomes the root.
const DISK: &str = "/disk";
const ITEMS: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/nestmatrix";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The fixed addresses of QEMU's user-mode network.
const ADDRESS: [u8; 4] = [10, 0, 2, 15];
const MASK: [u8; 4] = [255, 255, 255, 0];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const RESOLVER: &str = "nameserver 10.0.2.3\n";
/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

// Linux, `include/uapi/linux`: mount.h, reboot.h, fcntl.h, sockios.h, if.h, route.h; `fs/ext4/ext4.h`; asm-generic/signal.h.
const MS_NOSUID: c_ulong = 2;
const MS_NODEV: c_ulong = 4;
const MS_NOEXEC: c_ulong = 8;
const MS_REMOUNT: c_ulong = 32;
const MS_RDONLY: c_ulong = 1;
const MS_BIND: c_ulong = 4096;
const MS_MOVE: c_ulong = 8192;
const RB_RESTART: c_int = 0x0123_4567;
const RB_POWER_OFF: c_int = 0x4321_fedc;
const EXT4_IOC_RESIZE_FS: c_ulong = 0x4008_6610;
const BLKGETSIZE64: c_ulong = 0x8008_1272;
const SIOCADDRT: c_ulong = 0x890b;
const SIOCSIFFLAGS: c_ulong = 0x8914;
const SIOCSIFADDR: c_ulong = 0x8916;
const SIOCSIFNETMASK: c_ulong = 0x891c;
const AF_INET: u16 = 2;
const SOCK_DGRAM: c_int = 2;
const IFF_UP_RUNNING: u16 = 0x41;
const RTF_UP_GATEWAY: u16 = 3;
const WNOHANG: c_int = 1;
const SIGINT: c_int = 2;
const SIGKILL: c_int = 9;
const SIGUSR1: c_int = 10;
const SIGUSR2: c_int = 12;
const SIGTERM: c_int = 15;
const SIGPWR: c_int = 30;

/// `struct sigset_t` is 128 bytes everywhere.
type SignalSet = [u64; 16];

unsafe extern "C" {
    fn mount(what: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
    fn reboot(what: c_int) -> c_int;
    fn sync();
    fn syscall(number: i64, ...) -> i64;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn fork() -> c_int;
    fn setsid() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    fn umask(mask: u32) -> u32;
}

#[cfg(target_arch = "x86_64")]
const FINIT_MODULE: i64 = 313;
#[cfg(target_arch = "aarch64")]
const FINIT_MODULE: i64 = 273;

fn main() {
    let mut args = env::args_os();
    let name = args.next().unwrap_or_default();
    let name = name.to_string_lossy();
    if name == TRUE {
        std::process::exit(0);
    }
    if std::process::id() == 1 {
        let error = match boot() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // The end of pid 1 is a kernel panic, which shows this as its last line.
        eprintln!("nestmatrix: this guest cannot be started: {error}");
        thread::sleep(Duration::from_millis(100));
    } else if name == SSHD {
        eprintln!("nestmatrix: {}", serve(args.collect()));
    } else if name.trim_start_matches('-').rsplit('/').next() == Some(ENTER) {
        eprintln!("nestmatrix: {}", enter(name.starts_with('-'), args.collect()));
    }
    std::process::exit(126);
}

enum Never {}

/// An error that names the failed action.
fn context(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

// ---- pid 1 ----

fn boot() -> io::Result<Never> {
    // SAFETY: it cannot fail.
    unsafe { umask(0o022) };
    for folder in ["/dev", "/proc", "/sys", "/run", DISK] {
        fs::create_dir_all(folder)?;
    }
    // A RAM disk's root is writable by all, and the server trusts no key below such a folder.
    fs::set_permissions("/", Permissions::from_mode(0o755))?;
    attach("devtmpfs", "/dev", "devtmpfs", 0, "mode=755")?;
    attach("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")?;
    attach("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")?;
    load_drivers()?;
    attach_disk()?;
    prepare_disk()?;
    let hostname = identify()?;
    if Path::new("/sys/class/net/eth0").exists() {
        connect().map_err(context("set up the network"))?;
    }
    describe(&hostname)?;

    // SAFETY: no other thread lives.
    match unsafe { fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => keep(),
        keeper => symlink(format!("/proc/{keeper}/root/init"), format!("{DISK}{SSHD}"))?,
    }
    env::set_current_dir(DISK)?;
    attach(".", "/", "", MS_MOVE, "").map_err(context("make the disk the root"))?;
    chroot(".")?;
    env::set_current_dir("/")?;
    if let Some(init) = own_init() {
        let mut command = Command::new(init);
        command.env_clear().env("PATH", PATH).env("HOME", "/").env("TERM", "linux");
        return Err(context("start the system's own /sbin/init")(command.exec()));
    }
    // What a system's own init does itself.
    let _ = attach("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate");
    reap()
}

fn load_drivers() -> io::Result<()> {
    let list = fs::read_to_string("/drivers/order").map_err(context("read the list of drivers"))?;
    for name in list.lines() {
        let file = File::open(format!("/drivers/{name}")).map_err(context(name))?;
        // SAFETY: the kernel reads an open file and a string that ends.
        if unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) } != 0 {
            return Err(context(name)(io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn attach_disk() -> io::Result<()> {
    let mut left = 100;
    while !Path::new("/dev/vda").exists() && left > 0 {
        thread::sleep(Duration::from_millis(20));
        left -= 1;
    }
    attach("/dev/vda", DISK, "ext4", 0, "").map_err(context("mount /dev/vda"))?;
    // The disk may be larger than the file system that was made for it.
    let (root, device, mut bytes) = (File::open(DISK)?, File::open("/dev/vda")?, 0u64);
    // SAFETY: the kernel writes one u64, and reads one.
    unsafe {
        if ioctl(device.as_raw_fd(), BLKGETSIZE64, &mut bytes) == 0 {
            let blocks = bytes / 4096;
            if ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) != 0 {
                eprintln!("nestmatrix: the file system stays smaller than its disk: {}", io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// The file systems that a Unix system expects when its first program starts.
fn prepare_disk() -> io::Result<()> {
    let on_disk = |path: &str| format!("{DISK}{path}");
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/root", "/etc"] {
        // The system manages a link itself.
        let _ = fs::create_dir_all(on_disk(folder));
    }
    for folder in ["/tmp", "/var/tmp"] {
        let _ = fs::set_permissions(on_disk(folder), Permissions::from_mode(0o1777));
    }
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    attach("proc", &on_disk("/proc"), "proc", quiet, "")?;
    attach("sysfs", &on_disk("/sys"), "sysfs", quiet, "")?;
    attach("devtmpfs", &on_disk("/dev"), "devtmpfs", MS_NOSUID, "mode=755")?;
    attach("tmpfs", &on_disk("/run"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")?;
    for folder in ["/dev/pts", "/dev/shm", "/run/lock", "/run/nestmatrix"] {
        fs::create_dir_all(on_disk(folder))?;
    }
    attach("devpts", &on_disk("/dev/pts"), "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666")?;
    attach("tmpfs", &on_disk("/dev/shm"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")?;
    // The server's terminals are the guest's.
    attach(&on_disk("/dev/pts"), "/dev/pts", "", MS_BIND, "")?;
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let _ = symlink(target, format!("/dev/{link}"));
    }
    Ok(())
}

/// Puts the keys where the server looks for them, and sets the host name.
fn identify() -> io::Result<String> {
    for name in ["authorized_keys", "ssh_host_ecdsa_key", "ssh_host_ed25519_key"] {
        let key = fs::read(format!("{ITEMS}/{name}/raw")).map_err(context(name))?;
        let path = format!("/etc/ssh/{name}");
        fs::write(&path, key)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    }
    let name = fs::read_to_string(format!("{ITEMS}/hostname/raw")).unwrap_or_else(|_| "guest".to_owned());
    fs::write("/proc/sys/kernel/hostname", &name)?;
    Ok(name)
}

/// Files that a system reads about itself. Its own files are changed only if they are empty, or cannot be true here.
fn describe(hostname: &str) -> io::Result<()> {
    let etc = |name: &str| format!("{DISK}/etc/{name}");
    // A link may point anywhere, and on this side of the disk's root it would point into another file.
    let write = |name: &str, text: &str| {
        let is_link = fs::symlink_metadata(etc(name)).is_ok_and(|found| found.is_symlink());
        if is_link { Ok(()) } else { fs::write(etc(name), text) }
    };
    write("hostname", &format!("{hostname}\n"))?;
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost ip6-loopback\n");
    write("hosts", &hosts)?;
    write("resolv.conf", RESOLVER)?;
    if !fs::read(etc("machine-id")).is_ok_and(|id| id.len() >= 32) {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
        write("machine-id", &id)?;
    }
    Ok(())
}

/// The system's own init, if it does more than ours. Busybox's alone starts nothing that is missing here.
fn own_init() -> Option<&'static str> {
    const INIT: &str = "/sbin/init";
    let program = fs::canonicalize(INIT).ok()?;
    let busybox = program.file_name().is_some_and(|name| name.as_bytes().starts_with(b"busybox"));
    (!busybox || Path::new("/sbin/openrc").exists()).then_some(INIT)
}

/// Reaps orphans, and ends the guest when it receives the signals of busybox (`poweroff`, `reboot`, `halt`), sysvinit or systemd.
fn reap() -> io::Result<Never> {
    let mut all: SignalSet = [0; 16];
    // SAFETY: each writes or reads one set of this size.
    unsafe {
        sigfillset(&mut all);
        sigprocmask(0, &all, ptr::null_mut());
    }
    loop {
        let mut signal = 0;
        // SAFETY: as above, and one int.
        if unsafe { sigwait(&all, &mut signal) } != 0 {
            continue;
        }
        match signal {
            // Nobody can switch a guest off, so halting powers it off.
            SIGUSR1 | SIGUSR2 | SIGPWR | 37 | 38 => end(RB_POWER_OFF),
            SIGTERM | SIGINT | 39 => end(RB_RESTART),
            // SAFETY: no status is wanted.
            _ => while unsafe { waitpid(-1, ptr::null_mut(), WNOHANG) } > 0 {},
        }
    }
}

fn end(how: c_int) -> ! {
    // SAFETY: none of these touches our memory.
    unsafe {
        kill(-1, SIGTERM);
        thread::sleep(GRACE);
        kill(-1, SIGKILL);
        sync();
        let _ = attach("", "/", "", MS_REMOUNT | MS_RDONLY, "");
        reboot(how);
    }
    std::process::exit(1)
}

// ---- the server ----

/// Starts the SSH server whenever none runs.
fn keep() -> ! {
    // SAFETY: we lead no group yet.
    unsafe { setsid() };
    loop {
        let _ = sshd().arg("-De").stdin(Stdio::null()).status();
        thread::sleep(Duration::from_millis(200));
    }
}

/// The server in the current root. (It requires an absolute path: it starts itself again for each connection.)
fn sshd() -> Command {
    let mut command = Command::new("/usr/sbin/sshd");
    command.env_clear().env("PATH", PATH);
    command
}

/// From the guest's root back into the server's, to become a server on our standard streams.
fn serve(args: Vec<OsString>) -> io::Error {
    let go = || {
        let program = fs::read_link(SSHD)?;
        env::set_current_dir(program.parent().unwrap_or(Path::new("/")))?;
        chroot(".")
    };
    match go() {
        Ok(()) => sshd().args(args).exec(),
        Err(error) => context("the SSH server is gone")(error),
    }
}

/// From the server's root into the guest's, to become its shell.
fn enter(login: bool, args: Vec<OsString>) -> io::Error {
    let go = || {
        env::set_current_dir("/proc/1/root")?;
        chroot(".")?;
        env::set_current_dir("/root").or_else(|_| env::set_current_dir("/"))
    };
    if let Err(error) = go() {
        return context("the guest's root is gone")(error);
    }
    let mut shell = Command::new("/bin/sh");
    shell.args(args).env("SHELL", "/bin/sh").env("PATH", PATH).env_remove("MAIL");
    if login {
        shell.arg0("-sh");
    }
    context("/bin/sh")(shell.exec())
}

// ---- the kernel ----

fn attach(what: &str, to: &str, kind: &str, flags: c_ulong, data: &str) -> io::Result<()> {
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    let (from, place, name, options) = (text(what)?, text(to)?, text(kind)?, text(data)?);
    // SAFETY: four strings that end.
    let result = unsafe { mount(from.as_ptr(), place.as_ptr(), name.as_ptr(), flags, CStr::as_ptr(&options).cast()) };
    if result == 0 { Ok(()) } else { Err(context(&format!("mount {what} on {to}"))(io::Error::last_os_error())) }
}

/// Gives the loopback and the network card their addresses.
fn connect() -> io::Result<()> {
    // SAFETY: no pointers.
    let fd = unsafe { socket(AF_INET.into(), SOCK_DGRAM, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let order = |request: c_ulong, argument: &[u8]| {
        // SAFETY: the kernel reads a struct that is not longer than this.
        if unsafe { ioctl(fd, request, argument.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let done = order(SIOCSIFFLAGS, &interface("lo", &IFF_UP_RUNNING.to_ne_bytes()))
        .and_then(|()| order(SIOCSIFADDR, &interface("eth0", &internet(ADDRESS))))
        .and_then(|()| order(SIOCSIFNETMASK, &interface("eth0", &internet(MASK))))
        .and_then(|()| order(SIOCSIFFLAGS, &interface("eth0", &IFF_UP_RUNNING.to_ne_bytes())))
        .and_then(|()| order(SIOCADDRT, &default_route()));
    // SAFETY: ours, and not used again.
    unsafe { close(fd) };
    done
}

/// `struct ifreq`: a name of 16 bytes and a union.
fn interface(name: &str, what: &[u8]) -> [u8; 40] {
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..16 + what.len()].copy_from_slice(what);
    request
}

/// `struct sockaddr_in` without a port.
fn internet(address: [u8; 4]) -> [u8; 16] {
    let mut socket = [0; 16];
    socket[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    socket[4..8].copy_from_slice(&address);
    socket
}

/// `struct rtentry` of 64-bit systems: destination, gateway and mask from byte 8 on, flags after them.
fn default_route() -> [u8; 120] {
    let mut route = [0; 120];
    for (at, address) in [(8, [0; 4]), (24, GATEWAY), (40, [0; 4])] {
        route[at..at + 16].copy_from_slice(&internet(address));
    }
    route[56..58].copy_from_slice(&RTF_UP_GATEWAY.to_ne_bytes());
    route
}
