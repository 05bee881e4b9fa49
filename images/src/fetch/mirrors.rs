//! Which mirror is asked, in which order, and how often.

use std::time::Duration;

use reqwest::Url;

use super::{
    FetchError, MirrorFailure,
    client::shown,
    trouble::Trouble,
    watch::{Miss, Stop, Watch},
};

/// Asks one mirror after the other until one of them delivers.
///
/// A mirror that sends bytes, but not all, is asked again before any other; one that sends nothing new comes last. There is a
/// pause before any mirror is asked again.
pub(super) fn first_good<T>(
    urls: &[Url],
    watch: &Watch<'_>,
    mut ask: impl FnMut(&Url) -> Result<T, Stop>,
) -> Result<T, FetchError> {
    let mut mirrors: Vec<Mirror<'_>> = urls.iter().map(Mirror::new).collect();
    let mut at = 0;
    for _ in 0..watch.limits.requests {
        let mirror = &mut mirrors[at];
        mirror.tries += 1;
        let stop = match ask(mirror.url) {
            Ok(found) => return Ok(found),
            Err(stop) => stop,
        };
        let miss = match stop {
            Stop::Miss(miss) => miss,
            other => return Err(end(other, at, mirrors, watch)),
        };
        let stays = mirror.missed(miss, watch.limits.tries);
        let next = if stays { Some(at) } else { next(&mirrors, at) };
        let Some(next) = next else { break };
        let mirror = &mirrors[next];
        if mirror.trouble.is_some() {
            let pause = watch.limits.pause_after(mirror.failures, mirror.retry_after, rand::random());
            watch.report(&format!("{}; asking {} again", mirrors[at].words(), mirror.host()));
            if let Err(stop) = watch.pause(pause) {
                return Err(end(stop, next, mirrors, watch));
            }
        } else {
            watch.report(&format!("{}; asking {}", mirrors[at].words(), mirror.host()));
        }
        at = next;
    }
    Err(FetchError::Mirrors { failures: failures(mirrors) })
}

struct Mirror<'a> {
    url: &'a Url,
    tries: u32,
    /// Failures in a row without new bytes.
    failures: u32,
    /// It is not asked again.
    is_out: bool,
    trouble: Option<Trouble>,
    retry_after: Option<Duration>,
}

impl<'a> Mirror<'a> {
    fn new(url: &'a Url) -> Self {
        Self { url, tries: 0, failures: 0, is_out: false, trouble: None, retry_after: None }
    }

    fn host(&self) -> &'a str {
        self.url.host_str().unwrap_or_default()
    }

    fn words(&self) -> String {
        self.trouble.as_ref().map_or(String::new(), |trouble| format!("{} {trouble}", self.host()))
    }

    /// Records a failure; returns whether it is asked again before any other.
    fn missed(&mut self, miss: Miss, most: u32) -> bool {
        let is_slow = matches!(miss.trouble, Trouble::Slow { .. });
        let stays = miss.made_progress && !is_slow;
        self.failures = if stays { 0 } else { self.failures + 1 };
        self.is_out = self.failures >= most || !(miss.trouble.may_pass() || miss.discarded);
        self.trouble = Some(miss.trouble);
        self.retry_after = miss.retry_after;
        stays && !self.is_out
    }
}

/// The next one that is not out, in the given order; the same one if there is no other.
fn next(mirrors: &[Mirror<'_>], at: usize) -> Option<usize> {
    (1..=mirrors.len()).map(|step| (at + step) % mirrors.len()).find(|&index| !mirrors[index].is_out)
}

fn failures(mirrors: Vec<Mirror<'_>>) -> Vec<MirrorFailure> {
    let failed = mirrors.into_iter().filter_map(|mirror| {
        Some(MirrorFailure { url: shown(mirror.url), trouble: mirror.trouble?, tries: mirror.tries })
    });
    failed.collect()
}

fn end(stop: Stop, at: usize, mirrors: Vec<Mirror<'_>>, watch: &Watch<'_>) -> FetchError {
    match stop {
        Stop::Fatal(error) => error,
        Stop::Overdue | Stop::Miss(_) => FetchError::Overdue {
            url: shown(mirrors[at].url),
            limit: watch.limits.overall,
            failures: failures(mirrors),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::atomic::AtomicBool};

    use super::*;
    use crate::{Control, fetch::Limits};

    fn miss(trouble: Trouble, made_progress: bool) -> Stop {
        Stop::Miss(Miss { trouble, retry_after: None, made_progress, discarded: false })
    }

    fn down() -> Stop {
        miss(Trouble::Unreachable { reason: "down".to_owned() }, false)
    }

    fn broken() -> Stop {
        miss(Trouble::BrokeOff { received: 1, total: None, reason: "gone".to_owned() }, true)
    }

    /// Letters of the mirrors that were asked, in order; `ask` gets a letter and the number of the request.
    fn asked(mirrors: &str, ask: impl Fn(&str, usize) -> Result<(), Stop>) -> (String, Result<(), FetchError>) {
        let limits = Limits { pause: Duration::ZERO, requests: 20, ..Limits::default() };
        let cancel = AtomicBool::new(false);
        let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
        let urls: Vec<Url> =
            mirrors.chars().map(|letter| Url::parse(&format!("http://{letter}/")).expect("address")).collect();
        let order = RefCell::new(String::new());
        let found = first_good(&urls, &Watch::start(&limits, &control), |url| {
            let letter = url.host_str().expect("letter");
            order.borrow_mut().push_str(letter);
            ask(letter, order.borrow().len())
        });
        (order.into_inner(), found)
    }

    #[test]
    fn mirrors_take_turns_and_each_is_asked_four_times_for_nothing() {
        let (order, found) = asked("abc", |_, _| Err(down()));
        assert_eq!(order, "abcabcabcabc");
        let error = found.expect_err("all are down").to_string();
        assert!(error.starts_with("http://a/ is unreachable: down (tried 4 times); http://b/"), "{error}");
    }

    #[test]
    fn who_said_no_is_not_asked_again() {
        let no = || miss(Trouble::Status { code: 404, name: "Not Found", line: None }, false);
        let (order, _) = asked("ab", |mirror, _| Err(if mirror == "a" { no() } else { down() }));
        assert_eq!(order, "abbbb");
    }

    #[test]
    fn who_sends_something_new_is_asked_again_before_others_but_not_for_ever() {
        let (order, _) = asked("ab", |_, request| Err(if request == 3 { down() } else { broken() }));
        assert_eq!(order, format!("aaa{}", "b".repeat(17)));
    }

    #[test]
    fn who_is_slow_is_left_for_the_next() {
        let slow = || miss(Trouble::Slow { speed: 1, least: 2 }, true);
        let (order, found) = asked("ab", |mirror, _| if mirror == "a" { Err(slow()) } else { Ok(()) });
        assert_eq!(order, "ab");
        found.expect("the second has it");
    }

    #[test]
    fn what_nobody_else_can_do_better_ends_it() {
        let (order, found) = asked("ab", |_, _| Err(FetchError::Cancelled.into()));
        assert_eq!(order, "a");
        assert!(matches!(found, Err(FetchError::Cancelled)));
    }
}
