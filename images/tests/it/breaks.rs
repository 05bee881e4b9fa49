//! Connections that end too early, and the use of the bytes that had arrived.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use images::fetch::{FetchError, Limits, Want};
use proptest::prelude::*;

use crate::{
    place::{Place, anything, exactly, noise, quick},
    server::{Served, Server, answer},
};

const SIZE: usize = 400_000;

fn breaking_once(body: &Arc<[u8]>, after: usize, then: impl Fn(Served) -> Served + Send + Sync + 'static) -> Server {
    let served = Served::new(body);
    Server::start(move |seen| match seen.number {
        0 => served.clone().breaking_after(after).into(),
        1 => then(served.clone()).into(),
        _ => served.clone().into(),
    })
}

#[test]
fn after_a_break_only_the_rest_is_asked_for() {
    let body = noise(SIZE);
    let server = breaking_once(&body, 100_000, |served| served);
    let place = Place::new();
    place.fetch_right(&body, &anything(&[server.url("/")]));
    let seen = server.seen();
    assert_eq!((seen[0].range, seen[0].if_range.as_deref()), (None, None));
    assert_eq!((seen[1].range, seen[1].if_range.as_deref()), (Some(100_000), Some("\"v1\"")));
    assert_eq!((seen.len(), server.sent()), (2, SIZE as u64));
    let told = place.progress_lines();
    assert!(told[1].starts_with("127.0.0.1 broke off after 100000 of 400000 bytes: "), "{told:?}");
}

#[test]
fn a_server_that_always_breaks_off_gets_the_file_across_all_the_same() {
    let body = noise(SIZE);
    let server = Server::of(Served::new(&body).breaking_after(30_000));
    Place::new().fetch_right(&body, &exactly(&body, &[server.url("/")]));
    assert_eq!((server.seen().len(), server.sent()), (14, SIZE as u64));
}

