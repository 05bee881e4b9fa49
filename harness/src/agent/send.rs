//! Sends the files of an image to the program that receives them on the other machine.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use super::receive::{FILES, Header, There, blocks, content, resume_from};

/// Sends those of [`FILES`] that the image has, from where the receiver is. `sent` is told how many bytes of a file lie behind it.
pub(crate) fn send_image(
    output: &mut dyn Write,
    files: &[Option<PathBuf>; 3],
    there: There,
    sent: &dyn Fn(u64),
) -> io::Result<()> {
    for ((name, file), there) in FILES.into_iter().zip(files).zip(there.bytes) {
        let Some(file) = file else { continue };
        let mut file = File::open(file)?;
        let bytes = file.metadata()?.len();
        let from = resume_from(there, bytes);
        header(output, &Header { name: name.to_owned(), bytes, from })?;
        blocks(&mut file, from, &mut |at, block| {
            output.write_all(&at.to_le_bytes())?;
            output.write_all(&(block.len() as u32).to_le_bytes())?;
            output.write_all(block)?;
            sent(at + block.len() as u64);
            Ok(())
        })?;
        output.write_all(&[0; 12])?;
        output.write_all(&content(&mut file)?)?;
    }
    header(output, &Header { name: String::new(), bytes: 0, from: 0 })?;
    output.flush()
}

fn header(output: &mut dyn Write, header: &Header) -> io::Result<()> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    output.write_all(&line)
}
