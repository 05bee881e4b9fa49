//! Just enough of an HTTP/1.1 server: a thread per connection, so that an answer may take as long as it likes, and connections that end in
//! the middle.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

/// An idle connection is closed then, and a peer that does not read is given up.
const IDLE: Duration = Duration::from_secs(120);
/// Nothing that is sent here is larger.
const LARGEST: usize = 1 << 20;

/// A received request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) verb: String,
    /// Without the query, as it was sent.
    pub(super) path: String,
    /// Decoded.
    pub(super) query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a header, its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The segments of its path, decoded.
    pub(super) fn segments(&self) -> Vec<String> {
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        self.path.trim_start_matches('/').split('/').map(decoded).collect()
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What a request gets.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    /// The end of the connection.
    Cut,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json; charset=UTF-8".to_owned())];
        Self { status, headers, body: format!("{body:#}\n").into_bytes() }
    }

    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type", "text/plain".to_owned())], body: body.into().into_bytes() }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a loopback port. It ends, with all of its connections, when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    ends: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let accepting = thread::spawn({
            let (connections, ends) = (Arc::clone(&connections), Arc::clone(&ends));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ends.load(Ordering::SeqCst) {
                        break;
                    }
                    connections.lock().unwrap().extend(stream.try_clone());
                    let handler = Arc::clone(&handler);
                    // A client that leaves in the middle is nobody's fault.
                    thread::spawn(move || drop(converse(stream, &*handler)));
                }
            }
        });
        Self { address, connections, ends, accepting: Some(accepting) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.accepting.take().map(JoinHandle::join);
        for connection in self.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Ends a connection with its thread, also with one that panics.
struct Ends(TcpStream);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn converse(stream: TcpStream, handler: &Handler) -> io::Result<()> {
    let mut ends = Ends(stream);
    let stream = &mut ends.0;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut received = Vec::new();
    while let Some(request) = receive(stream, &mut received)? {
        let closes = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match handler(&request) {
            Reply::Answer(answer) => send(stream, &answer)?,
            Reply::Cut => return Ok(()),
        }
        if closes {
            return Ok(());
        }
    }
    Ok(())
}

fn send(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} -\r\ncontent-length: {}\r\n", answer.status, answer.body.len()).into_bytes();
    for (name, value) in &answer.headers {
        write!(bytes, "{name}: {value}\r\n")?;
    }
    bytes.extend(b"\r\n");
    bytes.extend(&answer.body);
    stream.write_all(&bytes)
}

/// The next request; `None`: there is none. What has come of the one behind it stays in `received`.
fn receive(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse(received)? {
            received.drain(..length);
            return Ok(Some(request));
        }
        let mut piece = [0; 8 << 10];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        received.extend(&piece[..count]);
        if received.len() > LARGEST {
            return Err(io::Error::other("a request that is too large"));
        }
    }
}

/// A request that has come completely, and its length.
fn parse(received: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let value = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    if value("transfer-encoding").is_some() {
        return Err(io::Error::other("a body of unknown length"));
    }
    let body = value("content-length").map_or(Ok(0), str::parse::<usize>).map_err(io::Error::other)?;
    let Some(body) = received.get(length..length + body) else { return Ok(None) };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        verb: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        body: body.to_vec(),
        headers: headers.clone(),
    };
    Ok(Some((request, length + body.len())))
}
