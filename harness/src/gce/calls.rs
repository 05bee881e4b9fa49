//! The calls that are made: addresses, parameters and what each needs. Pure.

use reqwest::Method;
use serde_json::{Value, json};

use super::{client::Call, error::Needs, settings::Endpoints};

const COMPUTE: &str = "compute.googleapis.com";
const ADMIN: &str = "roles/compute.instanceAdmin.v1";
const POLICY_VIEWER: &str = "roles/orgpolicy.policyViewer";
/// The organization policy that switches nested virtualization off.
pub(crate) const CONSTRAINT: &str = "compute.disableNestedVirtualization";

/// Calls of one project.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls<'a> {
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) project: &'a str,
}

/// Something in a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InZone<'a> {
    pub(crate) zone: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Calls<'a> {
    fn call(&self, method: Method, what: String, path: &str, permission: &'a str) -> Call<'a> {
        Call {
            what,
            method,
            url: format!("{}projects/{}/{path}", self.endpoints.compute, self.project),
            query: Vec::new(),
            body: None,
            needs: Needs { project: self.project, service: COMPUTE, permission, role: ADMIN },
        }
    }

    fn get(&self, what: String, path: &str, permission: &'a str) -> Call<'a> {
        self.call(Method::GET, what, path, permission)
    }

    fn policy(&self, method: Method, url: String, body: Option<Value>, service: &'a str) -> Call<'a> {
        let needs = Needs { project: self.project, service, permission: "orgpolicy.policy.get", role: POLICY_VIEWER };
        let what = format!("read the organization policy {CONSTRAINT}");
        Call { what, method, url, query: Vec::new(), body, needs }
    }

    /// Whether nested virtualization is forbidden (Org Policy API v2).
    pub(crate) fn policy_v2(&self) -> Call<'a> {
        let Endpoints { org_policy, .. } = self.endpoints;
        let url = format!("{org_policy}v2/projects/{}/policies/{CONSTRAINT}:getEffectivePolicy", self.project);
        self.policy(Method::GET, url, None, "orgpolicy.googleapis.com")
    }

    /// The same of the older API (Resource Manager v1).
    pub(crate) fn policy_v1(&self) -> Call<'a> {
        let url = format!("{}v1/projects/{}:getEffectiveOrgPolicy", self.endpoints.resource_manager, self.project);
        let body = json!({ "constraint": format!("constraints/{CONSTRAINT}") });
        self.policy(Method::POST, url, Some(body), "cloudresourcemanager.googleapis.com")
    }

    pub(crate) fn zone(&self, zone: &str) -> Call<'a> {
        self.get(format!("look up the zone {zone}"), &format!("zones/{zone}"), "compute.zones.get")
    }

    pub(crate) fn machine_type(&self, InZone { zone, name }: InZone<'_>) -> Call<'a> {
        let what = format!("look up the machine type {name} in {zone}");
        self.get(what, &format!("zones/{zone}/machineTypes/{name}"), "compute.machineTypes.get")
    }

    pub(crate) fn disk(&self, InZone { zone, name }: InZone<'_>) -> Call<'a> {
        self.get(
            format!("look up the disk {name} in {zone}"),
            &format!("zones/{zone}/disks/{name}"),
            "compute.disks.get",
        )
    }

    /// Creates an instance. `request` is an id of its own: asked twice, one is created.
    pub(crate) fn insert(&self, InZone { zone, name }: InZone<'_>, body: Value, request: &str) -> Call<'a> {
        let what = format!("create the instance {name} in {zone}");
        let call = self.call(Method::POST, what, &format!("zones/{zone}/instances"), "compute.instances.create");
        Call { query: vec![("requestId", request.to_owned())], body: Some(body), ..call }
    }

    /// Deletes an instance.
    pub(crate) fn delete(&self, InZone { zone, name }: InZone<'_>, request: &str) -> Call<'a> {
        let what = format!("delete the instance {name} in {zone}");
        let call =
            self.call(Method::DELETE, what, &format!("zones/{zone}/instances/{name}"), "compute.instances.delete");
        Call { query: vec![("requestId", request.to_owned())], ..call }
    }

    /// Waits for an operation, for two minutes at the most. `zone`: `None` for one that is of the project as a whole.
    pub(crate) fn wait(&self, what: &str, zone: Option<&str>, name: &str) -> Call<'a> {
        let (place, permission) = match zone {
            Some(zone) => (format!("zones/{zone}"), "compute.zoneOperations.get"),
            None => ("global".to_owned(), "compute.globalOperations.get"),
        };
        self.call(Method::POST, what.to_owned(), &format!("{place}/operations/{name}/wait"), permission)
    }

    /// Makes an image, of a disk that is in use as well: what is written is in it.
    pub(crate) fn insert_image(&self, name: &str, body: Value, request: &str) -> Call<'a> {
        let call = self.call(Method::POST, format!("make the image {name}"), "global/images", "compute.images.create");
        let needs = Needs { role: "roles/compute.storageAdmin", ..call.needs };
        Call {
            query: vec![("forceCreate", "true".to_owned()), ("requestId", request.to_owned())],
            body: Some(body),
            needs,
            ..call
        }
    }

    pub(crate) fn instance(&self, InZone { zone, name }: InZone<'_>) -> Call<'a> {
        let what = format!("look at the instance {name} in {zone}");
        self.get(what, &format!("zones/{zone}/instances/{name}"), "compute.instances.get")
    }

    /// What its first serial port has said from `start` on.
    pub(crate) fn serial(&self, InZone { zone, name }: InZone<'_>, start: &str) -> Call<'a> {
        let what = format!("read the serial output of {name}");
        let path = format!("zones/{zone}/instances/{name}/serialPort");
        let query = vec![("port", "1".to_owned()), ("start", start.to_owned())];
        Call { query, ..self.get(what, &path, "compute.instances.getSerialPortOutput") }
    }

    /// What programs in it have said in this namespace.
    pub(crate) fn guest_attributes(&self, InZone { zone, name }: InZone<'_>, namespace: &str) -> Call<'a> {
        let what = format!("read the guest attributes of {name}");
        let path = format!("zones/{zone}/instances/{name}/getGuestAttributes");
        let query = vec![("queryPath", format!("{namespace}/"))];
        Call { query, ..self.get(what, &path, "compute.instances.getGuestAttributes") }
    }

    /// Instances of the zone that Compute Engine has taken back (Spot).
    pub(crate) fn preemptions(&self, InZone { zone, name }: InZone<'_>) -> Call<'a> {
        let what = format!("look for the preemption of {name}");
        let query = vec![("filter", "operationType=\"compute.instances.preempted\"".to_owned())];
        Call { query, ..self.get(what, &format!("zones/{zone}/operations"), "compute.zoneOperations.list") }
    }

    /// Instances of all zones that this filter takes.
    pub(crate) fn instances(&self, filter: &str) -> Call<'a> {
        let what = format!("list the instances of the project {}", self.project);
        let query = vec![("filter", filter.to_owned())];
        Call { query, ..self.get(what, "aggregated/instances", "compute.instances.list") }
    }
}
