//! Compute Engine for tests: it keeps to the published contract ([`contract`]), and what it starts are real virtual machines.
//!
//! ```text
//! http       requests and answers; a thread per connection
//! contract   is a request what the contract says? is the answer?
//! compute    create, disks, policy, tokens: what the methods do to the world
//! machine    what QEMU runs behind an instance; guest: what is in it; metadata: the server it asks
//! world      instances, disks, operations, and what time does to them: a thread advances it
//! faults     what goes wrong, as the test wants it
//! ```
//!
//! Tests start a [`Cloud`], give [`Cloud::environment`] to the program under test, and look at what it asked for and what is left.

// Several test programs have it, and none needs all of it.
#![allow(dead_code, reason = "not every test file needs it")]

mod call;
mod compute;
mod contract;
mod create;
mod disks;
mod faults;
mod filter;
mod guest;
mod http;
mod machine;
mod metadata;
mod operation;
mod policy;
mod record;
mod refusal;
mod serial;
mod serve;
mod setup;
mod tokens;
mod world;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use world::World;
#[allow(unused_imports, reason = "not every test file needs it")]
pub(crate) use {
    faults::Fault,
    record::Recorded,
    refusal::Refusal,
    setup::{Machines, Policy, Setup, Zone},
};

/// How often the world is looked at.
const TICK: Duration = Duration::from_millis(10);

