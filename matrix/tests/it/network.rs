//! `[network]`: what guests may reach through the proxy, and the messages for invalid hosts.

use insta::assert_snapshot;
use matrix::{HostPattern, NetworkRules, Plan, Unexpected};

use crate::folder::{Folder, with};

fn patterns(texts: &[&str]) -> Vec<HostPattern> {
    texts.iter().map(|text| text.parse().expect("a host")).collect()
}

#[test]
fn by_default_guests_reach_no_other_hosts_and_a_refused_request_is_a_warning() {
    let rules = with("").load().plan.network;
    assert_eq!(rules, NetworkRules { unexpected: Unexpected::Warn, allow: Vec::new(), private: Vec::new() });
}

#[test]
fn hosts_are_allowed_by_name_and_private_ones_one_by_one() {
    let folder = with(
        r#"
[network]
unexpected = "fail"
allow = ["Apt.Example.com.", "*.example.org:8080"]
private = ["mirror.lan:3142", "192.168.0.7", "[fd00::1]"]
"#,
    );
    let plan = folder.load().plan;
    assert_eq!(plan.network.unexpected, Unexpected::Fail);
    assert_eq!(plan.network.allow, patterns(&["apt.example.com", "*.example.org:8080"]));
    assert_eq!(plan.network.private, patterns(&["mirror.lan:3142", "192.168.0.7", "[fd00::1]"]));
    let file = folder.path("plan.json");
    plan.write(&file).expect("written");
    assert_eq!(Plan::read(&file).expect("read"), plan);
}

#[test]
fn what_is_no_host_is_shown_with_what_is_one() {
    assert_snapshot!(with("[network]\nallow = [\"https://example.com/debian\"]\n").error(), @r#"
     × m.toml:4: "https://example.com/debian" is not a host
      ╭─[m.toml:4:10]
    3 │ [network]
    4 │ allow = ["https://example.com/debian"]
      ·          ──────────────┬─────────────
      ·                        ╰── invalid
      ╰────
     help: it is a URL: write a DNS name such as `example.com`, `*.example.com` for all names below it, or an IP address (IPv6 in brackets), each also with `:port`
    "#);
    assert_snapshot!(with("[network]\nprivate = [\"*.lan\"]\n").error(), @r#"
     × m.toml:4: `*.lan` names no single host
      ╭─[m.toml:4:12]
    3 │ [network]
    4 │ private = ["*.lan"]
      ·            ───┬───
      ·               ╰── names many hosts
      ╰────
     help: name each host that may have a private address; wildcards belong in `allow`
    "#);
    assert_snapshot!(with("[network]\nallow = [\"a.example\", \"A.example.\"]\n").error(), @r#"
     × m.toml:4: `allow` names `a.example` twice
      ╭─[m.toml:4:23]
    3 │ [network]
    4 │ allow = ["a.example", "A.example."]
      ·          ─────┬─────  ──────┬─────
      ·               │             ╰── again
      ·               ╰── the first
      ╰────
     help: remove one of the two
    "#);
    assert_snapshot!(with("[network]\nallow = [\"*\", \"127.1\", \"::1\", \"a:0\", \"bücher.example\"]\n").plain(), @r#"
    m.toml:4: "*" is not a host
    m.toml:4: "127.1" is not a host
    m.toml:4: "::1" is not a host
    m.toml:4: "a:0" is not a host
    m.toml:4: "bücher.example" is not a host
    "#);
    assert_snapshot!(with("[network]\nunexpected = \"ignore\"\n").error(), @r#"
     × m.toml:4: invalid value `ignore`
      ╭─[m.toml:4:14]
    3 │ [network]
    4 │ unexpected = "ignore"
      ·              ────┬───
      ·                  ╰── invalid value
      ╰────
     help: valid values: warn, fail
    "#);
}

#[test]
fn a_list_of_hosts_is_short() {
    let list = |key: &str, count: usize| {
        let hosts = (0..count).map(|number| format!("\"h{number}.example\"")).collect::<Vec<_>>().join(", ");
        with(&format!("[network]\n{key} = [{hosts}]\n"))
    };
    assert_eq!(list("allow", 64).load().plan.network.allow.len(), 64);
    assert_eq!(list("private", 64).load().plan.network.private.len(), 64);
    assert_eq!(list("allow", 65).plain(), "m.toml:4: `allow` names 65 hosts, the limit is 64");
    assert_eq!(list("private", 65).plain(), "m.toml:4: `private` names 65 hosts, the limit is 64");
}

#[test]
fn every_guest_and_every_preparation_may_have_the_repositories() {
    let folder = Folder::with(
        r#"
guest = { network = "repositories" }
[[image]]
name = "debian-12-minimal"
prepare = { inline = "true", network = "repositories" }
[[suite]]
name = "own"
inline = "true"
guest = { network = "isolated" }
[[suite]]
name = "usual"
inline = "true"
"#,
    );
    use matrix::Network::{Isolated, Repositories};
    let plan = folder.load().plan;
    let prepare = plan.images[0].prepare.as_ref().expect("prepared");
    let cells = plan.cells.iter().map(|cell| cell.guest.network).collect::<Vec<_>>();
    assert_eq!((prepare.network, cells), (Repositories, vec![Isolated, Repositories]));
}
