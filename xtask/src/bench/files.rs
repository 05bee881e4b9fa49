//! A server on this machine that gives out the files of a folder, whole or from some byte on.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

/// Longest request that is read.
const LONGEST: u64 = 16 << 10;

/// It ends with this process.
pub(super) struct Server(SocketAddr);

impl Server {
    /// Starts it on a free port of the loopback.
    pub(super) fn start(folder: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let folder = folder.clone();
                thread::spawn(move || answer(&connection, &folder));
            }
        });
        Ok(Self(address))
    }

    pub(super) fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.0)
    }
}

/// Answers one request. Who asks for something odd, or goes away, gets nothing.
fn answer(mut connection: &TcpStream, folder: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(connection.take(LONGEST)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let name = first.split(' ').nth(1).and_then(|path| path.strip_prefix('/')).unwrap_or_default().to_owned();
    let mut from = 0;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
    }
    if name.is_empty() || name.contains('/') {
        return connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut file = File::open(folder.join(&name))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from))?;
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let range =
        if from > 0 { format!("Content-Range: bytes {from}-{}/{length}\r\n", length - 1) } else { String::new() };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n{range}Connection: close\r\n\r\n",
        length.saturating_sub(from)
    );
    connection.write_all(head.as_bytes())?;
    io::copy(&mut file, &mut connection)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_given_out_whole_or_from_some_byte_on_and_nothing_else_is() {
        let folder = std::env::temp_dir().join(format!("nestmatrix-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("file"), "0123456789").expect("file");
        let server = Server::start(folder.clone()).expect("server");
        let ask = |path: &str, header: &str| {
            let mut connection = TcpStream::connect(server.0).expect("connection");
            write!(connection, "GET {path} HTTP/1.1\r\n{header}\r\n").expect("request");
            let mut text = String::new();
            connection.read_to_string(&mut text).expect("answer");
            text
        };
        assert!(ask("/file", "").ends_with("\r\n\r\n0123456789"));
        let part = ask("/file", "Range: bytes=7-\r\n");
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n789"), "{part}");
        assert!(ask("/../etc/passwd", "").starts_with("HTTP/1.1 404"));
        std::fs::remove_dir_all(folder).expect("folder");
    }
}
