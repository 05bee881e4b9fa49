//! A [`Guest`]: started, watched, and ended for certain.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use egress::Card;
use images::Start;
use matrix::{Arch, Firmware};
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc, watch},
};

use super::{
    command::{Launch, Sockets},
    console::Console,
    ended::Ended,
    halt,
    process::{Exit, Process, Spawner},
    qmp::{
        Qmp, QmpError, QmpEvent,
        commands::{
            Cont, HumanMonitorCommand, ImageFormat, ObjectDel, QueryKvm, QueryStatus, RebootAction, RunState,
            Screendump, SetAction, SystemReset,
        },
    },
    spec::{Accelerator, MachineSpec},
    tpm,
};

/// Between SIGKILL and being reaped; longer only if the kernel itself is stuck.
const REAP_LIMIT: Duration = Duration::from_secs(10);
/// How long QEMU may take to reset a machine, and how often it is asked whether it has.
const RESETTING: Duration = Duration::from_secs(10);
const RESET_LOOK: Duration = Duration::from_millis(10);
/// How long firmware may take to reset the machine itself.
const FIRMWARE: Duration = Duration::from_secs(10);
/// Between the news that nobody in the guest holds its port any more and our end of it being shut: what was said last may still be
/// on its way.
const PORT_LAG: Duration = Duration::from_millis(200);

/// A guest could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("could not start {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The variables of its firmware could not be copied.
    #[error("could not copy the firmware's variables {}: {source}", file.display())]
    Variables {
        /// What they are at first.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// QEMU ended before it could be spoken to.
    #[error("QEMU did not start: {how}")]
    Gone {
        /// How, and QEMU's last words.
        how: String,
    },
    /// QEMU runs but its control channel does not work.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU does not say which port leads to the guest.
    #[error("QEMU forwards no port to the guest; `info usernet` says: {0}")]
    NoPort(String),
}

/// A running guest. Dropping it kills it (the process does that).
#[derive(Debug)]
pub struct Guest {
    spec: MachineSpec,
    process: Process,
    qmp: Arc<Qmp>,
    console: Console,
    messages: Console,
    /// Why it runs no more; `None`: it runs.
    end: Arc<watch::Sender<Option<Ended>>>,
    /// Looks for a halt; ends with this value.
    _halt: halt::Watch,
    tpm: Option<Process>,
    ssh: Option<SocketAddr>,
    port: Option<OwnedFd>,
    egress: Option<Card>,
    /// What it sends goes through our hands.
    filtered: bool,
    /// Told of each reset of the guest's own that does not stop it.
    resets: Arc<Notify>,
    /// Its firmware is SeaBIOS.
    seabios: bool,
}

impl Guest {
    /// Starts QEMU; its logs go into the folder `logs` (`console.log`, `qemu.log`, `qemu.args`).
    ///
    /// `dies_with_us`: the kernel kills it when this process ends, however that happens.
    pub async fn start(spawner: &Spawner, launch: Launch, dies_with_us: bool, logs: &Path) -> Result<Self, StartError> {
        let program = launch.qemu.clone();
        let spawn_error = |source| StartError::Spawn { program: program.clone(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawn_error)?;
        ours.set_nonblocking(true).map_err(spawn_error)?;
        let mut inherited = vec![OwnedFd::from(theirs)];
        let mut sockets = Sockets { qmp: inherited[0].as_raw_fd(), ..Sockets::default() };
        let mut egress = None;
        if launch.spec.nics > 0 && launch.egress {
            let mut made = Vec::new();
            for fd in &mut sockets.egress {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawn_error)?;
                ours.set_nonblocking(true).map_err(spawn_error)?;
                *fd = theirs.as_raw_fd();
                inherited.push(theirs.into());
                made.push(UnixStream::from_std(ours).map_err(spawn_error)?);
            }
            if let Ok([from_guest, passed_on, to_guest]) = <[_; 3]>::try_from(made) {
                egress = Some(Card { from_guest, passed_on, to_guest });
            }
        }
        let mut port = None;
        if launch.spec.port && launch.port {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawn_error)?;
            sockets.port = theirs.as_raw_fd();
            inherited.push(theirs.into());
            port = Some(OwnedFd::from(ours));
        }
        if let Some(variables) = launch.variables() {
            let copied = write_new(&launch.boot.uefi.variables, &variables);
            copied.map_err(|source| StartError::Variables { file: launch.boot.uefi.variables.clone(), source })?;
        }
        let mut tpm = None;
        if launch.spec.tpm {
            let places = (&*launch.folder.join(Launch::NVRAM), logs);
            let started = tpm::start(&launch.swtpm, spawner, dies_with_us, places).await;
            let (process, theirs) =
                started.map_err(|source| StartError::Spawn { program: launch.swtpm.clone(), source })?;
            sockets.tpm = theirs.as_raw_fd();
            inherited.push(theirs);
            tpm = Some(process);
        }
        let args = launch.args(sockets);
        write_args(&program, &args, &logs.join("qemu.args")).map_err(spawn_error)?;

