//! Guests whose packages are pinned.

use std::sync::Arc;

use matrix::Digest;
use reports::{ContentSource, RequestOutcome};

use super::{Guest, Runner, Server, reason};
use crate::{
    pins::{PackagePin, Pins},
    policy::Policy,
    snapshot::Snapshot,
};

/// Pins of what this server has now: the list, and the package `libfoo` 1.0.
fn pins(server: &Server) -> Pins {
    let pin =
        PackagePin { name: "libfoo".to_owned(), version: "1.0".to_owned(), digest: Digest::of(b"the old package") };
    Pins {
        metadata: [(server.url("/Packages"), Digest::of(b"old list"))].into(),
        packages: [(server.url("/libfoo_1.0_all.deb"), pin)].into(),
        snapshots: Vec::new(),
    }
}

/// A server with the old list and package, and a runner whose cache has both.
async fn locked() -> (Server, Runner, Pins) {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/Packages", "etag: \"1\"\r\n", "old list");
    server.has("/libfoo_1.0_all.deb", "", "the old package");
    for path in ["/Packages", "/libfoo_1.0_all.deb"] {
        runner.guest(&server).gets(&server.url(path)).await;
    }
    server.asked();
    let pins = pins(&server);
    (server, runner, pins)
}

fn guest(runner: &Runner, server: &Server, pins: &Pins) -> Guest {
    runner.guest_of(Some(server.policy()), Some(pins.clone()))
}

