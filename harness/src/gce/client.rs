//! Requests to Google: with credentials, tried again for as long as it may help, recorded, and explained when they fail.
//!
//! Every call of ours may be repeated: those that change something have a request id, by which the service knows them again.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    auth::Auth,
    error::{ApiError, ApiErrorKind, CREDENTIALS, ErrorBody, Needs},
    settings::Settings,
};

/// How long one request may take; `zoneOperations.wait` answers within 2 minutes.
const REQUEST: Duration = Duration::from_secs(150);
const CONNECT: Duration = Duration::from_secs(20);
/// How long a call is tried again after its first failure.
const PATIENCE: Duration = Duration::from_secs(180);
/// The first pause before it is tried again; twice as long each time, but no longer than the longest, and less by chance.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Most bytes of an answer: serial output has up to 1 MiB.
const LONGEST_ANSWER: usize = 16 << 20;
/// Most requests that are remembered until they can be recorded.
const MOST_EARLY: usize = 1000;
/// A clock that is further off than this makes Google refuse what we sign.
const SKEW: Duration = Duration::from_secs(120);

/// What is to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    /// As a fragment: `create the instance nm-1`.
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
    pub(super) needs: Needs<'a>,
}

/// Speaks with Google.
pub(crate) struct Client {
    http: reqwest::Client,
    auth: Auth,
    /// An address of Google's that answers whoever asks: what the time is there.
    clock: String,
    record: Mutex<Log>,
}

/// Receives a line for each request.
#[derive(Default)]
struct Log {
    file: Option<File>,
    /// Those that came before there was a file.
    early: Vec<String>,
}

/// What is recorded of a request: nothing that is secret.
#[derive(Serialize)]
struct Record<'a> {
    at: jiff::Timestamp,
    method: &'a str,
    url: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    query: &'a [(&'static str, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a Value>,
    /// That of the answer, or why there is none.
    answer: &'a str,
    elapsed_ms: u64,
}

/// How one attempt ended.
enum Attempt {
    Answer(Vec<u8>),
    /// It may pass, after this pause at the least.
    Again(ApiError, Duration),
    /// The token was refused.
    Unauthenticated(ApiError),
    Failed(ApiError),
}

impl Client {
    /// Proxies come from the environment, certificates from the system.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .tls_backend_native()
            .user_agent(concat!("nestmatrix/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ApiError::new("speak with Google", ApiErrorKind::Invalid, error.to_string()))?;
        let clock = settings.endpoints.compute.clone();
        Ok(Self { http, auth: Auth::default(), clock, record: Mutex::default() })
    }

    /// Records each request in a new file, from the first one that is not in another. Not being able to costs nobody a run.
    pub(crate) fn record_in(&self, path: &Path) {
        let mut log = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        log.file = File::create(path).ok();
        for line in std::mem::take(&mut log.early) {
            log.write(line);
        }
    }

    /// The answer to a call.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ApiError> {
        let body = self.bytes(call).await?;
        parsed(call, &body)
    }

