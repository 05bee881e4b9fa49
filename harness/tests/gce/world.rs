//! Everything there is in a cloud, and how it changes as time passes.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    faults::Faults,
    machine::{Machine, Parts},
    operation::{Failure, Operation, Target, Work, seconds},
    record::Record,
    serial::Serial,
    setup::Setup,
};

/// Seconds between the notice of a preemption and its end.
const PREEMPTION: f64 = 30.0;
/// Seconds a guest has to shut down in.
const SHUTDOWN: f64 = 90.0;

/// Where something is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) zone: String,
    pub(super) name: String,
}

/// What all threads share.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) instances: BTreeMap<Place, Instance>,
    pub(super) disks: BTreeMap<Place, Value>,
    pub(super) images: Vec<Value>,
    pub(super) operations: Vec<Operation>,
    /// Names of the operations that were begun by requests with these ids.
    pub(super) by_request: HashMap<String, String>,
    /// What the next inserts in a zone come to.
    pub(super) shortages: HashMap<String, String>,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) record: Record,
    /// What machines are started from; `None`: there are none.
    pub(super) parts: Option<Arc<Parts>>,
    last: u64,
}

/// Who may call.
#[derive(Default)]
pub(super) struct Tokens {
    pub(super) valid: Vec<String>,
    /// `error_description` of what the token service answers instead.
    pub(super) refusal: Option<String>,
    /// What proves to it who one is.
    pub(super) subject: String,
    pub(super) given: u64,
}

/// A virtual machine.
pub(super) struct Instance {
    /// As it is shown.
    pub(super) value: Value,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) preempted: bool,
    /// The next request about it does not find it.
    pub(super) hidden: AtomicBool,
    pub(super) serial: Serial,
    /// Guest attributes, by namespace and key.
    pub(super) attributes: BTreeMap<(String, String), String>,
    pub(super) nested: bool,
    pub(super) nat: Option<Ipv4Addr>,
    pub(super) machine: Slot,
    /// When its `maxRunDuration` is over.
    pub(super) expires: Option<Instant>,
    pub(super) ending: Option<Ending>,
}

/// What runs behind an instance.
pub(super) enum Slot {
    Empty,
    On(Box<Machine>),
}

