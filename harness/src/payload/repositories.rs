//! The repositories of a guest's system: on which hosts they are, and how its programs get there.

use std::time::Instant;

use matrix::{HostPattern, PackageFamily, Repository};

use super::{family, install::InstallError, quote, words};
use crate::ssh::{Exec, Session, SshError, Stdin};

/// Most hosts that a system names.
const MOST: usize = 64;

/// Says every address in the files that name repositories, of whatever package manager; commented lines and `#` are left out. Where a file
/// names a list of mirrors on this machine, that is among them.
const LIST: &str = "\
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources /etc/apt/mirrors/* \\
    /etc/yum.repos.d/*.repo /etc/zypp/repos.d/*.repo /etc/apk/repositories /etc/pacman.conf /etc/pacman.d/*mirrorlist* \\
    /etc/pkg/*.conf /usr/local/etc/pkg/repos/*.conf 2>/dev/null |
    grep -v '^[[:space:]]*#' | grep -oE 'https?://[^[:space:]\"<>,;]+'
exit 0
";

/// The lists that are pinned may be older than they say they are valid; what proves them is their signature and their pin.
const KEEP_OLD_LISTS: &str = "\
if [ -d /etc/apt ]; then
    mkdir -p /etc/apt/apt.conf.d
    echo 'Acquire::Check-Valid-Until \"false\";' >/etc/apt/apt.conf.d/90nestmatrix-locked
fi
";

/// The variables that lead programs to the proxy on the guest's runner, by both spellings that programs look for.
pub fn proxy_environment() -> impl Iterator<Item = (&'static str, String)> {
    let proxy = egress::url();
    let ours = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"].map(|name| (name, proxy.clone()));
    let not = ["no_proxy", "NO_PROXY"].map(|name| (name, "localhost,127.0.0.1,::1".to_owned()));
    ours.into_iter().chain(not)
}

/// Commands of a shell that set them.
pub(super) fn exports() -> String {
    proxy_environment().map(|(name, value)| format!("export {name}={value}\n")).collect()
}

/// The hosts of the repositories that the guest's package manager is set up with. To be asked before anything of a package runs:
/// the answer is then the image's. `are_pinned`: what it gets from there is, lists may have expired.
///
/// # Errors
/// The connection, the deadline or the cancellation.
pub async fn repositories(
    session: &Session,
    are_pinned: bool,
    deadline: Instant,
) -> Result<Vec<HostPattern>, SshError> {
    let script = [if are_pinned { KEEP_OLD_LISTS } else { "" }, LIST].concat();
    let exit = session.exec(Exec::new(script, Stdin::None, deadline)).await?;
    Ok(hosts(&String::from_utf8_lossy(&exit.stdout_tail)))
}

/// Adds a repository that the matrix describes to those of the guest's system; one without a description for its family is not for it.
///
/// # Errors
/// [`InstallError::Repositories`], the connection, the deadline or the cancellation.
pub async fn add_repository(
    session: &Session,
    family: PackageFamily,
    added: &Repository,
    deadline: Instant,
) -> Result<(), InstallError> {
    let Some(description) = added.descriptions.get(&family) else { return Ok(()) };
    let (file, key) = added.key.as_ref().map_or(("", Vec::new()), |key| (&*key.file_name, key.content.clone()));
    let script = family::of(family).add_repository();
    let exec = Exec::new(quote::script_with(&script, &[&added.name, description, file]), Stdin::Bytes(key), deadline);
    let exit = session.exec(exec).await?;
    if exit.success() {
        return Ok(());
    }
    let said = words::last_lines(&exit.stderr_tail, 3).join("; ");
    Err(InstallError::Repositories { words: vec![format!("{} could not be added ({}): {said}", added.name, exit.end)] })
}

/// The hosts of these addresses, each once.
fn hosts(addresses: &str) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    for line in addresses.lines() {
        let Some(host) = host(line.trim()).filter(|host| !hosts.contains(host)) else { continue };
        hosts.push(host);
        if hosts.len() == MOST {
            break;
        }
    }
    hosts
}

fn host(address: &str) -> Option<HostPattern> {
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A name and a password before it are not part of it, and the proxy sends none.
    let host = authority.rsplit('@').next()?;
    host.parse().ok().filter(|_| !host.contains('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_system_are_those_of_its_addresses_each_once() {
        let text = "http://deb.example.org/debian\nhttps://user:word@pkg.example.org:8443/x\nhttp://deb.example.org/security\n\
                    http://*.example.org/\nhttp://$host/\nftp://ftp.example.org/\nnonsense\nhttp://[2001:db8::1]/x\n";
        let found: Vec<String> = hosts(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["deb.example.org", "pkg.example.org:8443", "[2001:db8::1]"]);
        let many: String = (0..200).map(|number| format!("http://h{number}.example/\n")).collect();
        assert_eq!(hosts(&many).len(), MOST);
    }
}
