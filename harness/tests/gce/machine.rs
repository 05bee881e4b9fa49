//! The virtual machine behind an instance: what the product starts for `--runner qemu` where CPUs are emulated, with Compute Engine's
//! surroundings.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Shared, guest,
    http::Server,
    metadata,
    setup::Machines,
    world::{Instance, Place, World},
};

const IMAGE: &str = "debian-13-runner";
/// As `guest/spec.rs` has it for machines that run virtual machines themselves.
const CPU: &str = "+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm,+nx";
/// QEMU answers within that.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all machines of a cloud are started from.
#[derive(Debug)]
pub(super) struct Parts {
    /// Of the image: its disk, its kernel and its initial RAM disk lie here.
    image: PathBuf,
    kernel_words: String,
    google: PathBuf,
    /// Where disks and sockets go.
    folder: PathBuf,
}

impl Parts {
    /// Looks for the image in the store, and makes the rest.
    pub(super) fn find(machines: &Machines, folder: &Path) -> Option<Self> {
        let Machines::Qemu(store) = machines else { return None };
        let path = Command::new(env!("CARGO_BIN_EXE_nestmatrix"))
            .args(["images", "path", IMAGE])
            .env("NESTMATRIX_STORE", store)
            .output()
            .unwrap();
        let help = format!("NESTMATRIX_STORE={} nestmatrix images prepare {IMAGE}", store.display());
        assert!(path.status.success(), "no image {IMAGE} ({help}): {}", String::from_utf8_lossy(&path.stderr));
        let disk = PathBuf::from(String::from_utf8(path.stdout).unwrap().trim());
        let image = disk.parent().unwrap().to_owned();
        let record: Value = serde_json::from_slice(&fs::read(image.join("image.json")).unwrap()).unwrap();
        let words = record["start"]["kernel"].as_str().unwrap();
        let kernel_words = words.split(' ').filter(|word| *word != "console=tty0").collect::<Vec<_>>().join(" ");
        fs::write(folder.join("relay.sh"), guest::RELAY).unwrap();
        Some(Self { image, kernel_words, google: guest::disk(store), folder: folder.to_owned() })
    }

    /// Where the content of a disk is.
    fn file_of(&self, resource: &Value) -> PathBuf {
        self.folder.join(format!("{}.qcow2", resource["id"].as_str().unwrap_or_default()))
    }

    /// Keeps what is on a disk now as the content of an image.
    pub(super) fn capture(&self, disk: &Value, image: &Value) -> io::Result<()> {
        match self.file_of(disk) {
            file if file.exists() => fs::copy(file, self.file_of(image)).map(drop),
            _ => Ok(()),
        }
    }
}

/// A running machine. It ends when this is dropped, and when the thread ends that started it.
pub(super) struct Machine {
    child: Child,
    qmp: UnixStream,
    /// On this machine's loopback: its SSH server.
    pub(super) ssh_port: u16,
    _metadata: Server,
}

impl Machine {
    /// Starts what is behind an instance. The world is not locked meanwhile.
    pub(super) fn start(shared: &Arc<Shared>, parts: &Parts, place: &Place) -> io::Result<Option<Self>> {
        let plan = {
            let world = shared.world();
            match world.instances.get(place) {
                Some(instance) => Plan::of(&world, parts, place, instance),
                // Deleted meanwhile.
                None => return Ok(None),
            }
        };
        for disk in plan.disks.iter().filter(|disk| !disk.file.exists()) {
            disk.create()?;
        }
        let metadata = metadata::serve(Arc::clone(shared), place.clone());
        let socket = parts.folder.join(format!("{}.qmp", plan.id));
        let log = parts.folder.join(format!("{}.log", plan.id));
        // It is killed when the thread ends that starts it (prctl(2), PR_SET_PDEATHSIG), so also with this process.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(plan.arguments(parts, &socket, metadata.address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let console = child.stdout.take();
        thread::spawn({
            let (shared, place) = (Arc::clone(shared), place.clone());
            move || console.map(|console| print(&shared, &place, console))
        });
        match greet(&socket, &mut child) {
            Ok((qmp, ssh_port)) => Ok(Some(Self { child, qmp, ssh_port, _metadata: metadata })),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&log).unwrap_or_default();
                Err(io::Error::other(format!("{error}: {}", said.trim())))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses its power button.
    pub(super) fn power_down(&mut self) {
        // One that is gone needs it no more.
        let _ = self.qmp.write_all(b"{\"execute\":\"system_powerdown\"}\n");
    }

    /// Does something while it stands still, with everything on its disks that it has written.
    pub(super) fn paused<T>(&mut self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.qmp.write_all(b"{\"execute\":\"stop\"}\n")?;
        let mut lines = BufReader::new(self.qmp.try_clone()?).lines();
        // Answers to what was asked before are there, too.
        loop {
            let line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
            if serde_json::from_str::<Value>(&line)?["event"] == "STOP" {
                break;
            }
        }
        let done = act();
        self.qmp.write_all(b"{\"execute\":\"cont\"}\n")?;
        done
    }

    /// How it ended; `None`: it runs.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print(shared: &Shared, place: &Place, mut console: impl io::Read) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = console.read(&mut piece) {
        if let Some(instance) = shared.world().instances.get_mut(place) {
            instance.serial.append(&piece[..count]);
        }
    }
}

