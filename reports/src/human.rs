//! Durations and sizes for people.

/// A number of milliseconds: `0.4s`, `24.1s`, `1m 24s`, `2h 03m`.
pub(crate) fn duration(ms: u64) -> String {
    // Rounded to the shown precision first, so that 59.96 s is not `60.0s`.
    let tenths = ms.saturating_add(50) / 100;
    if tenths < 600 {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    let seconds = ms.saturating_add(500) / 1_000;
    if seconds < 3_600 {
        return format!("{}m {:02}s", seconds / 60, seconds % 60);
    }
    let minutes = seconds / 60;
    format!("{}h {:02}m", minutes / 60, minutes % 60)
}

/// A number of bytes, in the largest unit that leaves at least one: `312 B`, `4.2 KiB`, `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

/// A number with its noun: `1 cell`, `2 cells`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_figures() {
        let shown = [0, 449, 24_100, 59_949, 59_960, 84_000, 3_599_600, 7_380_000].map(duration);
        assert_eq!(shown, ["0.0s", "0.4s", "24.1s", "59.9s", "1m 00s", "1m 24s", "1h 00m", "2h 03m"]);
        assert!(!duration(u64::MAX).is_empty());
    }

    #[test]
    fn sizes_name_their_unit() {
        assert_eq!([312, 4_300, 1 << 30].map(bytes), ["312 B", "4.2 KiB", "1.0 GiB"]);
    }
}