/// What the threads of a cloud share.
struct Shared {
    world: Mutex<World>,
    /// Something is not as it was.
    changed: Condvar,
    ends: AtomicBool,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // A thread that panicked is a failure of its own.
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A cloud of a test's own. Its machines end when it is dropped, and with the test's process however that ends.
pub(crate) struct Cloud {
    shared: Arc<Shared>,
    // Before the rest: nobody asks any more.
    server: http::Server,
    time: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Cloud {
    pub(crate) fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(setup);
        world.parts = machine::Parts::find(&world.setup.machines, folder.path()).map(Arc::new);
        world.tokens.subject = format!("subject-{:032x}", rand::random::<u128>());
        let shared =
            Arc::new(Shared { world: Mutex::new(world), changed: Condvar::new(), ends: AtomicBool::new(false) });
        let server = http::Server::start({
            let shared = Arc::clone(&shared);
            move |request| serve::serve(&shared, request)
        });
        let time = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ends.load(Ordering::SeqCst) {
                    let starting = shared.world().advance();
                    shared.changed.notify_all();
                    for place in starting {
                        start(&shared, &place);
                    }
                    thread::sleep(TICK);
                }
            }
        });
        let cloud = Self { shared, server, time: Some(time), folder };
        for folder in ["config", "credentials"] {
            fs::create_dir(cloud.folder.path().join(folder)).unwrap();
        }
        cloud.credentials_file(&cloud.folder.path().join("credentials"));
        cloud
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.address)
    }

    /// What a program needs to find it. `GCE_METADATA_HOST` must not be set besides.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", self.url("compute/v1/")),
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_ORGPOLICY", self.url("orgpolicy/")),
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER", self.url("crm/")),
            // There is no price list.
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING", "http://127.0.0.1:9/".to_owned()),
            ("CLOUDSDK_CORE_PROJECT", self.shared.world().setup.project.clone()),
            ("CLOUDSDK_CONFIG", path("config")),
            ("GOOGLE_APPLICATION_CREDENTIALS", path("credentials/application_default_credentials.json")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Writes a file of credentials of the type `external_account`, and the token it refers to beside it.
    pub(crate) fn credentials_file(&self, folder: &Path) -> PathBuf {
        let subject = folder.join("subject-token");
        fs::write(&subject, &self.shared.world().tokens.subject).unwrap();
        let file = folder.join("application_default_credentials.json");
        fs::write(&file, tokens::external_account(&self.url("sts/token"), &subject).to_string()).unwrap();
        file
    }

    /// What was against the contract; also answers of this server that were.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.world().record.violations.clone()
    }

    #[track_caller]
    pub(crate) fn assert_no_violations(&self) {
        assert_eq!(self.violations(), Vec::<String>::new());
    }

    /// Every request so far, in order.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.world().record.requests.clone()
    }

    /// Every instance there is, in whatever state.
    pub(crate) fn instances(&self) -> Vec<Value> {
        self.shared.world().instances.values().map(|instance| instance.value.clone()).collect()
    }

    pub(crate) fn disks(&self) -> Vec<Value> {
        self.shared.world().disks.values().cloned().collect()
    }

    pub(crate) fn operations(&self) -> Vec<Value> {
        self.shared.world().operations.iter().map(|operation| operation.value.clone()).collect()
    }

    /// The fault comes over these requests of a method, counted from now: the next one is the first. `method`: `sts.token`, one of the
    /// contract, or `*` for whichever.
    pub(crate) fn fault(&self, method: &str, nth: impl IntoIterator<Item = usize>, fault: Fault) {
        let mut world = self.shared.world();
        for nth in nth {
            world.faults.add(method, nth, fault.clone());
        }
    }

    /// The next requests are too many.
    pub(crate) fn storm(&self, requests: usize, retry_after: Option<u64>) {
        let refusal = Refusal { retry_after, ..Refusal::too_many() };
        self.fault(faults::Faults::ANY, 1..=requests, Fault::Refuse(refusal));
    }

    /// Inserts in this zone fail from now on, with a code such as `QUOTA_EXCEEDED` or `ZONE_RESOURCE_POOL_EXHAUSTED`; `None`: no longer.
    pub(crate) fn shortage(&self, zone: &str, code: Option<&str>) {
        let shortages = &mut self.shared.world().shortages;
        match code {
            Some(code) => drop(shortages.insert(zone.to_owned(), code.to_owned())),
            None => drop(shortages.remove(zone)),
        }
    }

    pub(crate) fn set_policy(&self, v2: Policy, v1: Policy) {
        let setup = &mut self.shared.world().setup;
        (setup.policy_v2, setup.policy_v1) = (v2, v1);
    }

    /// Every token given so far has expired.
    pub(crate) fn revoke_tokens(&self) {
        self.shared.world().tokens.valid.clear();
    }

    /// What nobody is to write down: the tokens that are good, and what they were got for.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let tokens = &self.shared.world().tokens;
        tokens.valid.iter().chain([&tokens.subject]).cloned().collect()
    }

    /// Whether the token service takes the caller's clock for wrong.
    pub(crate) fn clock_skew(&self, skewed: bool) {
        self.shared.world().tokens.refusal = skewed.then(|| tokens::CLOCK_SKEW.to_owned());
    }

    /// Takes an instance away, as Compute Engine does with Spot instances.
    pub(crate) fn preempt(&self, name: &str) {
        let mut world = self.shared.world();
        let place = world.place(name).unwrap_or_else(|| panic!("no instance {name}"));
        world.preempt(&place);
    }

    /// A guest says something of itself.
    pub(crate) fn set_guest_attribute(&self, name: &str, namespace: &str, key: &str, value: &str) {
        self.with(name, |instance| {
            instance.attributes.insert((namespace.to_owned(), key.to_owned()), value.to_owned());
        });
    }

    /// A guest prints something.
    pub(crate) fn print(&self, name: &str, text: &str) {
        self.with(name, |instance| instance.serial.append(text.as_bytes()));
    }

    /// What a guest has printed.
    pub(crate) fn serial(&self, name: &str) -> String {
        self.with(name, |instance| instance.serial.text())
    }

    /// The port on this machine's loopback at which the SSH server of an instance is reached, if its machine runs.
    pub(crate) fn ssh_port(&self, name: &str) -> Option<u16> {
        ssh_port(&self.shared.world(), name)
    }

    /// The process that is an instance's machine.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.with(name, |instance| match &instance.machine {
            world::Slot::Empty => None,
            world::Slot::On(machine) => Some(machine.pid()),
        })
    }

    /// What a guest says of itself, by namespace and key.
    pub(crate) fn guest_attributes(&self, name: &str) -> BTreeMap<(String, String), String> {
        self.with(name, |instance| instance.attributes.clone())
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut world::Instance) -> T) -> T {
        let mut world = self.shared.world();
        let place = world.place(name).unwrap_or_else(|| panic!("no instance {name}"));
        let result = act(world.instances.get_mut(&place).unwrap());
        drop(world);
        self.shared.changed.notify_all();
        result
    }
}

fn ssh_port(world: &World, name: &str) -> Option<u16> {
    match &world.instances.get(&world.place(name)?)?.machine {
        world::Slot::Empty => None,
        world::Slot::On(machine) => Some(machine.ssh_port),
    }
}

/// Starts a machine. By the thread that lives as long as the cloud, since machines do not outlive the thread that started them.
fn start(shared: &Arc<Shared>, place: &world::Place) {
    let parts = shared.world().parts.clone();
    if let Some(parts) = parts {
        let machine = machine::Machine::start(shared, &parts, place);
        shared.world().started(place, machine);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        let _ = self.time.take().map(JoinHandle::join);
        // With their machines.
        self.shared.world().instances.clear();
    }
}
