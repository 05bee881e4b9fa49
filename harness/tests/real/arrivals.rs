//! Guests of an image that is there do not wait for one that is not.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::Lab,
    server::{Server, answer},
    stops::interrupt,
};

/// Less than how long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(20);

fn waits_for(journal: &Path, event: &str) -> bool {
    let started = Instant::now();
    while started.elapsed() < ANSWER {
        if fs::read_to_string(journal).is_ok_and(|text| text.contains(event)) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// One image is there, the other one is asked of this server.
fn matrix(server: &Server) -> String {
    format!(
        r#"
        [[image]]
        name = "late"
        url = "{}"
        digest = "sha256:{}"
        [[image]]
        name = "debian-12-minimal"
        [[suite]]
        name = "s"
        inline = "true"
        "#,
        server.url("/late.raw"),
        "0".repeat(64),
    )
}

#[test]
fn a_cell_has_its_verdict_before_the_image_of_another_is_there() {
    let lab = Lab::forking();
    let journal = lab.path("out").join("events.jsonl");
    // The image is not to be had, but that is said only after the other one's cell has its verdict. Until then the client is told to ask again.
    let server = Server::start({
        let journal = journal.clone();
        move |_| match waits_for(&journal, "\"cell-finished\"") {
            true => answer("404 Not Found", "Content-Type: text/html\r\n", "gone"),
            false => answer("503 Service Unavailable", "Retry-After: 30\r\n", "later"),
        }
    });
    let run = lab.run(&matrix(&server), "out", &["--runner", "host"]);
    run.assert_code(3);
    assert_eq!(run.verdict("debian-12-minimal.s"), "passed");
    assert_eq!(run.verdict("late.s"), "error(image)");
    let events = run.file("events.jsonl");
    let at = |words: &str| events.find(words).unwrap_or_else(|| panic!("no {words} in {events}"));
    assert!(at("\"cell-finished\"") < at("\"image-failed\""), "{events}");
    lab.assert_nothing_left();
}

#[test]
fn an_image_that_is_being_fetched_when_a_run_is_interrupted_is_given_up_and_that_is_on_record() {
    let lab = Lab::forking();
    let server = Server::start(|_| answer("503 Service Unavailable", "Retry-After: 30\r\n", "later"));
    let child = lab.start(&matrix(&server), "out", &["--runner", "host"]);
    lab.wait_for_event("out", "cell-finished");
    interrupt(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert_eq!(run.verdict("debian-12-minimal.s"), "passed");
    assert_eq!(run.reason("late.s"), "interrupted before it started");
    let events = run.file("events.jsonl");
    let at = |words: &str| events.find(words).unwrap_or_else(|| panic!("no {words} in {events}"));
    assert!(at("\"image-failed\"") < at("\"run-finished\""), "{events}");
    lab.assert_nothing_left();
}
