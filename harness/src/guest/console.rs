//! What a guest prints on its serial console: on disk up to a limit, and its last lines in memory.
//!
//! A guest may print without limit; our memory and the host's disk are limited.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// Bytes of a console (or of QEMU's own messages) that go to disk.
const DISK_LIMIT: u64 = 16 << 20;
/// Bytes kept in memory for error reports.
const TAIL_LIMIT: usize = 64 << 10;

/// A log that drains a pipe until its writer is gone.
#[derive(Clone, Debug)]
pub struct Console {
    tail: Arc<Mutex<VecDeque<u8>>>,
    /// Bytes seen; the sender is dropped at the end of the stream.
    seen: watch::Receiver<u64>,
}

impl Console {
    /// Drains `pipe` on a thread of its own into the file `log`.
    pub fn drain(mut pipe: impl Read + Send + 'static, log: &Path) -> std::io::Result<Self> {
        let mut file = File::create(log)?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (count, seen) = watch::channel(0);
        let shared = Arc::clone(&tail);
        std::thread::Builder::new().name("console".into()).spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            let mut total = 0u64;
            loop {
                let read = match pipe.read(&mut buffer) {
                    Ok(read @ 1..) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => break,
                };
                let bytes = &buffer[..read];
                let room = DISK_LIMIT.saturating_sub(total).min(read as u64) as usize;
                total += read as u64;
                // A full host disk costs us the rest of this log, never the verdict: the tail is in memory.
                let _ = file.write_all(&bytes[..room]);
                let mut tail = shared.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend(bytes);
                let excess = tail.len().saturating_sub(TAIL_LIMIT);
                tail.drain(..excess);
                drop(tail);
                count.send_replace(total);
            }
            if total > DISK_LIMIT {
                let tail = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(file, "\n[nestmatrix: {total} bytes were printed; the last {} follow]", tail.len());
                let (front, back) = tail.as_slices();
                let _ = file.write_all(front).and_then(|()| file.write_all(back));
            }
        })?;
        Ok(Self { tail, seen })
    }

    /// The last lines, cleaned for people.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        last_lines(&String::from_utf8_lossy(&bytes), lines)
    }

    /// Waits until nothing has come for 100 ms, 1 s at the most: an event may overtake the words that explain it.
    pub async fn settle(&self) {
        let mut seen = self.seen.clone();
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                seen.mark_unchanged();
                match tokio::time::timeout(Duration::from_millis(100), seen.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        })
        .await;
    }
}

fn last_lines(text: &str, lines: usize) -> Vec<String> {
    let clean: Vec<String> = text
        .lines()
        .map(|line| reports::clean::text(line).trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    clean[clean.len().saturating_sub(lines)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drained(bytes: Vec<u8>) -> (Console, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let console = Console::drain(std::io::Cursor::new(bytes), &log).unwrap();
        let mut seen = console.seen.clone();
        while seen.changed().await.is_ok() {}
        // The sender is dropped after the last write to the file.
        (console, std::fs::read(log).unwrap())
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_cleaned() {
        let (console, log) = drained(b"one\n\x1b[31mtwo\x1b[0m\r\n\nthree\n".to_vec()).await;
        assert_eq!(console.tail(2), ["two", "three"]);
        assert!(log.starts_with(b"one\n"), "the file holds the bytes as they came");
    }

    #[tokio::test]
    async fn a_guest_that_prints_without_end_fills_neither_memory_nor_disk() {
        let (console, log) = drained(vec![b'x'; 40 << 20]).await;
        assert!(log.len() < (DISK_LIMIT as usize) + TAIL_LIMIT + 200, "{}", log.len());
        assert!(String::from_utf8_lossy(&log).contains("41943040 bytes were printed"));
        assert!(console.tail.lock().unwrap().len() <= TAIL_LIMIT);
    }
}
