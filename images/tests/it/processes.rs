//! Effects across processes, and of environment variables: each process is this test program again.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use images::{
    Control,
    fetch::{Limits, Want, fetch},
};

use crate::{
    place::{Place, anything, exactly, noise, quick},
    server::{Act, Served, Server, answer},
};

const URL: &str = "NESTMATRIX_TEST_URL";
const PLACE: &str = "NESTMATRIX_TEST_PLACE";

/// Not a test: the body of another process of a test.
#[test]
#[ignore = "only the other tests start it, with an address in its environment"]
fn downloads() {
    let (Ok(url), Ok(place)) = (env::var(URL), env::var(PLACE)) else { return };
    let place = Path::new(&place);
    let want =
        Want { urls: vec![url], digest: env::var("DIGEST").ok().and_then(|text| text.parse().ok()), bytes: None };
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let limits = Limits { idle: Duration::from_secs(20), ..quick() };
    if let Err(error) = fetch(&want, &place.join("folder"), &place.join("key.part"), &limits, &control) {
        panic!("said: {error}");
    }
}

fn process(place: &Place, want: &Want) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "processes::downloads", "--ignored", "--nocapture"]);
    command.env(URL, &want.urls[0]).env(PLACE, place.folder().parent().expect("place"));
    if let Some(digest) = want.digest {
        command.env("DIGEST", digest.to_string());
    }
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn killed_when(mut child: Child, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() && began.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn what_a_killed_process_had_is_not_downloaded_again() {
    let body = noise(2_000_000);
    let served = Served::new(&body);
    let server = Server::start(move |seen| match seen.number {
        0 => served.clone().stalling_after(1_500_000).into(),
        _ => served.clone().into(),
    });
    for want in [exactly(&body, &[server.url("/known")]), anything(&[server.url("/unknown")])] {
        let place = Place::new();
        let before = server.sent();
        let child = process(&place, &want).spawn().expect("started");
        killed_when(child, || fs::metadata(place.partial()).is_ok_and(|part| part.len() == 1_500_000));
        assert_eq!(place.kept(), ["key.part", "key.part.json"]);
        place.fetch_right(&body, &want);
        assert_eq!(server.sent() - before, 2_000_000);
        assert!(
            place.progress_lines().contains(&"checking 1 MiB kept from before".to_owned()),
            "{:?}",
            place.progress_lines()
        );
    }
}

#[test]
fn a_proxy_of_the_environment_is_asked_instead() {
    let body = noise(10_000);
    let served = Served::new(&body);
    let proxy = Server::start(move |seen| match seen.method.as_str() {
        "CONNECT" => answer("403 Forbidden", "", ""),
        _ => served.clone().into(),
    });
    let address = format!("http://{}", proxy.address());
    let place = Place::new();
    let want = exactly(&body, &["http://mirror.test/disk.img".to_owned()]);
    let output =
        process(&place, &want).env("HTTP_PROXY", &address).env("http_proxy", &address).output().expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(place.folder().join("disk")).expect("disk"), *body);
    assert_eq!(proxy.seen()[0].path, "http://mirror.test/disk.img");

    let want = exactly(&body, &["https://mirror.test/disk.img".to_owned()]);
    let output = process(&Place::new(), &want).env("HTTPS_PROXY", &address).output().expect("started");
    assert!(!output.status.success());
    let last = proxy.seen().pop().expect("a request");
    assert_eq!((last.method.as_str(), last.path.as_str()), ("CONNECT", "mirror.test:443"));
}

#[test]
fn hosts_that_need_no_proxy_are_asked_themselves() {
    let body: Arc<[u8]> = noise(10_000);
    let server = Server::of(Served::new(&body));
    let proxy = Server::start(|_| Act::Silence);
    let address = format!("http://{}", proxy.address());
    let place = Place::new();
    let mut process = process(&place, &exactly(&body, &[server.url("/")]));
    let output = process.env("HTTP_PROXY", &address).env("http_proxy", &address).env("NO_PROXY", "127.0.0.1").output();
    let output = output.expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((server.seen().len(), proxy.seen().len()), (1, 0));
}
