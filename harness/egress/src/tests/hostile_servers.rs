//! Servers that lie, stall or break.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_about_sizes_vanishes_or_never_ends_is_said_to() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/short.deb", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort");
    server.says("/huge.deb", "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\nconnection: close\r\n\r\n");
    server.says("/endless.deb", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nENDLESS");
    server.says("/odd.deb", "SSH-2.0-OpenSSH_9.2\r\n");
    for (path, words) in [
        ("/short.deb", "end of file before message length reached"),
        ("/huge.deb", "the file has 99999999 bytes; the limit is 8388608"),
        ("/endless.deb", "the file does not end within 8388608 bytes"),
        ("/odd.deb", "invalid HTTP version"),
    ] {
        let (_, request) = runner.guest(&server).gets(&server.url(path)).await;
        assert!(reason(&request).contains(words), "{path}: {}", reason(&request));
        assert_eq!(runner.fetches.cache.look(&server.url(path)), None, "nothing of it is kept");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let named = || vec![format!("127.0.0.1:{gone}").parse().expect("a pattern")];
    let mut guest = runner.guest_with(Some(Policy { private: named(), named: named(), ..Policy::default() }));
    let answer =
        guest.says(&format!("GET http://127.0.0.1:{gone}/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 nestmatrix: "), "{answer}");
    assert!(reason(&guest.records.recv().await.expect("a record")).contains("Connection refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_a_transfer_coding_cuts_nothing() {
    let (server, runner) = (Server::new().await, Runner::new());
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    server.says("/a.deb", &format!("{head}a\r\nthe-whole!\r\n0\r\n\r\n"));
    let (content, request) = runner.guest(&server).gets(&server.url("/a.deb")).await;
    assert!(content.contains("the-whole!"), "{content}");
    assert_eq!(request.bytes, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ends_with_its_connection_may_be_cut_and_is_not_kept() {
    let (server, runner) = (Server::new().await, Runner::new());
    let url = server.url("/a.deb");
    server.says("/a.deb", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf of");
    let (content, request) = runner.guest(&server).gets(&url).await;
    assert!(content.contains("half of") && matches!(request.outcome, RequestOutcome::Served { .. }), "{request:?}");
    server.says("/a.deb", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n");
    let (content, _) = runner.guest(&server).gets(&url).await;
    assert!(content.contains("whole"), "{content}");
    assert_eq!(runner.guest(&server).gets(&url).await.0, "whole", "this one is");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_is_not_passed_on_as_a_file() {
    let (server, runner) = (Server::new().await, Runner::new());
    let content = "x".repeat(100_000);
    for (status, path) in [("206 Partial Content", "/part.deb"), ("203 Other", "/long.deb"), ("404 Gone", "/error")] {
        let length = if path == "/part.deb" { 4 } else { content.len() };
        let text = &content[..length];
        server.says(path, &format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{text}"));
    }
    for (path, words) in [("/part.deb", "206 Partial Content, with a part"), ("/long.deb", "203 Non")] {
        let (_, request) = runner.guest(&server).gets(&server.url(path)).await;
        assert!(reason(&request).contains(words), "{request:?}");
    }
    let (cut, request) = runner.guest(&server).gets(&server.url("/error")).await;
    assert!(matches!(request.outcome, RequestOutcome::Served { status: 404, .. }) && cut.len() < content.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_fills_no_index_with_long_headers() {
    let (server, runner) = (Server::new().await, Runner::new());
    let url = server.url("/a.deb");
    server.has("/a.deb", &format!("etag: \"{0}\"\r\nlast-modified: {0}\r\n", "x".repeat(60_000)), "package");
    assert_eq!(runner.guest(&server).gets(&url).await.0, "package");
    let entry = runner.fetches.cache.look(&url).expect("kept");
    assert_eq!((entry.etag, entry.last_modified), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_leaves_a_silent_server_is_over_at_once() {
    let (server, runner) = (Server::new().await, Runner::new());
    for (path, start) in [("/no-head", ""), ("/no-more", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow")] {
        server.says(path, &format!("{start}SILENT"));
        let mut guest = runner.guest(&server);
        let mut stream = guest.connection();
        stream.write_all(get(&server.url(path)).as_bytes()).await.expect("taken");
        if !start.is_empty() {
            head(&mut stream).await;
        } else {
            guest.state.under_way.subscribe().wait_for(|count| *count == 1).await.expect("it is asked");
        }
        drop(stream);
        let request = guest.recorded().await;
        assert!(reason(&request).contains("the guest"), "{request:?}");
        runner.rests().await;
    }
    let left = std::fs::read_dir(runner.folder.path().join("new")).expect("a folder").count();
    assert_eq!(left, 0, "nothing is left of the downloads");
}
