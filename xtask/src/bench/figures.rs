//! Alternating measurements of booted and forked guests.

use std::fmt;

use serde_json::{Value, json};

/// Pairs of a cold and a warm run; at least one pair. All times in seconds, ratios of cold to warm.
#[derive(Clone, Debug)]
pub(super) struct Figures(pub(super) Vec<[f64; 2]>);

impl Figures {
    /// Median times of both.
    fn medians(&self) -> [f64; 2] {
        [self.median(|[first, _]| first), self.median(|[_, second]| second)]
    }

    /// Median of the pairs' ratios.
    pub(super) fn ratio(&self) -> f64 {
        self.median(ratio)
    }

    fn difference(&self) -> f64 {
        self.median(difference)
    }

    fn median(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        median(self.0.iter().copied().map(of))
    }

    /// The lowest and the highest ratio: far apart, the median means little.
    fn spread(&self) -> (f64, f64) {
        let ratios = || self.0.iter().copied().map(ratio);
        (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max))
    }

    /// For machines.
    pub(super) fn json(&self) -> Value {
        let object = |[cold, warm]: [f64; 2]| json!({ "cold": rounded(cold), "warm": rounded(warm) });
        let (low, high) = self.spread();
        json!({
            "pairs": self.0.iter().copied().map(object).collect::<Vec<_>>(),
            "median": object(self.medians()),
            "ratio": { "median": rounded(self.ratio()), "min": rounded(low), "max": rounded(high) },
            "difference": rounded(self.difference()),
        })
    }
}

/// For people.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, [first, second]: [f64; 2], ratio: f64, difference: f64| {
            writeln!(f, "{name:<6} {first:>9.2} s {second:>9.2} s {ratio:>8.3} {difference:>+10.2} s")
        };
        writeln!(f, "pair          cold        warm    ratio   difference")?;
        for (number, pair) in self.0.iter().enumerate() {
            row(f, &(number + 1).to_string(), *pair, ratio(*pair), difference(*pair))?;
        }
        row(f, "median", self.medians(), self.ratio(), self.difference())?;
        let (low, high) = self.spread();
        writeln!(f, "ratios from {low:.3} to {high:.3}")
    }
}

/// The median; of nothing, NaN.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

/// Rounded to thousandths.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn ratio([first, second]: [f64; 2]) -> f64 {
    first / second
}

fn difference([first, second]: [f64; 2]) -> f64 {
    first - second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let figures = Figures(vec![[21.0, 20.0], [60.0, 20.0], [20.5, 20.0]]);
        assert_eq!(
            figures.to_string(),
            "pair          cold        warm    ratio   difference\n\
             1          21.00 s     20.00 s    1.050      +1.00 s\n\
             2          60.00 s     20.00 s    3.000     +40.00 s\n\
             3          20.50 s     20.00 s    1.025      +0.50 s\n\
             median     21.00 s     20.00 s    1.050      +1.00 s\n\
             ratios from 1.025 to 3.000\n"
        );
    }

    #[test]
    fn of_an_even_number_of_runs_the_median_lies_between_the_middle_two() {
        assert_eq!(
            Figures(vec![[20.0, 1.0], [22.0, 2.0]]).json(),
            json!({
                "pairs": [{ "cold": 20.0, "warm": 1.0 }, { "cold": 22.0, "warm": 2.0 }],
                "median": { "cold": 21.0, "warm": 1.5 },
                "ratio": { "median": 15.5, "min": 11.0, "max": 20.0 },
                "difference": 19.5,
            })
        );
    }
}
