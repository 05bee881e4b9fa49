//! Sizes, durations and counts of the matrix file, each with its range.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use crate::{
    ByteSize, Guest, Timeouts,
    error::Mistakes,
    file::TimeoutTable,
    located::At,
    scalar::{DurationText, SizeText},
};

pub(crate) const MEMORY_RANGE: RangeInclusive<ByteSize> = ByteSize::from_mib(128)..=ByteSize::from_mib(16 << 20);
pub(crate) const DISK_RANGE: RangeInclusive<ByteSize> = ByteSize::from_mib(64)..=ByteSize::from_mib(64 << 20);
pub(crate) const DATA_DISK_RANGE: RangeInclusive<ByteSize> = ByteSize::from_mib(1)..=ByteSize::from_mib(64 << 20);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A timeout table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    boot: Option<Duration>,
    prepare: Option<Duration>,
    install: Option<Duration>,
    suite: Option<Duration>,
    collect: Option<Duration>,
}

impl Limits {
    pub(crate) fn check(table: &TimeoutTable, mistakes: &mut Mistakes) -> Self {
        let mut limit = |at: &Option<At<DurationText>>| at.as_ref().and_then(|at| duration(at, mistakes));
        Self {
            boot: limit(&table.boot),
            prepare: limit(&table.prepare),
            install: limit(&table.install),
            suite: limit(&table.suite),
            collect: limit(&table.collect),
        }
    }

    /// The suite's limits where it has some, else the matrix's, else the defaults.
    pub(crate) fn resolve(suite: &Self, matrix: &Self) -> Timeouts {
        let pick = |of: fn(&Self) -> Option<Duration>, minutes: u64| {
            of(suite).or(of(matrix)).unwrap_or(Duration::from_secs(minutes * 60))
        };
        Timeouts {
            boot: pick(|limits| limits.boot, 1),
            prepare: pick(|limits| limits.prepare, 2),
            install: pick(|limits| limits.install, 5),
            suite: pick(|limits| limits.suite, 10),
            collect: pick(|limits| limits.collect, 2),
        }
    }
}

/// Words of a kernel's command line.
pub(crate) fn words(text: Option<&At<String>>) -> Vec<String> {
    text.map(|text| text.text().split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

pub(crate) fn size_at(at: &At<SizeText>, range: RangeInclusive<ByteSize>, mistakes: &mut Mistakes) -> Option<ByteSize> {
    size(at.get(), at.span(), range, mistakes)
}

/// A size of whole mebibytes: QEMU accepts nothing finer.
pub(crate) fn size(
    SizeText(text): &SizeText,
    span: Range<usize>,
    range: RangeInclusive<ByteSize>,
    mistakes: &mut Mistakes,
) -> Option<ByteSize> {
    let (smallest, largest) = (range.start(), range.end());
    let problem = match text.parse::<ByteSize>() {
        Ok(size) if !range.contains(&size) => mistakes
            .at(span, format!("the size `{text}` is out of range"), "out of range")
            .with_help(format!("write a size from {smallest} to {largest}")),
        Ok(size) if !size.bytes().is_multiple_of(ByteSize::from_mib(1).bytes()) => mistakes
            .at(span, format!("the size `{text}` is not a whole number of mebibytes"), "not whole")
            .with_help(format!("write `{}MiB` or `{}MiB`", size.mib(), size.mib() + 1)),
        Ok(size) => return Some(size),
        Err(_) => mistakes.at(span, format!("`{text}` is not a size"), "not a size").with_help(format!(
            "write a whole number and one of KiB, MiB, GiB, TiB, for example `{}`",
            probable_size(text)
        )),
    };
    mistakes.push(problem);
    None
}

/// The size that this invalid text probably means.
fn probable_size(text: &str) -> ByteSize {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit.trim().to_ascii_lowercase().chars().next() {
        Some(letter @ ('k' | 'm' | 'g' | 't')) => format!("{}iB", letter.to_ascii_uppercase()),
        _ => "MiB".to_owned(),
    };
    format!("{number}{unit}").parse().unwrap_or(Guest::default().memory)
}

/// A time limit within its range.
pub(crate) fn duration(at: &At<DurationText>, mistakes: &mut Mistakes) -> Option<Duration> {
    let text = &at.get().0;
    let parsed = text.parse::<jiff::SignedDuration>();
    let problem = match parsed {
        Ok(duration) => match Duration::try_from(duration) {
            Ok(duration) if !duration.is_zero() && duration <= MAX_TIMEOUT => return Some(duration),
            _ => mistakes
                .at(at.span(), format!("the time limit `{text}` is out of range"), "out of range")
                .with_help("write a time limit of more than zero and at most `24h`"),
        },
        Err(_) => {
            let example = if text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty() { text } else { "90" };
            mistakes
                .at(at.span(), format!("`{text}` is not a duration"), "not a duration")
                .with_help(format!("write a number and a unit, for example `{example}s`, `3m` or `1h30m`"))
        }
    };
    mistakes.push(problem);
    None
}

/// A number within its range.
pub(crate) fn count(at: &At<i64>, range: RangeInclusive<u32>, mistakes: &mut Mistakes) -> Option<u32> {
    let count = u32::try_from(*at.get()).ok().filter(|count| range.contains(count));
    if count.is_none() {
        let help = format!("write a number from {} to {}", range.start(), range.end());
        mistakes
            .push(mistakes.at(at.span(), format!("`{}` is out of range", at.get()), "out of range").with_help(help));
    }
    count
}
