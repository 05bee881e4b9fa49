//! A call that failed, and what helps. Pure.

use serde::Deserialize;

/// A call did not do what it was made for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {message}")]
pub(crate) struct ApiError {
    /// What was to be done, as a fragment: `create the instance nm-1`.
    pub(crate) what: String,
    /// Why it was not: Google's words.
    pub(crate) message: String,
    /// What it means.
    pub(crate) kind: ApiErrorKind,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// The service has refused it at the first try: nothing was done.
    pub(crate) refused: bool,
}

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiErrorKind {
    /// We are nobody to Google, or no more.
    Unauthenticated,
    /// We may not.
    Forbidden,
    /// An organization policy is against it.
    Policy,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    Exists,
    /// Somebody else uses it.
    InUse,
    /// The project has no more of it.
    Quota,
    /// The zone has no more of it.
    StockOut,
    /// The request is wrong.
    Invalid,
    /// It may pass: the service failed for as long as we tried.
    Unavailable,
    /// No answer came for as long as we tried.
    Unreachable,
}

/// The body of a failed call (Google's API design guide: errors; the older form has `errors[]`).
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error: ErrorText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorText {
    pub(super) message: String,
    pub(super) status: String,
    pub(super) errors: Vec<ErrorItem>,
    pub(super) details: Vec<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorItem {
    pub(super) reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorDetail {
    pub(super) reason: String,
}

impl ErrorText {
    fn reasons(&self) -> impl Iterator<Item = &str> {
        let (old, new) =
            (self.errors.iter().map(|item| &item.reason), self.details.iter().map(|detail| &detail.reason));
        old.chain(new).map(String::as_str)
    }

    /// It is one of these; Google's words for it differ in form between its services.
    fn is(&self, reasons: &[&str]) -> bool {
        self.reasons().any(|reason| reasons.iter().any(|known| known.eq_ignore_ascii_case(reason)))
    }

    /// The service has had too much of us, or is not done with what it was asked for before: whatever the status is, a pause helps.
    pub(super) fn may_pass(&self) -> bool {
        self.is(&["rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "resourceNotReady"])
    }
}

/// What a call needs, for its help.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs<'a> {
    pub(super) project: &'a str,
    /// `compute.googleapis.com`.
    pub(super) service: &'a str,
    /// `compute.instances.create`.
    pub(super) permission: &'a str,
    /// `roles/compute.instanceAdmin.v1`.
    pub(super) role: &'a str,
}

impl ApiError {
    pub(super) fn new(what: &str, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let message = reports::clean::line(&message.into());
        Self { what: what.to_owned(), message, kind, help: None, refused: false }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// An answer of this status.
    pub(super) fn of_status(what: &str, status: u16, text: &ErrorText, needs: Needs<'_>) -> Self {
        let Needs { project, service, permission, role } = needs;
        let message = if text.message.is_empty() { format!("HTTP {status}") } else { text.message.clone() };
        let names_constraint = message.contains("constraints/") || message.contains("Constraint ");
        let (kind, help) = if text.is(&["accessNotConfigured", "SERVICE_DISABLED"]) {
            let help =
                format!("enable the API: `gcloud services enable {service} --project {project}`, and wait a minute");
            (ApiErrorKind::Forbidden, help)
        } else if names_constraint {
            let help = format!(
                "an organization policy forbids it: ask whoever administers it for an exception for the project {project}, or \
                 name another project (`runner.project`, `--gce-project`)"
            );
            (ApiErrorKind::Policy, help)
        } else {
            match status {
                _ if text.may_pass() => (ApiErrorKind::Unavailable, "try again later".to_owned()),
                401 => (ApiErrorKind::Unauthenticated, CREDENTIALS.to_owned()),
                _ if text.is(&["quotaExceeded", "QUOTA_EXCEEDED"]) => (ApiErrorKind::Quota, quota(project)),
                _ if text.is(&["resourceInUseByAnotherResource"]) => (ApiErrorKind::InUse, String::new()),
                403 => {
                    let help = format!(
                        "it needs the permission `{permission}`, which the role `{role}` on the project {project} has"
                    );
                    (ApiErrorKind::Forbidden, help)
                }
                404 => {
                    let help = format!("check the name, and that {project} is the right project");
                    (ApiErrorKind::NotFound, help)
                }
                409 => (ApiErrorKind::Exists, String::new()),
                408 | 429 | 500.. => (ApiErrorKind::Unavailable, "try again later".to_owned()),
                _ => (ApiErrorKind::Invalid, String::new()),
            }
        };
        let error = Self::new(what, kind, message);
        if help.is_empty() { error } else { error.with_help(help) }
    }

    /// An operation that is done and carries this error.
    pub(super) fn of_operation(what: &str, project: &str, code: &str, message: &str) -> Self {
        let message = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
        let kind = match code {
            "QUOTA_EXCEEDED" | "QUOTA_LIMIT_EXCEEDED" | "RATE_LIMIT_EXCEEDED" => ApiErrorKind::Quota,
            _ if code.starts_with("ZONE_RESOURCE_POOL_EXHAUSTED") || code == "STOCKOUT" => ApiErrorKind::StockOut,
            "RESOURCE_NOT_FOUND" => ApiErrorKind::NotFound,
            "RESOURCE_ALREADY_EXISTS" => ApiErrorKind::Exists,
            "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE" => ApiErrorKind::InUse,
            "CONDITION_NOT_MET" if message.contains("onstraint") => ApiErrorKind::Policy,
            "PERMISSIONS_ERROR" | "FORBIDDEN" => ApiErrorKind::Forbidden,
            "INTERNAL_ERROR" | "BACKEND_ERROR" | "SERVICE_UNAVAILABLE" | "TIMEOUT" => ApiErrorKind::Unavailable,
            _ => ApiErrorKind::Invalid,
        };
        let error = Self::new(what, kind, message);
        match kind {
            ApiErrorKind::Quota => error.with_help(quota(project)),
            ApiErrorKind::StockOut => {
                error.with_help("name more zones (`runner.zones`, `--gce-zone`), or another machine type")
            }
            _ => error,
        }
    }

    /// What was asked for is there already, or somebody else's.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Exists | ApiErrorKind::InUse)
    }

    /// Nothing was learnt by it.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Unavailable | ApiErrorKind::Unreachable | ApiErrorKind::Unauthenticated)
    }

    /// Another zone may do.
    pub(crate) fn is_of_zone(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Quota | ApiErrorKind::StockOut)
    }
}

/// What helps whoever is nobody to Google.
pub(super) const CREDENTIALS: &str = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a credentials file; credentials that \
     were good must be renewed";

fn quota(project: &str) -> String {
    format!(
        "ask for more on the quotas page of the project {project}, name more zones in other regions (`runner.zones`, `--gce-zone`), or a smaller machine type"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs<'static> = Needs {
        project: "p",
        service: "compute.googleapis.com",
        permission: "compute.instances.create",
        role: "roles/compute.instanceAdmin.v1",
    };

    fn text(message: &str, reason: &str) -> ErrorText {
        let json = serde_json::json!({ "error": { "message": message, "errors": [{ "reason": reason }] } });
        serde_json::from_value::<ErrorBody>(json).unwrap().error
    }

    #[test]
    fn each_refusal_means_something_and_says_what_helps() {
        use ApiErrorKind::{Exists, Forbidden, InUse, Invalid, NotFound, Policy, Quota, Unauthenticated, Unavailable};
        for (status, message, reason, kind, help) in [
            (401, "Request had invalid authentication credentials.", "authError", Unauthenticated, "gcloud auth"),
            (403, "Required 'compute.instances.create' permission", "forbidden", Forbidden, "instanceAdmin"),
            (403, "Compute Engine API has not been used", "accessNotConfigured", Forbidden, "services enable compute"),
            (403, "Quota 'CPUS' exceeded.  Limit: 8.0", "quotaExceeded", Quota, "quotas page"),
            (404, "The resource 'projects/p' was not found", "notFound", NotFound, "right project"),
            (409, "The resource already exists", "alreadyExists", Exists, ""),
            (412, "Constraint constraints/compute.requireOsLogin violated", "conditionNotMet", Policy, "exception"),
            (400, "Invalid value for field", "invalid", Invalid, ""),
            (400, "The disk resource is already being used", "resourceInUseByAnotherResource", InUse, ""),
            (503, "", "backendError", Unavailable, "later"),
            (403, "Rate Limit Exceeded", "rateLimitExceeded", Unavailable, "later"),
            (400, "The resource is not ready", "resourceNotReady", Unavailable, "later"),
        ] {
            let error = ApiError::of_status("create it", status, &text(message, reason), NEEDS);
            assert_eq!(error.kind, kind, "{status} {reason}");
            assert!(error.help.unwrap_or_default().contains(help), "{status} {reason}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn an_operation_that_is_done_may_have_failed_and_another_zone_may_do() {
        for (code, kind, of_zone) in [
            ("QUOTA_EXCEEDED", ApiErrorKind::Quota, true),
            ("ZONE_RESOURCE_POOL_EXHAUSTED", ApiErrorKind::StockOut, true),
            ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", ApiErrorKind::StockOut, true),
            ("RESOURCE_NOT_FOUND", ApiErrorKind::NotFound, false),
            ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", ApiErrorKind::InUse, false),
            ("INTERNAL_ERROR", ApiErrorKind::Unavailable, false),
            ("SOMETHING_NEW", ApiErrorKind::Invalid, false),
        ] {
            let error = ApiError::of_operation("create it", "p", code, "no\u{1b}[2J");
            assert_eq!((error.kind, error.is_of_zone()), (kind, of_zone), "{code}");
            assert!(error.message.contains(code) && !error.message.contains('\u{1b}'), "{}", error.message);
        }
    }

    #[test]
    fn a_body_that_is_none_is_no_second_error() {
        assert!(serde_json::from_str::<ErrorBody>("{}").unwrap().error.message.is_empty());
        assert!(text("slow down", "rateLimitExceeded").may_pass());
        assert!(!text("no", "forbidden").may_pass());
    }
}