        let mut qemu = std::process::Command::new(&program);
        qemu.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = spawner.spawn(qemu, inherited, dies_with_us).await.map_err(spawn_error)?;
        let gone = process.gone();
        let started = Self::watched((process, tpm), ours, port, launch, logs).await;
        let started = started.map(|guest| Self { filtered: egress.is_some(), egress, ..guest });
        if started.is_err() {
            // QEMU is killed. Waiting for its exit frees its files for the next QEMU.
            let _ = tokio::time::timeout(REAP_LIMIT, gone).await;
        }
        started
    }

    /// A guest of the QEMU that was just started.
    async fn watched(
        (mut process, tpm): (Process, Option<Process>),
        socket: std::os::unix::net::UnixStream,
        port: Option<OwnedFd>,
        launch: Launch,
        logs: &Path,
    ) -> Result<Self, StartError> {
        let spawn_error = |source| StartError::Spawn { program: launch.qemu.clone(), source };
        let pipes = process.stdout.take().zip(process.stderr.take());
        let (stdout, stderr) = pipes.ok_or_else(|| spawn_error(io::Error::other("its output is not piped")))?;
        let console = Console::drain(stdout, &logs.join("console.log")).map_err(spawn_error)?;
        let messages = Console::drain(stderr, &logs.join("qemu.log")).map_err(spawn_error)?;

        let shared_port = port.as_ref().map(OwnedFd::try_clone).transpose().map_err(spawn_error)?;
        let socket = UnixStream::from_std(socket).map_err(spawn_error)?;
        let (qmp, events) = match Qmp::connect(socket).await {
            Ok(connected) => connected,
            Err(QmpError::Closed) => {
                return Err(StartError::Gone { how: last_words(process.gone(), &messages).await });
            }
            Err(error) => return Err(error.into()),
        };
        let ssh = match launch.spec.nics {
            0 => None,
            _ => Some(forwarded_port(&qmp).await?),
        };
        let (qmp, end) = (Arc::new(qmp), Arc::new(watch::Sender::new(None)));
        let logs = (console.clone(), messages.clone());
        let resets = Arc::new(Notify::new());
        let is_uefi = matches!(launch.spec.start, Start::Firmware(Firmware::Uefi | Firmware::UefiSecure));
        let seabios = launch.spec.arch == Arch::X86_64 && !is_uefi;
        tokio::spawn(watch_events(events, process.gone(), logs, shared_port, (Arc::clone(&end), Arc::clone(&resets))));
        let halt = halt::Watch::start(Arc::clone(&qmp), console.clone(), Arc::clone(&end));
        if let Some(tpm) = &tpm {
            tokio::spawn(watch_tpm(tpm.gone(), process.gone(), Arc::clone(&end)));
        }
        Ok(Self {
            spec: launch.spec,
            process,
            qmp,
            console,
            messages,
            end,
            _halt: halt,
            tpm,
            ssh,
            port,
            egress: None,
            filtered: false,
            resets,
            seabios,
        })
    }

    /// What it is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// Process id of its QEMU.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its SSH port is reached; `None`: it has no network.
    pub fn ssh(&self) -> Option<SocketAddr> {
        self.ssh
    }

    /// Our end of its open port, once; `None`: it has none, or it was taken.
    pub fn take_port(&mut self) -> Option<OwnedFd> {
        self.port.take()
    }

    /// Our end of its network card, once; `None`: it has none, or it was taken. The guest reaches nothing, not even its network, unless
    /// somebody serves it.
    pub fn take_egress(&mut self) -> Option<Card> {
        self.egress.take()
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The last lines QEMU wrote, as one, once it has ended or after a moment: the reason comes before what came of it.
    pub async fn last_message(&self) -> String {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.process.gone()).await;
        self.messages.settle().await;
        let lines = self.messages.tail(3);
        if lines.is_empty() { "none".to_owned() } else { lines.join("; ") }
    }

    /// Whether QEMU has ended by itself, with an error.
    pub fn has_refused(&self) -> bool {
        self.process.status().and_then(|exit| exit.0?.code()).is_some_and(|code| code != 0)
    }

    /// Its control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Waits until the guest runs no more, and says why. Its console has settled by then.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.end.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::QemuGone { how: "for no known reason".into() }),
            Err(_) => Ended::QemuGone { how: "for no known reason".into() },
        }
    }

    /// Has it ended already?
    pub fn has_ended(&self) -> Option<Ended> {
        self.end.borrow().clone()
    }

    /// Lets a guest that has rebooted itself ([`Ended::Reset`]) boot again, on the same disk. It has not ended then.
    pub async fn boot_again(&self) -> Result<(), QmpError> {
        // What a guest does to itself stops it here; so would what we do to it.
        self.qmp.execute(SetAction { reboot: RebootAction::Reset }).await?;
        self.qmp.execute(SystemReset {}).await?;
        // It is only asked for by that; until it is done QEMU does not let the guest go on.
        for _ in 0..RESETTING.as_millis() / RESET_LOOK.as_millis() {
            if self.qmp.execute(QueryStatus {}).await?.status != RunState::Shutdown {
                break;
            }
            tokio::time::sleep(RESET_LOOK).await;
        }
        if self.seabios {
            // SeaBIOS finds its own traces in memory, restores itself from its ROM and resets the machine once more (its `qemu_prep_reset`).
            let reset = self.resets.notified();
            tokio::pin!(reset);
            reset.as_mut().enable();
            self.qmp.execute(Cont {}).await?;
            let _ = tokio::time::timeout(FIRMWARE, reset).await;
        }
        self.qmp.execute(SetAction { reboot: RebootAction::Shutdown }).await?;
        // Before it runs, or has come further than its firmware: what ends it next is not to be missed.
        self.end.send_if_modified(|end| *end == Some(Ended::Reset) && end.take().is_some());
        if !self.seabios {
            self.qmp.execute(Cont {}).await?;
        }
        Ok(())
    }

    /// Whether its QEMU still answers; within 30 s.
    pub async fn answers(&self) -> bool {
        self.qmp.execute(QueryStatus {}).await.is_ok()
    }

    /// What it is really run with, as QEMU itself says (`query-kvm`).
    pub async fn accelerator(&self) -> Result<Accelerator, QmpError> {
        let kvm = self.qmp.execute(QueryKvm {}).await?;
        Ok(if kvm.enabled { Accelerator::Kvm } else { Accelerator::Tcg })
    }

    /// A picture of its screen as PNG; `Err` when QEMU cannot make one.
    pub async fn screendump(&self, file: &Path) -> Result<(), QmpError> {
        let filename = file.to_string_lossy().into_owned();
        self.qmp.execute(Screendump { filename, format: ImageFormat::Png }).await?;
        Ok(())
    }

    /// Kills it and waits until it is gone.
    ///
    /// There is nothing to shut down cleanly: its disk is thrown away.
    pub async fn kill(self) {
        self.process.kill();
        let _ = tokio::time::timeout(REAP_LIMIT, self.process.gone()).await;
    }

    /// Lets it run on without us, and reach what its network alone does.
    pub async fn release(mut self) {
        for id in Launch::FILTERS.into_iter().filter(|_| self.filtered) {
            // Without an answer nobody can be told; the guest is as unreachable as QEMU is.
            let _ = self.qmp.execute(ObjectDel { id: id.to_owned() }).await;
        }
        self.process.disarm();
        if let Some(tpm) = &mut self.tpm {
            tpm.disarm();
        }
    }
}

