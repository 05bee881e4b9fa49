//! One guest's requests: each is judged, answered and recorded.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Channel, Empty, Full, channel::Sender, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use matrix::Digest;
use reports::{ContentSource, RequestOutcome};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    account::{Asked, State},
    content::Content,
    fetch::{Answer, Fetches, Found, Wanted},
    flight::{Head, SOURCE},
    locked::Pinned,
    pins::file_url,
    policy::{Policy, Refusal, Target, What, decide},
    tunnel,
    upstream::{OURS, WANTED_DIGEST},
};

/// Most bytes of a request's head, and most lines of it.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_LINES: usize = 64;
/// Longest time that a guest takes for a request's head, or between requests of one connection.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Longest time that a guest takes for one piece of an answer.
const SLOWEST: Duration = Duration::from_secs(60);
/// Most requests of one guest.
const REQUESTS: u64 = 20_000;
/// Most requests of one guest that are under way. Its link has no more connections; those that it has just given up count, too.
const UNDER_WAY: usize = 32;

type Body = BoxBody<Bytes, std::io::Error>;

impl Asked {
    fn failed(self, reason: String) -> Response<Body> {
        // Where no server is asked, what nobody ever got is not there: a guest does without what its repository did not have either.
        let status = if self.state.fetches.offline { StatusCode::NOT_FOUND } else { StatusCode::BAD_GATEWAY };
        let answer = said(status, &reason);
        self.over(RequestOutcome::Failed { reason }, 0);
        answer
    }
}

impl State {
    /// Serves one connection to its end.
    pub(crate) async fn connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let state = Arc::clone(&self);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.answer(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).max_headers(HEAD_LINES);
        let served = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        if let Err(error) = served
            && error.is_parse()
        {
            let reason = format!("it is no HTTP request: {}", reports::clean::line(&error.to_string()));
            self.asked("-".into(), "-".into(), 0, None).over(RequestOutcome::Refused { reason }, 0);
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let policy = self.policy.borrow().clone();
        let method = request.method().to_string();
        let target = match decide(policy.as_deref(), request.method(), request.uri(), request.headers()) {
            Ok(target) => target,
            Err(Refusal { host, port, path, status, reason }) => {
                let asked = self.asked(method.chars().take(20).collect(), host, port, path);
                // What follows on the connection could be taken for another request by somebody.
                let mut answer = said(status, &reason);
                answer.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
                asked.over(RequestOutcome::Refused { reason }, 0);
                return answer;
            }
        };
        let Target { host, port, reach, what } = target;
        let path = match &what {
            What::File { url, .. } => url.splitn(4, '/').nth(3).map(|path| format!("/{path}")),
            What::Tunnel => None,
        };
        let spelling = file_url(&host, port, path.as_deref().unwrap_or_default());
        let asked = self.asked(method, host.clone(), port, path);
        if self.requests.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
            return asked.failed(format!("the guest has made the {REQUESTS} requests that one guest may"));
        }
        if *self.under_way.borrow() > UNDER_WAY {
            return asked
                .failed(format!("the guest has {UNDER_WAY} other requests under way, as many as one guest may"));
        }
        match what {
            What::Tunnel => match self.fetches.connect(&host, port, reach).await {
                Ok(server) => {
                    tokio::spawn(tunnel::run(asked, hyper::upgrade::on(request), server));
                    Response::new(empty())
                }
                Err(reason) => asked.failed(reason),
            },
            What::File { url, may_change } => {
                let is_get = request.method() == Method::GET;
                let again = is_get
                    && !self.had.lock().unwrap_or_else(PoisonError::into_inner).insert(Digest::of(url.as_bytes()));
                let wanted = Wanted { url, reach, may_change, again, digest: None };
                match is_get {
                    true => self.file(asked, (&wanted, &spelling), policy.as_deref(), request.headers()).await,
                    false => self.head(asked, (&wanted, &spelling)).await,
                }
            }
        }
    }

    /// The guest has guests of its own, and a proxy that tells them apart.
    fn is_proxy(&self) -> bool {
        self.policy.borrow().as_ref().is_some_and(|policy| policy.others)
    }

    async fn head(&self, asked: Asked, (wanted, url): (&Wanted, &str)) -> Response<Body> {
        let head = match &self.pins {
            Some(pins) => self.fetches.head_pinned(wanted, url, pins).await,
            None => self.fetches.head(wanted).await,
        };
        match head {
            Err(why) => asked.failed(why),
            Ok((status, head, headers, source)) => {
                let mut answer = Response::new(empty());
                *answer.status_mut() = status;
                *answer.headers_mut() = headers;
                describe(&head, answer.headers_mut());
                asked.over(RequestOutcome::Served { status: status.as_u16(), source, digest: None }, 0);
                answer
            }
        }
    }

    async fn file(
        &self,
        asked: Asked,
        (wanted, url): (&Wanted, &str),
        policy: Option<&Policy>,
        headers: &HeaderMap,
    ) -> Response<Body> {
        // A proxy of ours tells what is pinned for its guest.
        let digest = headers.get(WANTED_DIGEST).filter(|_| self.is_proxy());
        let digest = digest.and_then(|digest| digest.to_str().ok()?.parse().ok());
        let got = match (&self.pins, self.fetches.known(wanted, digest, ContentSource::Cache).await) {
            (_, Some(answer)) => Ok(answer),
            (Some(pins), None) => {
                let takes = |bytes| asked.takes(bytes);
                self.fetches.get_pinned(wanted, url, &Pinned { pins, policy, takes: &takes }).await
            }
            (None, None) => self.fetches.get(&Wanted { digest, ..wanted.clone() }).await,
        };
        match got {
            Err(why) => asked.failed(why),
            Ok(Answer::Other(other)) => {
                let bytes = other.content.len() as u64;
                let mut answer = Response::new(full(other.content.clone()));
                *answer.status_mut() = other.status;
                *answer.headers_mut() = other.headers.clone();
                let (status, source) = (other.status.as_u16(), ContentSource::Server);
                asked.over(RequestOutcome::Served { status, source, digest: None }, bytes);
                answer
            }
            Ok(Answer::File(found)) if is_known(&found.head, headers) => {
                let Found { head, source, content } = *found;
                let mut answer = Response::new(empty());
                *answer.status_mut() = StatusCode::NOT_MODIFIED;
                describe(&Head { length: None, ..head }, answer.headers_mut());
                tokio::spawn(async move {
                    // The next guest wants it, or to know that it is the same. Until then the request is under way, and which content the
                    // guest has may show only then.
                    let digest = content.settle().await;
                    asked.over(RequestOutcome::Served { status: 304, source, digest }, 0);
                });
                answer
            }
            Ok(Answer::File(found)) => {
                let Found { head, source, content } = *found;
                let (sender, body) = Channel::new(1);
                let (wanted, there) = (CancellationToken::new(), Arc::clone(&self.fetches));
                let held = wanted.clone().drop_guard();
                let body = body.map_frame(move |frame| {
                    let _ = &held;
                    frame
                });
                let mut answer = Response::new(body.boxed());
                describe(&head, answer.headers_mut());
                let word = serde_json::to_value(source).ok();
                let word = word.as_ref().and_then(|word| HeaderValue::from_str(word.as_str()?).ok());
                word.map(|word| answer.headers_mut().insert(SOURCE, word));
                let receiver = Receiver { sender, length: head.length, gone: wanted };
                tokio::spawn(send(asked, there, source, content, receiver));
                answer
            }
        }
    }
}

