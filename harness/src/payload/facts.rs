//! What the system in a guest is: asked by a script (`facts.sh`), read by a plain function.

use reports::SystemFacts;

use super::{family, words};

/// Asks. It writes to standard output what [`read`] reads, and always exits with 0.
pub fn script() -> String {
    format!("package_managers() {{{}}}\n{}", family::facts(), include_str!("facts.sh"))
}

/// Most lines that are read: the script has some twenty.
const MOST: usize = 60;

/// Runs the uploaded script after the payload has arrived. Whatever comes of it, the payload has arrived: a program in the guest that
/// does not answer is left behind, and one that cannot be left behind is not asked.
pub(super) const ASK: &str = "\
if command -v timeout >/dev/null; then timeout 20 sh ./facts </dev/null 2>/dev/null; fi
exit 0";

/// The facts that the script's output tells. Lines that are none are passed over; what is said twice, counts the first time.
pub fn read(output: &[u8]) -> SystemFacts {
    let mut facts = SystemFacts::default();
    for line in words::lines(output).iter().take(MOST) {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (fact, said) = match key {
            "os.ID" => (&mut facts.id, unquoted(value)),
            "os.VERSION_ID" => (&mut facts.version, unquoted(value)),
            "os.PRETTY_NAME" => (&mut facts.name, unquoted(value)),
            "uname" => {
                uname(value, &mut facts);
                continue;
            }
            "libc" => (&mut facts.libc, libc(value)),
            "init.systemd" => (&mut facts.init, Some(named("systemd", value.split_whitespace().nth(1)))),
            "init.openrc" => (&mut facts.init, Some(named("OpenRC", version(value)))),
            "init.busybox" => (&mut facts.init, Some(named("busybox", version(value)))),
            "init.rc" => (&mut facts.init, Some("FreeBSD rc".to_owned())),
            "init.name" => (&mut facts.init, text(value)),
            "package" => {
                facts.package_managers.extend(value.strip_suffix(" installed").and_then(text));
                continue;
            }
            "cgroups" => {
                facts.cgroups = words::meant(value);
                continue;
            }
            "selinux" => {
                facts.selinux = words::meant(value);
                continue;
            }
            "apparmor" => {
                facts.apparmor = match value {
                    "Y" => Some(true),
                    "N" => Some(false),
                    _ => None,
                };
                continue;
            }
            "root" => {
                let bytes = value.parse::<u64>().ok().and_then(|kib| kib.checked_mul(1024));
                facts.root_bytes = facts.root_bytes.or(bytes);
                continue;
            }
            _ => continue,
        };
        if fact.is_none() {
            *fact = said;
        }
    }
    facts.cleaned()
}

/// A value of os-release, which is written as a shell's: quotes, and backslashes within them.
fn unquoted(value: &str) -> Option<String> {
    let bare = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let inner = bare('"').or_else(|| bare('\'')).unwrap_or(value);
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    (!text.is_empty()).then_some(text)
}

/// `Linux 6.1.0-25-amd64 x86_64`: only a release may have blanks in it.
fn uname(value: &str, facts: &mut SystemFacts) {
    let Some((_, rest)) = value.split_once(' ') else { return };
    let Some((release, machine)) = rest.rsplit_once(' ') else { return };
    facts.kernel.get_or_insert_with(|| release.to_owned());
    facts.arch.get_or_insert_with(|| machine.to_owned());
}

/// `glibc 2.36` and `musl 1.2.4` as they are; the same from the first line of `ldd --version`.
fn libc(value: &str) -> Option<String> {
    if value.starts_with("glibc ") || value.starts_with("musl") {
        return Some(value.to_owned());
    }
    let is_glibc = value.starts_with("ldd ") && (value.contains("GLIBC") || value.contains("GNU libc"));
    is_glibc.then(|| named("glibc", version(value)))
}

/// The last word of a line that is a version.
fn version(line: &str) -> Option<&str> {
    let words = line.split([' ', ',']).map(|word| word.trim_start_matches('v'));
    let mut versions = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    versions.next_back()
}

