//! Access tokens, and the service that exchanges others for them (RFC 8693, as Google's security token service answers).

use serde_json::{Value, json};

use super::{
    http::{Answer, Request},
    world::Tokens,
};

/// What Google answers when the caller's clock is wrong.
pub(super) const CLOCK_SKEW: &str = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your \
                                     iat and exp values in the JWT claim.";

impl Tokens {
    /// Exchanges the subject's token.
    pub(super) fn exchange(&mut self, request: &Request) -> Answer {
        let form: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
        let field = |name: &str| form.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.as_str());
        let refused = |error: &str, description: &str| {
            Answer::json(400, &json!({ "error": error, "error_description": description }))
        };
        if let Some(refusal) = &self.refusal {
            return refused("invalid_grant", refusal);
        }
        if field("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange"
            || field("requested_token_type") != "urn:ietf:params:oauth:token-type:access_token"
            || field("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt"
            || field("audience") != AUDIENCE
        {
            return refused("invalid_request", "Request contains an invalid argument.");
        }
        if field("subject_token") != self.subject {
            return refused("invalid_grant", "The given credential is rejected by the attribute condition.");
        }
        self.given += 1;
        let token = format!("ya29.test-{}-{:016x}", self.given, rand::random::<u64>());
        self.valid.push(token.clone());
        Answer::json(
            200,
            &json!({
                "access_token": token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer", "expires_in": 3599,
            }),
        )
    }

    /// Whether a request has a token that is still good.
    pub(super) fn know(&self, request: &Request) -> bool {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        token.is_some_and(|token| self.valid.iter().any(|valid| valid == token))
    }
}

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/tests/providers/file";

/// The content of a credentials file that leads to this service.
pub(super) fn external_account(token_url: &str, subject: &std::path::Path) -> Value {
    json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_url,
        "credential_source": { "file": subject, "format": { "type": "text" } },
    })
}
