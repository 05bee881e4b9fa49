//! Guests that are forked from a frozen one: nothing tells them from booted ones but the time it takes, and where no fork can be had
//! the guest is booted, and it is said why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    lab::{Finished, Lab},
    rootfs::alpine,
};

/// One cell that passes, one template.
fn one() -> String {
    alpine() + "[[suite]]\nname = 'one'\ninline = 'true'\n"
}
const ONE_ID: &str = "alpine.one";

/// How the guest of the cell's last attempt came to be.
fn boot(run: &Finished, id: &str) -> Value {
    let cell = run.cell(id);
    cell["attempts"].as_array().unwrap().last().unwrap()["guest"]["boot"].clone()
}

#[track_caller]
fn assert_forked(run: &Finished, id: &str) {
    let boot = boot(run, id);
    assert_eq!(boot["how"], "forked", "{id}: {boot}\n{}", run.stderr);
}

/// Why the guest was booted, although a fork was wanted.
#[track_caller]
fn reason_of_cold(run: &Finished, id: &str) -> String {
    let boot = boot(run, id);
    assert_eq!(boot["how"], "cold", "{id}: {boot}\n{}", run.stderr);
    boot["reason"].as_str().unwrap_or_else(|| panic!("{id}: no reason is given\n{}", run.stderr)).to_owned()
}

/// Key of the run's one template, and whether it was there already.
#[track_caller]
fn template(run: &Finished) -> (String, bool) {
    let json = run.json();
    let [template] = json["templates"].as_array().unwrap().as_slice() else { panic!("{}", json["templates"]) };
    assert_eq!(template["state"], "ready", "{template}\n{}", run.stderr);
    (template["template"].as_str().unwrap().to_owned(), template["cached"].as_bool().unwrap())
}

/// The folders of the templates in the lab's store.
fn kept(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.store().join("templates")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn only_kept(lab: &Lab) -> PathBuf {
    let [folder] = kept(lab).try_into().unwrap();
    folder
}

/// Building sites: of templates that are being made, and of those on their way out.
fn sites(lab: &Lab) -> usize {
    fs::read_dir(lab.store().join("builds")).into_iter().flatten().count()
}

/// What a suite printed, as words by the first of each line.
fn said(run: &Finished, id: &str) -> BTreeMap<String, String> {
    let text = run.file(&format!("cells/{id}/attempt-1/stdout.log"));
    text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key.into(), value.trim().into())).collect()
}

/// The time of the first event of this name about the cell.
pub(crate) fn time_of(run: &Finished, event: &str, id: &str) -> Timestamp {
    let events = run.file("events.jsonl");
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = events.find(|found| found["event"] == event && found["cell"] == id).unwrap();
    found["at"].as_str().unwrap().parse().unwrap()
}

/// A QEMU that is another one by its file and by the distribution's number. While `broken` exists it makes no fork, but for the first
/// one of a template that is being made: it does not start (if `other` stands in there, only where the guest is called that), or, if `older`
/// stands in there, is a machine that the state is not of.
struct OtherQemu {
    path: String,
    broken: PathBuf,
}

impl OtherQemu {
    fn new(lab: &Lab) -> Self {
        let path = std::env::var("PATH").unwrap();
        let real =
            std::env::split_paths(&path).map(|folder| folder.join("qemu-system-x86_64")).find(|file| file.exists());
        let (real, broken) = (real.unwrap(), lab.path("no-thaw"));
        let (real, flag) = (real.display(), broken.display());
        let script = format!(
            "#!/bin/sh\n\
             [ \"$1\" != --version ] || {{ '{real}' --version | sed '1s/(.*)/(Another 1:1-1)/'; exit; }}\n\
             case \"$*\" in\n\
             *trial-*) ;;\n\
             *-incoming*) case \"$(cat '{flag}' 2>/dev/null || echo sound)\" in\n\
               sound) ;;\n\
               other) case \"$*\" in *.other*) echo this one does not start >&2; exit 1 ;; esac ;;\n\
               older) for arg; do shift; set -- \"$@\" \"$(echo \"$arg\" | sed 's/pc-q35-[0-9.]*/pc-q35-8.0/')\"; done ;;\n\
               *) echo this one does not start >&2; exit 1 ;;\n\
             esac ;;\n\
             esac\n\
             exec '{real}' \"$@\"\n"
        );
        let file = lab.write("bin/qemu-system-x86_64", &script);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path: format!("{}:{path}", lab.path("bin").display()), broken }
    }

    fn command(&self, lab: &Lab, matrix: &str, out: &str, args: &[&str]) -> Command {
        let file = lab.write(&format!("{out}.toml"), matrix);
        let mut command = lab.nestmatrix();
        command.arg("run").arg(file).arg("--out").arg(lab.path(out)).args(args).env("PATH", &self.path);
        command
    }

    fn run(&self, lab: &Lab, matrix: &str, out: &str, args: &[&str]) -> Finished {
        lab.finish(self.command(lab, matrix, out, args).spawn().unwrap(), out)
    }
}