    /// A question that is not worth a second try.
    pub(super) async fn once<T: DeserializeOwned>(
        &self,
        what: &str,
        url: String,
        query: Vec<(&'static str, String)>,
    ) -> Result<T, ApiError> {
        let needs = Needs { project: "", service: "cloudbilling.googleapis.com", permission: "", role: "" };
        let call = Call { what: what.to_owned(), method: Method::GET, url, query, body: None, needs };
        match self.attempt(&call).await {
            Attempt::Answer(body) => parsed(&call, &body),
            Attempt::Again(error, _) | Attempt::Unauthenticated(error) | Attempt::Failed(error) => Err(error),
        }
    }

    async fn bytes(&self, call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
        let (began, mut pause, mut renewed) = (Instant::now(), FIRST_PAUSE, false);
        // An earlier try may have been served although no answer came.
        let mut is_first = true;
        loop {
            let attempt = self.attempt(call).await;
            let was_first = std::mem::replace(&mut is_first, false);
            let (error, least) = match attempt {
                Attempt::Answer(body) => return Ok(body),
                Attempt::Failed(error) => return Err(ApiError { refused: was_first, ..error }),
                Attempt::Unauthenticated(_) if !renewed => {
                    renewed = true;
                    self.auth.forget().await;
                    continue;
                }
                Attempt::Unauthenticated(error) => return Err(self.with_clock(error).await),
                Attempt::Again(error, least) => (error, least),
            };
            let pause_now = least.max(pause.mul_f64(rand::random_range(0.5..=1.0)));
            if began.elapsed() + pause_now > PATIENCE {
                let message = format!("{} (tried for {} s)", error.message, began.elapsed().as_secs());
                return Err(ApiError { message, ..error });
            }
            tokio::time::sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Attempt {
        let token = match self.auth.token().await {
            Ok(token) => token,
            Err(error) => {
                let error =
                    ApiError::new(&call.what, ApiErrorKind::Unauthenticated, format!("no credentials: {error}"));
                return Attempt::Failed(self.with_clock(error.with_help(CREDENTIALS)).await);
            }
        };
        let began = Instant::now();
        let mut request = self.http.request(call.method.clone(), &call.url).bearer_auth(token).query(&call.query);
        request = match &call.body {
            Some(body) => request.json(body),
            // Google's servers want a length with each POST.
            None if call.method == Method::POST => request.header(header::CONTENT_LENGTH, 0),
            None => request,
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let words = reports::clean::line(&root(&error));
                self.note(call, &words, began);
                let error = ApiError::new(&call.what, ApiErrorKind::Unreachable, words)
                    .with_help("check this machine's network, and its proxy if it has one (HTTPS_PROXY)");
                return Attempt::Again(error, Duration::ZERO);
            }
        };
        let status = answer.status();
        let least = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let least = Duration::from_secs(least.unwrap_or(0)).min(LONGEST_PAUSE * 2);
        let body = read(answer).await;
        self.note(call, status.as_str(), began);
        let body = match body {
            Ok(body) => body,
            Err(why) => return Attempt::Again(ApiError::new(&call.what, ApiErrorKind::Unavailable, why), least),
        };
        if status.is_success() {
            return Attempt::Answer(body);
        }
        let text = serde_json::from_slice::<ErrorBody>(&body).unwrap_or_default().error;
        let error = ApiError::of_status(&call.what, status.as_u16(), &text, call.needs);
        match status {
            _ if text.may_pass() => Attempt::Again(error, least),
            StatusCode::UNAUTHORIZED => Attempt::Unauthenticated(error),
            _ if error.kind == ApiErrorKind::Unavailable => Attempt::Again(error, least),
            _ => Attempt::Failed(error),
        }
    }

    /// What is signed with a wrong clock is refused: the words for that do not say so.
    async fn with_clock(&self, error: ApiError) -> ApiError {
        let Some(behind) = self.clock_behind().await else { return error };
        let (seconds, way) = (behind.unsigned_abs(), if behind > 0 { "behind" } else { "ahead of" });
        if Duration::from_secs(seconds) <= SKEW {
            return error;
        }
        let help = format!("this machine's clock is {seconds} s {way} Google's: set it right, and try again");
        error.with_help(help)
    }

    /// Seconds that this machine's clock is behind Google's.
    async fn clock_behind(&self) -> Option<i64> {
        let answer = self.http.get(&self.clock).send().await.ok()?;
        let theirs = jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(answer.headers().get(header::DATE)?.to_str().ok()?)
            .ok()?;
        Some(theirs.as_second() - jiff::Timestamp::now().as_second())
    }

    fn note(&self, call: &Call<'_>, answer: &str, began: Instant) {
        let line = serde_json::to_string(&Record {
            at: jiff::Timestamp::now(),
            method: call.method.as_str(),
            url: &call.url,
            query: &call.query,
            body: call.body.as_ref(),
            answer,
            elapsed_ms: began.elapsed().as_millis() as u64,
        });
        if let Ok(line) = line {
            self.record.lock().unwrap_or_else(PoisonError::into_inner).write(line);
        }
    }
}

impl Log {
    fn write(&mut self, line: String) {
        match &mut self.file {
            Some(file) => drop(writeln!(file, "{line}")),
            None if self.early.len() < MOST_EARLY => self.early.push(line),
            None => {}
        }
    }
}

fn parsed<T: DeserializeOwned>(call: &Call<'_>, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the answer is not what the service promises: {error}");
        ApiError::new(&call.what, ApiErrorKind::Invalid, message)
    })
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| root(&error))? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST_ANSWER {
            return Err(format!("the answer is longer than {} MiB", LONGEST_ANSWER >> 20));
        }
    }
    Ok(body)
}

/// The last cause: those above it say only that a request was sent.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if error.is_timeout() { format!("timeout: {cause}") } else { cause.to_string() }
}
