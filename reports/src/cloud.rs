//! A machine that is created for a runner and deleted after it: its facts, what it took and cost, in the words of every output.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::human;

/// A machine that was created in a cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudFacts {
    /// The cloud: `Compute Engine`.
    pub provider: String,
    /// Id of the project that it belongs to.
    pub project: String,
    /// The zone that it is in, such as `us-central1-a`.
    pub zone: String,
    /// Its machine type, such as `n2-standard-4`.
    pub machine_type: String,
    /// Name of the instance.
    pub name: String,
    /// What its boot disk is made from, as it was asked for, such as `debian-cloud/debian-13`.
    pub image: String,
    /// The CPU platform it was given, such as `Intel Cascade Lake`; `None`: unknown.
    pub cpu_platform: Option<String>,
    /// It is a Spot VM: the cloud may take it back at any time.
    pub spot: bool,
    /// The cloud deletes it after so many seconds, whatever happens.
    pub max_seconds: u64,
    /// Its price in US dollars per hour; `None`: unknown.
    pub usd_per_hour: Option<f64>,
    /// From the request to create it until it existed, in milliseconds.
    pub creating_ms: u64,
}

/// A machine that was created for a runner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineRun {
    /// What it is.
    pub facts: CloudFacts,
    /// When it existed.
    pub created: Timestamp,
    /// The same by the clock of the run.
    #[serde(skip)]
    pub(crate) created_ms: u64,
    /// How long it existed, in milliseconds; `None`: it is not known to be deleted.
    pub held_ms: Option<u64>,
    /// From [`MachineRun::created`] to the start of the first guest on it, in milliseconds; `None`: no guest started.
    pub first_guest_after_ms: Option<u64>,
}

impl CloudFacts {
    /// `n2-standard-4 in us-central1-a, project my-project, instance nm-1`.
    pub(crate) fn words(&self) -> String {
        let Self { machine_type, zone, project, name, .. } = self;
        let spot = if self.spot { " (Spot)" } else { "" };
        format!("{machine_type}{spot} in {zone}, project {project}, instance {name}")
    }

    /// `deleted after 4h 00m at the latest`.
    pub(crate) fn limit(&self) -> String {
        format!("deleted after {} at the latest", human::duration(self.max_seconds.saturating_mul(1_000)))
    }
}

impl MachineRun {
    /// From the request to create it to the start of the first guest on it, in milliseconds.
    pub fn insert_to_first_guest_ms(&self) -> Option<u64> {
        self.first_guest_after_ms.map(|ms| ms.saturating_add(self.facts.creating_ms))
    }

    /// What it cost in US dollars, if its price is known and it is known to be deleted.
    pub fn usd(&self) -> Option<f64> {
        Some(self.facts.usd_per_hour? * (self.held_ms? as f64 / 3_600_000.0))
    }

    /// The same for people: `about $0.04`; `None`: nobody knows yet.
    pub(crate) fn cost(&self) -> Option<String> {
        match self.usd() {
            Some(usd) if usd < 0.005 => Some("less than $0.01".to_owned()),
            Some(usd) => Some(format!("about ${usd:.2}")),
            None => self.facts.usd_per_hour.is_none().then(|| "price not known".to_owned()),
        }
    }

    /// When the cloud deletes it, for as long as that may still happen.
    pub(crate) fn limit(&self) -> Option<String> {
        self.held_ms.is_none().then(|| self.facts.limit())
    }

    /// `deleted after 12m 03s`, or that it may still exist, and how to look.
    pub(crate) fn held(&self) -> String {
        match self.held_ms {
            Some(ms) => format!("deleted after {}", human::duration(ms)),
            None => "not known to be deleted: `nestmatrix gce list` shows what is left".to_owned(),
        }
    }

    /// `deleted after 12m 03s, first guest 1m 40s after the request, about $0.04`.
    pub(crate) fn usage(&self) -> String {
        let first = self.insert_to_first_guest_ms();
        let first = first.map(|ms| format!("first guest {} after the request", human::duration(ms)));
        // What may still exist comes last: it has something to do in it.
        let mut parts: Vec<String> = [first, self.cost()].into_iter().flatten().collect();
        match self.held_ms {
            Some(_) => parts.insert(0, self.held()),
            None => parts.push(self.held()),
        }
        parts.join(", ")
    }
}