/// What tells guests apart. The mark is what one cell must not see of another.
const WHO: &str = r#"
test ! -e /var/tmp/mark || { echo another cell was here; exit 1; }
echo mine > /var/tmp/mark
echo random $(od -An -tx1 -N16 /dev/urandom | tr -d ' ')
echo machine $(cat /etc/machine-id)
echo name $(hostname)
of_each() { for kind in ecdsa ed25519; do file=/etc/ssh/ssh_host_${kind}_key; eval "$1"; done | tr '\n' ,; }
echo key $(of_each 'ssh-keygen -y -f $file | cut -d" " -f2')
echo public $(of_each 'cut -d" " -f2 $file.pub 2>/dev/null || :')
echo served $(of_each 'ssh-keyscan -T 120 -t $kind 127.0.0.1 | cut -d" " -f3')
echo clock $(date +%s.%N)
"#;

#[test]
fn forks_share_nothing_but_what_they_were_frozen_with_and_know_what_time_it_is() {
    let lab = Lab::forking();
    let suite = |name: &str, more: &str| format!("[[suite]]\nname = \"{name}\"\n{more}\ninline = '''{WHO}'''\n");
    let matrix = [
        "images = [\"debian-12-minimal\"]\n".to_owned(),
        suite("one", ""),
        suite("two", ""),
        suite("own", "identity = \"unique\""),
        suite("booted", "boot = \"cold\""),
    ]
    .concat();
    let id = |suite: &str| format!("debian-12-minimal.{suite}");
    let forked = ["one", "two", "own"].map(id);

    let first = lab.run(&matrix, "first", &[]);
    first.assert_code(0);
    let (key, _) = template(&first);
    forked.iter().for_each(|id| assert_forked(&first, id));
    assert_eq!(boot(&first, &id("booted")), serde_json::json!({"how": "cold", "reason": null}), "it asked for that");

    // Long after it was frozen: what a fork thinks of time and chance must not come from there.
    let second = lab.run(&matrix, "second", &["--cell", "*.one", "--cell", "*.own"]);
    second.assert_code(0);
    assert_eq!(template(&second), (key, true));
    forked.iter().filter(|id| !id.ends_with("two")).for_each(|id| assert_forked(&second, id));

    let mut random = BTreeSet::new();
    for (run, cells) in [(&first, &["one", "two", "own", "booted"][..]), (&second, &["one", "own"][..])] {
        for id in cells.iter().map(|suite| id(suite)) {
            let said = said(run, &id);
            assert_eq!(said["random"].len(), 32, "{said:?}");
            assert!(random.insert(said["random"].clone()), "{id} had the same randomness as another: {said:?}");
            // It was read between these two events; a second is what a clock may be off.
            let (earliest, latest) = (time_of(run, "test-started", &id), time_of(run, "test-finished", &id));
            let clock: Timestamp = Timestamp::UNIX_EPOCH + Duration::from_secs_f64(said["clock"].parse().unwrap());
            let second = SignedDuration::from_secs(1);
            assert!(earliest - second < clock && clock < latest + second, "{id}: {earliest} < {clock} < {latest}");
            assert_eq!(said["key"], said["served"], "the server of {id} shows the keys that lie there");
        }
    }

    let (one, two, own) = (said(&first, &forked[0]), said(&first, &forked[1]), said(&first, &forked[2]));
    let booted = said(&first, &id("booted"));
    for what in ["machine", "name", "key"] {
        assert_eq!(one[what], two[what], "{what} is shared by forks of one template");
        assert_eq!(one[what], said(&second, &forked[0])[what], "{what} is shared by forks of one template");
        assert_ne!(one[what], own[what], "{what} is its own where that is asked for");
    }
    assert_eq!((&*one["name"], &*own["name"]), ("debian-12-minimal", "debian-12-minimal-own"));
    assert_eq!(own["public"], own["key"], "their public halves lie beside them");
    for what in ["machine", "key"] {
        assert_ne!(own[what], said(&second, &forked[2])[what], "{what} is made for each guest");
        assert_ne!(one[what], booted[what], "{what} comes to be at a boot");
    }
    lab.assert_nothing_left();
}

