//! A web server on the loopback with scripted behaviour: one answer per connection.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Maximum duration of an answer.
const LONGEST: Duration = Duration::from_secs(20);

/// A received request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// `GET`, or a proxy's method.
    pub(crate) method: String,
    /// Path, or a proxy's target.
    pub(crate) path: String,
    /// Number of earlier requests for the same path.
    pub(crate) number: usize,
    /// The first requested byte.
    pub(crate) range: Option<usize>,
    pub(crate) if_range: Option<String>,
}

/// The answer.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// A file.
    File(Served),
    /// Nothing, until the client leaves.
    Silence,
}

/// A file, and how it is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    body: Arc<[u8]>,
    etag: Option<&'static str>,
    kind: &'static str,
    ignores_ranges: bool,
    content_range: Option<String>,
    length: Length,
    breaks_after: Option<usize>,
    stalls_after: Option<usize>,
    pace: Option<(usize, Duration)>,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Right,
    Lie(u64),
    Chunked,
    Unsaid,
}

impl Served {
    /// Correct behaviour.
    pub(crate) fn new(body: &Arc<[u8]>) -> Self {
        Self {
            body: Arc::clone(body),
            etag: Some("\"v1\""),
            kind: "application/octet-stream",
            ignores_ranges: false,
            content_range: None,
            length: Length::Right,
            breaks_after: None,
            stalls_after: None,
            pace: None,
        }
    }

    pub(crate) fn etag(self, etag: Option<&'static str>) -> Self {
        Self { etag, ..self }
    }

    pub(crate) fn kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn ignoring_ranges(self) -> Self {
        Self { ignores_ranges: true, ..self }
    }

    /// Replaces the correct header.
    pub(crate) fn content_range(self, text: impl Into<String>) -> Self {
        Self { content_range: Some(text.into()), ..self }
    }

    pub(crate) fn length_lie(self, bytes: u64) -> Self {
        Self { length: Length::Lie(bytes), ..self }
    }

    pub(crate) fn chunked(self) -> Self {
        Self { length: Length::Chunked, ..self }
    }

    pub(crate) fn length_unsaid(self) -> Self {
        Self { length: Length::Unsaid, ..self }
    }

    /// The connection ends after this many bytes.
    pub(crate) fn breaking_after(self, bytes: usize) -> Self {
        Self { breaks_after: Some(bytes), ..self }
    }

    /// Silence after this many bytes.
    pub(crate) fn stalling_after(self, bytes: usize) -> Self {
        Self { stalls_after: Some(bytes), ..self }
    }

    /// This many bytes at once, and then a pause.
    pub(crate) fn pace(self, bytes: usize, pause: Duration) -> Self {
        Self { pace: Some((bytes, pause)), ..self }
    }
}

impl From<Served> for Act {
    fn from(served: Served) -> Self {
        Self::File(served)
    }
}

/// An answer without a file.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Raw(
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    act: Box<dyn Fn(&Seen) -> Act + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
    sent: AtomicU64,
    ends: AtomicBool,
}

impl Server {
    /// Answers every request as `act` says.
    pub(crate) fn start(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            act: Box::new(act),
            seen: Mutex::default(),
            sent: AtomicU64::default(),
            ends: AtomicBool::default(),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || stream.and_then(|stream| shared.serve(stream)));
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Serves one file at every path.
    pub(crate) fn of(served: Served) -> Self {
        Self::start(move |_| served.clone().into())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("requests").clone()
    }

    /// Bytes of files that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(LONGEST))?;
        stream.set_read_timeout(Some(LONGEST))?;
        let mut seen = read_request(&stream)?;
        {
            let mut all = self.seen.lock().expect("requests");
            seen.number = all.iter().filter(|other| other.path == seen.path).count();
            all.push(seen.clone());
        }
        match (self.act)(&seen) {
            Act::Raw(bytes) => stream.write_all(&bytes)?,
            Act::Silence => self.wait_for_client(&stream)?,
            Act::File(served) => self.serve_file(&mut stream, &seen, &served)?,
        }
        stream.shutdown(std::net::Shutdown::Both)
    }

    fn serve_file(&self, stream: &mut TcpStream, seen: &Seen, served: &Served) -> io::Result<()> {
        let total = served.body.len();
        let is_same = seen.if_range.is_none() || seen.if_range.as_deref() == served.etag;
        let offset = seen.range.filter(|_| !served.ignores_ranges && is_same);
        if offset.is_some_and(|offset| offset >= total) {
            let head = format!("HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{total}\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        let body = &served.body[offset.unwrap_or(0)..];
        let mut head = match offset {
            Some(offset) => {
                let right = || format!("bytes {offset}-{}/{total}", total - 1);
                let range = served.content_range.clone().unwrap_or_else(right);
                format!("HTTP/1.1 206 Partial Content\r\ncontent-range: {range}\r\n")
            }
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        head += &format!("content-type: {}\r\nconnection: close\r\n", served.kind);
        head += &served.etag.map_or(String::new(), |etag| format!("etag: {etag}\r\n"));
        head += &match served.length {
            Length::Right => format!("content-length: {}\r\n", body.len()),
            Length::Lie(bytes) => format!("content-length: {bytes}\r\n"),
            Length::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
            Length::Unsaid => String::new(),
        };
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let (piece, pause) = served.pace.unwrap_or((64 << 10, Duration::ZERO));
        let end = served.breaks_after.or(served.stalls_after).unwrap_or(body.len()).min(body.len());
        for piece in body[..end].chunks(piece.max(1)) {
            if matches!(served.length, Length::Chunked) {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            } else {
                stream.write_all(piece)?;
            }
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            thread::sleep(pause);
        }
        match served.length {
            _ if served.stalls_after.is_some() => self.wait_for_client(stream),
            Length::Chunked if served.breaks_after.is_none() => stream.write_all(b"0\r\n\r\n"),
            _ => Ok(()),
        }
    }

    /// Until it is gone.
    fn wait_for_client(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        let began = Instant::now();
        while began.elapsed() < LONGEST && !self.ends.load(Ordering::Relaxed) {
            match (&*stream).read(&mut [0]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                _ => break,
            }
        }
        Ok(())
    }
}

fn read_request(stream: &TcpStream) -> io::Result<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut seen =
        Seen { method: words.next().unwrap_or_default(), path: words.next().unwrap_or_default(), ..Seen::default() };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let first = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                seen.range = first.and_then(|first| first.parse().ok());
            }
            "if-range" => seen.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(seen)
}
