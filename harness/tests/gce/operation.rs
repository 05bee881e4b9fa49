//! Operations: what takes time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    setup::Setup,
    world::{Place, link, now},
};

/// Work that was asked for.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) value: Value,
    /// `None`: it is global.
    pub(super) zone: Option<String>,
    pub(super) work: Work,
    pub(super) starts: Instant,
    pub(super) ends: Instant,
    /// How often it was waited for.
    pub(super) waits: u32,
}

#[derive(Debug)]
pub(super) enum Work {
    Insert(Place, Option<Failure>),
    /// Done when the instance has ended.
    End,
    Disk(Place),
    Image(String),
    /// It is done already.
    Nothing,
}

/// Why an operation comes to nothing (`error.errors[]`).
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Failure {
    /// With Google's words for what is known.
    pub(crate) fn new(code: &str, project: &str, zone: &str) -> Self {
        let region = region(zone);
        let message = match code {
            "QUOTA_EXCEEDED" => format!("Quota 'CPUS' exceeded.  Limit: 8.0 in region {region}."),
            "ZONE_RESOURCE_POOL_EXHAUSTED" => format!(
                "The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request.  \
                 Try a different zone, or try again later."
            ),
            _ => format!("The operation failed: {code}."),
        };
        Self { code: code.to_owned(), message }
    }

    fn http(&self) -> (u16, &'static str) {
        match self.code.as_str() {
            "QUOTA_EXCEEDED" => (403, "FORBIDDEN"),
            "ZONE_RESOURCE_POOL_EXHAUSTED" => (503, "SERVICE UNAVAILABLE"),
            _ => (500, "INTERNAL SERVER ERROR"),
        }
    }
}

/// What an operation is for.
pub(super) struct Target<'a> {
    pub(super) zone: Option<&'a str>,
    /// Below the project's or the zone's address, such as `instances/i`.
    pub(super) path: &'a str,
    pub(super) id: &'a str,
}

impl Operation {
    pub(super) fn new(setup: &Setup, id: u64, kind: &str, target: &Target<'_>, work: Work) -> Self {
        let began = Instant::now();
        let name = format!("operation-{id}-{id:016x}");
        let scope = target.zone.map_or_else(|| "global".to_owned(), |zone| format!("zones/{zone}"));
        let project = &setup.project;
        let mut value = json!({
            "kind": "compute#operation",
            "id": id.to_string(),
            "name": name,
            "operationType": kind,
            "targetLink": link(&format!("projects/{project}/{scope}/{}", target.path)),
            "targetId": target.id,
            "status": "PENDING",
            "user": "tester@example.com",
            "progress": 0,
            "insertTime": now(),
            "selfLink": link(&format!("projects/{project}/{scope}/operations/{name}")),
        });
        if let Some(zone) = target.zone {
            value["zone"] = link(&format!("projects/{project}/zones/{zone}")).into();
        }
        let takes = setup.operations_take;
        let (starts, ends) = (began + takes / 3, began + takes);
        Self { value, zone: target.zone.map(str::to_owned), work, starts, ends, waits: 0 }
    }

    pub(super) fn name(&self) -> &str {
        self.value["name"].as_str().unwrap()
    }

    pub(super) fn is_done(&self) -> bool {
        self.value["status"] == "DONE"
    }

    pub(super) fn run(&mut self) {
        self.value["status"] = "RUNNING".into();
        self.value["startTime"] = now().into();
    }

    pub(super) fn done(&mut self, failure: Option<&Failure>) {
        self.value["status"] = "DONE".into();
        self.value["progress"] = 100.into();
        self.value["endTime"] = now().into();
        if self.value["startTime"].is_null() {
            self.value["startTime"] = now().into();
        }
        if let Some(failure) = failure {
            let (code, words) = failure.http();
            self.value["error"] = json!({ "errors": [{ "code": failure.code, "message": failure.message }] });
            self.value["httpErrorStatusCode"] = code.into();
            self.value["httpErrorMessage"] = words.into();
        }
    }
}

/// Of a zone.
pub(super) fn region(zone: &str) -> &str {
    zone.rsplit_once('-').map_or(zone, |(region, _)| region)
}

/// So many seconds of this cloud.
pub(super) fn seconds(setup: &Setup, count: f64) -> Duration {
    setup.second.mul_f64(count)
}