/// Connects to QMP and learns the port.
fn greet(socket: &Path, child: &mut Child) -> io::Result<(UnixStream, u16)> {
    let began = Instant::now();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if began.elapsed() > PATIENCE || child.try_wait()?.is_some() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut ask = |command: Value| -> io::Result<Value> {
        (&stream).write_all(format!("{command}\n").as_bytes())?;
        for line in lines.by_ref() {
            let answer: Value = serde_json::from_str(&line?)?;
            if answer.get("return").is_some() || answer.get("error").is_some() {
                return Ok(answer);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    };
    ask(json!({ "execute": "qmp_capabilities" }))?;
    let command = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info usernet" } });
    let answer = ask(command)?;
    let table = answer["return"].as_str().unwrap_or_default();
    let words = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let port = words.filter(|words| words.first().is_some_and(|word| word.starts_with("TCP[HOST_FORWARD]"))).find_map(
        |words| match words[..] {
            [_, _, "127.0.0.1", port, _, "22", ..] => port.parse().ok(),
            _ => None,
        },
    );
    Ok((stream, port.ok_or_else(|| io::Error::other(format!("no port in {table}")))?))
}

/// What a machine is started with.
struct Plan {
    name: String,
    id: String,
    disks: Vec<Disk>,
    nested: bool,
    memory_mib: u64,
    /// Where its SSH server is served besides, on its port.
    nat: Option<std::net::Ipv4Addr>,
}

struct Disk {
    /// What Compute Engine calls it.
    device: String,
    file: PathBuf,
    /// What it is made of at first.
    below: Option<PathBuf>,
    size_gb: String,
}

impl Disk {
    fn create(&self) -> io::Result<()> {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]);
        if let Some(below) = &self.below {
            command.args(["-F", "qcow2", "-b"]).arg(below);
        }
        let output = command.arg(&self.file).arg(format!("{}G", self.size_gb)).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(io::Error::other(said)) }
    }
}

impl Plan {
    fn of(world: &World, parts: &Parts, place: &Place, instance: &Instance) -> Self {
        let attached = instance.value["disks"].as_array().into_iter().flatten();
        let disks = attached.filter_map(|attached| {
            let name = attached["source"].as_str()?.rsplit('/').next()?;
            let disk = world.disks.get(&Place::from((place.zone.as_str(), name)))?;
            let image = world.images.iter().find(|image| image["selfLink"] == disk["sourceImage"]);
            let below = image.map(|image| Some(parts.file_of(image)).filter(|file| file.exists()));
            Some(Disk {
                device: attached["deviceName"].as_str()?.to_owned(),
                file: parts.file_of(disk),
                // Whatever Google's image is called: it is this one.
                below: below.map(|own| own.unwrap_or_else(|| parts.image.join("disk.qcow2"))),
                size_gb: disk["sizeGb"].as_str()?.to_owned(),
            })
        });
        Self {
            name: place.name.clone(),
            id: instance.value["id"].as_str().unwrap_or_default().to_owned(),
            disks: disks.collect(),
            nested: instance.nested,
            memory_mib: world.setup.memory_mib,
            // Only who may use such a port can serve there.
            nat: instance.nat.filter(|address| std::net::TcpListener::bind((*address, 22)).is_ok()),
        }
    }

    /// Pure, but for where things lie.
    fn arguments(&self, parts: &Parts, qmp: &Path, metadata: u16) -> Vec<String> {
        let serial = |index: usize| format!("disk{index}");
        let named: Vec<_> =
            self.disks.iter().enumerate().map(|(index, disk)| (serial(index), disk.device.clone())).collect();
        let image = |name: &str| parts.image.join(name).display().to_string();
        let svm = if self.nested { "+svm,+npt" } else { "-svm" };
        let mut arguments: Vec<String> = [
            ("-name", format!("guest=gce-{}", self.name)),
            ("-machine", "q35,accel=tcg,hpet=off,vmport=off".to_owned()),
            ("-cpu", format!("qemu64,{svm},{CPU}")),
            ("-smp", "1".to_owned()),
            ("-m", self.memory_mib.to_string()),
            ("-kernel", image("vmlinuz")),
            ("-initrd", image("initrd.img")),
            ("-append", guest::kernel_words(&parts.kernel_words, &self.name, &named)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let mut pair = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        for (index, disk) in self.disks.iter().enumerate() {
            let file = disk.file.display();
            pair("-drive", format!("if=none,id=d{index},file={file},format=qcow2,cache=unsafe,discard=unmap"));
            pair("-device", format!("virtio-blk-pci,drive=d{index},serial={}", serial(index)));
        }
        pair("-drive", format!("if=none,id=google,file={},format=raw,readonly=on", parts.google.display()));
        pair("-device", format!("virtio-blk-pci,drive=google,serial={}", guest::SERIAL));
        let nat = self.nat.map_or(String::new(), |address| format!(",hostfwd=tcp:{address}:22-:22"));
        let relay = parts.folder.join("relay.sh");
        pair(
            "-netdev",
            format!(
                "user,id=net,restrict=on,net=169.254.169.0/24,hostfwd=tcp:127.0.0.1:0-:22{nat},\
                 guestfwd=tcp:169.254.169.254:80-cmd:bash {} {metadata}",
                relay.display()
            ),
        );
        pair("-device", format!("virtio-net-pci,netdev=net,romfile=,mac={}", metadata::MAC));
        pair("-object", "rng-builtin,id=rng".to_owned());
        pair("-device", "virtio-rng-pci,rng=rng".to_owned());
        pair("-display", "none".to_owned());
        pair("-chardev", "stdio,id=console,signal=off".to_owned());
        pair("-serial", "chardev:console".to_owned());
        pair("-chardev", format!("socket,id=qmp,path={},server=on,wait=off", qmp.display()));
        pair("-mon", "chardev=qmp,mode=control".to_owned());
        arguments.extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
        arguments
    }
}
