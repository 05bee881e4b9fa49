//! Failed downloads, and their messages.

use std::{
    io::Read as _,
    os::unix::fs::symlink,
    sync::Arc,
    time::{Duration, Instant},
};

use images::fetch::{Limits, Want};

use crate::{
    place::{Place, anything, exactly, masked, noise, quick},
    server::{Act, Served, Server, answer},
};

/// The message about a server that always does this, for a file of unknown content.
fn said(act: impl Into<Act>) -> String {
    let act = act.into();
    let server = Server::start(move |_| act.clone());
    let place = Place::new();
    let error = place.error(&anything(&[server.url("/disk.img")]));
    assert_eq!(place.kept(), Vec::<String>::new(), "nothing of it is of use");
    error
}

#[test]
fn a_file_that_is_not_there_is_asked_for_once() {
    let page = "<!DOCTYPE html>\n<html><head><title>404 - nothing here</title></head></html>";
    let server = Server::start(move |_| answer("404 Not Found", "content-type: text/html\r\n", page));
    insta::assert_snapshot!(Place::new().error(&anything(&[server.url("/disk.img")])), @r#"
    http://SERVER/disk.img answered 404 Not Found: "404 - nothing here"
    help: the publisher has moved or removed the file, or access is restricted: open the address in a browser
    "#);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let server = Server::start(|_| answer("500 Internal Server Error", "", "out of order\n"));
    insta::assert_snapshot!(Place::new().error(&anything(&[server.url("/disk.img")])), @r#"
    http://SERVER/disk.img answered 500 Internal Server Error: "out of order" (tried 2 times)
    help: server error: try again later
    "#);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_server_that_wants_a_pause_gets_it_but_not_an_endless_one() {
    let body = noise(1000);
    let served = Served::new(&body);
    let server = Server::start(move |seen| match seen.number {
        0 => answer("503 Service Unavailable", "retry-after: 1\r\n", ""),
        1 => answer("429 Too Many Requests", "retry-after: 86400\r\n", ""),
        _ => served.clone().into(),
    });
    let limits = Limits { longest_pause: Duration::from_millis(1200), tries: 3, ..quick() };
    let began = Instant::now();
    Place::new().fetch(&anything(&[server.url("/")]), &limits).expect("the third try");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2200) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_page_is_no_image_whatever_its_status() {
    let page = "<html>\n<head><title>Hotel\nguests: log in</title>";
    insta::assert_snapshot!(said(answer("200 OK", "content-type: text/html\r\n", page)), @r#"
    http://SERVER/disk.img sent an error page, not an image: "Hotel guests: log in"
    help: a proxy or a login page answers instead of the publisher: open the address in a browser
    "#);
    insta::assert_snapshot!(said(answer("200 OK", "content-type: application/octet-stream\r\n", page)), @r#"
    http://SERVER/disk.img sent an error page, not an image: "Hotel guests: log in"
    help: a proxy or a login page answers instead of the publisher: open the address in a browser
    "#);
    insta::assert_snapshot!(said(answer("200 OK", "", "{\"error\": \"quota\"}")), @r#"
    http://SERVER/disk.img sent an error page, not an image: "{"error": "quota"}"
    help: a proxy or a login page answers instead of the publisher: open the address in a browser
    "#);
    insta::assert_snapshot!(said(answer("200 OK", "content-type: text/plain\r\n", "\n\x1b[31mno  such file\r\n")), @r#"
    http://SERVER/disk.img sent an error page, not an image: "[31mno such file"
    help: a proxy or a login page answers instead of the publisher: open the address in a browser
    "#);
}

#[test]
fn nothing_is_no_image() {
    insta::assert_snapshot!(said(answer("200 OK", "", "")), @"http://SERVER/disk.img sent an empty file");
    insta::assert_snapshot!(said(answer("204 No Content", "", "")), @"http://SERVER/disk.img answered 204 No Content");
}

#[test]
fn redirects_that_lead_nowhere_are_named() {
    insta::assert_snapshot!(said(answer("302 Found", "location: /disk.img\r\n", "")), @"http://SERVER/disk.img redirects more than 10 times, last to http://SERVER/disk.img (tried 2 times)");
    insta::assert_snapshot!(said(answer("302 Found", "", "")), @"http://SERVER/disk.img answered 302 Found");
    insta::assert_snapshot!(said(answer("302 Found", "location: http://127.0.0.1:1/disk.img\r\n", "")), @"http://SERVER/disk.img redirects to http://SERVER/disk.img, which is unreachable: Connection refused (os error 111) (tried 2 times)");
    insta::assert_snapshot!(said(answer("302 Found", "location: ftp://mirror.test/disk.img\r\n", "")), @"http://SERVER/disk.img redirects to ftp://mirror.test/disk.img, which is neither http nor https (tried 2 times)");
}

#[test]
fn who_cannot_be_reached_is_named_with_the_reason() {
    insta::assert_snapshot!(Place::new().error(&anything(&["http://127.0.0.1:1/disk.img".to_owned()])), @r"
    http://SERVER/disk.img is unreachable: Connection refused (os error 111) (tried 2 times)
    help: check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if there is a proxy
    ");
    insta::assert_snapshot!(said(Act::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())), @r"
    http://SERVER/disk.img is unreachable: invalid HTTP version parsed (tried 2 times)
    help: check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if there is a proxy
    ");
    insta::assert_snapshot!(said(Act::Raw(Vec::new())), @r"
    http://SERVER/disk.img is unreachable: connection closed before message completed (tried 2 times)
    help: check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if there is a proxy
    ");
}

#[test]
fn a_server_that_promises_more_than_it_has_is_found_out() {
    let body = noise(10_000);
    insta::assert_snapshot!(said(Served::new(&body).etag(None).length_lie(20_000)), @r"
    http://SERVER/disk.img broke off after 10000 of 20000 bytes: end of file before message length reached (tried 3 times)
    help: try again later: the download resumes where it stopped
    ");
}

#[test]
fn a_server_that_promises_less_than_it_has_is_found_out() {
    let body = noise(10_000);
    let server = Server::of(Served::new(&body).length_lie(9000));
    let urls = [server.url("/disk.img")];
    insta::assert_snapshot!(Place::new().error(&Want { bytes: Some(10_000), ..anything(&urls) }), @r"
    http://SERVER/disk.img has a file of the wrong size: expected 10000 bytes, found 9000
    help: the publisher may have replaced the file: compare with the checksum published now, and do not accept the file without that
    ");
    insta::assert_snapshot!(Place::new().error(&exactly(&body, &urls)), @r"
    http://SERVER/disk.img sent a file with another digest (digest mismatch): expected sha256:beb352dc770ef47d3cebae8232e1731ebb6003f82ce091536455ea3c03fdf898, found sha256:b10cfd0d9d97cb0eb76ce760abe4c83c3e20a2f4c0ccb140b32a72db8c13009d
    help: the publisher may have replaced the file: compare with the checksum published now, and do not accept the file without that
    ");
}

#[test]
fn without_any_length_the_end_proves_nothing() {
    insta::assert_snapshot!(said(Served::new(&noise(10_000)).length_unsaid()), @"http://SERVER/disk.img does not state the length of the file, and neither its size nor its checksum is known");
}

#[test]
fn a_wrong_file_is_thrown_away_and_every_mirror_is_named() {
    let (body, other) = (noise(10_000), Arc::<[u8]>::from(vec![7; 10_000]));
    let wrong = Server::of(Served::new(&other));
    let place = Place::new();
    let want = exactly(&body, &[wrong.url("/a"), wrong.url("/b")]);
    insta::assert_snapshot!(place.error(&want), @r"
    http://SERVER/a sent a file with another digest (digest mismatch): expected sha256:beb352dc770ef47d3cebae8232e1731ebb6003f82ce091536455ea3c03fdf898, found sha256:24c1c39d7cc002b6fae3656dff2e6d5f9b912a5a85c4ab2ba9d2a5e577adbc78; http://SERVER/b sent a file with another digest (digest mismatch): expected sha256:beb352dc770ef47d3cebae8232e1731ebb6003f82ce091536455ea3c03fdf898, found sha256:24c1c39d7cc002b6fae3656dff2e6d5f9b912a5a85c4ab2ba9d2a5e577adbc78
    help: the publisher may have replaced the file: compare with the checksum published now, and do not accept the file without that
    ");
    assert_eq!(place.kept(), Vec::<String>::new());
    assert_eq!(wrong.seen().len(), 2, "the same file is not asked for again");

    let right = Server::of(Served::new(&body));
    let fetched = place.fetch_right(&body, &exactly(&body, &[wrong.url("/a"), right.url("/b")]));
    assert_eq!(fetched.url, right.url("/b"));
}

#[test]
fn a_packed_file_that_is_cut_off_is_the_mirrors_fault_unless_it_is_the_publishers() {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(&*noise(10_000), 1).read_to_end(&mut packed).expect("packed");
    packed.truncate(5000);
    let packed: Arc<[u8]> = packed.into();
    let server = Server::of(Served::new(&packed));
    let urls = [server.url("/a.xz"), server.url("/b.xz")];
    insta::assert_snapshot!(Place::new().error(&anything(&urls)), @r"
    http://SERVER/a.xz cannot be unpacked as xz: premature eof; http://SERVER/b.xz cannot be unpacked as xz: premature eof
    help: the published file is damaged, or not a disk: ask its publisher
    ");
    insta::assert_snapshot!(Place::new().error(&exactly(&packed, &urls)), @r"
    http://SERVER/a.xz matches its checksum, but cannot be unpacked as xz: premature eof
    help: the published file is damaged, or not a disk: ask its publisher
    ");
    assert_eq!(server.seen().iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/a.xz", "/b.xz", "/a.xz"]);
}

#[test]
fn a_file_that_is_too_large_is_not_downloaded() {
    let body = noise(300_000);
    let limits = Limits { published_bytes: 100_000, ..quick() };
    let server = Server::of(Served::new(&body));
    insta::assert_snapshot!(Place::new().error_within(&anything(&[server.url("/disk.img")]), &limits), @r"
    http://SERVER/disk.img has a file that is too large: the limit is 100000 bytes
    help: the published file is damaged, or not a disk: ask its publisher
    ");
    let endless = Server::of(Served::new(&body).chunked());
    insta::assert_snapshot!(Place::new().error_within(&anything(&[endless.url("/disk.img")]), &limits), @r"
    http://SERVER/disk.img has a file that is too large: the limit is 100000 bytes
    help: the published file is damaged, or not a disk: ask its publisher
    ");
    // Fewer bytes than promised are noticed elsewhere; here it is more.
    let want = Want { bytes: Some(100_000), ..anything(&[endless.url("/disk.img")]) };
    insta::assert_snapshot!(Place::new().error(&want), @r"
    http://SERVER/disk.img has a file that is too large: the limit is 100000 bytes
    help: the published file is damaged, or not a disk: ask its publisher
    ");
}

#[test]
fn a_file_without_room_for_it_is_not_downloaded() {
    let served = Served::new(&noise(10_000)).length_lie(1 << 60);
    let server = Server::of(served);
    let place = Place::new();
    let limits = Limits { published_bytes: u64::MAX, ..quick() };
    let error = place.error_within(&anything(&[server.url("/disk.img")]), &limits);
    assert!(error.starts_with("disk full: "), "{error}");
    assert!(error.contains("1152921504606846976 needed\nhelp: free some space there"), "{error}");
    assert_eq!(place.kept(), Vec::<String>::new());
}

#[test]
fn a_disk_that_gets_full_ends_it() {
    let server = Server::of(Served::new(&noise(10_000)));
    let place = Place::new();
    // Every write to it fails as on a full disk.
    symlink("/dev/full", place.partial()).expect("link");
    let error = place.error(&anything(&[server.url("/disk.img"), server.url("/other.img")]));
    assert!(error.starts_with("disk full: ") && error.contains("help: free some space"), "{error}");
    assert_eq!(server.seen().len(), 1, "no other mirror makes room");
}

#[test]
fn a_server_that_falls_silent_is_asked_again_and_then_given_up() {
    let limits = Limits { connect: Duration::from_millis(400), idle: Duration::from_millis(400), ..quick() };
    let body = noise(100_000);
    let server = Server::of(Served::new(&body).stalling_after(60_000));
    let place = Place::new();
    // The rest comes with the second request: what is left is less than the stall threshold.
    place.fetch_right_within(&body, &exactly(&body, &[server.url("/")]), &limits);
    assert_eq!(server.sent(), 100_000);

    let server = Server::of(Served::new(&body).stalling_after(0));
    insta::assert_snapshot!(Place::new().error_within(&anything(&[server.url("/disk.img")]), &limits), @r"
    http://SERVER/disk.img timed out: no data for 0.4 s, after 0 bytes (tried 2 times)
    help: try again later: the download resumes where it stopped
    ");
    let silent = Server::start(|_| Act::Silence);
    insta::assert_snapshot!(Place::new().error_within(&anything(&[silent.url("/disk.img")]), &limits), @r"
    http://SERVER/disk.img is unreachable: no answer: timeout after 0.8 s (tried 2 times)
    help: check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if there is a proxy
    ");
}

#[test]
fn a_slow_server_is_left_for_the_next() {
    let body = noise(100_000);
    // All of it would take more than a minute.
    let slow = Server::of(Served::new(&body).pace(100, Duration::from_millis(80)));
    let fast = Server::of(Served::new(&body));
    let limits = Limits { slow_bytes: 100_000, slow_window: Duration::from_millis(500), ..quick() };
    let place = Place::new();
    let began = Instant::now();
    place.fetch(&exactly(&body, &[slow.url("/"), fast.url("/")]), &limits).expect("the fast one has it");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(fast.seen()[0].range.is_some_and(|offset| offset > 0), "the slow one sent something");
    let told = place.progress_lines();
    assert!(told[1].contains(" bytes/s, the minimum is 100000; asking 127.0.0.1"), "{told:?}");
}

#[test]
fn all_of_it_has_a_limit() {
    let body = noise(400_000);
    // All of it would take more than a minute.
    let server = Server::of(Served::new(&body).pace(500, Duration::from_millis(100)));
    let limits = Limits { overall: Duration::from_secs(4), ..quick() };
    let place = Place::new();
    let began = Instant::now();
    insta::assert_snapshot!(place.error_within(&exactly(&body, &[server.url("/")]), &limits), @r"
    download timeout: http://SERVER/ is incomplete after 4 s
    help: try again: the download resumes where it stopped
    ");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(place.kept(), ["key.part", "key.part.json"], "what came is kept");
}

#[test]
fn only_addresses_of_the_web_are_taken() {
    let said = |urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
        Place::new().error(&anything(&urls))
    };
    insta::assert_snapshot!(said(&[]), @"it has no download address");
    insta::assert_snapshot!(said(&["disk.img"]), @r"
    `disk.img` cannot be downloaded: relative URL without a base
    help: give an address that begins with https:// or http://
    ");
    insta::assert_snapshot!(said(&["file:///etc/passwd"]), @r"
    `file:///etc/passwd` cannot be downloaded: `file` is neither http nor https
    help: give an address that begins with https:// or http://
    ");
    insta::assert_snapshot!(said(&["http://"]), @r"
    `http://` cannot be downloaded: empty host
    help: give an address that begins with https:// or http://
    ");
}

#[test]
fn a_password_in_an_address_is_in_no_message() {
    let server = Server::start(|_| answer("404 Not Found", "", ""));
    let url = server.url("/disk.img").replace("http://", "http://me:secret@");
    let place = Place::new();
    let error = place.error(&anything(&[url]));
    assert!(error.starts_with("http://SERVER/disk.img answered 404"), "{error}");
    assert!(!masked(&place.progress_lines().join("\n")).contains("secret"));
}