#[test]
fn a_template_that_is_damaged_is_replaced_and_that_is_said() {
    let lab = Lab::with_templates_of_its_own(&one());
    let this = lab.run(&one(), "this", &[]);
    this.assert_code(0);
    let (key, cached) = template(&this);
    assert!(cached, "it was made by another test: {}", this.stderr);

    // One bit of its memory, and nothing that a look at the folder would show. (What else can be damaged is tried in `images`.)
    flip_a_bit(&only_kept(&lab).join("ram"));
    let damaged = lab.run(&one(), "damaged", &[]);
    damaged.assert_code(0);
    assert_eq!(template(&damaged), (key, false), "a damaged template is replaced: {}", damaged.stderr);
    assert_forked(&damaged, ONE_ID);
    let warnings = damaged.json()["warnings"].clone();
    let [warning] = warnings.as_array().unwrap().as_slice() else { panic!("one warning: {warnings}") };
    for words in ["the template of alpine is replaced", "ram is damaged", "its content is"] {
        assert!(warning.as_str().unwrap().contains(words), "`{words}` is missing in {warning}");
    }
    assert!(flat(&damaged.stderr).contains("is replaced"), "and it is said: {}", damaged.stderr);
    lab.assert_nothing_left();
}

fn prepared() -> String {
    alpine().replace("\"alpine\"", "\"prepared\"") + "prepare = { inline = 'echo ready > /etc/prepared' }\n"
}

#[test]
fn a_template_of_another_qemu_is_not_used_and_where_no_fork_comes_of_one_or_memory_runs_short_its_guests_are_booted() {
    let lab = Lab::with_templates_of_its_own(&one());
    let key = only_kept(&lab).file_name().unwrap().to_string_lossy().into_owned();
    let qemu = OtherQemu::new(&lab);
    let one = format!("{}[[suite]]\nname = 'one'\ninline = 'grep ready /etc/prepared'\n", prepared());
    let id = "prepared.one";
    let another = qemu.run(&lab, &one, "another", &[]);
    another.assert_code(0);
    assert_forked(&another, id);
    let (own, cached) = template(&another);
    assert!(!cached && !own.contains(&key), "a state is loaded by the QEMU that saved it: {own}");
    assert_eq!(kept(&lab).len(), 2, "and the one of the first QEMU is not lost by it");

    memory_runs_short(&lab, &qemu);

    // Every byte is right, and still no fork comes of it.
    File::create(&qemu.broken).unwrap();
    let cold = qemu.run(&lab, &one, "cold", &[]);
    cold.assert_code(0);
    let reason = reason_of_cold(&cold, id);
    assert!(reason.contains("this one does not start"), "QEMU's own words: {reason}");
    let log = cold.file(&format!("cells/{id}/attempt-1/fork-qemu.log"));
    assert!(log.contains("this one does not start"), "the evidence is kept: {log}");
    assert!(flat(&cold.stderr).contains("this one does not start"), "{}", cold.stderr);

    // That was this machine's fault: what lies in the store is as good as before. That its state cannot be loaded is its own.
    assert_eq!((kept(&lab).len(), sites(&lab)), (2, 0));
    fs::write(&qemu.broken, "older").unwrap();
    let refused = qemu.run(&lab, &one, "refused", &[]);
    refused.assert_code(0);
    let reason = reason_of_cold(&refused, id);
    assert!(reason.contains("load of migration failed"), "QEMU's own words: {reason}");
    let template = &refused.json()["templates"][0];
    assert_eq!(template["state"], "failed", "it was there, and is given up: {template}");
    assert_eq!((kept(&lab).len(), sites(&lab)), (1, 0), "only the one of the first QEMU is left");
    lab.assert_nothing_left();
}