#[test]
fn a_server_that_brings_nothing_new_is_given_up_and_what_came_is_kept() {
    let body = noise(SIZE);
    let served = Served::new(&body);
    let server =
        Server::start(move |seen| served.clone().breaking_after(if seen.number == 0 { 9000 } else { 0 }).into());
    let place = Place::new();
    insta::assert_snapshot!(place.error(&exactly(&body, &[server.url("/")])), @r"
    http://SERVER/ broke off after 9000 of 400000 bytes: end of file before message length reached (tried 3 times)
    help: try again later: the download resumes where it stopped
    ");
    assert_eq!(place.kept(), ["key.part", "key.part.json"]);
    assert_eq!(fs::read(place.partial()).expect("part"), body[..9000]);
}

#[test]
fn what_proves_nothing_later_is_not_kept() {
    let served = Served::new(&noise(SIZE)).etag(None);
    let server =
        Server::start(move |seen| served.clone().breaking_after(if seen.number == 0 { 9000 } else { 0 }).into());
    let place = Place::new();
    place.error(&anything(&[server.url("/")]));
    assert_eq!(place.kept(), Vec::<String>::new());
}

#[test]
fn a_server_that_ignores_ranges_begins_anew() {
    let body = noise(SIZE);
    let server = breaking_once(&body, 100_000, Served::ignoring_ranges);
    Place::new().fetch_right(&body, &exactly(&body, &[server.url("/")]));
    assert_eq!((server.seen().len(), server.sent()), (2, SIZE as u64 + 100_000));
}

#[test]
fn a_server_that_refuses_the_rest_is_asked_for_all_of_it() {
    let body = noise(SIZE);
    let served = Served::new(&body);
    let server = Server::start(move |seen| match (seen.number, seen.range) {
        (0, _) => served.clone().breaking_after(100_000).into(),
        (_, Some(_)) => answer("416 Range Not Satisfiable", "content-range: bytes */5\r\n", ""),
        _ => served.clone().into(),
    });
    Place::new().fetch_right(&body, &exactly(&body, &[server.url("/")]));
    assert_eq!(server.seen().iter().map(|seen| seen.range).collect::<Vec<_>>(), [None, Some(100_000), None]);
}

#[test]
fn a_rest_that_is_another_one_is_not_taken() {
    let body = noise(SIZE);
    for wrong in ["bytes 0-399999/400000", "bytes 100001-399999/400000", "bytes 100000-399999/400001", "nonsense"] {
        let server = breaking_once(&body, 100_000, move |served| served.content_range(wrong));
        Place::new().fetch_right(&body, &anything(&[server.url("/")]));
        assert_eq!(server.seen().iter().map(|seen| seen.range).collect::<Vec<_>>(), [None, Some(100_000), None]);
    }
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_not_mixed_with_the_new_one() {
    let (old, new) = (noise(SIZE), Arc::<[u8]>::from(vec![7; SIZE]));
    let (first, second) = (Served::new(&old).breaking_after(100_000), Served::new(&new).etag(Some("\"v2\"")));
    let server = Server::start(move |seen| if seen.number == 0 { first.clone() } else { second.clone() }.into());
    let fetched = Place::new().fetch_right(&new, &anything(&[server.url("/")]));
    assert_eq!(fetched.etag.as_deref(), Some("\"v2\""));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_mixture_of_two_versions_is_thrown_away_and_asked_for_anew() {
    let (old, new) = (noise(SIZE), Arc::<[u8]>::from(vec![7; SIZE]));
    // No entity tags: the server cannot tell them apart.
    let (first, second) = (Served::new(&old).breaking_after(100_000).etag(None), Served::new(&new).etag(None));
    let server = Server::start(move |seen| if seen.number == 0 { first.clone() } else { second.clone() }.into());
    Place::new().fetch_right(&new, &exactly(&new, &[server.url("/")]));
    assert_eq!(server.seen().iter().map(|seen| seen.range).collect::<Vec<_>>(), [None, Some(100_000), None]);
}

#[test]
fn another_mirror_goes_on_where_the_first_one_ended_if_a_checksum_tells_it_is_the_same_file() {
    let body = noise(SIZE);
    let first = Server::start({
        let served = Served::new(&body).breaking_after(100_000);
        move |seen| if seen.number == 0 { served.clone().into() } else { answer("404 Not Found", "", "") }
    });
    let second = Server::of(Served::new(&body).etag(Some("\"of another server\"")));
    let urls = [first.url("/"), second.url("/")];
    let fetched = Place::new().fetch_right(&body, &exactly(&body, &urls));
    let seen = second.seen();
    assert_eq!((seen.len(), seen[0].range, seen[0].if_range.as_deref()), (1, Some(100_000), None));
    assert_eq!(fetched.url, urls[0]);
}

#[test]
fn what_is_complete_without_our_knowing_costs_one_question() {
    let body = noise(SIZE);
    let server = breaking_once(&body, SIZE, |served| served);
    let place = Place::new();
    let want = anything(&[server.url("/")]);
    fs::remove_dir(place.folder()).expect("folder");
    place.fetch(&want, &quick()).expect_err("no folder to put it into");
    fs::create_dir(place.folder()).expect("folder");
    place.fetch_right(&body, &want);
    assert_eq!((server.seen().len(), server.seen()[1].range, server.sent()), (2, Some(SIZE), SIZE as u64));
}

#[test]
fn a_kept_part_that_was_damaged_costs_a_download_and_no_more() {
    let body = noise(SIZE);
    let server = Server::of(Served::new(&body).breaking_after(150_000));
    let place = Place::new();
    let want = exactly(&body, &[server.url("/")]);
    let once = Limits { requests: 1, ..quick() };
    place.error_within(&want, &once);
    let mut part = fs::read(place.partial()).expect("part");
    assert_eq!(part.len(), 150_000);
    part[1000] ^= 1;
    fs::write(place.partial(), part).expect("part");
    place.fetch_right(&body, &want);
    let ranges: Vec<_> = server.seen().iter().map(|seen| seen.range.unwrap_or(0)).collect();
    assert_eq!(ranges, [0, 150_000, 300_000, 0, 150_000, 300_000]);
}

#[test]
fn whoever_cancels_does_not_wait_for_what_hangs() {
    let body = noise(SIZE);
    let hanging = [
        Server::start(|_| crate::server::Act::Silence),
        Server::of(Served::new(&body).stalling_after(50_000)),
        Server::of(Served::new(&body).pace(100, Duration::from_millis(20))),
        Server::start(|_| answer("503 Service Unavailable", "retry-after: 60\r\n", "")),
    ];
    let patient = Limits { idle: Duration::from_secs(60), longest_pause: Duration::from_secs(60), ..quick() };
    for server in hanging {
        let place = Place::new();
        let began = Instant::now();
        let time = Duration::from_millis(300);
        let error = place.fetch_for(time, &exactly(&body, &[server.url("/")]), &patient).expect_err("cancelled");
        assert!(matches!(error, FetchError::Cancelled), "{error}");
        let took = began.elapsed();
        assert!(took >= time && took < patient.idle / 4, "{took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_breaks_ends_with_the_right_bytes(
        breaks in proptest::collection::vec((0..120_000_usize, 0..6_u8), 0..8),
        has_digest: bool,
        splits in proptest::option::of(0..8_usize),
    ) {
        let body = noise(SIZE);
        let served = Served::new(&body);
        let plan = Mutex::new(breaks.clone().into_iter());
        let server = Server::start(move |_| {
            let next = plan.lock().expect("plan").next();
            let Some((after, how)) = next else { return served.clone().into() };
            let served = served.clone().breaking_after(after);
            match how {
                0 => served.ignoring_ranges(),
                1 => served.content_range("bytes 1-2/3"),
                2 => served.chunked(),
                3 => served.etag(Some("\"v2\"")),
                _ => served,
            }
            .into()
        });
        let place = Place::new();
        let urls = [server.url("/")];
        let want = if has_digest { exactly(&body, &urls) } else { anything(&urls) };
        let want = Want { bytes: has_digest.then_some(SIZE as u64), ..want };
        let limits = Limits { tries: 10, ..quick() };
        // As if the process had ended after so many requests, and another one had started.
        if let Some(requests) = splits {
            let _ = place.fetch(&want, &Limits { requests: requests as u32, ..limits });
        }
        if fs::exists(place.folder().join(images::fetch::DISK)).expect("folder") {
            fs::remove_file(place.folder().join(images::fetch::DISK)).expect("disk");
        }
        let fetched = place.fetch(&want, &limits).expect("it comes in the end");
        prop_assert!(fs::read(&fetched.file).expect("disk") == *body);
        prop_assert_eq!(fetched.content, matrix::Digest::of(&body));
    }
}