/// The port QEMU chose, read back from its monitor: the line `TCP[HOST_FORWARD]  12  127.0.0.1 34567  10.0.2.15  22`.
async fn forwarded_port(qmp: &Qmp) -> Result<SocketAddr, StartError> {
    let command_line = "info usernet".to_owned();
    let text = qmp.execute(HumanMonitorCommand { command_line }).await?;
    host_forward(&text).ok_or(StartError::NoPort(text))
}

fn host_forward(usernet: &str) -> Option<SocketAddr> {
    let line = usernet.lines().find(|line| line.contains("HOST_FORWARD"))?;
    let port = line.split_whitespace().skip_while(|word| *word != "127.0.0.1").nth(1)?.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}

/// Turns the stream of events into the one reason that counts: the first, until the guest boots again.
async fn watch_events(
    mut events: mpsc::UnboundedReceiver<QmpEvent>,
    gone: impl Future<Output = Exit>,
    (console, messages): (Console, Console),
    port: Option<OwnedFd>,
    (end, resets): (Arc<watch::Sender<Option<Ended>>>, Arc<Notify>),
) {
    while let Some(event) = events.recv().await {
        if let Some(port) = port.as_ref().filter(|_| port_was_closed(&event)) {
            tokio::time::sleep(PORT_LAG).await;
            // The guest has closed the port: its SSH server is gone. Readers get end of file instead of waiting.
            let _ = rustix::net::shutdown(port, rustix::net::Shutdown::Read);
        }
        if event.name == "RESET" && event.data["reason"] == "guest-reset" {
            resets.notify_waiters();
        }
        let runs = end.borrow().is_none();
        let Some(ended) = meaning(&event).filter(|_| runs) else { continue };
        console.settle().await;
        let words = panic_words(&console.tail(200));
        // Linux reboots at once after a panic with `panic=-1`; a driver for the panic device may not have been loaded yet.
        end.send_replace(Some(match ended {
            Ended::Panicked { .. } => Ended::Panicked { words },
            Ended::Reset if words.is_some() => Ended::Panicked { words },
            ended => ended,
        }));
    }
    let runs = end.borrow().is_none();
    if runs {
        let how = last_words(gone, &messages).await;
        console.settle().await;
        end.send_replace(Some(Ended::QemuGone { how }));
    }
}