fn named(name: &str, version: Option<&str>) -> String {
    version.map_or_else(|| name.to_owned(), |version| format!("{name} {version}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn shown(output: &str) -> String {
        let facts = serde_json::to_value(read(output.as_bytes())).unwrap();
        let facts = facts.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        facts.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_debian_with_systemd() {
        insta::assert_snapshot!(shown(r#"os.PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
os.VERSION_ID="12"
os.ID=debian
uname=Linux 6.1.0-39-cloud-amd64 x86_64
libc=glibc 2.36
init.systemd=systemd 252 (252.39-1~deb12u1)
package=apt 2.6.1 installed
package=dpkg 1.21.22 installed
cgroups=v2
selinux=absent
apparmor=Y
"#), @r#"
        apparmor: true
        arch: "x86_64"
        cgroups: "v2"
        id: "debian"
        init: "systemd 252"
        kernel: "6.1.0-39-cloud-amd64"
        libc: "glibc 2.36"
        name: "Debian GNU/Linux 12 (bookworm)"
        package_managers: ["apt 2.6.1","dpkg 1.21.22"]
        selinux: "absent"
        version: "12"
        "#);
    }

    #[test]
    fn an_alpine_with_openrc_and_musl() {
        insta::assert_snapshot!(shown(r#"os.ID=alpine
os.VERSION_ID=3.20.3
os.PRETTY_NAME="Alpine Linux v3.20"
uname=Linux 6.6.54-0-virt x86_64
libc=musl 1.2.5
init.openrc=openrc (OpenRC) 0.54
package=apk-tools 2.14.4 installed
cgroups=v2
selinux=absent
apparmor=N
"#), @r#"
        apparmor: false
        arch: "x86_64"
        cgroups: "v2"
        id: "alpine"
        init: "OpenRC 0.54"
        kernel: "6.6.54-0-virt"
        libc: "musl 1.2.5"
        name: "Alpine Linux v3.20"
        package_managers: ["apk-tools 2.14.4"]
        selinux: "absent"
        version: "3.20.3"
        "#);
    }

    #[test]
    fn a_rocky_with_selinux_and_without_getconf() {
        insta::assert_snapshot!(shown(r#"os.ID="rocky"
os.VERSION_ID="9.4"
os.PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"
uname=Linux 5.14.0-427.13.1.el9_4.x86_64 x86_64
libc=ldd (GNU libc) 2.34
init.systemd=systemd 252 (252-32.el9_4)
package=dnf 4.14.0 installed
package=yum 4.14.0 installed
package=rpm 4.16.1.3 installed
cgroups=v2
selinux=enforcing
apparmor=N
"#), @r#"
        apparmor: false
        arch: "x86_64"
        cgroups: "v2"
        id: "rocky"
        init: "systemd 252"
        kernel: "5.14.0-427.13.1.el9_4.x86_64"
        libc: "glibc 2.34"
        name: "Rocky Linux 9.4 (Blue Onyx)"
        package_managers: ["dnf 4.14.0","yum 4.14.0","rpm 4.16.1.3"]
        selinux: "enforcing"
        version: "9.4"
        "#);
    }

    #[test]
    fn a_freebsd_and_a_bare_busybox() {
        insta::assert_snapshot!(shown(r#"os.ID=freebsd
os.VERSION_ID="14.1"
os.PRETTY_NAME="FreeBSD 14.1-RELEASE"
uname=FreeBSD 14.1-RELEASE amd64
init.rc=rc
package=pkg 1.21.3 installed
cgroups=none
selinux=absent
apparmor=N
"#), @r#"
        apparmor: false
        arch: "amd64"
        cgroups: "none"
        id: "freebsd"
        init: "FreeBSD rc"
        kernel: "14.1-RELEASE"
        name: "FreeBSD 14.1-RELEASE"
        package_managers: ["pkg 1.21.3"]
        selinux: "absent"
        version: "14.1"
        "#);
        insta::assert_snapshot!(shown("init.busybox=BusyBox v1.36.1 (2023-11-07 18:53:09 UTC) multi-call binary.\n"), @r#"
        init: "busybox 1.36.1"
        package_managers: []
        "#);
    }

    #[test]
    fn values_of_os_release_are_quoted_as_a_shell_does() {
        assert_eq!(unquoted(r#""a \"b\" \$c""#).as_deref(), Some(r#"a "b" $c"#));
        assert_eq!(unquoted("'x'").as_deref(), Some("x"));
        assert_eq!(unquoted("\"").as_deref(), Some("\""));
        assert_eq!(unquoted("\"\""), None);
    }

    #[test]
    fn a_guest_that_lies_or_floods_is_read_within_bounds() {
        let flood =
            "package=apt 1 installed\n".repeat(100_000) + &format!("uname=Linux {} x\u{1b}[31m\n", "6".repeat(1 << 20));
        let facts = read(flood.as_bytes());
        assert!(facts.package_managers.len() < 10, "{facts:?}");
        let facts = read(
            format!("uname=Linux \u{1b}[2J{} x86_64\nos.ID=\u{202e}evil\nselinux=maybe\n", "6".repeat(100_000))
                .as_bytes(),
        );
        assert!(facts.kernel.is_none_or(|kernel| kernel.len() < 200 && !kernel.contains('\u{1b}')));
        assert_eq!((facts.id.as_deref(), facts.selinux), (Some("evil"), None));
        assert_eq!(read(b"root=18014398509481985\nroot=-1\nroot=x\nroot=8\nroot=9").root_bytes, Some(8192));
        assert!(read(b"Welcome to this machine = do not\n\0\0").is_empty());
    }

    #[test]
    fn this_machine_says_what_it_is_to_every_shell_there_is() {
        for shell in [&["sh"][..], &["bash", "--posix"], &["busybox", "sh"]] {
            let Ok(output) = Command::new(shell[0]).args(&shell[1..]).args(["-c", &script()]).output() else {
                continue;
            };
            assert!(output.status.success(), "{shell:?}: {output:?}");
            let facts = read(&output.stdout);
            let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            assert_eq!(facts.kernel.as_deref(), Some(kernel.trim()), "{shell:?}: {facts:?}");
            let root = std::process::Command::new("stat").args(["-f", "-c", "%b %S", "/"]).output().unwrap();
            let root: Vec<u64> =
                String::from_utf8(root.stdout).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
            assert_eq!(facts.root_bytes, Some(root[0] * root[1] / 1024 * 1024), "{shell:?}: {facts:?}");
            assert!(facts.libc.is_some() && facts.arch.is_some() && facts.cgroups.is_some(), "{shell:?}: {facts:?}");
        }
    }
}
