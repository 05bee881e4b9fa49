//! What lies in wait in a guest while it is frozen: the first thing that runs in a fork of it.
//!
//! Started as `resume_agent PORT PROGRAM [ARGS...]`, before the guest is frozen. It starts the program (an SSH server that serves one
//! connection on its standard streams), keeps what that says first, and reports on the port that it is ready. In a fork it is
//! told what time it is and given randomness; it sets the guest's clock, reseeds the kernel's random numbers, and from then on only
//! carries bytes between port and program. So the first connection of a fork costs neither the start of a server nor a
//! network, and nothing runs before clock and randomness are right.
//!
//! It is compiled by itself, without any crate, and goes into guests as it is; `harness::template::wake` speaks to it.
//!
//! ```text
//! guest -> host   b"ready 1\n"                           before the freeze
//! host -> guest   b"wake 1\0\0" + seconds (i64 LE) + nanoseconds (u32 LE) + 64 random bytes       in the fork
//! guest -> host   b"awake 1\n", or b"cannot: why\n"
//! host -> guest   another order if that took too long, or b"go 1\0\0\0\0" and as many bytes as an order has
//! both            the program's bytes
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        raw::{c_int, c_long, c_ulong},
    },
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const SEED: usize = 64;
const ORDER: usize = 8 + 8 + 4 + SEED;

/// Linux, `include/uapi/linux/random.h`.
const RNDADDENTROPY: c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: c_ulong = 0x5207;
const CLOCK_REALTIME: c_int = 0;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

#[repr(C)]
struct PoolInfo {
    bits: c_int,
    bytes: c_int,
    seed: [u8; SEED],
}

unsafe extern "C" {
    fn clock_settime(clock: c_int, time: *const Timespec) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("resume_agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let usage = || io::Error::other("usage: resume_agent PORT PROGRAM [ARGS...]");
    let port = args.next().ok_or_else(usage)?;
    let program = args.next().ok_or_else(usage)?;
    let mut port = OpenOptions::new().read(true).write(true).open(port)?;
    // A connection with addresses: an SSH server asks the network for the name of one that has none, and waits for the answer.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    drop(listener);
    ours.set_nodelay(true)?;
    let output = theirs.try_clone()?;
    let mut command = Command::new(program);
    command.args(args).stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(output)).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // It holds copies of the program's end of the line, which would never close.
    drop(command);
    let mut first = vec![0; 1024];
    let mut said = 0;
    while said == 0 || first[said - 1] != b'\n' {
        match (&ours).read(&mut first[said..])? {
            0 => return Err(io::Error::other("the program ended, or said too much, before it was spoken to")),
            more => said += more,
        }
    }
    port.write_all(b"ready 1\n")?;

    let mut order = [0; ORDER];
    loop {
        read_exact(&mut port, &mut order)?;
        if order.starts_with(b"go 1\0\0\0\0") {
            break;
        }
        if let Err(error) = wake(&order) {
            port.write_all(format!("cannot: {error}\n").as_bytes())?;
            return Err(error);
        }
        port.write_all(b"awake 1\n")?;
    }
    port.write_all(&first[..said])?;

    let (mut from, mut to) = (port.try_clone()?, ours.try_clone()?);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(some @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..some]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(some @ 1..) = (&ours).read(&mut buffer) {
        port.write_all(&buffer[..some])?;
    }
    child.wait()?;
    Ok(())
}

/// Nothing on the other end of the port is no end: in a fork the other end is a new one.
fn read_exact(port: &mut File, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match port.read(buffer) {
            Ok(0) => thread::sleep(Duration::from_millis(5)),
            Ok(some) => buffer = &mut buffer[some..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wake(order: &[u8; ORDER]) -> io::Result<()> {
    let (word, rest) = order.split_at(8);
    if word != b"wake 1\0\0" {
        return Err(io::Error::other("not an order to wake"));
    }
    let (seconds, rest) = rest.split_at(8);
    let (nanoseconds, random) = rest.split_at(4);
    let seconds = i64::from_le_bytes(seconds.try_into().unwrap_or_default());
    let nanoseconds = u32::from_le_bytes(nanoseconds.try_into().unwrap_or_default());
    let mut seed = [0; SEED];
    seed.copy_from_slice(random);
    let time = Timespec { seconds, nanoseconds: nanoseconds.into() };
    // SAFETY: the kernel reads one timespec of this layout.
    check("set the clock", unsafe { clock_settime(CLOCK_REALTIME, &time) })?;
    let pool = PoolInfo { bits: (SEED * 8) as c_int, bytes: SEED as c_int, seed };
    let random = OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the kernel reads `bytes` bytes behind the two numbers, which are there.
    check("add randomness", unsafe { ioctl(random.as_raw_fd(), RNDADDENTROPY, &pool) })?;
    // Kernels before 4.17 do not know it; they mix what was added at once.
    // SAFETY: it takes no argument.
    unsafe { ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    Ok(())
}

fn check(what: &str, result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::other(format!("{what}: {}", io::Error::last_os_error()))) }
}
