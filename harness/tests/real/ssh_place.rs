//! Guests on a machine that one logs in to. It is this one, with a private SSH server and a cache folder of its own: all but the
//! virtualization is what it is elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use nestmatrix::ssh::Keys;

use crate::{
    endings::assert_counts_agree,
    lab::{Finished, Lab},
    rootfs::alpine,
    sshd::{Server, Tools},
    stops::interrupt,
};

fn passes_and_fails() -> String {
    alpine() + "[[suite]]\nname = 'passes'\ninline = 'true'\n[[suite]]\nname = 'fails'\ninline = 'exit 3'\n"
}

fn one() -> String {
    alpine() + "[[suite]]\nname = 's'\ninline = 'true'\n"
}

/// How a lab reaches a server: by the user's own configuration of `ssh`.
struct Way<'a> {
    lab: &'a Lab,
    server: &'a Server,
    path: String,
}

impl<'a> Way<'a> {
    /// Where these host keys are known.
    fn new(lab: &'a Lab, server: &'a Server, known: &Keys) -> Self {
        let folder = lab.path("ssh");
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        server.login.write_private(&folder, ["id_ecdsa", "id_ed25519"]).unwrap();
        fs::write(file("known_hosts"), known.known_hosts(server.addr.port())).unwrap();
        let config = format!(
            "UserKnownHostsFile {}\nGlobalKnownHostsFile none\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\n",
            file("known_hosts"),
            file("id_ed25519")
        );
        fs::write(file("config"), config).unwrap();
        // OpenSSH takes the home folder from the user database, whatever HOME says.
        let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n", file("config"));
        fs::write(file("ssh"), ssh).unwrap();
        fs::set_permissions(file("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        Self { lab, server, path }
    }

    fn runner(&self, user: &str) -> String {
        format!("ssh:{user}@{}", self.server.addr)
    }

    fn start(&self, matrix: &str, out: &str, user: &str, args: &[&str]) -> Child {
        let file = self.lab.write(&format!("{out}.toml"), matrix);
        let mut command = self.lab.nestmatrix();
        command.env("PATH", &self.path).arg("run").arg(file).args(["--runner", &self.runner(user)]);
        command.arg("--out").arg(self.lab.path(out)).args(args).spawn().unwrap()
    }

    fn run(&self, matrix: &str, out: &str) -> Finished {
        self.lab.finish(self.start(matrix, out, &user(), &[]), out)
    }

    fn doctor(&self, user: &str) -> (Option<i32>, String) {
        let mut command = self.lab.nestmatrix();
        let output = command.env("PATH", &self.path).args(["doctor", "--runner", &self.runner(user)]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
}

fn shared(server: &Server) -> PathBuf {
    server.dir.path().join("cache/nestmatrix/runner")
}

/// What runs have left on the machine.
fn left(server: &Server) -> Vec<PathBuf> {
    let scratch = fs::read_dir(shared(server).join("store/scratch")).into_iter().flatten().flatten();
    scratch.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Guests that run on it.
fn guests(server: &Server) -> usize {
    let own = shared(server).canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|entry| fs::read(entry.path().join("cmdline")).unwrap_or_default());
    let of_ours = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line).into_owned();
        line.starts_with("/usr/bin/qemu-system") && line.contains(&own.display().to_string())
    };
    lines.filter(of_ours).count()
}

/// What is proved of this machine need not be proved again.
fn is_proved(lab: &Lab, server: &Server) {
    let store = shared(server).join("store");
    fs::create_dir_all(&store).unwrap();
    fs::copy(lab.store().join("probe.json"), store.join("probe.json")).unwrap();
}

fn said(run: &Finished, words: &str) -> bool {
    run.file("events.jsonl").lines().any(|line| line.contains("runner-progress") && line.contains(words))
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
}

/// The process that holds the connection of a run.
fn connection(of: &Child) -> String {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let read = |name: &str| String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned();
        let parent = format!("\nPPid:\t{}\n", of.id());
        read("status").contains(&parent) && read("cmdline").contains("ControlMaster=yes")
    };
    let found = processes.filter(|path| Path::new(path).join("status").exists()).find(is_it).expect("it is connected");
    found.file_name().unwrap().to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_over_ssh_gives_the_same_verdicts_keeps_what_the_next_run_needs_and_may_be_lost() {
    let lab = Lab::warm();
    let server = Server::start().await;
    is_proved(&lab, &server);
    let way = Way::new(&lab, &server, &server.host);

    let runs = ["first", "second"].map(|out| way.run(&passes_and_fails(), out));
    for run in &runs {
        run.assert_code(1);
        assert_eq!(run.verdict("alpine.passes"), "passed", "{}", run.stderr);
        assert_eq!(run.verdict("alpine.fails"), "failed(test)", "{}", run.stderr);
        assert!(run.file("cells/alpine.fails/attempt-1/stderr.log").is_empty());
        assert_counts_agree(run);
        let record = run.json();
        let facts = &record["runners"][0]["facts"];
        assert_eq!(facts["kind"], "ssh");
        assert!(facts["reason"].as_str().unwrap().contains(&server.addr.to_string()), "{facts}");
    }
    let [first, second] = runs;
    assert!(said(&first, "uploading the agent") && said(&first, "uploading alpine"));
    assert!(!said(&second, "uploading"), "what is there is not sent again");
    let record = second.json();
    for cell in record["cells"].as_array().unwrap() {
        assert_eq!(cell["attempts"][0]["guest"]["boot"]["how"], "forked", "{cell}");
    }
    assert_eq!(record["templates"][0]["cached"], true, "{record}");
    assert_eq!((left(&server), guests(&server)), (Vec::new(), 0));

    let slow = one().replace("'true'", "'sleep 10'");
    let child = way.start(&slow, "cut", &user(), &[]);
    lab.wait_for_event("cut", "test-started");
    kill(&connection(&child));
    let run = lab.finish(child, "cut");
    run.assert_code(0);
    assert_eq!(run.verdict("alpine.s"), "passed", "{}", run.stderr);
    let runners = run.json()["runners"].as_array().unwrap().clone();
    assert_eq!(runners.len(), 2, "{runners:?}");
    assert!(runners[0]["lost"]["reason"].as_str().unwrap().contains("connection was lost"), "{runners:?}");
    assert_eq!((left(&server), guests(&server)), (Vec::new(), 0), "the agent that was left alone ended itself");
    silence_is_a_loss_and_the_agent_that_was_lost_is_ended(&way);
    what_is_interrupted_or_killed_leaves_nothing_there(&way);
    two_runs_at_once_share_the_machine(&way);
    lab.assert_nothing_left();
}

/// Its servers stand still: the connection stands, nobody answers, and the agent at its end does not know.
fn silence_is_a_loss_and_the_agent_that_was_lost_is_ended(way: &Way<'_>) {
    let Way { lab, server, .. } = way;
    let child = way.start(&one().replace("'true'", "'sleep 6000'"), "silent", &user(), &[]);
    lab.wait_for_event("silent", "test-started");
    server.freeze();
    let began = Instant::now();
    let next = loop {
        let events = fs::read_to_string(lab.path("silent/events.jsonl")).unwrap();
        if let Some(next) = events.lines().find(|line| line.contains("runner-ready") && line.contains("\"number\":2,"))
        {
            break next.to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(90), "the connection is given up: {events}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(next.contains("end the lost agent"), "{next}");
    assert_eq!(left(server).len(), 1, "only that of the second agent");
    interrupt(child.id());
    lab.wait_for_event("silent", "run-interrupted");
    interrupt(child.id());
    let run = lab.finish(child, "silent");
    run.assert_code(130);
    let runners = run.json()["runners"].as_array().unwrap().clone();
    assert!(runners[0]["lost"]["reason"].as_str().unwrap().contains("connection was lost"), "{runners:?}");
    assert_eq!((left(server), guests(server)), (Vec::new(), 0));
    server.kill();
}

fn what_is_interrupted_or_killed_leaves_nothing_there(way: &Way<'_>) {
    let Way { lab, server, .. } = way;
    let long = one().replace("'true'", "'sleep 6000'");
    let child = way.start(&long, "stopped", &user(), &[]);
    lab.wait_for_event("stopped", "test-started");
    interrupt(child.id());
    lab.wait_for_event("stopped", "run-interrupted");
    interrupt(child.id());
    let run = lab.finish(child, "stopped");
    run.assert_code(130);
    assert_eq!(run.verdict("alpine.s"), "not-run", "{}", run.stderr);
    assert_eq!((left(server), guests(server)), (Vec::new(), 0));

    let mut child = way.start(&long, "killed", &user(), &[]);
    lab.wait_for_event("killed", "test-started");
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    while (left(server), guests(server)) != (Vec::new(), 0) {
        assert!(killed.elapsed() < Duration::from_secs(20), "the agent ends with its connection: {:?}", left(server));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn two_runs_at_once_share_the_machine(way: &Way<'_>) {
    let Way { lab, server, .. } = way;
    let runs = ["one", "two"].map(|out| (way.start(&one(), out, &user(), &[]), out));
    for (child, out) in runs {
        let run = lab.finish(child, out);
        run.assert_code(0);
        assert_eq!(run.verdict("alpine.s"), "passed", "{}", run.stderr);
    }
    assert_eq!((left(server), guests(server)), (Vec::new(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let lab = Lab::resting();
    let server = Server::start().await;
    let refused = |way: &Way<'_>, out: &str, user: &str, words: &[&str]| {
        let run = lab.finish(way.start(&one(), out, user, &[]), out);
        run.assert_code(3);
        assert_eq!(run.verdict("alpine.s"), "error(runner)", "{}", run.stderr);
        assert_eq!(run.json()["runners"].as_array().unwrap().len(), 1, "it is not tried again: {}", run.stderr);
        let (code, doctor) = way.doctor(user);
        assert_eq!(code, Some(3), "{doctor}");
        // Lines are broken where they are shown.
        let plain = |text: &str| text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(plain(&run.stderr).contains(word), "`{word}` is missing in {}", run.stderr);
            assert!(plain(&doctor).contains(word), "`{word}` is missing in {doctor}");
        }
        assert_eq!(left(&server), Vec::<PathBuf>::new());
    };
    let other = Keys::generate("another machine's").unwrap();
    refused(&Way::new(&lab, &server, &other), "host-key", &user(), &["not the one in known_hosts", "ssh-keygen -R"]);
    let way = Way::new(&lab, &server, &server.host);
    refused(&way, "user", "nobody-here", &["login was refused", "Permission denied", "runner.identity"]);
    fs::write(lab.path("ssh/known_hosts"), "").unwrap();
    refused(&way, "unknown", &user(), &["not in known_hosts", "compare the fingerprint"]);

    // A port where nobody listens: said once, and not tried again.
    let run = lab.run(&one(), "port", &["--runner", "ssh:root@127.0.0.1:1"]);
    run.assert_code(3);
    assert_eq!(run.json()["runners"].as_array().unwrap().len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("the connection was refused"), "{}", run.stderr);

    // No folder can be made below a file.
    let way = Way::new(&lab, &server, &server.host);
    fs::write(server.dir.path().join("cache"), "").unwrap();
    refused(&way, "store", &user(), &["cannot be written to", "XDG_CACHE_HOME"]);
    let bare = Server::start_with(Tools::Busybox).await;
    let way = Way::new(&lab, &bare, &bare.host);
    refused(&way, "qemu", &user(), &["no `qemu-system-", "install"]);
    lab.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_such_a_machine_cannot_do_is_refused_before_anything_starts() {
    let lab = Lab::without_guests();
    for (out, args, words) in [
        ("keep", &["--runner", "ssh:lab", "--keep", "always"][..], "cannot be kept"),
        ("option", &["--runner", "ssh:-oProxyCommand=true"], "not the name of a host"),
        ("kind", &["--runner", "sssh"], "ssh:user@host:port"),
    ] {
        let run = lab.run(&one(), out, args);
        run.assert_code(2);
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    let matrix = format!("runner = {{ kind = 'qemu', disk = '1GiB' }}\n{}", one());
    let run = lab.run(&matrix, "disk", &["--runner", "ssh:lab"]);
    run.assert_code(2);
    assert!(run.stderr.contains("runner.disk"), "{}", run.stderr);
}
