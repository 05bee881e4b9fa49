//! report.html: self-contained, and no text of a guest is active in it.

use std::fs;

use reports::{Journal, Phase, Verdict};

use crate::{fixture, large};

fn html() -> String {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    fs::read_to_string(reports::render::all(dir.path()).expect("rendered").report_html).expect("written")
}

#[test]
fn the_package_managers_words_are_visible_without_a_click() {
    let html = html();
    let wrong = html.find("What went wrong</h2>").expect("the section");
    let words = html.find("hello depends on libc6 (&gt;= 2.34); however:").expect("dpkg's words");
    let first_details = html.find("<details").expect("the cells");
    assert!(wrong < words && words < first_details);
}

#[test]
fn of_a_phase_that_is_entered_twice_the_last_time_decided() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::plan();
    plan.write(&dir.path().join("plan.json")).expect("writable");
    let mut story = fixture::Story::new();
    story.start(&plan);
    let cell = &plan.cells[0].id;
    story.boot(cell, 1);
    story.phase(cell, 1, Phase::Prepare, 7_000);
    let verdict = Verdict::Error { phase: Phase::Prepare, reason: "old results".to_owned() };
    story.end_attempt(cell, &verdict, &[], None);
    story.end(cell, verdict);
    story.finish();
    let mut journal = Journal::create(dir.path()).expect("a new journal");
    story.events.iter().for_each(|event| journal.append(event).expect("writable"));
    let html = fs::read_to_string(reports::render::all(dir.path()).expect("rendered").report_html).expect("written");
    let rows: Vec<&str> = html.split("<tr><td>prepare</td>").skip(1).collect();
    assert_eq!(rows.len(), 2, "it stands there twice");
    let decided = |row: &str| row.split("</tr>").next().is_some_and(|row| row.contains("class=\"decided"));
    assert_eq!((decided(rows[0]), decided(rows[1])), (false, true), "{rows:?}");
}

#[test]
fn the_same_failure_of_two_cells_is_told_once() {
    let html = html();
    let wrong = &html[..html.find("<details").expect("the cells")];
    assert_eq!(wrong.matches("hello depends on libc6").count(), 1);
    for cell in ["debian-11-minimal.smoke", "debian-11-minimal.service"] {
        assert!(wrong.contains(&format!(">{cell}</a>")), "{cell} is named");
    }
}

#[test]
fn every_link_leads_into_the_run_or_the_page() {
    let html = html();
    for link in html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let inside = ["#", "cells/", "runners/"].iter().any(|start| link.starts_with(start));
        assert!(inside || ["run.json", "junit.xml", "events.jsonl"].contains(&link), "{link}");
        if let Some(anchor) = link.strip_prefix('#') {
            assert!(html.contains(&format!("id=\"{anchor}\"")), "{link} leads nowhere");
        }
    }
    for forbidden in ["http:", "https:", "src=", "@import", "url(", "javascript:", "onclick"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn the_security_policy_names_exactly_the_script_of_the_page() {
    let html = html();
    let (_, rest) = html.split_once("<script>").expect("a script");
    let (script, _) = rest.split_once("</script>").expect("its end");
    let hash = base64(&hex_bytes(&matrix::Digest::of(script.as_bytes()).hex()));
    let policy = format!("script-src 'sha256-{hash}'");
    assert!(html.contains(&policy), "the script changed: write {policy} into templates/report.html");
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn a_run_of_hundreds_of_cells_with_endless_logs_stays_small_and_harmless() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = large::write(dir.path(), 200);
    let rendered = reports::render::all(dir.path()).expect("rendered");
    let html = fs::read_to_string(rendered.report_html).expect("written");
    assert!(html.len() < 8 << 20, "{} bytes", html.len());
    assert_eq!(html.matches("<script").count(), 1);
    assert_eq!(html.matches("class=\"slot ").count(), plan.cells.len());
    assert!(fs::metadata(rendered.summary_md).expect("written").len() < 200_000);
}

fn hex_bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}
