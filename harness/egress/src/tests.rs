//! The proxy against real servers on this machine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use reports::{ContentSource, NetworkRequest, RequestOutcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpListener,
    sync::mpsc,
};

use crate::{cache::Cache, fetch::Fetches, guest::State, pins::Pins, policy::Policy, upstream::Upstream};

mod locked;

/// A server on loopback: what each path is answered with, and which requests came.
struct Server {
    port: u16,
    answers: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
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
                    let answer =
                        answer.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno".into());
                    let (answer, endless) = match answer.strip_suffix("ENDLESS") {
                        Some(answer) => (answer.to_owned(), true),
                        None => (answer, false),
                    };
                    let _ = stream.write_all(answer.as_bytes()).await;
                    while endless && stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
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
        Self::of(Arc::new(tempfile::tempdir().expect("a folder")), false)
    }

    fn of(folder: Arc<tempfile::TempDir>, offline: bool) -> Self {
        Self::behind(folder, offline, None)
    }

    fn behind(folder: Arc<tempfile::TempDir>, offline: bool, through: Option<&str>) -> Self {
        let fetches = Fetches {
            cache: Cache::open(folder.path(), 1 << 20).expect("a cache"),
            upstream: Upstream::new(through).expect("a client"),
            began: Timestamp::now(),
            offline,
            largest: 8 << 20,
            running: Default::default(),
        };
        Self { folder, fetches: Arc::new(fetches) }
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
        *state.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy.map(Arc::new);
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
        let answer = self.says(&format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        let content = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, content)| content.to_owned());
        (content, self.records.recv().await.expect("a record"))
    }

    async fn source(&mut self, url: &str) -> Option<ContentSource> {
        match self.gets(url).await.1.outcome {
            RequestOutcome::Served { source, .. } => Some(source),
            _ => None,
        }
    }
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
async fn guests_that_want_the_same_at_the_same_time_share_one_download() {
    let (server, runner) = (Server::new().await, Runner::new());
    let content = "x".repeat(3 << 20);
    server.has("/a.deb", "", &content);
    let url = server.url("/a.deb");
    let guests = (0..8).map(|_| {
        let (mut guest, url) = (runner.guest(&server), url.clone());
        tokio::spawn(async move { guest.gets(&url).await })
    });
    for guest in guests.collect::<Vec<_>>() {
        let (got, request) = guest.await.expect("no panic");
        assert_eq!((got.len(), request.bytes), (content.len(), content.len() as u64));
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_about_sizes_vanishes_or_never_ends_is_said_to() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/short.deb", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort");
    server.says("/huge.deb", "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\nconnection: close\r\n\r\n");
    server.says("/endless.deb", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nENDLESS");
    server.says("/odd.deb", "SSH-2.0-OpenSSH_9.2\r\n");
    for (path, words) in [
        ("/short.deb", "end of file before message length reached"),
        ("/huge.deb", "the file has 99999999 bytes; the limit is 8388608"),
        ("/endless.deb", "the file does not end within 8388608 bytes"),
        ("/odd.deb", "invalid HTTP version"),
    ] {
        let (_, request) = runner.guest(&server).gets(&server.url(path)).await;
        assert!(reason(&request).contains(words), "{path}: {}", reason(&request));
        assert_eq!(runner.fetches.cache.look(&server.url(path)), None, "nothing of it is kept");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let named = || vec![format!("127.0.0.1:{gone}").parse().expect("a pattern")];
    let mut guest = runner.guest_with(Some(Policy { private: named(), named: named(), ..Policy::default() }));
    let answer =
        guest.says(&format!("GET http://127.0.0.1:{gone}/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 nestmatrix: "), "{answer}");
    assert!(reason(&guest.records.recv().await.expect("a record")).contains("Connection refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_passed_on_and_a_redirection_is_judged_like_any_request() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says(
        "/moved",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/secret\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
    );
    let mut guest = runner.guest(&server);
    let get = |url: &str| format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
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
async fn what_is_no_http_ends_the_connection_and_is_recorded() {
    let (server, runner) = (Server::new().await, Runner::new());
    let mut guest = runner.guest(&server);
    let bomb = format!("GET {} HTTP/1.1\r\n{}\r\n", server.url("/x"), "a: b\r\n".repeat(100));
    let long = format!("GET {} HTTP/1.1\r\na: {}\r\n\r\n", server.url("/x"), "b".repeat(100_000));
    let smuggled =
        format!("GET {} HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n", server.url("/x"));
    for text in ["\x16\x03\x01 this is TLS\r\n\r\n", &bomb, &long, &smuggled] {
        let answer = guest.says(text).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        let request = tokio::time::timeout(Duration::from_secs(10), guest.records.recv()).await.expect("a record");
        assert!(matches!(request.expect("a record").outcome, RequestOutcome::Refused { .. }));
    }
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_nobody_reads_any_more_ends() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/slow.deb", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nslow");
    let held = server.url("/slow.deb");
    let mut guest = runner.guest(&server);
    let mut stream = guest.connection();
    stream.write_all(format!("GET {held} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("taken");
    head(&mut stream).await;
    drop(stream);
    let request = guest.records.recv().await.expect("a record");
    assert!(matches!(request.outcome, RequestOutcome::Failed { .. }), "{request:?}");
    let over = async {
        while !runner.fetches.running.lock().expect("running").is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.expect("it ends");
}
