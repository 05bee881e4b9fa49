//! The proxy against real servers on this machine.

mod crowds;
mod hostile_guests;
mod hostile_servers;
mod locked;
mod names;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use reports::{ContentSource, NetworkRequest, RequestOutcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpListener,
    sync::mpsc,
};

use crate::{
    account::State, cache::Cache, fetch::Fetches, pins::Pins, policy::Policy, resolve::Resolver, upstream::Upstream,
};

/// A server on loopback: what each path is answered with, and which requests came.
struct Server {
    port: u16,
    answers: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new() -> Self {
        Self::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Self { port, answers: Default::default(), asked: Default::default() };
        let (answers, asked) = (Arc::clone(&server.answers), Arc::clone(&server.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                tokio::spawn(async move {
                    let head = head(&mut stream).await;
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    asked.lock().expect("asked").push(head);
                    let answer = answers.lock().expect("answers").get(&path).cloned();
                    let answer = answer.unwrap_or_else(|| {
                        "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno".into()
                    });
                    let start = answer.trim_end_matches("ENDLESS").trim_end_matches("SILENT");
                    let _ = stream.write_all(start.as_bytes()).await;
                    while answer.ends_with("ENDLESS") && stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
                    // Until the other side ends it.
                    while answer.ends_with("SILENT") && stream.read(&mut [0; 1024]).await.is_ok_and(|size| size > 0) {}
                });
            }
        });
        server
    }

    fn has(&self, path: &str, headers: &str, content: &str) {
        let length = content.len();
        self.says(
            path,
            &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{content}"),
        );
    }

    fn says(&self, path: &str, answer: &str) {
        self.answers.lock().expect("answers").insert(path.to_owned(), answer.to_owned());
    }

    /// It is a repository of the guest's system.
    fn policy(&self) -> Policy {
        let here = || vec![format!("127.0.0.1:{}", self.port).parse().expect("a pattern")];
        Policy { repositories: here(), private: here(), named: Vec::new(), ..Policy::default() }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("asked"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte.into()),
            Err(_) => break,
        }
    }
    text
}

/// A proxy with a cache of its own.
struct Runner {
    folder: Arc<tempfile::TempDir>,
    fetches: Arc<Fetches>,
}

impl Runner {
    fn new() -> Self {
        Self::of(Self::folder(), false)
    }

    fn of(folder: Arc<tempfile::TempDir>, offline: bool) -> Self {
        Self::with(folder, offline, 64 << 20, Upstream::new(None, Resolver::of_system()))
    }

    /// One that goes through this proxy of ours.
    fn behind(folder: Arc<tempfile::TempDir>, offline: bool, through: &str) -> Self {
        Self::with(folder, offline, 64 << 20, Upstream::new(Some(through), Resolver::of_system()))
    }

    fn with(folder: Arc<tempfile::TempDir>, offline: bool, limit: u64, upstream: Result<Upstream, String>) -> Self {
        let fetches = Fetches {
            cache: Cache::open(folder.path(), limit).expect("a cache"),
            upstream: upstream.expect("a client"),
            began: Timestamp::now(),
            offline,
            largest: 8 << 20,
            missed: Default::default(),
            running: Default::default(),
        };
        Self { folder, fetches: Arc::new(fetches) }
    }

    fn folder() -> Arc<tempfile::TempDir> {
        Arc::new(tempfile::tempdir().expect("a folder"))
    }