/// An instance is about to end.
pub(super) struct Ending {
    /// Not before.
    earliest: Instant,
    /// Whether its guest is ready or not.
    latest: Instant,
    then: Then,
    /// The operation that is done then.
    operation: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Delete,
    Stop,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut world = Self {
            instances: BTreeMap::new(),
            disks: BTreeMap::new(),
            images: Vec::new(),
            operations: Vec::new(),
            by_request: HashMap::new(),
            shortages: HashMap::new(),
            tokens: Tokens::default(),
            faults: Faults::default(),
            record: Record::default(),
            parts: None,
            last: 4_000_000_000_000_000_000,
            setup,
        };
        let debian = ["debian-12", "debian-13"].map(|family| ("debian-cloud".to_owned(), family.to_owned()));
        let own = world.setup.families.iter().map(|family| (world.setup.project.clone(), family.clone()));
        for (project, family) in debian.into_iter().chain(own).collect::<Vec<_>>() {
            let id = world.id();
            let name = format!("{family}-v20261110");
            world.images.push(json!({
                "kind": "compute#image", "id": id.to_string(), "name": name, "family": family, "status": "READY",
                "selfLink": link(&format!("projects/{project}/global/images/{name}")),
                "diskSizeGb": "10", "archiveSizeBytes": "1073741824", "architecture": "X86_64", "sourceType": "RAW",
                "creationTimestamp": now(), "labelFingerprint": "42WmSpB8rSM=",
                "guestOsFeatures": [{ "type": "UEFI_COMPATIBLE" }, { "type": "VIRTIO_SCSI_MULTIQUEUE" }, { "type": "GVNIC" }],
            }));
        }
        world
    }

    /// A number that nothing else has.
    pub(super) fn id(&mut self) -> u64 {
        self.last += 7919;
        self.last
    }

    /// Begins an operation, and answers it.
    pub(super) fn begin(&mut self, kind: &str, target: &Target<'_>, work: Work, request: Option<&str>) -> Value {
        let id = self.id();
        let operation = Operation::new(&self.setup, id, kind, target, work);
        if let Some(request) = request {
            self.by_request.insert(request.to_owned(), operation.name().to_owned());
        }
        let value = operation.value.clone();
        self.operations.push(operation);
        value
    }

    pub(super) fn operation(&mut self, name: &str) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| operation.name() == name)
    }

    /// The one instance of this name, in whichever zone.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        self.instances.keys().find(|place| place.name == name).cloned()
    }

    /// An instance begins to end: its guest is told, and has some time.
    pub(super) fn end(&mut self, place: &Place, then: Then, operation: Option<String>) {
        let now = Instant::now();
        let earliest = if operation.is_some() { now + self.setup.operations_take } else { now };
        self.end_within(place, Ending { earliest, latest: earliest + seconds(&self.setup, SHUTDOWN), then, operation });
    }

    fn end_within(&mut self, place: &Place, ending: Ending) {
        let Some(instance) = self.instances.get_mut(place) else { return };
        instance.value["status"] = "STOPPING".into();
        instance.ending = Some(ending);
        if let Slot::On(machine) = &mut instance.machine {
            machine.power_down();
        }
    }

    /// What the instance is to come to when Compute Engine ends it.
    fn termination(&self, place: &Place) -> Then {
        let action =
            self.instances.get(place).map(|instance| &instance.value["scheduling"]["instanceTerminationAction"]);
        if action.is_some_and(|action| action == "DELETE") { Then::Delete } else { Then::Stop }
    }

    /// Takes a Spot instance away.
    pub(super) fn preempt(&mut self, place: &Place) {
        self.note("compute.instances.preempted", place, "Instance was preempted.");
        let now = Instant::now();
        let latest = now + seconds(&self.setup, PREEMPTION);
        // Nobody is there who could be done sooner.
        let earliest = if self.parts.is_none() { latest } else { now };
        let then = self.termination(place);
        if let Some(instance) = self.instances.get_mut(place) {
            instance.preempted = true;
        }
        self.end_within(place, Ending { earliest, latest, then, operation: None });
    }

    /// An operation of Compute Engine's own, done already.
    fn note(&mut self, kind: &str, place: &Place, message: &str) {
        let Some(instance) = self.instances.get(place) else { return };
        let id = instance.value["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("instances/{}", place.name);
        let target = Target { zone: Some(&place.zone), path: &path, id: &id };
        self.begin(kind, &target, Work::Nothing, None);
        let operation = self.operations.last_mut().unwrap();
        operation.value["user"] = "system".into();
        operation.value["statusMessage"] = message.into();
        operation.done(None);
    }

    /// Does what is due, and answers whose machines are to be started.
    pub(super) fn advance(&mut self) -> Vec<Place> {
        let now = Instant::now();
        let mut starting = Vec::new();
        for index in 0..self.operations.len() {
            starting.extend(self.advance_operation(index, now));
        }
        for place in self.instances.keys().cloned().collect::<Vec<_>>() {
            self.advance_instance(&place, now);
        }
        starting
    }

    fn advance_operation(&mut self, index: usize, now: Instant) -> Option<Place> {
        let operation = &mut self.operations[index];
        if operation.is_done() || now < operation.starts {
            return None;
        }
        if operation.value["status"] == "PENDING" {
            operation.run();
            if let Work::Insert(place, _) = &operation.work
                && let Some(instance) = self.instances.get_mut(place)
                && instance.ending.is_none()
            {
                instance.value["status"] = "STAGING".into();
            }
        }
        if now < operation.ends {
            return None;
        }
        match &operation.work {
            Work::End => return None,
            Work::Insert(place, Some(failure)) => {
                let (place, failure) = (place.clone(), failure.clone());
                operation.done(Some(&failure));
                self.remove(&place);
                return None;
            }
            Work::Insert(place, None) => {
                if let Some(instance) = self.instances.get_mut(place)
                    && instance.ending.is_none()
                {
                    if self.parts.is_some() && matches!(instance.machine, Slot::Empty) {
                        return Some(place.clone());
                    }
                    instance.run(&self.setup, now);
                }
            }
            Work::Disk(place) => {
                if let Some(disk) = self.disks.get_mut(place) {
                    disk["status"] = "READY".into();
                }
            }
            Work::Image(name) => {
                for image in self.images.iter_mut().filter(|image| image["name"] == name.as_str()) {
                    image["status"] = "READY".into();
                }
            }
            Work::Nothing => {}
        }
        operation.done(None);
        None
    }

    /// The machine of an instance has been started, or could not be.
    pub(super) fn started(&mut self, place: &Place, machine: std::io::Result<Option<Machine>>) {
        match (machine, self.instances.get_mut(place)) {
            (Ok(Some(machine)), Some(instance)) => instance.machine = Slot::On(Box::new(machine)),
            (Ok(_), _) => {}
            (Err(error), _) => {
                self.record.violations.push(format!("{}: no machine: {error}", place.name));
                self.remove(place);
            }
        }
    }

    fn advance_instance(&mut self, place: &Place, now: Instant) {
        let Some(instance) = self.instances.get_mut(place) else { return };
        let ended = match &mut instance.machine {
            Slot::Empty => None,
            Slot::On(machine) => machine.ended(),
        };
        let is_on = matches!(instance.machine, Slot::On(_)) && ended.is_none();
        match (&instance.ending, ended) {
            (Some(ending), _) if now >= ending.earliest && (now >= ending.latest || !is_on) => {
                let (then, operation) = (ending.then, ending.operation.clone());
                self.ended(place, then);
                if let Some(operation) = operation.and_then(|name| self.operation(&name)) {
                    operation.done(None);
                }
            }
            (None, Some(status)) => {
                match status.success() {
                    true => self.note("compute.instances.guestTerminate", place, "Guest OS initiated shutdown."),
                    false => self.note("compute.instances.hostError", place, "Instance terminated by host error."),
                }
                self.ended(place, Then::Stop);
            }
            (None, None) if instance.expires.is_some_and(|expires| now >= expires) => {
                self.end(place, self.termination(place), None);
            }
            _ => {}
        }
    }

    fn ended(&mut self, place: &Place, then: Then) {
        if then == Then::Delete {
            return self.remove(place);
        }
        let Some(instance) = self.instances.get_mut(place) else { return };
        instance.machine = Slot::Empty;
        instance.ending = None;
        instance.expires = None;
        instance.value["status"] = "TERMINATED".into();
        instance.value["lastStopTimestamp"] = now().into();
        for access in instance
            .value
            .pointer_mut("/networkInterfaces/0/accessConfigs")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            access.as_object_mut().unwrap().remove("natIP");
        }
    }

    /// An instance is gone, and those of its disks that go with it.
    pub(super) fn remove(&mut self, place: &Place) {
        let Some(instance) = self.instances.remove(place) else { return };
        for attached in instance.value["disks"].as_array().into_iter().flatten() {
            let name = attached["source"].as_str().and_then(|source| source.rsplit('/').next()).unwrap_or_default();
            let disk = Place { zone: place.zone.clone(), name: name.to_owned() };
            if attached["autoDelete"] == true {
                self.disks.remove(&disk);
            } else if let Some(disk) = self.disks.get_mut(&disk) {
                disk["users"] = json!([]);
            }
        }
    }
}

