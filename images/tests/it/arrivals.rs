//! Successful downloads.

use std::{
    fs,
    io::Read as _,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use images::{
    Control,
    fetch::{Limits, Want, fetch_text},
};
use matrix::Digest;

use crate::{
    place::{Place, anything, exactly, masked, noise, quick},
    server::{Act, Served, Server, answer},
};

#[test]
fn a_file_arrives_with_all_that_is_known_of_it() {
    let body = noise(3_000_000);
    let server = Server::of(Served::new(&body));
    let place = Place::new();
    let url = server.url("/disk.img");
    let fetched =
        place.fetch_right(&body, &Want { bytes: Some(3_000_000), ..exactly(&body, std::slice::from_ref(&url)) });
    assert_eq!(fetched.file, place.folder().join(images::fetch::DISK));
    assert_eq!(fetched.published, Digest::of(&body));
    assert_eq!((fetched.bytes_published, fetched.url, fetched.etag.as_deref()), (3_000_000, url, Some("\"v1\"")));
    assert_eq!(place.progress_lines(), ["downloading from 127.0.0.1", "checking"]);
}

#[test]
fn a_packed_file_is_digested_as_it_was_published_and_as_it_is() {
    let disk = noise(500_000);
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(&*disk, 1).read_to_end(&mut packed).expect("packed");
    let packed: Arc<[u8]> = packed.into();
    let server = Server::of(Served::new(&packed));
    let place = Place::new();
    let fetched = place.fetch_right(&disk, &exactly(&packed, &[server.url("/disk.img.xz")]));
    assert_eq!((fetched.published, fetched.bytes_published), (Digest::of(&packed), packed.len() as u64));
    assert_eq!(fetched.published_sha512, None);
    assert_eq!(place.progress_lines().last().map(String::as_str), Some("unpacking xz"));
}

#[test]
fn a_publisher_may_list_sha512() {
    let body: Arc<[u8]> = (*b"abc").into();
    let server = Server::of(Served::new(&body));
    let digest = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    let digest = Some(digest.parse().expect("checksum"));
    let fetched = Place::new().fetch_right(&body, &Want { digest, ..anything(&[server.url("/")]) });
    assert_eq!((fetched.published, fetched.published_sha512), (Digest::of(b"abc"), digest));
}

#[test]
fn a_file_whose_length_only_its_end_tells_arrives_too() {
    let body = noise(300_000);
    for served in [Served::new(&body).chunked(), Served::new(&body).chunked().etag(None)] {
        let server = Server::of(served);
        Place::new().fetch_right(&body, &anything(&[server.url("/")]));
    }
    let server = Server::of(Served::new(&body).length_unsaid());
    Place::new().fetch_right(&body, &exactly(&body, &[server.url("/")]));
}

#[test]
fn a_server_that_takes_an_image_for_text_is_forgiven() {
    let body = noise(10_000);
    let server = Server::of(Served::new(&body).kind("text/plain"));
    Place::new().fetch_right(&body, &anything(&[server.url("/disk.raw")]));
}

#[test]
fn redirects_are_followed() {
    let body = noise(10_000);
    let served = Served::new(&body);
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/old" => answer("302 Found", "location: /newer\r\n", "over there"),
        "/newer" => answer("308 Permanent Redirect", "location: /new\r\n", ""),
        _ => served.clone().into(),
    });
    Place::new().fetch_right(&body, &anything(&[server.url("/old")]));
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_trickle_arrives_and_people_see_that_it_does() {
    let body = noise(30_000);
    let server = Server::of(Served::new(&body).pace(1000, Duration::from_millis(90)));
    let place = Place::new();
    place.fetch_right(&body, &anything(&[server.url("/")]));
    let told = place.progress_lines();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1], "downloading 0 of 0 MiB, 0.0 MiB/s from 127.0.0.1");
}

fn text(server: &Server, most: u64) -> Result<String, String> {
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    fetch_text(&server.url("/SHA256SUMS"), most, &quick(), &control).map_err(|error| masked(&error.to_string()))
}

#[test]
fn a_list_of_checksums_arrives_as_text() {
    let list = format!("{}  disk.img\n", Digest::of(b"").hex());
    let body: Arc<[u8]> = list.as_bytes().into();
    let server = Server::start({
        let served = Served::new(&body).kind("text/plain");
        move |seen| if seen.number == 0 { served.clone().breaking_after(9) } else { served.clone() }.into()
    });
    assert_eq!(text(&server, 1000).expect("text"), list, "also at the second try");
    assert_eq!(
        text(&server, 10).expect_err("too long"),
        "http://SERVER/SHA256SUMS has a file that is too large: the limit is 10 bytes"
    );
}

#[test]
fn what_is_no_list_of_checksums_is_an_error() {
    let page = || answer("200 OK", "content-type: text/html\r\n", "<html><title>Log in</title>");
    let error = text(&Server::start(move |_| page()), 1000).expect_err("a page");
    assert_eq!(error, "http://SERVER/SHA256SUMS sent an error page, not an image: \"Log in\"");
    let error = text(&Server::start(|_| Act::Raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe".to_vec())), 1000);
    assert_eq!(error.expect_err("no text"), "http://SERVER/SHA256SUMS sent something that is not text");
    let error = text(&Server::of(Served::new(&noise(2000)).chunked()), 1000).expect_err("too long");
    assert_eq!(error, "http://SERVER/SHA256SUMS has a file that is too large: the limit is 1000 bytes");
    let missing = Server::start(|_| answer("404 Not Found", "", "no such list\nat all"));
    let error = text(&missing, 1000).expect_err("nothing");
    assert_eq!(error, "http://SERVER/SHA256SUMS answered 404 Not Found: \"no such list\"");
}

#[test]
fn what_is_there_needs_no_network_and_what_is_not_names_whom_it_would_ask() {
    let body = noise(100_000);
    let server = Server::of(Served::new(&body));
    let place = Place::new();
    let want = exactly(&body, &[server.url("/disk.img")]);
    let offline = Limits { offline: true, ..quick() };
    insta::assert_snapshot!(place.error_within(&want, &offline), @r"
    http://SERVER/disk.img cannot be downloaded: the network is disabled
    help: prepare it once with a network; it stays in the store
    ");
    assert_eq!(server.seen().len(), 0);

    // Everything arrived, but was not unpacked: the target disk is full.
    fs::remove_dir(place.folder()).expect("folder");
    place.fetch(&want, &quick()).expect_err("no folder");
    fs::create_dir(place.folder()).expect("folder");
    place.fetch(&want, &offline).expect("it was kept");
    assert_eq!(server.seen().len(), 1);
}
