//! What an SSH server offers, where the two sides could not agree: libssh2 does not tell.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use ssh2::MethodType;

use super::SshError;

/// How long the server has to say what it offers.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes that are read of it: its first packet has at most 35,000 (RFC 4253, 6.1).
const MOST: usize = 48 * 1024;
/// Number of the message (RFC 4253, 12).
const KEXINIT: u8 = 20;
/// Most characters of a list that are shown.
const SHOWN: usize = 400;

/// The lists of a key exchange's first message that matter, by what they are about, in the order of RFC 4253, 7.1.
const KINDS: [(usize, &str, MethodType); 4] = [
    (0, "key exchange algorithm", MethodType::Kex),
    (1, "host key algorithm", MethodType::HostKey),
    (3, "cipher", MethodType::CryptSc),
    (5, "MAC", MethodType::MacSc),
];

/// Asks the server at the other end of `socket`, over another connection, what it offers, and finds what there is nothing in common
/// of. `None`: it does not say, or there is no such thing.
pub(super) fn disagreement(ssh: &ssh2::Session, socket: &OwnedFd, host_keys: &[String]) -> Option<SshError> {
    let peer = rustix::net::getpeername(socket).ok().flatten()?;
    let lists = ask(SocketAddr::try_from(peer).ok()?)?;
    KINDS.into_iter().find_map(|(at, what, method)| {
        let ours: Vec<String> = match method {
            MethodType::HostKey => host_keys.to_vec(),
            method => ssh.supported_algs(method).ok()?.into_iter().map(str::to_owned).collect(),
        };
        let theirs = lists.get(at)?;
        let common = theirs.split(',').any(|name| ours.iter().any(|own| own == name));
        (!common).then(|| SshError::NoCommon { what, theirs: shown(theirs), ours: ours.join(", ") })
    })
}

fn shown(list: &str) -> String {
    let list: String = reports::clean::line(list).chars().take(SHOWN).collect();
    if list.is_empty() { "none".to_owned() } else { list.replace(',', ", ") }
}

fn ask(server: SocketAddr) -> Option<Vec<String>> {
    let until = Instant::now() + LIMIT;
    let mut stream = TcpStream::connect_timeout(&server, LIMIT).ok()?;
    stream.set_write_timeout(Some(LIMIT)).ok()?;
    stream.write_all(b"SSH-2.0-nestmatrix\r\n").ok()?;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        let n = stream.read(&mut piece).ok().filter(|&n| n > 0)?;
        said.extend_from_slice(&piece[..n]);
        if let Some(lists) = lists(&said) {
            return Some(lists);
        }
        if said.len() > MOST {
            return None;
        }
    }
}

/// The ten lists of names in a server's first packet; `None`: not all of it is there, or it is something else.
fn lists(said: &[u8]) -> Option<Vec<String>> {
    let mut at = 0;
    let packet = loop {
        let end = at + said.get(at..)?.iter().position(|&byte| byte == b'\n')? + 1;
        let is_banner = said[at..end].starts_with(b"SSH-");
        at = end;
        if is_banner {
            break said.get(at..)?;
        }
    };
    let (length, packet) = number(packet)?;
    // Padding's length, message number, 16 random bytes.
    let packet = packet.get(..length)?;
    if packet.get(1) != Some(&KEXINIT) {
        return None;
    }
    let mut rest = packet.get(18..)?;
    let mut lists = Vec::new();
    for _ in 0..10 {
        let (length, after) = number(rest)?;
        lists.push(String::from_utf8_lossy(after.get(..length)?).into_owned());
        rest = &after[length..];
    }
    Some(lists)
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number) as usize, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(names: &[&str]) -> Vec<u8> {
        let mut payload = vec![4, KEXINIT];
        payload.extend([7; 16]);
        for name in names {
            payload.extend((name.len() as u32).to_be_bytes());
            payload.extend(name.as_bytes());
        }
        payload.extend([0; 9]);
        let mut said = b"notice\r\nSSH-2.0-Test\r\n".to_vec();
        said.extend((payload.len() as u32).to_be_bytes());
        said.extend(payload);
        said
    }

    #[test]
    fn a_servers_lists_are_read_once_all_of_them_are_there() {
        let names = ["kex-a,kex-b", "ssh-rsa", "c", "d", "e", "f", "", "", "", ""];
        let said = packet(&names);
        assert_eq!(lists(&said).unwrap(), names);
        assert!((0..said.len() - 9).all(|length| lists(&said[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read_without_harm(said in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = lists(&said);
            let mut started = b"SSH-2.0-x\n".to_vec();
            started.extend(said);
            let _ = lists(&started);
        }
    }
}