/// Where the content of an answer goes.
struct Receiver {
    sender: Sender<Bytes, std::io::Error>,
    /// What the guest was told.
    length: Option<u64>,
    /// Nobody takes any more of the answer.
    gone: CancellationToken,
}

impl Receiver {
    /// Passes the content on, as fast as the guest takes it, and counts it.
    async fn pass(&mut self, asked: &Asked, content: &mut Content, bytes: &mut u64) -> Result<(), String> {
        let gave_up = || "the guest gave it up".to_owned();
        loop {
            let next = tokio::select! {
                biased;
                next = content.next() => next?,
                // Not if it only waits for what is not its any more: that all of it is kept.
                () = self.gone.cancelled(), if self.length != Some(*bytes) => return Err(gave_up()),
            };
            let Some(piece) = next else { return Ok(()) };
            let size = piece.len() as u64;
            asked.takes(size)?;
            let sent = timeout(SLOWEST, self.sender.send_data(piece)).await;
            let sent = sent.map_err(|_| format!("timeout: the guest took nothing for {} s", SLOWEST.as_secs()))?;
            sent.map_err(|_| gave_up())?;
            *bytes += size;
        }
    }
}

/// Sends the content, and records what became of it.
async fn send(
    asked: Asked,
    fetches: Arc<Fetches>,
    source: ContentSource,
    mut content: Content,
    mut receiver: Receiver,
) {
    let mut bytes = 0;
    match receiver.pass(&asked, &mut content, &mut bytes).await {
        Ok(()) => asked.over(RequestOutcome::Served { status: 200, source, digest: content.digest() }, bytes),
        Err(reason) => {
            if let Some(digest) = content.damaged() {
                fetches.cache.discard(digest);
            }
            // The connection ends in the middle of the answer: nobody takes it for all of it.
            receiver.sender.abort(std::io::Error::other(reason.clone()));
            asked.over(RequestOutcome::Failed { reason }, bytes);
        }
    }
}

/// Whether the guest has it already, by the server's own words for it.
fn is_known(head: &Head, asked: &HeaderMap) -> bool {
    let same = |name: HeaderName, ours: &Option<String>| {
        asked.get(name).map(|theirs| ours.as_ref().is_some_and(|ours| theirs.as_bytes() == ours.as_bytes()))
    };
    same(IF_NONE_MATCH, &head.etag).or_else(|| same(IF_MODIFIED_SINCE, &head.last_modified)).unwrap_or(false)
}

fn describe(head: &Head, headers: &mut HeaderMap) {
    let length = head.length.map(|length| length.to_string());
    let all = [
        (CONTENT_LENGTH, &length),
        (ETAG, &head.etag),
        (LAST_MODIFIED, &head.last_modified),
        (CONTENT_TYPE, &head.content_type),
    ];
    for (name, value) in all {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// An answer of ours: the reason is also in the status line, because package managers show that.
fn said(status: StatusCode, reason: &str) -> Response<Body> {
    let mut answer = Response::new(full(format!("{OURS}{reason}\n").into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(format!("{OURS}{reason}").into_bytes()) {
        answer.extensions_mut().insert(reason);
    }
    answer
}

fn full(content: Bytes) -> Body {
    Full::new(content).map_err(|never| match never {}).boxed()
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}
