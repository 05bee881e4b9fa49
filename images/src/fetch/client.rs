//! HTTP requests, each on a thread of its own.
//!
//! A thread, because nothing there can be interrupted: neither a name look-up nor a handshake. A caller that gives up stops
//! listening, and the thread ends at its next timeout. It holds no file and no lock.

use std::{
    error::Error,
    io::Read as _,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use reqwest::{
    Url,
    blocking::{Client, Response},
    header::{self, HeaderMap, HeaderName},
    redirect::{Attempt, Policy},
};

use super::{Limits, trouble::Trouble};

/// Maximum bytes per read.
const CHUNK: usize = 256 << 10;

/// Maximum number of chunks that wait to be written.
const WAITING: usize = 8;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) url: Url,
    /// First byte; 0: the whole file.
    pub(super) offset: u64,
    /// The rest is wanted only if the file still has this entity tag or date.
    pub(super) validator: Option<String>,
}

/// Messages of a request: a head, then chunks, then the end; or a failure at any time.
#[derive(Debug)]
pub(super) enum Message {
    Head(Box<Head>),
    Chunk(Vec<u8>),
    End,
    /// Broken off, after a head.
    Broken(String),
    /// Failed, before a head.
    Failed(Trouble),
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    pub(super) code: u16,
    pub(super) name: &'static str,
    /// How many bytes follow, and whether the connection marks their end in another way.
    pub(super) content_length: Option<u64>,
    pub(super) is_chunked: bool,
    pub(super) content_type: Option<String>,
    pub(super) content_range: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// How long to wait before the next request.
    pub(super) retry_after: Option<Duration>,
}

/// Makes the requests of one download.
#[derive(Debug)]
pub(super) struct Network {
    limits: Limits,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Made by the first request: reading all certificates takes a tenth of a second.
    client: Mutex<Option<Client>>,
    /// The redirects of the last request.
    redirected: Mutex<Option<Url>>,
}

impl Network {
    /// Sends nothing yet.
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, shared: Arc::default() }
    }

    /// Makes a request; it ends when the receiver is dropped.
    pub(super) fn ask(&self, request: Request) -> Receiver<Message> {
        let (tell, heard) = mpsc::sync_channel(WAITING);
        let (limits, shared) = (self.limits, Arc::clone(&self.shared));
        thread::spawn(move || run(&request, &limits, &shared, &tell));
        heard
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The client waits for its own thread, and that for the name look-up.
        let shared = mem::take(&mut self.shared);
        thread::spawn(move || drop(shared));
    }
}

