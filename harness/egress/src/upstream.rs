//! Asks the servers: what a guest believes their addresses are is nothing to them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{HOST, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, PROXY_AUTHORIZATION},
};
use hyper_util::{
    client::proxy::matcher::{Intercept, Matcher},
    rt::TokioIo,
};
use matrix::Digest;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    cache::Entry,
    resolve::{Reach, Resolver},
};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);
/// Most connections to one server that wait for the next request.
const WAITING: usize = 4;

/// Asks servers, directly or through the proxy that this machine has.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// This machine's proxy, by what is asked for.
    proxies: Matcher,
    resolver: Resolver,
    proxied: reqwest::Client,
    /// That proxy is one of ours.
    is_ours: bool,
    public: reqwest::Client,
    any: reqwest::Client,
}

/// Asks a proxy of ours for the content of this digest, whatever the server has now.
pub(crate) const WANTED_DIGEST: HeaderName = HeaderName::from_static("nestmatrix-digest");
/// What the words of a proxy of ours begin with.
pub(crate) const OURS: &str = "nestmatrix: ";

/// What carries a connection to an https server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Upstream {
    /// `proxy`: what to go through; `None`: what the environment says (`http_proxy`, `https_proxy`, `no_proxy`).
    ///
    /// # Errors
    ///
    /// TLS cannot be set up, or the proxy's address is none.
    pub(crate) fn new(proxy: Option<&str>, resolver: Resolver) -> Result<Self, String> {
        let client = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .pool_max_idle_per_host(WAITING)
                .http1_only()
        };
        let built = |client: reqwest::ClientBuilder| client.build().map_err(|error| chain(&error));
        let (proxies, proxied) = match proxy {
            Some(proxy) => {
                let all = reqwest::Proxy::all(proxy).map_err(|error| chain(&error))?;
                (Matcher::builder().all(proxy.to_owned()).build(), client().proxy(all))
            }
            None => (Matcher::from_env(), client()),
        };
        Ok(Self {
            proxies,
            proxied: built(proxied)?,
            is_ours: proxy.is_some(),
            public: built(client().no_proxy().dns_resolver(resolver.within(Reach::Public)))?,
            any: built(client().no_proxy().dns_resolver(resolver.within(Reach::Any)))?,
            resolver,
        })
    }

    /// What it goes through is a proxy of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// What the proxy behind this one says in its own words: they come as an answer, and are no server's. `None`: these are.
    pub(crate) fn own_words(&self, content: &[u8]) -> Option<String> {
        let words = content.strip_prefix(OURS.as_bytes()).filter(|_| self.is_ours)?;
        Some(reports::clean::line(&String::from_utf8_lossy(words)))
    }

    /// The head of the answer; its content follows as it is read. With an entry of the cache it asks only for what is newer; with a digest
    /// for that content, if the proxy behind this one has it.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &str,
        reach: Reach,
        known: Option<&Entry>,
        digest: Option<Digest>,
    ) -> Result<reqwest::Response, String> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
        let client = match (self.proxies.intercept(&uri), reach) {
            (Some(_), _) => &self.proxied,
            (None, Reach::Public) => &self.public,
            (None, Reach::Any) => &self.any,
        };
        let mut request = client.request(method, url);
        if let Some(entry) = known {
            request = entry.etag.iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag));
            request =
                entry.last_modified.iter().fold(request, |request, since| request.header(IF_MODIFIED_SINCE, since));
        }
        if let Some(digest) = digest.filter(|_| self.is_ours) {
            request = request.header(WANTED_DIGEST, digest.to_string());
        }
        request.send().await.map_err(|error| chain(&error.without_url()))
    }

    /// A connection to an https server.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn connect(&self, host: &str, port: u16, reach: Reach) -> Result<Box<dyn Stream>, String> {
        let uri: Uri = format!("https://{host}:{port}").parse().map_err(|_| format!("{host} is no host"))?;
        let connected = async {
            match self.proxies.intercept(&uri) {
                Some(proxy) => through(&proxy, host, port).await,
                None => self.direct(host, port, reach).await,
            }
        };
        timeout(CONNECT * 2, connected).await.map_err(|_| late(host))?
    }

    async fn direct(&self, host: &str, port: u16, reach: Reach) -> Result<Box<dyn Stream>, String> {
        let mut last = String::new();
        for address in self.resolver.addresses(host, port, reach).await? {
            match timeout(CONNECT / 2, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Box::new(stream)),
                Ok(Err(error)) => last = format!("{host} cannot be reached: {error}"),
                Err(_) => last = late(host),
            }
        }
        Err(last)
    }
}

/// Asks a proxy to connect (RFC 9110, 9.3.6).
async fn through(proxy: &Intercept, host: &str, port: u16) -> Result<Box<dyn Stream>, String> {
    let (uri, refused) = (proxy.uri(), |why: String| format!("this machine's proxy does not connect to {host}: {why}"));
    if uri.scheme_str() != Some("http") {
        return Err(refused(format!("{} proxies are not supported for https", uri.scheme_str().unwrap_or("such"))));
    }
    let at = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(at).await.map_err(|error| refused(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| refused(error.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    let authority = format!("{host}:{port}");
    let mut request = Request::connect(&authority).header(HOST, &authority);
    if let Some(login) = proxy.basic_auth() {
        request = request.header(PROXY_AUTHORIZATION, login);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| refused(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| refused(error.to_string()))?;
    if answer.status() != StatusCode::OK {
        return Err(refused(answer.status().to_string()));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| refused(error.to_string()))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

fn late(host: &str) -> String {
    format!("timeout: {host} did not answer within {} s", CONNECT.as_secs())
}

/// The error and its causes in one line; what a cause repeats is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let word = error.to_string();
        if !words.contains(&word) {
            words = format!("{words}: {word}");
        }
        cause = error.source();
    }
    words
}
