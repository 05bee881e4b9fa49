//! A web server on the loopback with folders to be had from, as mirrors are, until it is told to do wrong.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

/// No request and no answer takes longer.
const LONGEST: Duration = Duration::from_secs(20);

/// What is wrong about a file.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// It is not there: status 404.
    Missing,
    /// It has this content.
    Content(Vec<u8>),
    /// One bit of it is another one: its length is right.
    Flipped,
}

/// The server; it vanishes when it is dropped.
pub(crate) struct RepositoryServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ends: AtomicBool,
}

#[derive(Default)]
struct State {
    /// By the first part of a path.
    folders: BTreeMap<String, PathBuf>,
    /// By what a path ends with.
    lies: Vec<(String, Lie)>,
    /// Path and status, in the order of the answers.
    answered: Vec<(String, u16)>,
}

/// What a request is answered with.
enum Answer {
    File { content: Vec<u8>, etag: String, modified: String },
    Same,
    Missing,
}

impl RepositoryServer {
    /// One without a file.
    pub(crate) fn start() -> Self {
        // Not 127.0.0.1: programs in guests do not ask a proxy for that, they mean themselves.
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().flatten() {
                    if shared.ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.serve(&stream));
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Address and port, as a matrix names them.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Serves a folder below `/name/`, instead of another one if there was one.
    pub(crate) fn serve(&self, name: &str, folder: &Path) {
        self.state().folders.insert(name.to_owned(), folder.to_owned());
    }

    /// Does this wrong with every file whose path ends so.
    pub(crate) fn lie(&self, end: &str, lie: Lie) {
        self.state().lies.push((end.to_owned(), lie));
    }

    /// From now on it is right again.
    pub(crate) fn repent(&self) {
        self.state().lies.clear();
    }

    /// Path and status of every file that was asked for since this was asked last.
    pub(crate) fn answered(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.state().answered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for RepositoryServer {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // It waits for somebody to come.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LONGEST))?;
        stream.set_write_timeout(Some(LONGEST))?;
        let (method, path, known) = request(stream)?;
        let answer = self.answer(&path, known.as_deref());
        let (status, head, content) = match answer {
            Answer::File { content, etag, modified } => {
                (200, format!("etag: {etag}\r\nlast-modified: {modified}\r\n"), content)
            }
            Answer::Same => (304, String::new(), Vec::new()),
            Answer::Missing => (404, String::new(), b"no such file\n".to_vec()),
        };
        // Before the answer: who has got it may ask what was answered. Without content nothing was had.
        if method != "HEAD" {
            self.state().answered.push((path, status));
        }
        let length = content.len();
        let mut whole = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n");
        if status == 304 {
            whole = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n\r\n");
        }
        let mut whole = whole.into_bytes();
        if method != "HEAD" {
            whole.extend(content);
        }
        let mut stream = stream;
        stream.write_all(&whole)
    }

    /// The file at a path, if who asks does not have it (`known`, its ETag).
    fn answer(&self, path: &str, known: Option<&str>) -> Answer {
        let state = self.state();
        let Some((folder, rest)) = path.trim_start_matches('/').split_once('/') else { return Answer::Missing };
        if rest.split('/').any(|part| part == "..") {
            return Answer::Missing;
        }
        let Some(file) = state.folders.get(folder).map(|folder| folder.join(rest)) else { return Answer::Missing };
        let Ok(mut content) = fs::read(&file) else { return Answer::Missing };
        for (_, lie) in state.lies.iter().filter(|(end, _)| path.ends_with(&**end)) {
            match lie {
                Lie::Missing => return Answer::Missing,
                Lie::Content(other) => content.clone_from(other),
                Lie::Flipped => content.iter_mut().rev().nth(40).into_iter().for_each(|byte| *byte ^= 1),
            }
        }
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        if known == Some(&*etag) {
            return Answer::Same;
        }
        Answer::File { content, etag, modified: modified(&file) }
    }
}

/// Method, path and the ETag of what is there already.
fn request(stream: &TcpStream) -> io::Result<(String, String, Option<String>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut known = None;
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        if name.eq_ignore_ascii_case("if-none-match") {
            known = Some(value.to_owned());
        }
    }
    // A proxy's client names the server as well.
    let path = path.split('?').next().unwrap_or_default().to_owned();
    Ok((method, path, known))
}

/// When a file was written, as RFC 9110 has it.
fn modified(file: &Path) -> String {
    let at = fs::metadata(file).and_then(|facts| facts.modified()).unwrap_or(UNIX_EPOCH);
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()).unwrap();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[test]
fn a_file_is_sent_once_to_who_says_what_it_has_and_wrong_only_if_the_test_says_so() {
    use std::io::Read as _;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.deb"), "x".repeat(100)).unwrap();
    let server = RepositoryServer::start();
    server.serve("r", folder.path());
    let ask = |path: &str, more: &str| {
        let mut stream = TcpStream::connect(server.host()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\n{more}\r\n", server.host()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let first = ask("/r/a.deb", "");
    let etag = first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(first.contains("last-modified: ") && first.ends_with(&"x".repeat(100)), "{first}");
    let known = format!("if-none-match: {etag}\r\n");
    assert!(ask("/r/a.deb", &known).starts_with("HTTP/1.1 304 "));
    server.lie(".deb", Lie::Flipped);
    assert!(ask("/r/a.deb", &known).contains('y'), "another content has another tag");
    server.lie("a.deb", Lie::Content(b"an error page".to_vec()));
    assert!(ask("/r/a.deb", &known).ends_with("an error page"));
    server.lie("a.deb", Lie::Missing);
    assert!(ask("/r/a.deb", "").starts_with("HTTP/1.1 404 "));
    server.repent();
    assert!(ask("/r/../secret", "").starts_with("HTTP/1.1 404 "));
    let statuses: Vec<u16> = server.answered().into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [200, 304, 200, 200, 404, 404]);
    let address = server.host();
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "it has vanished");
}
