//! Errors as Google's interfaces answer them.

use serde_json::{Value, json};

use super::http::Answer;

/// Why a request is not served.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    /// `errors[].reason`, such as `notFound`.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Seconds, of the header `Retry-After`.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), retry_after: None }
    }

    /// With the header `Retry-After`.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// `what`: such as `projects/p/zones/z/instances/i`.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(404, "notFound", format!("The resource '{what}' was not found"))
    }

    pub(super) fn exists(what: &str) -> Self {
        Self::new(409, "alreadyExists", format!("The resource '{what}' already exists"))
    }

    pub(super) fn not_ready(what: &str) -> Self {
        Self::new(400, "resourceNotReady", format!("The resource '{what}' is not ready"))
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    pub(super) fn unauthenticated() -> Self {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
                       authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.";
        Self::new(401, "authError", message)
    }

    /// What a client gets that asks too often.
    pub(super) fn too_many() -> Self {
        let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service \
                       'compute.googleapis.com' for consumer 'project_number:123456789012'.";
        Self::new(429, "rateLimitExceeded", message)
    }

    /// `google.rpc.Code` of an HTTP status.
    fn status(&self) -> &'static str {
        match self.code {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ALREADY_EXISTS",
            412 => "FAILED_PRECONDITION",
            429 => "RESOURCE_EXHAUSTED",
            500 => "INTERNAL",
            503 => "UNAVAILABLE",
            _ => "UNKNOWN",
        }
    }

    pub(super) fn body(&self) -> Value {
        let error = json!({ "reason": self.reason, "message": self.message, "domain": "global" });
        json!({ "error": {
            "code": self.code, "message": self.message, "status": self.status(), "errors": [error],
        } })
    }

    pub(super) fn answer(&self) -> Answer {
        let mut answer = Answer::json(self.code, &self.body());
        answer.headers.extend(self.retry_after.map(|seconds| ("retry-after", seconds.to_string())));
        answer
    }
}
