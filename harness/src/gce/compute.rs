//! The calls, made: what comes back is typed, and what may be missing is told from what failed.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    calls::{Calls, InZone},
    client::{Call, Client},
    error::{ApiError, ApiErrorKind},
    resource::{
        AggregatedPage, Disk, GuestAttribute, GuestAttributes, Instance, MachineType, Operation, Page, Policy,
        SerialOutput, Zone,
    },
};

/// Most pages of a list.
const MOST_PAGES: usize = 100;
/// How long an operation is waited for.
const OPERATION: Duration = Duration::from_secs(900);
/// Between two calls that wait: the service may answer at once.
const PAUSE: Duration = Duration::from_secs(1);

/// One project of Compute Engine.
#[derive(Clone, Copy)]
pub(crate) struct Compute<'a> {
    pub(crate) client: &'a Client,
    pub(crate) calls: Calls<'a>,
}

/// Whether an organization policy is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enforced {
    Yes,
    No,
    /// Why nobody can tell.
    Unknown(String),
}

impl Compute<'_> {
    /// Whether the constraint on nested virtualization is enforced: asked of the newer API, then of the older one.
    pub(crate) async fn nesting_is_forbidden(&self) -> Enforced {
        match self.client.call::<Policy>(&self.calls.policy_v2()).await {
            Ok(policy) if policy.spec.rules.iter().any(|rule| rule.enforce) => return Enforced::Yes,
            Ok(_) => return Enforced::No,
            // Whoever is nobody here is nobody there.
            Err(error) if error.kind == ApiErrorKind::Unauthenticated => return Enforced::Unknown(error.message),
            Err(_) => {}
        }
        match self.client.call::<Policy>(&self.calls.policy_v1()).await {
            Ok(policy) if policy.boolean_policy.enforced => Enforced::Yes,
            Ok(_) => Enforced::No,
            Err(error) => Enforced::Unknown(error.message),
        }
    }

    pub(crate) async fn zone(&self, zone: &str) -> Result<Zone, ApiError> {
        self.client.call(&self.calls.zone(zone)).await
    }

    pub(crate) async fn machine_type(&self, at: InZone<'_>) -> Result<MachineType, ApiError> {
        self.client.call(&self.calls.machine_type(at)).await
    }

    pub(crate) async fn disk(&self, at: InZone<'_>) -> Result<Disk, ApiError> {
        self.client.call(&self.calls.disk(at)).await
    }

    /// Asks for an instance.
    pub(crate) async fn insert(&self, at: InZone<'_>, body: Value, request: &str) -> Result<Operation, ApiError> {
        self.client.call(&self.calls.insert(at, body, request)).await
    }

    /// Asks for an instance's end.
    pub(crate) async fn delete(&self, at: InZone<'_>, request: &str) -> Result<Operation, ApiError> {
        self.client.call(&self.calls.delete(at, request)).await
    }

    /// Waits until an operation has succeeded. An error that it carries is one of ours.
    pub(crate) async fn done(&self, what: &str, zone: Option<&str>, operation: Operation) -> Result<(), ApiError> {
        let operation = self.over(what, zone, operation).await?;
        outcome(what, self.calls.project, operation)
    }

    /// Waits until an operation is over, whatever it came to: each call waits for two minutes at the most, and for less if the service is busy.
    pub(crate) async fn over(
        &self,
        what: &str,
        zone: Option<&str>,
        operation: Operation,
    ) -> Result<Operation, ApiError> {
        let (began, mut operation) = (Instant::now(), operation);
        while began.elapsed() < OPERATION {
            if operation.status == "DONE" {
                return Ok(operation);
            }
            let asked = Instant::now();
            let wait = self.calls.wait(what, zone, &operation.name);
            operation = self.client.call(&wait).await?;
            if operation.status != "DONE" {
                tokio::time::sleep(PAUSE.saturating_sub(asked.elapsed())).await;
            }
        }
        Err(ApiError::new(what, ApiErrorKind::Unavailable, "timeout: the operation did not end"))
    }

    /// Makes an image, and waits until it is there.
    pub(crate) async fn insert_image(&self, name: &str, body: Value, request: &str) -> Result<(), ApiError> {
        let call = self.calls.insert_image(name, body, request);
        let operation = self.client.call(&call).await?;
        self.done(&call.what, None, operation).await
    }

    pub(crate) async fn instance(&self, at: InZone<'_>) -> Result<Instance, ApiError> {
        self.client.call(&self.calls.instance(at)).await
    }

    pub(crate) async fn serial(&self, at: InZone<'_>, start: &str) -> Result<SerialOutput, ApiError> {
        self.client.call(&self.calls.serial(at, start)).await
    }

    /// What programs in it have said in this namespace; nothing is no error.
    pub(crate) async fn guest_attributes(
        &self,
        at: InZone<'_>,
        namespace: &str,
    ) -> Result<Vec<GuestAttribute>, ApiError> {
        match self.client.call::<GuestAttributes>(&self.calls.guest_attributes(at, namespace)).await {
            Ok(attributes) => Ok(attributes.query_value.items),
            Err(error) if error.kind == ApiErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether this instance was taken back by Compute Engine (Spot).
    pub(crate) async fn was_preempted(&self, at: InZone<'_>) -> Result<bool, ApiError> {
        let (call, end) = (self.calls.preemptions(at), format!("/instances/{}", at.name));
        let pages: Vec<Page<Operation>> = self.pages(call, |page: &Page<Operation>| &page.next_page_token).await?;
        let mut operations = pages.into_iter().flat_map(|page| page.items);
        Ok(operations.any(|operation| {
            operation.operation_type == "compute.instances.preempted" && operation.target_link.ends_with(&end)
        }))
    }

    /// Instances of all zones that this filter takes.
    pub(crate) async fn instances(&self, filter: &str) -> Result<Vec<Instance>, ApiError> {
        let call = self.calls.instances(filter);
        let pages: Vec<AggregatedPage> = self.pages(call, |page: &AggregatedPage| &page.next_page_token).await?;
        Ok(pages.into_iter().flat_map(|page| page.items.into_values()).flat_map(|scoped| scoped.instances).collect())
    }

    async fn pages<T: DeserializeOwned>(&self, call: Call<'_>, next: impl Fn(&T) -> &str) -> Result<Vec<T>, ApiError> {
        let (mut call, mut pages) = (call, Vec::new());
        let own = call.query.len();
        for _ in 0..MOST_PAGES {
            let page: T = self.client.call(&call).await?;
            let token = next(&page).to_owned();
            pages.push(page);
            if token.is_empty() {
                return Ok(pages);
            }
            call.query.truncate(own);
            call.query.push(("pageToken", token));
        }
        Err(ApiError::new(&call.what, ApiErrorKind::Invalid, format!("the list has more than {MOST_PAGES} pages")))
    }
}

fn outcome(what: &str, project: &str, operation: Operation) -> Result<(), ApiError> {
    let first = operation.error.unwrap_or_default().errors.into_iter().next();
    match (first, operation.http_error_status_code) {
        (Some(error), _) => Err(ApiError::of_operation(what, project, &error.code, &error.message)),
        (None, Some(status)) if status >= 400 => {
            let message = operation.http_error_message;
            let code = if message.is_empty() { format!("HTTP {status}") } else { message };
            Err(ApiError::of_operation(what, project, &code, ""))
        }
        (None, _) => Ok(()),
    }
}
