//! Several guests that want the same at the same time.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_want_the_same_at_the_same_time_share_one_download() {
    let (server, runner) = (Server::new().await, Runner::new());
    let content = "x".repeat(3 << 20);
    server.has("/a.deb", "", &content);
    let url = server.url("/a.deb");
    let guests = (0..8).map(|_| {
        let (mut guest, url) = (runner.guest(&server), url.clone());
        tokio::spawn(async move { guest.gets(&url).await })
    });
    for guest in guests.collect::<Vec<_>>() {
        let (got, request) = guest.await.expect("no panic");
        assert_eq!((got.len(), request.bytes), (content.len(), content.len() as u64));
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_read_a_download_that_fails_are_told_why() {
    let (server, runner) = (Server::new().await, Runner::new());
    server.says("/a.deb", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort");
    let guests = (0..8).map(|_| {
        let (mut guest, url) = (runner.guest(&server), server.url("/a.deb"));
        tokio::spawn(async move { guest.gets(&url).await.1 })
    });
    for guest in guests.collect::<Vec<_>>() {
        let request = guest.await.expect("no panic");
        assert!(reason(&request).contains("end of file before message length"), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_files_of_several_urls_are_kept_once() {
    let (server, runner) = (Server::new().await, Runner::new());
    let content = "x".repeat(1 << 20);
    let guests = (0..8).map(|at| {
        server.has(&format!("/{at}.deb"), "", &content);
        let (mut guest, url) = (runner.guest(&server), server.url(&format!("/{at}.deb")));
        tokio::spawn(async move { guest.gets(&url).await.0.len() })
    });
    for guest in guests.collect::<Vec<_>>() {
        assert_eq!(guest.await.expect("no panic"), content.len());
    }
    runner.rests().await;
    let kept = std::fs::read_dir(runner.folder.path().join("content")).expect("a folder").count();
    assert_eq!(kept, 1);
    assert_eq!(runner.guest(&server).source(&server.url("/7.deb")).await, Some(ContentSource::Cache));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_guest_has_already_is_kept_for_the_others() {
    let (server, runner) = (Server::new().await, Runner::new());
    // Some pieces long.
    let content = "x".repeat(3 << 20);
    server.has("/InRelease", "etag: \"1\"\r\n", &content);
    let url = server.url("/InRelease");
    let mut guest = runner.guest(&server);
    let conditional = get(&url).replace("host: x", "host: x\r\nif-none-match: \"1\"");
    assert!(guest.says(&conditional).await.starts_with("HTTP/1.1 304"));
    let request = guest.recorded().await;
    assert!(matches!(request.outcome, RequestOutcome::Served { status: 304, .. }), "{request:?}");
    within(guest.state.under_way.subscribe().wait_for(|count| *count == 0)).await.expect("it settles");
    assert_eq!(runner.guest(&server).source(&url).await, Some(ContentSource::Cache));
}
