//! Who we are to Google: Application Default Credentials, in whatever form they are there (a person's, a service account's, workload
//! identity federation, the metadata server).

use std::time::Duration;

use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use tokio::sync::Mutex;

/// The whole of Google Cloud: what may be done is said by roles, not by scopes.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long a token may take. Where there are no credentials at all the metadata server is looked for, which is nowhere but on Google's
/// machines.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause before it is asked for again where that may help, twice as long each time, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// No token can be had; for people.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct AuthError(pub(super) String);

/// Credentials, looked for when they are first needed.
#[derive(Default)]
pub(super) struct Auth(Mutex<Option<AccessTokenCredentials>>);

impl Auth {
    /// A token that was not known to be expired a moment ago.
    pub(super) async fn token(&self) -> Result<String, AuthError> {
        let mut pause = PAUSE;
        let token = async {
            loop {
                let mut credentials = self.0.lock().await;
                let found = match &mut *credentials {
                    Some(credentials) => credentials,
                    none => none.insert(find()?),
                };
                match found.access_token().await {
                    Ok(token) => return Ok(token.token),
                    Err(error) if error.is_transient() && pause <= LONGEST_PAUSE => *credentials = None,
                    Err(error) => return Err(AuthError(causes(&error))),
                }
                drop(credentials);
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        let late = |_| Err(AuthError(format!("timeout: no token was given within {} s", TIMEOUT.as_secs())));
        tokio::time::timeout(TIMEOUT, token).await.unwrap_or_else(late)
    }

    /// The next token is a new one: the last was refused, whatever our clock says of it.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

fn find() -> Result<AccessTokenCredentials, AuthError> {
    // The crate speaks TLS through rustls, which wants to be told by what. An error says that it has been told.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::default().with_scopes([SCOPE]).build_access_token_credentials().map_err(|error| AuthError(causes(&error)))
}

/// The last two causes of an error: those above them say that it may pass, which has been tried here.
fn causes(error: &dyn std::error::Error) -> String {
    let all: Vec<String> =
        std::iter::successors(Some(error), |error| error.source()).map(std::string::ToString::to_string).collect();
    let text = match all.as_slice() {
        [.., above, last] if !above.contains(last.as_str()) => format!("{above}: {last}"),
        [.., above, _] => above.clone(),
        all => all.concat(),
    };
    reports::clean::line(&text)
}