/// The program that is its TPM ends after QEMU; before it, the guest has lost a part of its machine.
async fn watch_tpm(
    gone: impl Future<Output = Exit>,
    qemu: impl Future<Output = Exit>,
    end: Arc<watch::Sender<Option<Ended>>>,
) {
    let how = gone.await.to_string();
    if tokio::time::timeout(Duration::from_secs(1), qemu).await.is_err() {
        end.send_if_modified(|end| {
            let runs = end.is_none();
            if runs {
                *end = Some(Ended::TpmGone { how });
            }
            runs
        });
    }
}

/// Nobody in the guest holds its port open any more.
fn port_was_closed(event: &QmpEvent) -> bool {
    event.name == "VSERPORT_CHANGE" && event.data["id"] == Launch::PORT_ID && event.data["open"] == false
}

/// What the kernel said when it panicked. What follows that line on the console is a trace for those who read code.
fn panic_words(console: &[String]) -> Option<String> {
    const PANIC: &str = "Kernel panic - not syncing: ";
    console.iter().rev().find_map(|line| Some(line.split_once(PANIC)?.1.trim().to_owned()))
}

/// What an event means for the guest's life, if anything.
fn meaning(event: &QmpEvent) -> Option<Ended> {
    let data = &event.data;
    match event.name.as_str() {
        "GUEST_PANICKED" => Some(Ended::Panicked { words: None }),
        "SHUTDOWN" | "RESET" => Some(match data["reason"].as_str() {
            Some("guest-reset") => Ended::Reset,
            Some("guest-shutdown") => Ended::PoweredOff,
            Some("guest-panic") => Ended::Panicked { words: None },
            // `host-signal`, `host-qmp-quit` and the like: the process is about to end, and its last words say more.
            _ => return None,
        }),
        "BLOCK_IO_ERROR" if data["action"] == "stop" => {
            Some(Ended::HostDisk { full: data["nospace"].as_bool().unwrap_or(false) })
        }
        _ => None,
    }
}

