//! One request for a file, or for the rest of it, into its part.

use std::time::Instant;

use reqwest::Url;

use super::{
    FetchError, Want,
    answer::{self, Answer},
    client::Head,
    pace::Pace,
    page,
    part::{Origin, Part},
    trouble::Trouble,
    watch::{Answering, Body, Miss, Stop, Watch},
};
use crate::space;

/// Requests `url` until nothing is missing.
pub(super) fn transfer(part: &mut Part, want: &Want, url: &Url, watch: &Watch<'_>) -> Result<(), Stop> {
    watch.report(&format!("downloading from {}", host(url)));
    let request = part.request(url);
    let known = part.origin().and_then(|origin| origin.bytes).or(want.bytes);
    let before = part.most();
    let (offset, is_rest) = (request.offset, request.offset > 0);
    let (head, answering) = Answering::to(request, watch)?;
    let answered = match answer::judge(&head, offset, known) {
        Ok(Answer::Whole { total }) => whole(part, want, url, (&head, total), answering, watch),
        Ok(Answer::Rest { total }) => {
            check_size(want, total, watch)?;
            require_room(part, total)?;
            part.go_on()?;
            Incoming { part, want, url, total, answering, watch }.take_all()
        }
        Ok(Answer::Complete) => check_end(part, want, Some(offset)),
        Ok(Answer::Stale) => {
            part.empty()?;
            Err(discarded(Trouble::WrongRest { offset, sent: "the answer that there is no rest".to_owned() }))
        }
        Err(trouble @ Trouble::WrongRest { .. }) if is_rest => {
            part.empty()?;
            Err(discarded(trouble))
        }
        Err(trouble) => Err(answering.refusal(&head, trouble)),
    };
    answered.map_err(|stop| match stop {
        Stop::Miss(miss) => Stop::Miss(Miss { made_progress: part.most() > before, ..miss }),
        other => other,
    })
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn discarded(trouble: Trouble) -> Stop {
    Stop::Miss(Miss { trouble, retry_after: None, made_progress: false, discarded: true })
}

/// Receives a whole file; the kept bytes of another answer are discarded only once this one is known to be a file.
fn whole(
    part: &mut Part,
    want: &Want,
    url: &Url,
    (head, total): (&Head, Option<u64>),
    mut answering: Answering<'_>,
    watch: &Watch<'_>,
) -> Result<(), Stop> {
    let (beginning, end) = answering.beginning()?;
    if page::is_page(head.content_type.as_deref(), &beginning) {
        return Err(Trouble::ErrorPage { line: page::words(&beginning) }.into());
    }
    check_size(want, total, watch)?;
    if total.is_none() && !head.is_chunked && want.bytes.is_none() && want.digest.is_none() {
        return Err(Trouble::Endless.into());
    }
    let total = total.or(want.bytes);
    part.begin(Origin::of(url, head, total, want))?;
    require_room(part, total)?;
    part.append(beginning)?;
    let incoming = Incoming { part, want, url, total, answering, watch };
    match end {
        Some(end) => incoming.end(end),
        None => incoming.take_all(),
    }
}

fn check_size(want: &Want, total: Option<u64>, watch: &Watch<'_>) -> Result<(), Stop> {
    match (total, want.bytes) {
        (Some(found), Some(expected)) if found != expected => Err(Trouble::WrongSize { expected, found }.into()),
        (Some(found), _) if found > watch.limits.published_bytes => {
            Err(Trouble::TooLarge { most: watch.limits.published_bytes }.into())
        }
        _ => Ok(()),
    }
}

fn require_room(part: &Part, total: Option<u64>) -> Result<(), FetchError> {
    let missing = total.unwrap_or_default().saturating_sub(part.length());
    Ok(space::require(&[(part.folder(), missing)])?)
}

/// True if everything has arrived.
fn check_end(part: &mut Part, want: &Want, total: Option<u64>) -> Result<(), Stop> {
    let found = part.length();
    if found == 0 {
        return Err(Trouble::Empty.into());
    }
    match want.bytes.or(total) {
        Some(expected) if found > expected => {
            part.empty()?;
            Err(Trouble::WrongSize { expected, found }.into())
        }
        Some(expected) if found < expected => {
            let reason = "the rest is missing".to_owned();
            Err(Trouble::BrokeOff { received: found, total: Some(expected), reason }.into())
        }
        _ => Ok(()),
    }
}

/// A file in transfer.
struct Incoming<'a> {
    part: &'a mut Part,
    want: &'a Want,
    url: &'a Url,
    total: Option<u64>,
    answering: Answering<'a>,
    watch: &'a Watch<'a>,
}

impl Incoming<'_> {
    fn take_all(mut self) -> Result<(), Stop> {
        let before = self.part.length();
        let limits = self.watch.limits;
        let mut pace = Pace::start(Instant::now(), limits.slow_window, limits.slow_bytes);
        // More bytes than stated are noticed at once, not when the disk is full.
        let most = self.total.unwrap_or(u64::MAX).min(limits.published_bytes);
        loop {
            let body = self.answering.next(self.part.length())?;
            match body {
                Body::Chunk(chunk) => self.part.append(chunk)?,
                Body::Nothing => {}
                end => return self.end(end),
            }
            if self.part.length() > most {
                self.part.empty()?;
                return Err(Trouble::TooLarge { most }.into());
            }
            let (now, new) = (Instant::now(), self.part.length() - before);
            if let Some(speed) = pace.progress_due(now, new) {
                self.watch.report(&self.progress(speed));
            }
            if let Some(speed) = pace.too_slow(now, new) {
                let least = limits.slow_bytes;
                return Err(Trouble::Slow { speed, least }.into());
            }
        }
    }

    fn end(self, end: Body) -> Result<(), Stop> {
        let received = self.part.length();
        match end {
            Body::Broken(reason) => Err(Trouble::BrokeOff { received, total: self.total, reason }.into()),
            _ => check_end(self.part, self.want, self.total),
        }
    }

    fn progress(&self, speed: u64) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let of = self.total.map_or(String::new(), |total| format!(" of {}", mib(total)));
        let speed =
            if speed < 10 << 20 { format!("{:.1}", speed as f64 / 1_048_576.0) } else { mib(speed).to_string() };
        format!("downloading {}{of} MiB, {speed} MiB/s from {}", mib(self.part.length()), host(self.url))
    }
}
