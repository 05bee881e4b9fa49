//! Sends the files of an image to the program that receives them on the other machine.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use sha2::Digest as _;

use super::{
    coming::There,
    receive::{ALIVE, FILES, Header, blocks, hasher, resume_from},
};

/// The receiver is told that the sender is there when nothing else was sent for so long: of what is there already, and of zeros, nothing
/// is.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Sends those of [`FILES`] that the image has, from where the receiver is. `sent` is told how many bytes have been sent so far.
pub(crate) fn send_image(
    output: &mut dyn Write,
    files: &[Option<PathBuf>; 3],
    there: There,
    sent: &dyn Fn(u64),
) -> io::Result<()> {
    let mut all = 0;
    for ((name, file), there) in FILES.into_iter().zip(files).zip(there.bytes) {
        let Some(file) = file else { continue };
        let mut file = File::open(file)?;
        let bytes = file.metadata()?.len();
        let from = resume_from(there, bytes);
        header(output, &Header { name: name.to_owned(), bytes, from })?;
        let mut hasher = hasher(bytes);
        let mut spoke = Instant::now();
        blocks(&mut file, &mut |at, block| {
            if !block.is_empty() {
                hasher.update(at.to_le_bytes());
                hasher.update(block);
            }
            if at >= from && !block.is_empty() {
                output.write_all(&at.to_le_bytes())?;
                output.write_all(&(block.len() as u32).to_le_bytes())?;
                output.write_all(block)?;
                all += block.len() as u64;
                sent(all);
            } else if spoke.elapsed() >= ALIVE_INTERVAL {
                output.write_all(&ALIVE.to_le_bytes())?;
                output.write_all(&[0; 4])?;
                output.flush()?;
            } else {
                return Ok(());
            }
            spoke = Instant::now();
            Ok(())
        })?;
        output.write_all(&[0; 12])?;
        output.write_all(&hasher.finalize())?;
    }
    header(output, &Header { name: String::new(), bytes: 0, from: 0 })?;
    output.flush()
}

fn header(output: &mut dyn Write, header: &Header) -> io::Result<()> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    output.write_all(&line)
}
