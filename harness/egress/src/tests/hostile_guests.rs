//! Guests that want what is not theirs, or more than their share.

use super::*;
use crate::flight::AHEAD;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_ends_the_connection_and_is_recorded() {
    let (server, runner) = (Server::new().await, Runner::new());
    let mut guest = runner.guest(&server);
    let bomb = format!("GET {} HTTP/1.1\r\n{}\r\n", server.url("/x"), "a: b\r\n".repeat(100));
    let long = format!("GET {} HTTP/1.1\r\na: {}\r\n\r\n", server.url("/x"), "b".repeat(100_000));
    let smuggled =
        format!("GET {} HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n", server.url("/x"));
    for text in ["\x16\x03\x01 this is TLS\r\n\r\n", &bomb, &long, &smuggled] {
        let answer = guest.says(text).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        let request = tokio::time::timeout(Duration::from_secs(10), guest.records.recv()).await.expect("a record");
        assert!(matches!(request.expect("a record").outcome, RequestOutcome::Refused { .. }));
    }
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_guest_says_only_the_url_reaches_a_server() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/a.deb", "etag: \"1\"\r\nset-cookie: a=b\r\nx-secret: c\r\n", "package");
    let mut guest = runner.guest(&server);
    let said = format!(
        "GET {} HTTP/1.1\r\nhost: evil.example\r\ncookie: a=b\r\nauthorization: Basic eDp5\r\nrange: bytes=1-2\r\n\
         if-none-match: \"2\"\r\naccept-encoding: gzip\r\nupgrade: websocket\r\nconnection: close, upgrade\r\n\
         proxy-authorization: Basic eDp5\r\nx-forwarded-host: evil.example\r\ncontent-length: 0\r\n\r\n",
        server.url("/a.deb#part")
    );
    let answer = guest.says(&said).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\npackage"), "{answer}");
    assert!(!answer.contains("cookie") && !answer.contains("secret"), "{answer}");
    assert_eq!(guest.recorded().await.host, "127.0.0.1");
    let asked = server.asked().concat();
    assert_eq!(asked, format!("GET /a.deb HTTP/1.1\r\naccept: */*\r\nhost: 127.0.0.1:{}\r\n\r\n", server.port));
    // And it is kept for what was asked for.
    assert!(runner.fetches.cache.look(&server.url("/a.deb")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_that_differ_have_files_of_their_own() {
    let (server, runner) = (Server::new().await, Runner::new());
    for path in ["/a.deb", "/a.deb?x=1", "/A.deb", "/a%2Edeb", "/b/a.deb", "/b%2Fa.deb"] {
        server.has(path, "", &format!("content of {path}"));
    }
    let mut guest = runner.guest(&server);
    for (asked, path) in [
        ("/a.deb", "/a.deb"),
        ("/a.deb?x=1", "/a.deb?x=1"),
        ("/A.deb", "/A.deb"),
        ("/a%2Edeb", "/a%2Edeb"),
        ("/b/../a.deb", "/a.deb"),
        ("/%2e%2e/b/./a.deb", "/b/a.deb"),
        ("/b%2Fa.deb", "/b%2Fa.deb"),
    ] {
        assert_eq!(guest.gets(&server.url(asked)).await.0, format!("content of {path}"), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_refused_request_is_not_answered() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/x", "", "secret");
    let next = get(&server.url("/x"));
    for refused in [
        "GET http://evil.example/ HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", server.url("/x"), next.len()),
        format!("GET {} HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n", server.url("/x")),
        format!("GET {} HTTP/1.1\r\ncontent-length : 5\r\n\r\n", server.url("/x")),
        format!("GET {} HTTP/1.1\r\na: b\r\n folded: x\r\ncontent-length: 5\r\n\r\n", server.url("/x")),
        format!("GET {} HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\n", server.url("/x")),
        format!("GET {} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", server.url("/x")),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\ncontent-length: 5\r\n\r\n", server.port),
    ] {
        let mut guest = runner.guest(&server);
        let answer = guest.says(&format!("{refused}{next}")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{refused}: {answer}");
        assert!(!answer.contains("secret"), "{refused}: {answer}");
        assert!(matches!(guest.recorded().await.outcome, RequestOutcome::Refused { .. }), "{refused}");
    }
    assert_eq!(server.asked().len(), 0);
}

/// How long the connection lives, with a byte of this each ten seconds, in seconds.
async fn life(guest: &Guest, first: &str, trickle: &[u8]) -> u64 {
    let mut stream = guest.connection();
    stream.write_all(first.as_bytes()).await.expect("taken");
    if !first.is_empty() {
        let head = head(&mut stream).await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        stream.read_exact(&mut vec![0; length.parse().expect("a number")]).await.expect("an answer");
    }
    let began = tokio::time::Instant::now();
    for byte in trickle {
        tokio::time::sleep(Duration::from_secs(10)).await;
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_slow_to_ask_or_never_asks_again_loses_its_connection() {
    // Without servers: nothing of this waits for one.
    let runner = Runner::of(Runner::folder(), true);
    let named = vec!["127.0.0.1".parse().expect("a pattern")];
    let guest = runner.guest_with(Some(Policy { private: named, ..Policy::default() }));
    let slow = "GET http://a.example/".repeat(20);
    assert!(life(&guest, "", slow.as_bytes()).await <= 70, "a head that never ends");
    let failed = "CONNECT 127.0.0.1:443 HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(life(&guest, failed, b"").await <= 70, "a connection that is kept for nothing");
    assert!(life(&guest, failed, slow.as_bytes()).await <= 70, "and a second head that never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_a_limited_number_of_requests_under_way_and_others_are_served() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.has("/a.deb", "", "package");
    let mut guest = runner.guest(&server);
    let mut held = Vec::new();
    for at in 0..32 {
        let path = format!("/{at}");
        server.says(&path, "SILENT");
        let mut stream = guest.connection();
        stream.write_all(get(&server.url(&path)).as_bytes()).await.expect("taken");
        held.push(stream);
    }
    within(guest.state.under_way.subscribe().wait_for(|count| *count == 32)).await.expect("they are asked");
    let answer = guest.says(&get(&server.url("/a.deb"))).await;
    assert!(answer.contains("the guest has 32 other requests under way"), "{answer}");
    assert_eq!(runner.guest(&server).gets(&server.url("/a.deb")).await.0, "package");
    held.clear();
    for _ in 0..33 {
        guest.recorded().await;
    }
    assert_eq!(guest.gets(&server.url("/a.deb")).await.0, "package", "and then it is served as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_read_fills_no_disk() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/large.deb", "HTTP/1.1 200 OK\r\ncontent-length: 8388608\r\n\r\nENDLESS");
    let guest = runner.guest(&server);
    let mut stream = guest.connection();
    stream.write_all(get(&server.url("/large.deb")).as_bytes()).await.expect("taken");
    let size = || {
        let new = std::fs::read_dir(runner.folder.path().join("new")).expect("a folder").flatten();
        new.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
    };
    let ahead = async {
        while size() < AHEAD {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(ahead).await;
    // It would have as much time as this one takes.
    let content = "x".repeat(7 << 20);
    server.has("/a.deb", "", &content);
    assert_eq!(runner.guest(&server).gets(&server.url("/a.deb")).await.0.len(), content.len());
    // What is on the way to the guest counts as read.
    assert!((AHEAD..AHEAD + (1 << 20)).contains(&size()), "{}", size());
    // Who reads gets all of it.
    head(&mut stream).await;
    assert_eq!(within(stream.read_to_end(&mut Vec::new())).await.expect("all of it"), 8 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_in_progress_have_no_more_room_than_the_cache() {
    let server = Server::new().await;
    let runner = Runner::with(Runner::folder(), false, 1 << 20, Upstream::new(None, Resolver::of_system()));
    server.says("/endless.deb", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nENDLESS");
    let (_, request) = runner.guest(&server).gets(&server.url("/endless.deb")).await;
    assert!(reason(&request).contains("the limit of all downloads in progress is 1048576 bytes"), "{request:?}");
    server.has("/a.deb", "", &"x".repeat(1 << 20));
    assert_eq!(runner.guest(&server).gets(&server.url("/a.deb")).await.0.len(), 1 << 20, "the room is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_an_https_server_ends_when_the_guest_may_reach_nothing_any_more() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/x", "SILENT");
    let mut guest = runner.guest(&server);
    let mut stream = guest.connection();
    let text = format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nhost: x\r\n\r\n", server.port);
    stream.write_all(text.as_bytes()).await.expect("taken");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    guest.state.policy.send_replace(None);
    assert_eq!(reason(&guest.recorded().await), "what the guest may reach has ended");
    assert_eq!(within(stream.read(&mut [0])).await.unwrap_or(0), 0);
}
