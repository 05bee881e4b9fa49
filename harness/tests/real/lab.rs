//! A place to run `nestmatrix` in: a folder and a store of its own, and at most one other test's guests meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{places::Place, store::LabStore};

/// No run of these tests takes longer; what does has hung.
const LIMIT: Duration = Duration::from_secs(1800);

pub(crate) struct Lab {
    /// Guests are booted: what a test that is not about forks wants to see, without the making of a template.
    cold: bool,
    folder: tempfile::TempDir,
    store: LabStore,
    // Last, so that no other test starts before everything else is gone.
    _place: Option<Place>,
}

/// A run that has ended.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) out: PathBuf,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    pub(crate) fn open() -> Self {
        let place = Place::take();
        Self { cold: true, folder: tempfile::tempdir().unwrap(), store: LabStore::with_images(), _place: Some(place) }
    }

    /// Guests are forked, as they are for everybody who does not say otherwise.
    pub(crate) fn warm() -> Self {
        let mut lab = Self::open();
        lab.cold = false;
        lab
    }

    /// Guests are forked from templates that all such labs share: for tests of what happens once a guest is up.
    pub(crate) fn forking() -> Self {
        let place = Place::take();
        Self {
            cold: false,
            folder: tempfile::tempdir().unwrap(),
            store: LabStore::with_templates(),
            _place: Some(place),
        }
    }

    /// With the templates of this matrix, made already, and nobody else's: whatever happens to them, and comes to them, is the test's.
    pub(crate) fn with_templates_of_its_own(matrix: &str) -> Self {
        let mut shared = Self::forking();
        let made = shared.run(matrix, "made", &[]).assert_code(0).json()["templates"].clone();
        let own = LabStore::with_images();
        for template in made.as_array().unwrap() {
            own.take_template(template["template"].as_str().unwrap());
        }
        let place = shared._place.take();
        Self { cold: false, folder: tempfile::tempdir().unwrap(), store: own, _place: place }
    }

    /// For what starts no guest: it waits for nobody, but knows every image.
    pub(crate) fn resting() -> Self {
        Self { cold: true, folder: tempfile::tempdir().unwrap(), store: LabStore::with_images(), _place: None }
    }

    /// Its store has no image yet: what comes into it is the test's.
    pub(crate) fn without_images() -> Self {
        let place = Place::take();
        Self { cold: false, folder: tempfile::tempdir().unwrap(), store: LabStore::with_proof(), _place: Some(place) }
    }

    /// For what must start none: it waits for nobody, and its store is empty.
    pub(crate) fn without_guests() -> Self {
        Self { cold: true, folder: tempfile::tempdir().unwrap(), store: LabStore::empty(), _place: None }
    }

    pub(crate) fn store(&self) -> &Path {
        self.store.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The binary, in the lab's folder, with the lab's store.
    pub(crate) fn nestmatrix(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nestmatrix"));
        command
            .current_dir(self.folder.path())
            .env("NESTMATRIX_STORE", self.store())
            .env("NO_COLOR", "1")
            .env("NESTMATRIX_COLD", if self.cold { "1" } else { "0" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Writes the matrix and starts it; the results go to `out`.
    pub(crate) fn start(&self, matrix: &str, out: &str, args: &[&str]) -> Child {
        let file = self.write(&format!("{out}.toml"), matrix);
        self.nestmatrix().arg("run").arg(file).arg("--out").arg(self.path(out)).args(args).spawn().unwrap()
    }

    /// Waits for a run that was started into `out`.
    pub(crate) fn finish(&self, child: Child, out: &str) -> Finished {
        let output = wait(child);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Finished {
            code: output.status.code().unwrap_or(-1),
            out: self.path(out),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    pub(crate) fn run(&self, matrix: &str, out: &str, args: &[&str]) -> Finished {
        self.finish(self.start(matrix, out, args), out)
    }

    /// Process ids of QEMUs whose files lie in the lab's store.
    pub(crate) fn guests(&self) -> Vec<u32> {
        self.store.guests()
    }

    /// Nothing of any run is left: no process, no overlay, no key, no folder.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.guests(), Vec::<u32>::new(), "QEMU still runs");
        let scratch = self.store().join("scratch");
        let left: Vec<_> = fs::read_dir(&scratch)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != ".turn")
            .collect();
        assert!(left.is_empty(), "left in {}: {left:?}", scratch.display());
    }

    /// Waits until the live events of a run that was started with `--out out` hold `needle`.
    pub(crate) fn wait_for_event(&self, out: &str, needle: &str) -> String {
        let journal = self.path(out).join("events.jsonl");
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&journal).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains(needle)) {
                return line.to_owned();
            }
            assert!(started.elapsed() < LIMIT, "no event with {needle} in {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // For the curious: the results of a failed test stay where CI can collect them.
        if std::thread::panicking() {
            // The test's name alone would not tell one failure from an earlier one; and CI takes no colons in names.
            let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
            let lab = self.store().file_name().unwrap_or_default().to_string_lossy();
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{test}-{lab}"));
            let _ = Command::new("cp").arg("-a").arg(self.folder.path()).arg(&kept).status();
            eprintln!("the run's folder is kept in {}", kept.display());
        }
    }
}

fn wait(mut child: Child) -> Output {
    let started = Instant::now();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let read = |pipe: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    };
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read(&mut stdout));
        let stderr = scope.spawn(|| read(&mut stderr));
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("nestmatrix hung for {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    })
}

impl Finished {
    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.out.join(name);
        match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => panic!("{}: {error}; stderr: {}", path.display(), self.stderr),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.file("run.json")).unwrap()
    }

    /// A cell of `run.json`.
    pub(crate) fn cell(&self, id: &str) -> Value {
        let run = self.json();
        let cells = run["cells"].as_array().unwrap();
        match cells.iter().find(|cell| cell["id"] == id) {
            Some(cell) => cell.clone(),
            None => panic!("no cell {id} in {cells:?}"),
        }
    }

    /// `verdict`, or `verdict(phase)`.
    pub(crate) fn verdict(&self, id: &str) -> String {
        let cell = self.cell(id);
        let verdict = cell["verdict"].as_str().unwrap();
        match cell["phase"].as_str() {
            Some(phase) => format!("{verdict}({phase})"),
            None => verdict.to_owned(),
        }
    }

    pub(crate) fn reason(&self, id: &str) -> String {
        self.cell(id)["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The run's code, with what it said if it is another.
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}
