//! What guests fetched, in every output.

use std::path::Path;

use matrix::Plan;
use reports::{ContentSource, Event, EventKind, NetworkRequest, NetworkRun, Phase, RequestOutcome, RequestRun, Run};

use crate::{
    fixture::{self, Story, fetched, refused, requested, template},
    runners::{EVIL, written},
    terminal::shown,
};

const IMAGE: &str = "debian-12-minimal";
const MIRROR: &str = "deb.debian.org";

fn failed(host: &str) -> NetworkRequest {
    requested("GET", host, 80, Some("/a"), RequestOutcome::Failed { reason: "connection timed out".to_owned() })
}

fn tunnelled(host: &str) -> NetworkRequest {
    requested("CONNECT", host, 443, None, RequestOutcome::Tunnelled)
}

fn served(method: &str, status: u16) -> NetworkRequest {
    let outcome = RequestOutcome::Served { status, source: ContentSource::Server, digest: None };
    requested(method, MIRROR, 80, Some("/b"), outcome)
}

/// These requests, made in the phase install.
fn network(requests: Vec<NetworkRequest>) -> NetworkRun {
    let requests = requests.into_iter().map(|request| RequestRun { phase: Phase::Install, request });
    NetworkRun { requests: requests.collect(), ..NetworkRun::default() }
}

fn sentences(requests: Vec<NetworkRequest>) -> String {
    network(requests).summaries().iter().flat_map(|summary| summary.sentences()).collect::<Vec<_>>().join("\n")
}

fn files(number: usize, host: &str, source: ContentSource) -> Vec<NetworkRequest> {
    vec![fetched(host, "/a", source); number]
}

/// A run in which the guest of the first cell makes these requests, and then ends.
fn story(plan: &Plan, requests: Vec<NetworkRequest>) -> Story {
    let mut story = Story::new();
    story.start(plan);
    let cell = &plan.cells[0].id;
    story.boot(cell, 1);
    requests.into_iter().for_each(|request| story.request(cell, Phase::Install, request));
    story.conclude(cell, 1, reports::Verdict::Failed { phase: Phase::Test, reason: "no".to_owned() });
    story.finish();
    story
}

/// The line `network` at the end of a run.
fn closing(plan: &Plan, events: &[Event]) -> Option<String> {
    let text = shown(plan, events, Path::new("/nowhere"));
    text.lines().find_map(|line| line.strip_prefix("  network  ")).map(str::to_owned)
}