/// `None`: nobody listens any more.
fn run(request: &Request, limits: &Limits, shared: &Arc<Shared>, tell: &SyncSender<Message>) -> Option<()> {
    let mut response = match client(limits, shared).and_then(|client| send(&client, request)) {
        Ok(response) => response,
        Err(error) => {
            let redirected = lock(&shared.redirected).take();
            return tell.send(Message::Failed(failure(&error, redirected, limits))).ok();
        }
    };
    tell.send(Message::Head(Box::new(head(&response)))).ok()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match response.read(&mut buffer) {
            Ok(0) => return tell.send(Message::End).ok(),
            Ok(count) => tell.send(Message::Chunk(buffer[..count].to_vec())).ok()?,
            Err(error) => return tell.send(Message::Broken(innermost(&error))).ok(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(limits: &Limits, shared: &Arc<Shared>) -> Result<Client, reqwest::Error> {
    lock(&shared.redirected).take();
    let mut client = lock(&shared.client);
    if let Some(client) = &*client {
        return Ok(client.clone());
    }
    let (most, told) = (limits.redirects, Arc::downgrade(shared));
    // Proxies come from the environment, certificates from OpenSSL's variables or the system. No encoding is requested: the
    // digest is of the published bytes.
    let made = Client::builder()
        // What else is compiled in depends on who uses this crate.
        .tls_backend_native()
        .user_agent(concat!("nestmatrix/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits.connect)
        // Limits the head, and then each read.
        .timeout(limits.connect + limits.idle)
        .redirect(Policy::custom(move |attempt| {
            if let Some(shared) = told.upgrade() {
                *lock(&shared.redirected) = Some(attempt.url().clone());
            }
            follow(attempt, most)
        }))
        .referer(false)
        // A broken connection is not reused.
        .pool_max_idle_per_host(0)
        .build()?;
    Ok(client.insert(made).clone())
}

fn send(client: &Client, request: &Request) -> Result<Response, reqwest::Error> {
    let mut get = client.get(request.url.clone());
    if request.offset > 0 {
        get = get.header(header::RANGE, format!("bytes={}-", request.offset));
        if let Some(validator) = &request.validator {
            get = get.header(header::IF_RANGE, validator);
        }
    }
    get.send()
}

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotFollowed(String);

fn follow(attempt: Attempt<'_>, most: usize) -> reqwest::redirect::Action {
    match not_followed(attempt.previous(), attempt.url(), most) {
        Some(reason) => attempt.error(NotFollowed(reason)),
        None => attempt.follow(),
    }
}

fn not_followed(before: &[Url], next: &Url, most: usize) -> Option<String> {
    match next.scheme() {
        _ if before.len() > most => Some(format!("more than {most} times, last to {}", shown(next))),
        "http" if before.iter().any(|url| url.scheme() == "https") => {
            Some(format!("from https to {}, which is not encrypted", shown(next)))
        }
        "http" | "https" => None,
        _ => Some(format!("to {}, which is neither http nor https", shown(next))),
    }
}

fn head(response: &Response) -> Head {
    let headers = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Head {
        code: response.status().as_u16(),
        name: response.status().canonical_reason().unwrap_or_default(),
        content_length: text(header::CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
        is_chunked: headers.contains_key(header::TRANSFER_ENCODING),
        content_type: text(header::CONTENT_TYPE),
        content_range: text(header::CONTENT_RANGE),
        etag: text(header::ETAG),
        last_modified: text(header::LAST_MODIFIED),
        retry_after: retry_after(headers),
    }
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    date.duration_since(jiff::Timestamp::now()).try_into().ok()
}

fn failure(error: &reqwest::Error, redirected: Option<Url>, limits: &Limits) -> Trouble {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(NotFollowed(reason)) = this.downcast_ref() {
            return Trouble::Redirect { reason: reason.clone() };
        }
        cause = this.source();
    }
    let reason = match error.is_timeout() {
        true if error.is_connect() => format!("connection timeout after {} s", limits.connect.as_secs_f64()),
        true => format!("no answer: timeout after {} s", (limits.connect + limits.idle).as_secs_f64()),
        false => innermost(error),
    };
    match redirected {
        Some(url) => Trouble::Redirect { reason: format!("to {}, which is unreachable: {reason}", shown(&url)) },
        None => Trouble::Unreachable { reason },
    }
}

/// The lowest cause: those above only say that something below failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        let text = cause.to_string();
        if let Some(refused) = refused_certificate(&text) {
            return refused;
        }
        match cause.source() {
            Some(below) => cause = below,
            None => return text,
        }
    }
}

/// OpenSSL's reason for refusing a certificate, without source positions: `error:...:certificate verify failed:../ssl/x.c:1889:
/// (certificate has expired)`.
fn refused_certificate(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("certificate verify failed")?;
    let reason = rest.rsplit_once('(').and_then(|(_, reason)| reason.strip_suffix(')'));
    Some(format!("its certificate is not accepted{}", reason.map_or(String::new(), |reason| format!(": {reason}"))))
}

/// An address as it may be shown, without passwords.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() || !url.username().is_empty() {
        // Both fail only without a host, and then there is no password.
        let _ = url.set_password(None);
        let _ = url.set_username("");
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let url = Url::parse("https://me:secret@mirror.test/a?b").expect("address");
        assert_eq!(shown(&url), "https://mirror.test/a?b");
    }

    #[test]
    fn an_encrypted_connection_is_not_given_up_for_a_redirect() {
        let url = |text: &str| Url::parse(text).expect("address");
        let (http, https) = (url("http://a.test/"), url("https://b.test/"));
        let followed = |before: &[&Url], next: &Url| {
            let before: Vec<Url> = before.iter().map(|&url| url.clone()).collect();
            not_followed(&before, next, 2)
        };
        assert_eq!(followed(&[&http], &https), None);
        assert_eq!(followed(&[&http, &https], &https), None);
        insta::assert_snapshot!(followed(&[&http, &https], &http).unwrap_or_default(), @"from https to http://a.test/, which is not encrypted");
        insta::assert_snapshot!(followed(&[&http, &http, &http], &http).unwrap_or_default(), @"more than 2 times, last to http://a.test/");
        insta::assert_snapshot!(followed(&[&https], &url("file:///a")).unwrap_or_default(), @"to file:///a, which is neither http nor https");
    }

    #[test]
    fn a_certificate_that_is_not_accepted_is_said_in_plain_words() {
        let said = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify \
                    failed:../ssl/statem/statem_clnt.c:1889: (certificate has expired)";
        assert_eq!(
            refused_certificate(said).as_deref(),
            Some("its certificate is not accepted: certificate has expired")
        );
        assert_eq!(
            refused_certificate("certificate verify failed").as_deref(),
            Some("its certificate is not accepted")
        );
        assert_eq!(refused_certificate("Connection refused (os error 111)"), None);
    }

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_as_a_date() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("header"));
            retry_after(&headers)
        };
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert!(after("Tue, 31 Dec 2999 23:59:59 GMT").is_some_and(|pause| pause > Duration::from_secs(86_400)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None, "that was long ago");
        assert_eq!(after("soon"), None);
    }
}