/// Forks make room for each other, and what cannot be booted is not waited for.
fn memory_runs_short(lab: &Lab, qemu: &OtherQemu) {
    // Three forks are admitted by what forks took so far; three of these take more than there is. Each keeps what it takes for longer than
    // the others may need for theirs.
    let matrix = format!(
        r#"
runner = {{ cpus = 3, memory = "1050MiB", retries = 0 }}
axes = {{ number = [1, 2, 3] }}
{}
[[suite]]
name = "grow"
inline = "began=$(date +%s) && mount -o remount,size=400M /dev/shm && head -c 300m /dev/zero > /dev/shm/much && sleep $((8 + 2 * ($(date +%s) - began)))"
"#,
        prepared()
    );
    let run = qemu.run(lab, &matrix, "grow", &[]);
    run.assert_code(0);
    let json = run.json();
    let tried_again: Vec<&Value> = json["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cell| cell["attempts"].as_array().unwrap().len() > 1)
        .collect();
    let [cell] = tried_again.as_slice() else { panic!("one makes room: {tried_again:?}\n{}", run.stderr) };
    let [first, second] = cell["attempts"].as_array().unwrap().as_slice() else { panic!("two attempts: {cell}") };
    assert_eq!(first["guest"]["boot"]["how"], "forked", "{cell}");
    assert!(first.to_string().contains("out of memory: its fork was ended"), "{cell}");
    assert_eq!(
        (&second["guest"]["boot"]["how"], &second["outcome"]["verdict"]),
        (&"cold".into(), &"passed".into()),
        "{cell}"
    );
    crate::endings::assert_counts_agree(&run);

    // One more that needs to be booted, while a guest that was kept takes the room for that.
    let matrix = format!(
        r#"
runner = {{ memory = "1000MiB" }}
{}
[[suite]]
name = "kept"
inline = "true"
[[suite]]
name = "other"
inline = "true"
"#,
        prepared()
    );
    fs::write(&qemu.broken, "other").unwrap();
    let run = qemu.run(lab, &matrix, "out", &["--keep", "always", "--jobs", "1"]);
    let stop = run.cell("prepared.kept")["attempts"][0]["kept"]["stop"].as_str().unwrap().to_owned();
    assert!(Command::new("sh").arg("-c").arg(stop).status().unwrap().success());
    run.assert_code(3);
    assert_eq!(run.verdict("prepared.other"), "not-run", "{}", run.stderr);
    let reason = run.reason("prepared.other");
    assert!(reason.contains("guests that were kept take the memory"), "{reason}");
    wait_until("the kept guest is gone", || lab.guests().is_empty());
}

/// Changes a file as an ageing disk would: its length and its times stay.
fn flip_a_bit(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let found = file.metadata().unwrap();
    // Not in a hole: that would be another damage.
    let at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(found.len() / 2)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(found.modified().unwrap()).unwrap();
}

/// The terminal breaks long lines anywhere.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn after_kill_9_while_a_template_is_made_nothing_half_is_kept_and_the_next_start_makes_it() {
    let lab = Lab::warm();
    // While it boots, and while the first fork of it is tried: by then all of its files are there.
    for (out, name) in [("booting", "template-"), ("trying", "trial-")] {
        let mut child = lab.start(&one(), out, &[]);
        lab.wait_for_event(out, "template-started");
        wait_until("its guest runs", || lab.guests().iter().any(|pid| command_line(*pid).contains(name)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!lab.path(out).join("run.json").exists(), "it was in the middle of it");
        wait_until("its guests are gone", || lab.guests().is_empty());
        assert_eq!(kept(&lab), Vec::<PathBuf>::new());
        assert!(sites(&lab) > 0, "the unfinished one lies there");
    }
    let next = lab.run(&one(), "next", &[]);
    next.assert_code(0);
    assert!(!template(&next).1);
    assert_forked(&next, ONE_ID);
    assert_eq!((kept(&lab).len(), sites(&lab)), (1, 0), "{}", next.stderr);
    lab.assert_nothing_left();
}

#[test]
fn an_interrupt_while_a_template_is_made_ends_that_at_once() {
    let lab = Lab::warm();
    let child = lab.start(&one(), "out", &[]);
    wait_until("its guest runs", || lab.guests().iter().any(|pid| command_line(*pid).contains("template-")));
    crate::stops::interrupt(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert_eq!(run.verdict(ONE_ID), "not-run", "{}", run.stderr);
    assert!(run.cell(ONE_ID)["attempts"].as_array().unwrap().is_empty(), "{}", run.stderr);
    assert_eq!((kept(&lab).len(), sites(&lab)), (0, 0));
    crate::endings::assert_counts_agree(&run);
    lab.assert_nothing_left();
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

fn wait_until(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(300), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_runs_at_once_make_one_template_and_forks_have_the_verdicts_of_booted_guests() {
    let lab = Lab::warm();
    let matrix = alpine()
        + r#"
[[suite]]
name = "green"
inline = "true"
[[suite]]
name = "red"
inline = "exit 1"
[[suite]]
name = "skip"
inline = "echo no such hardware; exit 77"
[[suite]]
name = "poweroff"
inline = "poweroff; sleep 600"
"#;
    let ids = ["green", "red", "skip", "poweroff"].map(|suite| format!("alpine.{suite}"));
    let verdicts = |run: &Finished, ids: &[String]| -> Vec<(String, String)> {
        ids.iter().map(|id| (run.verdict(id), run.reason(id))).collect()
    };

    let started = [lab.start(&matrix, "one", &[]), lab.start(&matrix, "two", &[])];
    let [one, two] = started;
    let (one, two) = (lab.finish(one, "one"), lab.finish(two, "two"));
    for run in [&one, &two] {
        run.assert_code(1);
        ids.iter().for_each(|id| assert_forked(run, id));
    }
    let (of_one, of_two) = (template(&one), template(&two));
    assert_eq!(of_one.0, of_two.0);
    assert!(of_one.1 != of_two.1, "it was made once, by one of them: {of_one:?} {of_two:?}");
    let waited = if of_one.1 { &one } else { &two };
    assert!(
        waited.json()["warnings"].to_string().contains("waiting for process"),
        "at the same time: {}",
        waited.stderr
    );
    assert_eq!(kept(&lab).len(), 1);

    let of_one = verdicts(&one, &ids);
    let words: Vec<&str> = of_one.iter().map(|(verdict, _)| verdict.as_str()).collect();
    assert_eq!(words, ["passed", "failed(test)", "skipped", "failed(test)"], "{}", one.stderr);
    assert!(of_one[3].1.contains("powered itself off"), "{of_one:?}");
    assert_eq!(verdicts(&two, &ids), of_one);

    let cold = lab.run(&matrix, "cold", &["--cold"]);
    cold.assert_code(1);
    for id in &ids {
        assert_eq!(boot(&cold, id), serde_json::json!({"how": "cold", "reason": "--cold"}), "it was asked for");
    }
    assert!(!cold.file("events.jsonl").contains("template-"), "no template was looked for");
    assert_eq!(verdicts(&cold, &ids), of_one);
    lab.assert_nothing_left();
}

#[test]
fn an_image_is_prepared_once_for_forked_and_for_booted_guests_alike() {
    let lab = Lab::warm();
    // A server on this machine, which is 10.0.2.2 to a guest with an open network. Nobody need accept: the kernel answers.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let reach = format!("nc -z -w 20 10.0.2.2 {}", server.local_addr().unwrap().port());
    let suite = |name: &str, more: &str| {
        format!(
            "[[suite]]\nname = '{name}'\n{more}\ninline = \"\"\"echo prepared $(cat /etc/prepared); echo machine $(cat /etc/machine-id)\n\
             ! {reach}\"\"\"\n"
        )
    };
    let prepare = format!("{reach} && cat /proc/sys/kernel/random/uuid >> /etc/prepared");
    let matrix = [
        alpine() + "[image.prepare]\nnetwork = 'open'\n",
        format!("inline = \"\"\"{prepare}\"\"\"\n"),
        suite("one", ""),
        suite("two", ""),
        suite("booted", "boot = 'cold'\nidentity = 'unique'"),
    ]
    .concat();
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(0);
    let said = ["one", "two", "booted"].map(|suite| said(&run, &format!("alpine.{suite}")));
    assert_eq!(said[0]["prepared"].len(), 36, "it was run once: {said:?}");
    assert_eq!(said[0]["prepared"], said[1]["prepared"]);
    assert_eq!(said[0]["prepared"], said[2]["prepared"], "and its disk is below the booted guest's");
    assert_forked(&run, "alpine.one");
    assert_eq!(boot(&run, "alpine.booted"), serde_json::json!({"how": "cold", "reason": null}), "it asked for that");
    assert_ne!(said[0]["machine"], said[2]["machine"], "which asked for an identity of its own");
    lab.assert_nothing_left();
}

#[test]
fn what_cannot_be_frozen_is_booted_and_what_cannot_be_prepared_is_not_run() {
    let lab = Lab::warm();
    let matrix = r#"
[[image]]
name = "no-port"
from = "debian-12-minimal"
kernel_args = "module_blacklist=virtio_console"
[[image]]
name = "only-disk"
from = "debian-12-minimal"
kernel_args = "module_blacklist=virtio_console"
prepare = { inline = "cat /proc/sys/kernel/random/uuid >> /etc/prepared" }
UNPREPARED
prepare = { inline = "echo working; echo the mirror is closed >&2; exit 9" }
[[suite]]
name = "one"
inline = "test $NESTMATRIX_IMAGE != only-disk || echo prepared $(cat /etc/prepared)"
"#
    .replace("UNPREPARED", &alpine().replace("\"alpine\"", "\"unprepared\""));
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(3);
    assert_eq!(run.verdict("no-port.one"), "passed", "{}", run.stderr);
    let reason = reason_of_cold(&run, "no-port.one");
    assert!(reason.contains("no virtio ports"), "{reason}");
    for (what, text) in [("the terminal", flat(&run.stderr)), ("the report", run.file("report.html"))] {
        assert!(text.contains("this guest has no virtio ports"), "{what} says why: {text}");
    }

    // What was prepared is not lost with it, nor done twice.
    let again = lab.run(&matrix, "again", &["--cell", "only-disk.*"]);
    again.assert_code(0);
    for run in [&run, &again] {
        assert_eq!(run.verdict("only-disk.one"), "passed", "{}", run.stderr);
        let reason = reason_of_cold(run, "only-disk.one");
        assert!(reason.contains("no virtio ports"), "{reason}");
        assert_eq!(said(run, "only-disk.one")["prepared"].len(), 36);
    }
    assert_eq!(said(&run, "only-disk.one")["prepared"], said(&again, "only-disk.one")["prepared"]);
    let files = |name: &str| only_kept(&lab).join(name).exists();
    assert_eq!((files("disk.qcow2"), files("ram"), files("state")), (true, false, false));
    assert!(flat(&again.stderr).contains("guests are booted from its prepared disk"), "{}", again.stderr);

    assert_eq!(run.verdict("unprepared.one"), "error(image)", "{}", run.stderr);
    assert_eq!(run.cell("unprepared.one")["attempts"].as_array().unwrap().len(), 1, "it is the same for another guest");
    assert!(run.stderr.contains("prepare.stderr.log"), "where its words are: {}", run.stderr);
    let reason = run.reason("unprepared.one");
    for words in ["image.prepare", "exit code 9", "the mirror is closed"] {
        assert!(reason.contains(words), "`{words}` is missing in {reason}");
    }
    assert!(run.cell("unprepared.one")["attempts"][0]["guest"].is_null(), "no guest of it was started");
    assert_eq!((kept(&lab).len(), sites(&lab)), (1, 0));
    crate::endings::assert_counts_agree(&run);
    lab.assert_nothing_left();
}
