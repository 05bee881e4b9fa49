//! The repository that the artifacts are installed from by name: made in the guest by its own tools, signed here.
//!
//! A guest gets nothing by it that it could use elsewhere: it has a signature of what it says itself, by a key that nobody but guests of
//! this process is told of, and each of them reads its own files.

use memchr::memmem;

use super::{
    family,
    install::{Install, InstallError, Survey},
    inventory, quote,
    signer::{Signer, Signing},
    upload, words,
};
use crate::ssh::{DEFAULT_CAP, End, Exec, Exit, Session, Sink, Stdin};

/// Most bytes of what is signed: pacman's is all that is known of the packages, that of others names a file of that.
const MOST_BYTES: usize = 16 << 20;
/// Most lines of what was said about a failure.
const MOST_LINES: usize = 5;

/// Makes a signed repository of the uploaded artifacts in the guest, and has the guest's package manager prefer it. Nothing of the package
/// runs. Without artifacts for the guest, or with one that cannot be read, there is nothing to be done: [`super::install`] says so.
///
/// # Errors
/// [`InstallError::NotServed`], [`InstallError::Locked`], the connection, the deadline or the cancellation.
pub async fn serve_artifacts(session: &Session, install: &Install<'_>, survey: &Survey) -> Result<(), InstallError> {
    // What the package manager cannot read is to fail when it installs the files.
    if survey.finds_nothing() || survey.is_unread() {
        return Ok(());
    }
    if let Some(words) = survey.versions() {
        return Err(not_served(vec![words]));
    }
    let (adapter, deadline) = (family::of(install.family), install.deadline);
    let Some(signing) = adapter.signing else {
        let words = format!("a system that takes {} is not supported", adapter.takes);
        return Err(not_served(vec![words]));
    };

    let mark = format!("nestmatrix-{:032x}", rand::random::<u128>());
    let log = || Sink::File { path: install.log.to_owned(), cap: DEFAULT_CAP, after: None };
    let make = quote::script_with(&adapter.make_repository(), &[&mark]);
    let make = Exec { stderr: log(), ..Exec::new(make, Stdin::None, deadline) };
    let (exit, output) = inventory::output(session, make, MOST_BYTES).await?;
    if exit.end == End::Cut {
        return Err(not_served(vec![format!("its list is longer than {MOST_BYTES} bytes")]));
    }
    if !exit.success() {
        return Err(failed("it could not be made", &exit, &exit.stderr_tail));
    }
    let list = between(&output, &mark).ok_or_else(|| not_served(vec!["the guest did not send its list".to_owned()]))?;

    let (signature, key) = sign(signing, list.to_vec()).await?;
    let put = quote::script_with(upload::PUT, &["tmp/signature", "644"]);
    let exit = session.exec(Exec::new(put, Stdin::Bytes(signature), deadline)).await?;
    if !exit.success() {
        return Err(failed("its signature could not be written", &exit, &exit.stderr_tail));
    }
    let open = Exec { stdout: log(), ..Exec::new(adapter.open_repository(), Stdin::Bytes(key), deadline) };
    let exit = session.exec(open).await?;
    if exit.success() {
        return Ok(());
    }
    if let Some(line) = adapter.locked(&words::lines_in_full(&exit.stdout_tail)) {
        return Err(InstallError::Locked { line });
    }
    Err(not_served(adapter.words(&exit.stdout_tail)))
}

/// The signature of a list, and the key that proves it. Making the key takes a moment.
async fn sign(signing: Signing, list: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), InstallError> {
    let signed = tokio::task::spawn_blocking(move || {
        let signer = Signer::of_this_process()?;
        Ok((signer.sign(signing, &list)?, signer.public(signing)?))
    });
    match signed.await {
        Ok(Ok(signed)) => Ok(signed),
        Ok(Err(error)) => Err(cannot_sign(&error)),
        Err(_) => Err(not_served(vec!["its list was not signed".to_owned()])),
    }
}

fn cannot_sign(error: &openssl::error::ErrorStack) -> InstallError {
    not_served(vec![format!("OpenSSL cannot sign its list: {error}")])
}

/// What stands between two lines of the mark. A login may say something before.
fn between<'a>(output: &'a [u8], mark: &str) -> Option<&'a [u8]> {
    let line = format!("{mark}\n");
    let start = memmem::find(output, line.as_bytes())? + line.len();
    let list = output[start..].strip_suffix(line.as_bytes())?;
    (!list.is_empty()).then_some(list)
}

fn failed(what: &str, exit: &Exit, said: &[u8]) -> InstallError {
    let mut words = vec![format!("{what} ({}):", exit.end)];
    words.extend(words::last_lines(said, MOST_LINES));
    not_served(words)
}

fn not_served(words: Vec<String>) -> InstallError {
    InstallError::NotServed { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_stands_between_the_marks() {
        assert_eq!(between(b"Welcome!\nm\n\0list\nm\n", "m"), Some(&b"\0list\n"[..]));
        for cut in [&b"m\nlist\n"[..], b"list\nm\n", b"m\nm\n", b"m\n", b""] {
            assert_eq!(between(cut, "m"), None);
        }
    }
}
