//! What was measured, and what it says.

use std::{fmt, time::Duration};

/// One run of each, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// `nestmatrix run`.
    pub(super) nestmatrix: Duration,
    /// The bare script.
    pub(super) bare: Duration,
}

impl Pair {
    fn seconds(self) -> [f64; 2] {
        [self.nestmatrix.as_secs_f64(), self.bare.as_secs_f64()]
    }

    fn ratio(self) -> f64 {
        self.nestmatrix.as_secs_f64() / self.bare.as_secs_f64()
    }

    fn difference(self) -> f64 {
        self.nestmatrix.as_secs_f64() - self.bare.as_secs_f64()
    }
}

/// All pairs; at least one.
#[derive(Clone, Debug)]
pub(super) struct Figures(pub(super) Vec<Pair>);

impl Figures {
    fn median(&self, of: impl Fn(Pair) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().copied().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2));
        low.zip(high).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
    }

    /// Median times of both, ratio and difference of the pairs.
    fn medians(&self) -> [f64; 4] {
        [
            self.median(|pair| pair.seconds()[0]),
            self.median(|pair| pair.seconds()[1]),
            self.median(Pair::ratio),
            self.median(Pair::difference),
        ]
    }

    /// The lowest and the highest ratio: far apart, the median means little.
    fn spread(&self) -> (f64, f64) {
        let ratios = || self.0.iter().copied().map(Pair::ratio);
        (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max))
    }

    /// Within 5 % + 1 s of the bare script.
    fn within(&self) -> bool {
        let [nestmatrix, bare, ..] = self.medians();
        nestmatrix <= bare * 1.05 + 1.0
    }

    /// For machines; all times in seconds.
    pub(super) fn json(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|pair| pair.seconds())
            .map(|[nestmatrix, bare]| format!("{{\"nestmatrix\": {nestmatrix:.3}, \"bare\": {bare:.3}}}"))
            .collect();
        let [nestmatrix, bare, ratio, difference] = self.medians();
        format!(
            "{{\"pairs\": [{}], \"median\": {{\"nestmatrix\": {nestmatrix:.3}, \"bare\": {bare:.3}, \"ratio\": {ratio:.4}, \
             \"difference\": {difference:.3}}}, \"within\": {}}}\n",
            pairs.join(", "),
            self.within()
        )
    }
}

/// For people.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, [nestmatrix, bare, ratio, difference]: [f64; 4]| {
            writeln!(f, "{name:<6} {nestmatrix:>9.2} s {bare:>9.2} s {ratio:>8.3} {difference:>+10.2} s")
        };
        writeln!(f, "pair    nestmatrix bare script    ratio   difference")?;
        for (number, pair) in self.0.iter().enumerate() {
            let [nestmatrix, bare] = pair.seconds();
            row(f, &(number + 1).to_string(), [nestmatrix, bare, pair.ratio(), pair.difference()])?;
        }
        row(f, "median", self.medians())?;
        let (low, high) = self.spread();
        writeln!(f, "ratios from {low:.3} to {high:.3}")?;
        let verdict = if self.within() { "within" } else { "NOT within" };
        writeln!(f, "nestmatrix is {verdict} 5 % + 1 s of the bare script")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(seconds: &[(u64, u64)]) -> Figures {
        let pair = |&(nestmatrix, bare): &(u64, u64)| Pair {
            nestmatrix: Duration::from_millis(nestmatrix),
            bare: Duration::from_millis(bare),
        };
        Figures(seconds.iter().map(pair).collect())
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let text = figures(&[(21_000, 20_000), (60_000, 20_000), (20_500, 20_000)]).to_string();
        assert_eq!(
            text,
            "pair    nestmatrix bare script    ratio   difference\n\
             1          21.00 s     20.00 s    1.050      +1.00 s\n\
             2          60.00 s     20.00 s    3.000     +40.00 s\n\
             3          20.50 s     20.00 s    1.025      +0.50 s\n\
             median     21.00 s     20.00 s    1.050      +1.00 s\n\
             ratios from 1.025 to 3.000\n\
             nestmatrix is within 5 % + 1 s of the bare script\n"
        );
        assert!(figures(&[(22_001, 20_000)]).to_string().contains("NOT within"));
        assert!(figures(&[(21_999, 20_000)]).to_string().contains("is within"));
    }

    #[test]
    fn of_an_even_number_of_runs_the_median_lies_between_the_middle_two() {
        assert_eq!(
            figures(&[(20_000, 10_000), (22_000, 10_000)]).json(),
            "{\"pairs\": [{\"nestmatrix\": 20.000, \"bare\": 10.000}, {\"nestmatrix\": 22.000, \"bare\": 10.000}], \
             \"median\": {\"nestmatrix\": 21.000, \"bare\": 10.000, \"ratio\": 2.1000, \"difference\": 11.000}, \
             \"within\": false}\n"
        );
    }
}