impl Instance {
    /// It runs from now on.
    fn run(&mut self, setup: &Setup, at: Instant) {
        self.value["status"] = "RUNNING".into();
        self.value["lastStartTimestamp"] = now().into();
        let limit = self.value["scheduling"]["maxRunDuration"]["seconds"].as_str();
        if let Some(limit) = limit.and_then(|limit| limit.parse::<f64>().ok()) {
            self.expires = Some(at + seconds(setup, limit));
            let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(limit as i64);
            self.value["resourceStatus"]["scheduling"]["terminationTimestamp"] = shown(ends).into();
        }
    }
}

/// A resource's address.
pub(super) fn link(path: &str) -> String {
    format!("https://www.googleapis.com/compute/v1/{path}")
}

/// The time as Compute Engine writes it.
pub(super) fn now() -> String {
    shown(jiff::Timestamp::now())
}

fn shown(time: jiff::Timestamp) -> String {
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(-8));
    time.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

impl From<(&str, &str)> for Place {
    fn from((zone, name): (&str, &str)) -> Self {
        Self { zone: zone.to_owned(), name: name.to_owned() }
    }
}

/// What an insert in this zone comes to.
pub(super) fn shortage(world: &World, zone: &str) -> Option<Failure> {
    world.shortages.get(zone).map(|code| Failure::new(code, &world.setup.project, zone))
}