fn served(source: ContentSource, content: &str) -> RequestOutcome {
    RequestOutcome::Served { status: 200, source, digest: Some(Digest::of(content.as_bytes())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_lists_and_packages_are_replayed_although_the_server_has_newer_ones() {
    let (server, runner, pins) = locked().await;
    server.has("/Packages", "etag: \"2\"\r\n", "new list");
    server.has("/libfoo_1.0_all.deb", "", "another package");
    // Another run, without a lock, has seen the newer list.
    assert_eq!(runner.next(false).guest(&server).gets(&server.url("/Packages")).await.0, "new list");
    server.asked();
    let mut guest = guest(&runner.next(false), &server, &pins);
    for _ in 0..2 {
        let (content, request) = guest.gets(&server.url("/Packages")).await;
        assert_eq!((&*content, request.outcome), ("old list", served(ContentSource::Cache, "old list")));
    }
    let (content, request) = guest.gets(&server.url("/libfoo_1.0_all.deb")).await;
    assert_eq!((&*content, request.outcome), ("the old package", served(ContentSource::Cache, "the old package")));
    assert!(server.asked().is_empty());
    let head = format!("HEAD {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", server.url("/Packages"));
    assert!(guest.says(&head).await.contains("content-length: 8\r\n"));
    assert!(server.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_pinned_list_that_of_the_server_counts_and_the_same_package_is_served() {
    let (server, _, pins) = locked().await;
    server.has("/Packages", "etag: \"2\"\r\n", "new list");
    let runner = Runner::new();
    let mut guest = guest(&runner, &server, &pins);
    assert_eq!(guest.gets(&server.url("/Packages")).await.0, "new list");
    let (content, request) = guest.gets(&server.url("/libfoo_1.0_all.deb")).await;
    assert_eq!((&*content, request.outcome), ("the old package", served(ContentSource::Server, "the old package")));
    assert!(runner.fetches.cache.look(&server.url("/Packages")).is_some(), "it is cached like any other");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_of_a_pinned_package_is_never_passed_on_whole_and_both_are_named() {
    let (server, _, pins) = locked().await;
    let other = "x".repeat(300_000);
    server.has("/libfoo_1.0_all.deb", "", &other);
    let runner = Runner::new();
    let (url, mut guest) = (server.url("/libfoo_1.0_all.deb"), guest(&runner, &server, &pins));
    let (content, request) = guest.gets(&url).await;
    let new = Digest::of(other.as_bytes()).short();
    let words = format!(
        "libfoo: repositories.lock pins 1.0 (sha256:{}…), the repository offers 1.0 (sha256:{new}…); --lock renews it",
        Digest::of(b"the old package").short()
    );
    assert_eq!(reason(&request), words);
    assert!(!content.contains(&other), "{}", content.len());
    // It is in the cache now, as what the server has.
    let (content, request) = guest.gets(&url).await;
    assert!(!content.contains(&other) && reason(&request) == words, "{request:?}");
    server.has("/libfoo_1.0_all.deb", "", "the old package");
    assert_eq!(guest.gets(&url).await.0, "the old package", "the server is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_pinned_fails_with_what_is_pinned_instead() {
    let (server, runner, pins) = locked().await;
    server.has("/libfoo_1.1_all.deb", "", "the new package");
    server.has("/libbar_2_all.deb", "", "more");
    let mut guest = guest(&runner, &server, &pins);
    let (content, request) = guest.gets(&server.url("/libfoo_1.1_all.deb")).await;
    let (old, new) = (Digest::of(b"the old package").short(), Digest::of(b"the new package").short());
    let words = format!(
        "libfoo: repositories.lock pins 1.0 (sha256:{old}…), the repository offers 1.1 (sha256:{new}…); --lock renews it"
    );
    assert_eq!(reason(&request), words);
    assert_eq!(content, format!("nestmatrix: {words}\n"));
    let (_, request) = guest.gets(&server.url("/libbar_2_all.deb")).await;
    let more = Digest::of(b"more").short();
    assert_eq!(reason(&request), format!("libbar 2 (sha256:{more}…) is not in repositories.lock; --lock renews it"));
    let gone = Runner::new().guest_of(Some(server.policy()), Some(pins.clone()));
    server.says("/libfoo_1.0_all.deb", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
    let (_, request) = { gone }.gets(&server.url("/libfoo_1.0_all.deb")).await;
    assert!(reason(&request).contains("the repository does not have it (HTTP 404 Not Found)"), "{request:?}");
    let (_, request) = guest.gets(&server.url("/missing_1_all.deb")).await;
    assert!(matches!(request.outcome, RequestOutcome::Served { status: 404, .. }), "there is nothing to compare");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pinned_content_may_come_from_another_mirror() {
    let (server, runner, pins) = locked().await;
    server.has("/mirror/libfoo_1.0_all.deb", "", "the old package");
    let (content, request) = guest(&runner, &server, &pins).gets(&server.url("/mirror/libfoo_1.0_all.deb")).await;
    assert_eq!((&*content, request.outcome), ("the old package", served(ContentSource::Cache, "the old package")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_servers_what_is_pinned_comes_from_the_cache_alone() {
    let (server, runner, pins) = locked().await;
    let mut guest = guest(&runner.next(true), &server, &pins);
    assert_eq!(guest.gets(&server.url("/Packages")).await.0, "old list");
    assert_eq!(guest.gets(&server.url("/libfoo_1.0_all.deb")).await.0, "the old package");
    assert!(reason(&guest.gets(&server.url("/libbar_2_all.deb")).await.1).contains("it is not in the cache"));
    assert!(server.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_has_already_is_recorded_with_its_digest() {
    let (server, runner, _) = locked().await;
    let mut guest = runner.guest(&server);
    let url = server.url("/Packages");
    let answer = guest
        .says(&format!("GET {url} HTTP/1.1\r\nhost: x\r\nif-none-match: \"1\"\r\nconnection: close\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    let request = guest.records.recv().await.expect("a record");
    let digest = Some(Digest::of(b"old list"));
    assert_eq!(request.outcome, RequestOutcome::Served { status: 304, source: ContentSource::Cache, digest });
}

/// A runner with an empty cache that goes through another one, as that of an L1 does.
async fn inner(outer: &Runner, server: &Server) -> Runner {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let through = format!("http://{}", listener.local_addr().expect("an address"));
    let l1 = outer.guest_of(Some(Policy { others: true, ..server.policy() }), None);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Arc::clone(&l1.state).connection(stream));
        }
    });
    Runner::behind(Runner::folder(), false, &through)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_l1_gets_what_is_pinned_from_the_cache_of_its_host() {
    let (server, outer, pins) = locked().await;
    server.has("/Packages", "etag: \"2\"\r\n", "new list");
    let (of, at) = (server.url(""), server.url(&format!("/snap/{}", Snapshot::ID)));
    let snapshots = vec![Snapshot { of, at, date: "2026-11-27T02:10:32Z".parse().expect("a date") }];
    let with_snapshots = Pins { snapshots, ..pins.clone() };
    for (offline, pins) in [(false, &pins), (false, &with_snapshots), (true, &with_snapshots)] {
        let outer = outer.next(offline);
        let inner = inner(&outer, &server).await;
        let mut guest = guest(&inner, &server, pins);
        for (path, content) in [("/Packages", "old list"), ("/libfoo_1.0_all.deb", "the old package")] {
            let (got, request) = guest.gets(&server.url(path)).await;
            assert_eq!((&*got, request.outcome), (content, served(ContentSource::Cache, content)), "{offline} {path}");
        }
        assert!(server.asked().is_empty());
        if offline {
            let (content, request) = guest.gets(&server.url("/other")).await;
            assert_eq!(content, "nestmatrix: it is not in the cache, and no server is asked (--offline)\n");
            assert!(matches!(request.outcome, RequestOutcome::Served { status: 404, .. }), "{request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_proxy_of_ours_may_ask_for_a_content_by_its_digest() {
    let (server, runner, _) = locked().await;
    server.has("/secret", "", "secret");
    runner.guest(&server).gets(&server.url("/secret")).await;
    let guest = runner.guest(&server);
    let (url, digest) = (server.url("/Packages"), Digest::of(b"secret"));
    let text = format!("GET {url} HTTP/1.1\r\nhost: x\r\nnestmatrix-digest: {digest}\r\nconnection: close\r\n\r\n");
    assert!(guest.says(&text).await.ends_with("old list"));
}

/// Pins of this server's repository, which the service at `/snap` has as it was, and a server that has newer content only.
async fn with_snapshots() -> (Server, Pins) {
    let (server, _, pins) = locked().await;
    let (of, at) = (server.url(""), server.url(&format!("/snap/{}", Snapshot::ID)));
    let snapshots = vec![Snapshot { of, at, date: "2026-11-27T02:10:32Z".parse().expect("a date") }];
    server.has("/Packages", "etag: \"2\"\r\n", "new list");
    server.says("/libfoo_1.0_all.deb", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
    (server, Pins { snapshots, ..pins })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_not_any_more_comes_from_a_service_that_has_it_as_it_was() {
    let (server, pins) = with_snapshots().await;
    // The service leads to the last state that it has before each date; the first one is too early.
    for (date, to) in [("20261127T022032Z", "early"), ("20261127T031032Z", "right")] {
        for path in ["Packages", "libfoo_1.0_all.deb"] {
            let moved = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\n";
            server.says(&format!("/snap/{date}/{path}"), &format!("{moved}location: /snap/{to}/{path}\r\n\r\n"));
        }
    }
    server.has("/snap/early/Packages", "", "older list");
    server.has("/snap/right/Packages", "", "old list");
    server.has("/snap/right/libfoo_1.0_all.deb", "", "the old package");
    let runner = Runner::new();
    let mut guest = guest(&runner, &server, &pins);
    for (path, content) in [("/Packages", "old list"), ("/libfoo_1.0_all.deb", "the old package")] {
        let (got, request) = guest.gets(&server.url(path)).await;
        assert_eq!((&*got, request.outcome), (content, served(ContentSource::Snapshot, content)), "{path}");
    }
    server.asked();
    assert_eq!(guest.gets(&server.url("/Packages")).await.0, "old list");
    assert!(server.asked().is_empty(), "it is in the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_something_else_changes_nothing() {
    let (server, pins) = with_snapshots().await;
    let other = "x".repeat(300_000);
    for date in ["20261127T022032Z", "20261127T031032Z", "20261127T071032Z", "20261128T041032Z"] {
        server.has(&format!("/snap/{date}/Packages"), "", "another list");
    }
    server.has("/snap/20261127T022032Z/libfoo_1.0_all.deb", "", &other);
    let runner = Runner::new();
    let mut guest = guest(&runner, &server, &pins);
    assert_eq!(guest.gets(&server.url("/Packages")).await.0, "new list");
    let (content, request) = guest.gets(&server.url("/libfoo_1.0_all.deb")).await;
    assert!(!content.contains(&other) && reason(&request).contains("repositories.lock pins 1.0"), "{request:?}");
    // One that leads to another server, or to itself for ever, has nothing.
    let another = Server::new().await;
    another.has("/libfoo_1.0_all.deb", "", "the old package");
    for to in [another.url("/libfoo_1.0_all.deb"), "/snap/20261127T022032Z/libfoo_1.0_all.deb".to_owned()] {
        let runner = Runner::new();
        let (mut policy, more) = (server.policy(), another.policy());
        policy.private.extend(more.private);
        let mut guest = runner.guest_of(Some(policy), Some(pins.clone()));
        let moved = "HTTP/1.1 301 Moved\r\ncontent-length: 0\r\nconnection: close\r\n";
        server.says("/snap/20261127T022032Z/libfoo_1.0_all.deb", &format!("{moved}location: {to}\r\n\r\n"));
        let (_, request) = guest.gets(&server.url("/libfoo_1.0_all.deb")).await;
        assert!(reason(&request).contains("the repository does not have it"), "{request:?}");
        assert!(another.asked().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_not_what_is_pinned_is_asked_once() {
    let (server, pins) = with_snapshots().await;
    let runner = Runner::new();
    let mut guest = guest(&runner, &server, &pins);
    for round in 0..3 {
        assert_eq!(guest.gets(&server.url("/Packages")).await.0, "new list");
        assert!(reason(&guest.gets(&server.url("/libfoo_1.0_all.deb")).await.1).contains("does not have it"));
        let asked = server.asked().iter().filter(|asked| asked.contains("/snap/")).count();
        assert_eq!(asked, if round == 0 { 8 } else { 0 }, "four dates for each of two files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_whose_server_is_gone_comes_from_the_service_too() {
    let (server, pins) = with_snapshots().await;
    server.has("/snap/20261127T022032Z/libfoo_1.0_all.deb", "", "the old package");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let pin = pins.packages.values().next().expect("one").clone();
    let packages = [(format!("{closed}/libfoo_1.0_all.deb"), pin)].into();
    let snapshots = vec![Snapshot { of: closed.clone(), ..pins.snapshots[0].clone() }];
    let pins = Pins { packages, snapshots, ..pins };
    let mut policy = server.policy();
    policy.private.push(closed.trim_start_matches("http://").parse().expect("a host"));
    let runner = Runner::new();
    let mut guest = runner.guest_of(Some(policy), Some(pins));
    let (got, request) = guest.gets(&format!("{closed}/libfoo_1.0_all.deb")).await;
    assert_eq!((&*got, request.outcome), ("the old package", served(ContentSource::Snapshot, "the old package")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_proves_nothing_is_no_package() {
    let (server, _, pins) = locked().await;
    let text = "HTTP/1.1 203 Changed\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad";
    for path in ["/libfoo_1.0_all.deb", "/libfoo_1.1_all.deb"] {
        server.says(path, text);
        let mut guest = guest(&Runner::new(), &server, &pins);
        let (content, request) = guest.gets(&server.url(path)).await;
        assert!(!content.ends_with("bad") && reason(&request).contains("HTTP 203"), "{content} {request:?}");
    }
    server.says("/libfoo_1.0_all.deb", "HTTP/1.1 503 Busy\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
    let (_, request) = { guest(&Runner::new(), &server, &pins) }.gets(&server.url("/libfoo_1.0_all.deb")).await;
    assert_eq!(reason(&request), "the server answered HTTP 503 Service Unavailable", "it may have it in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_to_look_at_it_is_at_the_guests_expense() {
    let (server, runner, pins) = locked().await;
    server.has("/libfoo_1.1_all.deb", "", &"x".repeat(300_000));
    let mut guest = guest(&runner, &server, &pins);
    guest.gets(&server.url("/libfoo_1.1_all.deb")).await;
    assert!(guest.state.received() >= 300_000, "{}", guest.state.received());
    server.says("/libfoo_1.2_all.deb", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nendless");
    let (_, request) = guest.gets(&server.url("/libfoo_1.2_all.deb")).await;
    assert!(reason(&request).contains("does not say how large it is"), "{request:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_at_a_private_address_is_asked_only_if_the_matrix_names_it() {
    let (server, pins) = with_snapshots().await;
    server.has("/snap/20261127T022032Z/Packages", "", "old list");
    let (service, runner) = (Server::new().await, Runner::new());
    service.has("/20261127T022032Z/Packages", "", "old list");
    let at = format!("{}/{}", service.url(""), Snapshot::ID);
    let snapshots = vec![Snapshot { at, ..pins.snapshots[0].clone() }];
    let elsewhere = Pins { snapshots, ..pins };
    assert_eq!(guest(&runner, &server, &elsewhere).gets(&server.url("/Packages")).await.0, "new list");
    assert!(service.asked().is_empty());
}
