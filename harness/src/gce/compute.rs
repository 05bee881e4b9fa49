//! The calls that are made, one method for each.

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    client::{Call, Client},
    error::{ApiError, ApiErrorKind, Needs},
    resource::{
        AggregatedPage, Disk, GuestAttribute, GuestAttributes, Instance, MachineType, Operation, Page, Policy, SerialOutput, Zone,
    },
    settings::Endpoints,
};

const COMPUTE: &str = "compute.googleapis.com";
const ADMIN: &str = "roles/compute.instanceAdmin.v1";
/// The organization policy that switches nested virtualization off.
const CONSTRAINT: &str = "compute.disableNestedVirtualization";
/// Most pages of a list.
const MOST_PAGES: usize = 100;
/// How often an operation is waited for: each time for up to two minutes.
const MOST_WAITS: usize = 60;

/// One project of Compute Engine.
#[derive(Clone, Copy)]
pub(crate) struct Compute<'a> {
    pub(crate) client: &'a Client,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) project: &'a str,
}

/// Something in a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InZone<'a> {
    pub(crate) zone: &'a str,
    pub(crate) name: &'a str,
}

/// Whether an organization policy is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enforced {
    Yes,
    No,
    /// Why nobody can tell.
    Unknown(String),
}

impl<'a> Compute<'a> {
    fn needs(&self, permission: &'a str) -> Needs<'a> {
        Needs { project: self.project, service: COMPUTE, permission, role: ADMIN }
    }

    fn url(&self, path: &str) -> String {
        format!("{}projects/{}/{path}", self.endpoints.compute, self.project)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        what: String,
        path: &str,
        query: Vec<(&'static str, String)>,
        permission: &'a str,
    ) -> Result<T, ApiError> {
        let call =
            Call { what, method: Method::GET, url: self.url(path), query, body: None, needs: self.needs(permission) };
        self.client.call(&call).await
    }

    /// Whether the constraint on nested virtualization is enforced: asked of the newer API, then of the older one.
    pub(crate) async fn nesting_is_forbidden(&self) -> Enforced {
        let what = format!("read the organization policy {CONSTRAINT}");
        let needs = |service, role| Needs { project: self.project, service, permission: "orgpolicy.policy.get", role };
        let newer = Call {
            what: what.clone(),
            method: Method::GET,
            url: format!(
                "{}v2/projects/{}/policies/{CONSTRAINT}:getEffectivePolicy",
                self.endpoints.org_policy, self.project
            ),
            query: Vec::new(),
            body: None,
            needs: needs("orgpolicy.googleapis.com", "roles/orgpolicy.policyViewer"),
        };
        match self.client.call::<Policy>(&newer).await {
            Ok(policy) if policy.spec.rules.iter().any(|rule| rule.enforce) => return Enforced::Yes,
            Ok(_) => return Enforced::No,
            // Whoever is nobody here is nobody there.
            Err(error) if error.kind == ApiErrorKind::Unauthenticated => return Enforced::Unknown(error.to_string()),
            Err(_) => {}
        }
        let older = Call {
            method: Method::POST,
            url: format!("{}v1/projects/{}:getEffectiveOrgPolicy", self.endpoints.resource_manager, self.project),
            body: Some(json!({ "constraint": format!("constraints/{CONSTRAINT}") })),
            needs: needs("cloudresourcemanager.googleapis.com", "roles/orgpolicy.policyViewer"),
            ..newer
        };
        match self.client.call::<Policy>(&older).await {
            Ok(policy) if policy.boolean_policy.enforced => Enforced::Yes,
            Ok(_) => Enforced::No,
            Err(error) => Enforced::Unknown(error.message),
        }
    }

    pub(crate) async fn zone(&self, zone: &str) -> Result<Zone, ApiError> {
        self.get(format!("look up the zone {zone}"), &format!("zones/{zone}"), Vec::new(), "compute.zones.get").await
    }

    pub(crate) async fn machine_type(&self, InZone { zone, name }: InZone<'_>) -> Result<MachineType, ApiError> {
        let what = format!("look up the machine type {name} in {zone}");
        self.get(what, &format!("zones/{zone}/machineTypes/{name}"), Vec::new(), "compute.machineTypes.get").await
    }

    pub(crate) async fn disk(&self, InZone { zone, name }: InZone<'_>) -> Result<Disk, ApiError> {
        let what = format!("look up the disk {name} in {zone}");
        self.get(what, &format!("zones/{zone}/disks/{name}"), Vec::new(), "compute.disks.get").await
    }

    /// Asks for an instance. `request` is an id of its own: asked twice, one is created.
    pub(crate) async fn insert(&self, at: InZone<'_>, body: &Value, request: &str) -> Result<Operation, ApiError> {
        let call = Call {
            what: format!("create the instance {} in {}", at.name, at.zone),
            method: Method::POST,
            url: self.url(&format!("zones/{}/instances", at.zone)),
            query: vec![("requestId", request.to_owned())],
            body: Some(body.clone()),
            needs: self.needs("compute.instances.create"),
        };
        self.client.call(&call).await
    }

    /// Asks for an instance's end.
    pub(crate) async fn delete(&self, at: InZone<'_>, request: &str) -> Result<Operation, ApiError> {
        let call = Call {
            what: format!("delete the instance {} in {}", at.name, at.zone),
            method: Method::DELETE,
            url: self.url(&format!("zones/{}/instances/{}", at.zone, at.name)),
            query: vec![("requestId", request.to_owned())],
            body: None,
            needs: self.needs("compute.instances.delete"),
        };
        self.client.call(&call).await
    }

    /// Waits until an operation is done; an error that it carries is one of ours. `zone`: `None` for one of the project.
    pub(crate) async fn done(&self, what: &str, zone: Option<&str>, operation: Operation) -> Result<(), ApiError> {
        let mut operation = operation;
        for _ in 0..MOST_WAITS {
            if operation.status == "DONE" {
                return outcome(what, self.project, operation);
            }
            let place = zone.map_or_else(|| "global".to_owned(), |zone| format!("zones/{zone}"));
            let call = Call {
                what: what.to_owned(),
                method: Method::POST,
                url: self.url(&format!("{place}/operations/{}/wait", operation.name)),
                query: Vec::new(),
                body: None,
                needs: self.needs("compute.zoneOperations.get"),
            };
            // It answers after two minutes at the latest, whether it is done or not, and before that if the service is busy.
            let began = std::time::Instant::now();
            operation = self.client.call(&call).await?;
            if operation.status != "DONE" && began.elapsed().as_secs() < 1 {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
        Err(ApiError::new(what, ApiErrorKind::Unavailable, "timeout: the operation did not end"))
    }

    pub(crate) async fn instance(&self, InZone { zone, name }: InZone<'_>) -> Result<Instance, ApiError> {
        let what = format!("look at the instance {name} in {zone}");
        self.get(what, &format!("zones/{zone}/instances/{name}"), Vec::new(), "compute.instances.get").await
    }

    /// What its first serial port has said from `start` on.
    pub(crate) async fn serial(&self, InZone { zone, name }: InZone<'_>, start: &str) -> Result<SerialOutput, ApiError> {
        let what = format!("read the serial output of {name}");
        let query = vec![("port", "1".to_owned()), ("start", start.to_owned())];
        let path = format!("zones/{zone}/instances/{name}/serialPort");
        self.get(what, &path, query, "compute.instances.getSerialPortOutput").await
    }

    /// What programs in it have said in this namespace; nothing is no error.
    pub(crate) async fn guest_attributes(
        &self,
        InZone { zone, name }: InZone<'_>,
        namespace: &str,
    ) -> Result<Vec<GuestAttribute>, ApiError> {
        let what = format!("read the guest attributes of {name}");
        let query = vec![("queryPath", format!("{namespace}/"))];
        let path = format!("zones/{zone}/instances/{name}/getGuestAttributes");
        match self.get::<GuestAttributes>(what, &path, query, "compute.instances.getGuestAttributes").await {
            Ok(attributes) => Ok(attributes.query_value.items),
            Err(error) if error.kind == ApiErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether this instance was taken back by Compute Engine before its time (Spot).
    pub(crate) async fn was_preempted(&self, InZone { zone, name }: InZone<'_>) -> Result<bool, ApiError> {
        let what = format!("look for the preemption of {name}");
        let query = vec![("filter", "operationType=\"compute.instances.preempted\"".to_owned())];
        let operations: Vec<Operation> =
            self.pages(what, &format!("zones/{zone}/operations"), query, "compute.zoneOperations.list").await?;
        let end = format!("/instances/{name}");
        Ok(operations.iter().any(|operation| operation.operation_type == "compute.instances.preempted" && operation.target_link.ends_with(&end)))
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        what: String,
        path: &str,
        query: Vec<(&'static str, String)>,
        permission: &'a str,
    ) -> Result<Vec<T>, ApiError> {
        let (mut all, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let mut query = query.clone();
            if !token.is_empty() {
                query.push(("pageToken", token));
            }
            let page: Page<T> = self.get(what.clone(), path, query, permission).await?;
            all.extend(page.items);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
        Err(ApiError::new(&what, ApiErrorKind::Invalid, format!("the list has more than {MOST_PAGES} pages")))
    }

    /// Instances of all zones that this filter takes.
    pub(crate) async fn instances(&self, filter: &str) -> Result<Vec<Instance>, ApiError> {
        let what = format!("list the instances of the project {}", self.project);
        let (mut all, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let mut query = vec![("filter", filter.to_owned())];
            if !token.is_empty() {
                query.push(("pageToken", token));
            }
            let page: AggregatedPage =
                self.get(what.clone(), "aggregated/instances", query, "compute.instances.list").await?;
            all.extend(page.items.into_values().flat_map(|scoped| scoped.instances));
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
        Err(ApiError::new(&what, ApiErrorKind::Invalid, format!("the list has more than {MOST_PAGES} pages")))
    }
}

fn outcome(what: &str, project: &str, operation: Operation) -> Result<(), ApiError> {
    let first = operation.error.unwrap_or_default().errors.into_iter().next();
    match (first, operation.http_error_status_code) {
        (Some(error), _) => Err(ApiError::of_operation(what, project, &error.code, &error.message)),
        (None, Some(status)) if status >= 400 => {
            let code = if operation.http_error_message.is_empty() { format!("HTTP {status}") } else { operation.http_error_message };
            Err(ApiError::of_operation(what, project, &code, ""))
        }
        (None, _) => Ok(()),
    }
}
