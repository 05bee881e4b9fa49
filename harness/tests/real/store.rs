//! The store that is kept between test runs, and what each lab sees of it.
//!
//! ```text
//! images/ recipes/ lock     built once: most guests' before the first guest, the rest meanwhile; every lab's store has links to these
//! probe.json                the proof of the accelerator, made once; every lab's store has a copy
//! templates/                made by the first test that needs one; the stores of tests that are about neither booting nor templates have a
//!                           link to it
//! labs/<lab>/               the store of one test: with links and copy, and with a `scratch/` and a `builds/` of its own
//! ```
//!
//! So no test sees another one's guests, overlays and dead runs, and none builds or proves what another one has.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use matrix::Digest;
use tempfile::TempDir;

/// What most tests boot.
const FIRST: &str = "debian-12-minimal";
/// What some tests boot besides ([`the_rest`]); that of another kind of CPU is one test's alone ([`also`]).
const REST: [&str; 3] = ["debian-13-runner", "debian-11-minimal", "debian-13-minimal"];

/// It, with what most tests boot. If that cannot be built every test fails at once.
static KEPT: LazyLock<PathBuf> = LazyLock::new(|| {
    // One image by itself leaves a CPU idle; and the tests that need none of the rest go on when theirs is there. Where only some tests are
    // run, those that need it build it.
    if std::env::args().len() == 1 {
        std::thread::spawn(|| LazyLock::force(&BUILT));
    }
    prepare(&[FIRST]).unwrap();
    // And the small system that is up soonest: for tests that need a guest, whichever.
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), crate::rootfs::alpine() + "[[suite]]\nname = 's'\ninline = 'true'\n").unwrap();
    prepare(&["--matrix", file.path().to_str().unwrap()]).unwrap();
    // It proves the accelerator if that is not on record, and says whether this machine is fit. That is for the tests to find
    // out: where it is not, they fail with better words.
    nestmatrix(&["doctor"]);
    for folder in ["labs", "templates"] {
        fs::create_dir_all(folder_of_all().join(folder)).unwrap();
    }
    // As guests have it on their command lines.
    let store = folder_of_all().canonicalize().unwrap();
    remove_templates_of_others(&store);
    remove_dead_labs(&store.join("labs"));
    store
});

/// `NESTMATRIX_TEST_STORE`, else `target/<triple>/test-store`.
fn folder_of_all() -> PathBuf {
    match std::env::var_os("NESTMATRIX_TEST_STORE") {
        Some(store) => std::path::absolute(store).unwrap(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-store"),
    }
}

/// Waits until the images are there that most tests do without: of the L1, and of other releases of Debian. To be called before a place is taken.
pub(crate) fn the_rest() {
    if let Err(why) = &*BUILT {
        panic!("{why}");
    }
}

static BUILT: LazyLock<Result<(), String>> = LazyLock::new(|| prepare(&REST));

/// Removes what another build of nestmatrix has frozen: a template's key has all that goes into it, but not how it is made.
fn remove_templates_of_others(store: &Path) {
    let (made_by, program) = (store.join("made-by"), Digest::of_file(Path::new(env!("CARGO_BIN_EXE_nestmatrix"))));
    let program = program.unwrap().to_string();
    if fs::read_to_string(&made_by).is_ok_and(|made_by| made_by == program) {
        return;
    }
    let templates = store.join("templates");
    fs::remove_dir_all(&templates).unwrap();
    fs::create_dir(&templates).unwrap();
    fs::write(made_by, program).unwrap();
}

/// Builds another image into it, for the one test that boots it: that takes minutes, in which others can go on.
pub(crate) fn also(image: &str) {
    prepare(&[image]).unwrap();
}

fn prepare(images: &[&str]) -> Result<(), String> {
    let prepared = nestmatrix(&[&["images", "prepare"], images].concat());
    let failed = || format!("{images:?}: {}", String::from_utf8_lossy(&prepared.stderr));
    prepared.status.success().then_some(()).ok_or_else(failed)
}

fn nestmatrix(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nestmatrix"));
    command.args(args).env("NESTMATRIX_STORE", folder_of_all()).env("NO_COLOR", "1").stdin(Stdio::null());
    command.output().unwrap()
}

/// The folder that is kept.
pub(crate) fn kept() -> &'static Path {
    &KEPT
}

/// The store of one test.
pub(crate) struct LabStore {
    folder: TempDir,
    /// Locked: its test lives.
    _alive: File,
}

impl LabStore {
    /// With every image and the proof.
    pub(crate) fn with_images() -> Self {
        let own = Self::below(&KEPT.join("labs"));
        for shared in ["images", "recipes", "lock"] {
            symlink(KEPT.join(shared), own.path().join(shared)).unwrap();
        }
        // If there is no proof to copy, the lab's first run makes one.
        let _ = fs::copy(KEPT.join("probe.json"), own.path().join("probe.json"));
        own
    }

    /// The same, with the templates that other tests have made.
    pub(crate) fn with_templates() -> Self {
        let own = Self::with_images();
        symlink(KEPT.join("templates"), own.path().join("templates")).unwrap();
        own
    }

    /// A copy of one that other tests have made.
    pub(crate) fn take_template(&self, digest: &str) {
        let key = digest.strip_prefix("sha256:").unwrap();
        let (from, to) = (KEPT.join("templates").join(key), self.path().join("templates"));
        fs::create_dir_all(&to).unwrap();
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
        assert!(copied.success());
    }

    /// With the proof, and no image: for tests of how images come into a store.
    pub(crate) fn with_proof() -> Self {
        let own = Self::below(&KEPT.join("labs"));
        fs::create_dir(own.path().join("images")).unwrap();
        let _ = fs::copy(KEPT.join("probe.json"), own.path().join("probe.json"));
        own
    }

    /// With nothing at all.
    pub(crate) fn empty() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(folder: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("lab-").tempdir_in(folder).unwrap();
        let alive = File::open(folder.path()).unwrap();
        alive.lock().unwrap();
        Self { folder, _alive: alive }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Process ids of the guests whose files lie in it.
    pub(crate) fn guests(&self) -> Vec<u32> {
        guests_in(self.path())
    }
}

impl Drop for LabStore {
    fn drop(&mut self) {
        // A test that failed may leave some; nobody else would find them.
        end_guests(self.path());
    }
}

/// What tests that were killed have left, their guests first.
fn remove_dead_labs(labs: &Path) {
    for lab in fs::read_dir(labs).unwrap().flatten().map(|entry| entry.path()) {
        let Ok(lock) = File::open(&lab) else { continue };
        if lock.try_lock().is_ok() {
            end_guests(&lab);
            fs::remove_dir_all(&lab).unwrap();
        }
    }
}

fn end_guests(lab: &Path) {
    for guest in guests_in(lab) {
        let _ = Command::new("kill").args(["-KILL", &guest.to_string()]).status();
    }
}

/// Process ids of QEMUs with a file of this lab's on their command line: an overlay of a run, or a disk that is being made.
fn guests_in(lab: &Path) -> Vec<u32> {
    let own = format!("{}/", lab.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let args = String::from_utf8_lossy(&args);
            args.contains("qemu-system") && args.contains(&own)
        })
        .collect()
}