    /// Until no download is under way.
    async fn rests(&self) {
        let over = async {
            while self.fetches.running.lock().expect("running").values().any(|flight| flight.strong_count() > 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(over).await;
    }

    /// The next run, with the same cache.
    fn next(&self, offline: bool) -> Self {
        Self::of(Arc::clone(&self.folder), offline)
    }

    fn guest(&self, server: &Server) -> Guest {
        self.guest_with(Some(server.policy()))
    }

    fn guest_with(&self, policy: Option<Policy>) -> Guest {
        self.guest_of(policy, None)
    }

    fn guest_of(&self, policy: Option<Policy>, pins: Option<Pins>) -> Guest {
        let (sender, records) = mpsc::unbounded_channel();
        let record = Box::new(move |request| drop(sender.send(request)));
        let state = Arc::new(State::new(Arc::clone(&self.fetches), pins, record));
        state.policy.send_replace(policy.map(Arc::new));
        Guest { state, records }
    }
}

struct Guest {
    state: Arc<State>,
    records: mpsc::UnboundedReceiver<NetworkRequest>,
}

impl Guest {
    fn connection(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(Arc::clone(&self.state).connection(theirs));
        ours
    }

    /// Everything that comes back.
    async fn says(&self, text: &str) -> String {
        let mut stream = self.connection();
        // What is refused in the middle is not read to its end.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The content, and what was recorded.
    async fn gets(&mut self, url: &str) -> (String, NetworkRequest) {
        let answer = self.says(&get(url)).await;
        let content = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, content)| content.to_owned());
        (content, self.records.recv().await.expect("a record"))
    }

    /// What was recorded, which is not waited for as long as for a server that is silent.
    async fn recorded(&mut self) -> NetworkRequest {
        within(self.records.recv()).await.expect("a record")
    }

    async fn source(&mut self, url: &str) -> Option<ContentSource> {
        match self.gets(url).await.1.outcome {
            RequestOutcome::Served { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Soon, for a machine that is busy: sooner than any limit of the proxy.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it ends")
}

fn get(url: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

fn reason(request: &NetworkRequest) -> &str {
    match &request.outcome {
        RequestOutcome::Refused { reason } | RequestOutcome::Failed { reason } => reason,
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_fetched_once_for_all_guests_and_runs() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/a_1.deb", "", "package");
    let url = server.url("/a_1.deb");
    let (content, request) = runner.guest(&server).gets(&url).await;
    let digest = Some(matrix::Digest::of(b"package"));
    let outcome = RequestOutcome::Served { status: 200, source: ContentSource::Server, digest };
    assert_eq!((&*content, request.path.as_deref(), request.bytes), ("package", Some("/a_1.deb"), 7));
    assert_eq!(request.outcome, outcome);
    assert_eq!(runner.guest(&server).source(&url).await, Some(ContentSource::Cache));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_change_is_asked_for_once_in_a_run_and_again_in_the_next() {
    let (server, runner) = (Server::new().await, Runner::new());
    let url = server.url("/InRelease");
    server.has("/InRelease", "etag: \"1\"\r\nlast-modified: Sat, 01 Nov 2025 10:00:00 GMT\r\n", "old");
    assert_eq!(runner.guest(&server).source(&url).await, Some(ContentSource::Server));
    server.has("/InRelease", "etag: \"2\"\r\n", "new");
    let mut guest = runner.guest(&server);
    assert_eq!(guest.gets(&url).await.0, "old", "all guests of a run see one state");
    assert_eq!(guest.gets(&url).await.0, "new", "but who asks again wants to know");
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains("if-none-match: \"1\"") && asked[1].contains("if-modified-since: Sat, 01 Nov 2025"));

    server.says("/InRelease", "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n");
    let next = runner.next(false);
    let (content, request) = next.guest(&server).gets(&url).await;
    let outcome = |source| RequestOutcome::Served { status: 200, source, digest: Some(matrix::Digest::of(b"new")) };
    assert_eq!((&*content, request.outcome), ("new", outcome(ContentSource::Revalidated)));
    assert_eq!(next.guest(&server).gets(&url).await.1.outcome, outcome(ContentSource::Cache));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_asked_for_news_is_left_alone_for_half_an_hour() {
    let (server, runner) = (Server::new().await, Runner::new());
    let url = server.url("/InRelease");
    server.has("/InRelease", "", "old");
    assert_eq!(runner.guest(&server).source(&url).await, Some(ContentSource::Server));
    assert_eq!(runner.next(false).guest(&server).source(&url).await, Some(ContentSource::Cache));
    let entry = runner.fetches.cache.look(&url).expect("an entry");
    let checked = Timestamp::now() - jiff::SignedDuration::from_mins(31);
    runner.fetches.cache.note(&crate::cache::Entry { checked, ..entry.clone() }).expect("noted");
    assert_eq!(runner.next(false).guest(&server).source(&url).await, Some(ContentSource::Server));
    // A host that only the matrix names is its author's, who wants to see what he has just put there.
    let named = || vec![format!("127.0.0.1:{}", server.port).parse().expect("a pattern")];
    let policy = Policy { private: named(), named: named(), ..Policy::default() };
    assert_eq!(runner.next(false).guest_with(Some(policy)).source(&url).await, Some(ContentSource::Server));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_passed_on_and_a_redirection_is_judged_like_any_request() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says(
        "/moved",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/secret\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
    );
    let mut guest = runner.guest(&server);
    let answer = guest.says(&get(&server.url("/moved"))).await;
    assert!(
        answer.starts_with("HTTP/1.1 302 Found") && answer.contains("location: http://127.0.0.1:1/secret"),
        "{answer}"
    );
    assert!(!answer.contains("cookie"), "{answer}");
    let (_, missing) = guest.gets(&server.url("/nothing")).await;
    assert!(matches!(missing.outcome, RequestOutcome::Served { status: 302, .. }), "{missing:?}");
    let (_, missing) = guest.gets("http://127.0.0.1:1/secret").await;
    assert!(matches!(missing.outcome, RequestOutcome::Served { status: 404, .. }), "{missing:?}");
    let refused = guest.records.recv().await.expect("a record");
    assert!(reason(&refused).contains("none of the guest's repositories"));
    assert_eq!(server.asked().len(), 2, "the server was never asked for the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_servers_the_cache_alone_answers() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/InRelease", "", "old");
    let url = server.url("/InRelease");
    runner.guest(&server).gets(&url).await;
    server.asked();
    let mut guest = runner.next(true).guest(&server);
    assert_eq!(guest.gets(&url).await.0, "old");
    assert_eq!(guest.gets(&url).await.0, "old", "however often");
    assert!(reason(&guest.gets(&server.url("/other")).await.1).contains("it is not in the cache"));
    let other =
        guest.says(&format!("GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", server.url("/other"))).await;
    assert!(other.starts_with("HTTP/1.1 404 nestmatrix: "), "its repository may not have had it either: {other}");
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_cache_is_never_passed_on_whole_and_fetched_again() {
    let (server, runner) = (Server::new().await, Runner::new());
    let content = "x".repeat(300_000);
    server.has("/a.deb", "", &content);
    let url = server.url("/a.deb");
    runner.guest(&server).gets(&url).await;
    let file = runner.folder.path().join("content").join(matrix::Digest::of(content.as_bytes()).hex());
    std::fs::write(file, "y".repeat(300_000)).expect("damaged");
    let (got, request) = runner.guest(&server).gets(&url).await;
    assert!(got.len() < content.len() && reason(&request).contains("damaged"), "{} {request:?}", got.len());
    assert_eq!(runner.guest(&server).gets(&url).await.0, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_an_https_server_is_carried_and_counted() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/x", "hello");
    let mut guest = runner.guest(&server);
    let mut stream = guest.connection();
    let text = format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nhost: x\r\n\r\n", server.port);
    stream.write_all(text.as_bytes()).await.expect("taken");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /x HTTP/1.1\r\n\r\n").await.expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("all of it");
    assert_eq!(answer, "hello");
    drop(stream);
    let request = guest.records.recv().await.expect("a record");
    assert_eq!((&*request.method, &request.outcome, request.bytes), ("CONNECT", &RequestOutcome::Tunnelled, 24));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_behind_a_proxy_of_ours_knows_where_that_one_had_a_file_from() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/a.deb", "", "package");
    // The first one as a server of its own, as an L1 sees that of its host.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let first = format!("http://{}", listener.local_addr().expect("an address"));
    let states = [runner.guest(&server).state, runner.guest(&server).state];
    tokio::spawn(async move {
        for state in states {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(state.connection(stream));
        }
    });
    let behind = || {
        let mut runner = Runner::new();
        let fetches = Arc::get_mut(&mut runner.fetches).expect("nobody else has it");
        fetches.upstream = Upstream::new(Some(&first), Resolver::of_system()).expect("a client");
        runner
    };
    let url = server.url("/a.deb");
    assert_eq!(behind().guest(&server).source(&url).await, Some(ContentSource::Server));
    let (content, request) = behind().guest(&server).gets(&url).await;
    let digest = Some(matrix::Digest::of(b"package"));
    let outcome = RequestOutcome::Served { status: 200, source: ContentSource::Cache, digest };
    assert_eq!((&*content, request.outcome), ("package", outcome));
    assert_eq!(server.asked().len(), 1);
}