/// How QEMU ended and the last line it wrote.
async fn last_words(gone: impl Future<Output = Exit>, messages: &Console) -> String {
    let status = match tokio::time::timeout(REAP_LIMIT, gone).await {
        Ok(status) => status.to_string(),
        Err(_) => "it closed its control channel but still runs".to_owned(),
    };
    messages.settle().await;
    match messages.tail(1).pop() {
        Some(line) => format!("{status}; {line}"),
        None => status,
    }
}

/// Copies a file to where it can be written to by its owner, in a folder that is made.
fn write_new(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(to);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    std::fs::write(to, std::fs::read(from)?)
}

/// The command line, one argument a line: what to repeat by hand.
fn write_args(qemu: &Path, args: &[OsString], file: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut text = qemu.as_os_str().as_bytes().to_vec();
    for arg in args {
        text.push(b'\n');
        text.extend_from_slice(arg.as_bytes());
    }
    text.push(b'\n');
    std::fs::write(file, text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, data: serde_json::Value) -> QmpEvent {
        QmpEvent { name: name.to_owned(), data }
    }

    #[test]
    fn what_ends_a_guest_is_told_apart_from_what_does_not() {
        let shutdown = |reason: &str| meaning(&event("SHUTDOWN", json!({ "guest": true, "reason": reason })));
        assert_eq!(shutdown("guest-shutdown"), Some(Ended::PoweredOff));
        assert_eq!(shutdown("guest-reset"), Some(Ended::Reset));
        assert_eq!(shutdown("host-signal"), None);
        assert_eq!(
            meaning(&event("GUEST_PANICKED", json!({ "action": "pause" }))),
            Some(Ended::Panicked { words: None })
        );
        let io = |nospace: bool, action: &str| {
            meaning(&event("BLOCK_IO_ERROR", json!({ "nospace": nospace, "action": action })))
        };
        assert_eq!(io(true, "stop"), Some(Ended::HostDisk { full: true }));
        assert_eq!(io(false, "stop"), Some(Ended::HostDisk { full: false }));
        assert_eq!(io(false, "report"), None);
        assert_eq!(meaning(&event("NIC_RX_FILTER_CHANGED", json!({}))), None);
    }

    #[test]
    fn that_nobody_in_the_guest_holds_its_port_any_more_is_told_apart_from_other_news() {
        let change =
            |id: &str, open: bool| port_was_closed(&event("VSERPORT_CHANGE", json!({ "id": id, "open": open })));
        assert!(change(Launch::PORT_ID, false));
        assert!(!change(Launch::PORT_ID, true));
        assert!(!change("other", false));
        assert!(!port_was_closed(&event("RESUME", json!({}))));
    }

    #[test]
    fn a_panic_is_told_in_the_kernels_words() {
        let console = [
            "[    6.1] Run /bin/false as init process",
            "[    6.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[    6.6] Call Trace:",
        ];
        let words = panic_words(&console.map(str::to_owned));
        assert_eq!(words.as_deref(), Some("Attempted to kill init! exitcode=0x00000100"));
        assert_eq!(panic_words(&["reboot: Restarting system".to_owned()]), None);
    }

    #[test]
    fn the_port_that_the_kernel_chose_is_read_back() {
        let text = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                    TCP[HOST_FORWARD]  14       127.0.0.1 35713       10.0.2.15    22     0     0\r\n";
        assert_eq!(host_forward(text), Some("127.0.0.1:35713".parse().unwrap()));
        assert_eq!(host_forward("net: none"), None);
    }
}