#[test]
fn an_event_about_a_request_is_read_back_as_it_was_written() {
    let plan = fixture::plan();
    let mut story = story(
        &plan,
        vec![
            fetched(MIRROR, "/a?b=c", ContentSource::Revalidated),
            tunnelled("example.com"),
            refused("example.com"),
            failed(MIRROR),
        ],
    );
    let cell = plan.cells[0].id.clone();
    story.emit(EventKind::NetworkNotRecorded { cell, attempt: 1, phase: Phase::Test, count: 7 });
    let request = fetched(MIRROR, "/a", ContentSource::Cache);
    story.emit(EventKind::TemplateRequested { runner: 1, template: template(IMAGE), request });
    for event in &story.events {
        let line = serde_json::to_string(event).expect("JSON");
        assert_eq!(serde_json::from_str::<Event>(&line).expect("an event"), *event, "{line}");
    }
    let request = story.events.iter().find(|event| matches!(event.kind, EventKind::NetworkRequested { .. }));
    insta::assert_snapshot!(serde_json::to_string(request.expect("a request")).expect("JSON"), @r#"{"at":"2026-11-22T10:30:23.6Z","clock_ms":23612,"event":"network-requested","cell":"debian-11-minimal.smoke","attempt":1,"phase":"install","request":{"method":"GET","host":"deb.debian.org","port":80,"path":"/a?b=c","outcome":"served","status":200,"source":"revalidated","digest":"sha256:4bdadeefa61ea485598c81dedba69ffb2856ab96e8d3c2ddd58760af557e953a","bytes":1048576,"elapsed_ms":250}}"#);
}

#[test]
fn what_a_guest_fetched_in_a_phase_is_said_in_sentences() {
    let mut requests = files(12, MIRROR, ContentSource::Cache);
    requests.extend(files(2, "security.debian.org", ContentSource::Server));
    requests.extend([refused("telemetry.example.com"), tunnelled("pypi.org"), tunnelled("pypi.org")]);
    requests.extend([failed(MIRROR), served("GET", 404), served("GET", 404)]);
    insta::assert_snapshot!(sentences(requests), @"
    while it was installed, it fetched 14 files (14.0 MiB) from 2 hosts: 12 from the cache, 2 from the servers
    it made 2 connections to https servers (2.0 MiB): their content is not seen and not cached
    2 requests were answered with an error
    1 attempt to reach telemetry.example.com:443 was refused
    1 request failed
    ");
}

#[test]
fn one_of_anything_is_said_in_the_singular() {
    let requests = vec![
        fetched(MIRROR, "/a", ContentSource::Server),
        tunnelled("pypi.org"),
        refused("telemetry.example.com"),
        failed(MIRROR),
        served("GET", 404),
    ];
    insta::assert_snapshot!(sentences(requests), @"
    while it was installed, it fetched 1 file (1.0 MiB) from deb.debian.org, not from the cache
    it made 1 connection to an https server (1.0 MiB): its content is not seen and not cached
    1 request was answered with an error
    1 attempt to reach telemetry.example.com:443 was refused
    1 request failed
    ");
}

#[test]
fn files_that_all_come_from_one_place_are_not_counted_twice() {
    let told = |number, source| sentences(files(number, MIRROR, source));
    let sources = [ContentSource::Cache, ContentSource::Revalidated, ContentSource::Server];
    let told: Vec<_> = sources.into_iter().flat_map(|source| [told(3, source), told(1, source)]).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    while it was installed, it fetched 3 files (3.0 MiB) from deb.debian.org, all of them from the cache
    while it was installed, it fetched 1 file (1.0 MiB) from deb.debian.org, from the cache
    while it was installed, it fetched 3 files (3.0 MiB) from deb.debian.org, all of them from the cache (confirmed by the server)
    while it was installed, it fetched 1 file (1.0 MiB) from deb.debian.org, from the cache (confirmed by the server)
    while it was installed, it fetched 3 files (3.0 MiB) from deb.debian.org, none of them from the cache
    while it was installed, it fetched 1 file (1.0 MiB) from deb.debian.org, not from the cache
    ");
}

#[test]
fn only_a_get_with_content_is_a_file() {
    assert_eq!(sentences(vec![served("HEAD", 200), served("GET", 304)]), "");
    let summaries = network(vec![served("GET", 206), served("GET", 304), served("HEAD", 200)]).summaries();
    assert_eq!((summaries[0].files().count, summaries[0].files().bytes), (1, 1 << 20));
    assert_eq!(network(Vec::new()).summaries(), []);
}

#[test]
fn every_phase_has_its_own_sentence() {
    let requests = Phase::ALL.map(|phase| RequestRun { phase, request: refused("a.example") });
    let network = NetworkRun { requests: requests.into(), ..NetworkRun::default() };
    let told: Vec<_> = network.summaries().iter().flat_map(|summary| summary.sentences()).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    while its image was made, 1 attempt to reach a.example:443 was refused
    while its runner was made ready, 1 attempt to reach a.example:443 was refused
    while it booted, 1 attempt to reach a.example:443 was refused
    while nestmatrix connected to it, 1 attempt to reach a.example:443 was refused
    while it was prepared, 1 attempt to reach a.example:443 was refused
    while it was installed, 1 attempt to reach a.example:443 was refused
    while it rebooted, 1 attempt to reach a.example:443 was refused
    while it was tested, 1 attempt to reach a.example:443 was refused
    while results were collected, 1 attempt to reach a.example:443 was refused
    ");
}

#[test]
fn hosts_that_were_refused_most_often_are_named_and_the_others_counted() {
    let mut requests: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(refused).into();
    requests.extend([refused("g"), refused("::1"), refused("::1"), refused("::1"), refused("")]);
    insta::assert_snapshot!(sentences(requests), @"
    while it was installed, 3 attempts to reach [::1]:443 were refused
    2 attempts to reach g:443 were refused
    1 attempt to reach a:443 was refused
    1 attempt to reach b:443 was refused
    1 attempt to reach c:443 was refused
    4 attempts to reach 4 other hosts were refused
    ");
}

#[test]
fn the_end_of_a_run_has_one_line_about_the_network_if_something_was_fetched_or_refused() {
    let plan = fixture::plan();
    let mut all = files(40, MIRROR, ContentSource::Cache);
    all.extend(files(2, MIRROR, ContentSource::Server));
    all.extend(["a", "b", "b", "c", "d", "e"].map(refused));
    let mut others = files(1, MIRROR, ContentSource::Server);
    others.extend([tunnelled("pypi.org"), failed(MIRROR)]);
    let runs = [
        all,
        others,
        files(1, MIRROR, ContentSource::Cache),
        files(2, MIRROR, ContentSource::Revalidated),
        files(2, MIRROR, ContentSource::Server),
        vec![served("HEAD", 200)],
    ];
    let told = runs.map(|requests| closing(&plan, &story(&plan, requests).events).unwrap_or("nothing".to_owned()));
    insta::assert_snapshot!(told.join("\n"), @"
    42 files (42.0 MiB) fetched, 40 of them from the cache; refused: b:443 (2 attempts in 1 cell), a:443 (1 attempt in 1 cell), c:443 (1 attempt in 1 cell), 2 more hosts
    1 file (1.0 MiB) fetched from a server; 1 connection (1.0 MiB) to an https server; 1 request failed
    1 file (1.0 MiB) fetched from the cache
    2 files (2.0 MiB) fetched, all of them from the cache
    2 files (2.0 MiB) fetched, none of them from the cache
    nothing
    ");
}

#[test]
fn every_output_has_what_was_fetched_and_refused() {
    let plan = fixture::plan();
    let mut told = Story::new();
    told.start(&plan);
    let request = fetched(MIRROR, "/base.deb", ContentSource::Cache);
    let (runner, template) = (1, template(IMAGE));
    told.emit(EventKind::TemplateStarted { runner, template, image: IMAGE.to_owned() });
    told.emit(EventKind::TemplateRequested { runner, template, request });
    told.emit(EventKind::TemplateRequested { runner, template, request: refused("telemetry.example.com") });
    told.emit(EventKind::TemplateReady { runner, template, cached: false, elapsed_ms: 1, cost: 1 << 20 });
    for cell in plan.cells.iter().take(2) {
        told.boot(&cell.id, 1);
        told.request(&cell.id, Phase::Install, fetched(MIRROR, "/pool/h/<hello>.deb", ContentSource::Server));
        told.request(&cell.id, Phase::Test, refused("telemetry.example.com"));
        told.conclude(&cell.id, 1, reports::Verdict::Failed { phase: Phase::Test, reason: "no".to_owned() });
    }
    told.finish();
    assert_eq!(Run::fold(&plan, &told.events).contradictions, [""; 0]);
    let line = "3 files (3.0 MiB) fetched, 1 of them from the cache; refused: telemetry.example.com:443 (3 attempts in 2 cells and 1 template)";
    assert_eq!(closing(&plan, &told.events).as_deref(), Some(line));

    let dir = tempfile::tempdir().expect("temporary folder");
    for (name, text) in written(dir.path(), &plan, &told) {
        let parts: &[&str] = match name {
            "summary.md" => &[&format!("\n**Network**: {line}.\n")],
            "report.html" => &[
                "<dt>fetched</dt><dd>3 files (3.0 MiB)</dd>",
                "<dt>from servers</dt><dd>2 files (2.0 MiB)</dd>",
                "<dt>from the cache</dt><dd>1 file (1.0 MiB)</dd>",
                "<dt>refused</dt><dd>telemetry.example.com:443 (3 attempts in 2 cells and 1 template)</dd>",
                "while it was prepared, it fetched 1 file (1.0 MiB) from deb.debian.org, from the cache; 1 attempt to reach telemetry.example.com:443 was refused<",
                "while it was installed, it fetched 1 file (1.0 MiB) from deb.debian.org, not from the cache<",
                "while it was tested, 1 attempt to reach telemetry.example.com:443 was refused<",
                "<td>install</td><td>GET</td><td>deb.debian.org:80</td><td>/pool/h/&lt;hello&gt;.deb</td><td>served 200</td><td class=\"soft\">server</td><td class=\"num\">1.0 MiB</td>",
                "<b>refused: the policy of the cell does not allow this host</b>",
            ],
            "run.json" => &["\"from_server\"", "\"attempts\": 1", "\"host\": \"telemetry.example.com\""],
            _ => &[],
        };
        for part in parts {
            assert!(text.contains(part), "{name}: {part}\n{text}");
        }
        assert!(name != "junit.xml" || !text.contains("telemetry"), "it is there as a warning of the harness");
        assert!(name != "run.json" || !text.contains("/pool/"), "the requests are in events.jsonl");
    }
}

#[test]
fn a_run_in_which_nothing_was_fetched_does_not_speak_of_it() {
    let plan = fixture::plan();
    let dir = tempfile::tempdir().expect("temporary folder");
    let told = story(&plan, Vec::new());
    assert_eq!(closing(&plan, &told.events), None);
    for (name, text) in written(dir.path(), &plan, &told) {
        for word in ["Network", ">requests<", "requests are in"] {
            assert!(!text.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn a_request_of_a_guest_or_template_that_is_not_there_is_a_contradiction() {
    let plan = fixture::plan();
    let cell = || plan.cells[0].id.clone();
    let request = || fetched(MIRROR, "/a", ContentSource::Cache);
    let (phase, runner, template) = (Phase::Test, 1, template(IMAGE));
    for (expected, event) in [
        ("which has not started", EventKind::NetworkRequested { cell: cell(), attempt: 1, phase, request: request() }),
        ("which has not started", EventKind::NetworkNotRecorded { cell: cell(), attempt: 1, phase, count: 1 }),
        ("which has not started", EventKind::TemplateRequested { runner, template, request: request() }),
    ] {
        let mut story = Story::new();
        story.start(&plan);
        story.emit(event);
        let run = Run::fold(&plan, &story.events);
        assert_eq!(run.contradictions.len(), 1);
        assert!(run.contradictions[0].contains(expected), "{:?}", run.contradictions);
    }
}

#[test]
fn requests_beyond_the_limit_are_counted() {
    let plan = fixture::plan();
    let mut told = story(&plan, files(2_005, MIRROR, ContentSource::Cache));
    let cell = plan.cells[0].id.clone();
    let count = 1_000;
    let last = told.events.iter().rposition(|event| matches!(event.kind, EventKind::NetworkRequested { .. }));
    let kind = EventKind::NetworkNotRecorded { cell, attempt: 1, phase: Phase::Install, count };
    let event = Event { kind, ..told.events[last.expect("a request")].clone() };
    told.events.insert(last.expect("a request"), event);
    let run = Run::fold(&plan, &told.events);
    let network = &run.cells[0].attempts[0].network;
    assert_eq!((network.requests.len(), network.only_counted.get(&Phase::Install)), (2_000, Some(&1_005)));
    let line = "2000 files (2.0 GiB) fetched, all of them from the cache; 1005 more requests were only counted";
    assert_eq!(closing(&plan, &told.events).as_deref(), Some(line));
    let dir = tempfile::tempdir().expect("temporary folder");
    let [_, _, (_, html), _] = written(dir.path(), &plan, &told);
    assert!(html.contains("; 1005 more requests were only counted<"));
}

#[test]
fn a_table_has_two_hundred_rows_at_most_and_what_was_refused_is_in_it() {
    let plan = fixture::plan();
    let mut requests = files(1_900, MIRROR, ContentSource::Cache);
    requests.push(refused("telemetry.example.com"));
    let dir = tempfile::tempdir().expect("temporary folder");
    let [_, _, (_, html), _] = written(dir.path(), &plan, &story(&plan, requests));
    let rows = html.matches("<tr><td>install</td><td>").count();
    assert!((50..=200).contains(&rows), "{rows}");
    assert!(html.contains(&format!("{} more requests are in <a href=\"events.jsonl\">", 1_901 - rows)));
    assert!(html.contains("<td>CONNECT</td><td>telemetry.example.com:443</td>"));
}

#[test]
fn text_of_requests_is_clean_and_bounded_once_it_is_in_the_run() {
    let plan = fixture::plan();
    let evil = || EVIL.repeat(50);
    let hostile = |outcome: RequestOutcome| NetworkRequest {
        bytes: u64::MAX,
        elapsed_ms: u64::MAX,
        ..requested(&evil(), &evil(), 0, Some(&evil()), outcome)
    };
    let served = || RequestOutcome::Served { status: 200, source: ContentSource::Server, digest: None };
    let mut requests = vec![
        hostile(RequestOutcome::Refused { reason: evil() }),
        hostile(RequestOutcome::Failed { reason: evil() }),
        hostile(RequestOutcome::Tunnelled),
        hostile(served()),
    ];
    requests.extend((0..2_500).map(|_| NetworkRequest { bytes: u64::MAX, method: "GET".into(), ..hostile(served()) }));
    let told = story(&plan, requests);
    let run = Run::fold(&plan, &told.events);
    let network = &run.cells[0].attempts[0].network;
    assert!(network.requests.iter().all(|run| format!("{run:?}").len() < 2_500), "{:?}", network.requests[0]);

    let dir = tempfile::tempdir().expect("temporary folder");
    let text = shown(&plan, &told.events, Path::new("/nowhere"));
    for (name, text) in written(dir.path(), &plan, &told).into_iter().chain([("terminal", text)]) {
        let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{name}");
        assert!(text.len() < 250_000, "{name}: {} bytes", text.len());
        assert!(text.matches("<script").count() <= 1 || !name.ends_with("html"), "{name}");
    }
}
