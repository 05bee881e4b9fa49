//! Three places side by side: medians, ratios, and what those do not say.

use serde::Serialize;

use super::work::Times;

/// Google Compute Engine's documentation, "About nested virtualization", performance considerations. It compares a nested
/// virtual machine with one that is not: L2 with L1. A tenth less performance is a ninth more time, so 1.11 of it.
const DOCUMENTED: Documented = Documented { ratio: "L2 / L1", cpu: "1.1 or more", io: "possibly more", source: SOURCE };
const SOURCE: &str = "documented by Google Compute Engine for hardware-assisted nesting: 10 % or more is lost where the CPU is \
                      the limit, possibly more where input and output are";

/// A machine with more load than this does something else as well.
const BUSY: f64 = 0.5;

/// Where the work was done, and what it took there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Place {
    /// `host`, `L1 guest` or `L2 guest`.
    pub(crate) place: &'static str,
    /// How many virtual machines it lies in, as far as that can be seen from here.
    pub(crate) depth: u32,
    /// What runs it, in words.
    pub(crate) accelerator: String,
    /// Software emulation (TCG) runs it, or a machine it lies in.
    pub(crate) emulated: bool,
    /// What the clock outside says that the whole took, the program's start included.
    pub(crate) outside_ms: u64,
    /// What the program said.
    #[serde(flatten)]
    pub(crate) times: Times,
}

/// What holds for all places.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// What both guests are, in words.
    pub(crate) guest: String,
    /// How many processes wanted a CPU before anything of ours did (`/proc/loadavg`).
    pub(crate) load: f64,
}

/// A figure for either kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Both {
    cpu: f64,
    io: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    place: Place,
    median_ms: Both,
}

#[derive(Clone, Debug, Serialize)]
struct Ratio {
    ratio: &'static str,
    #[serde(flatten)]
    times: Both,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Documented {
    ratio: &'static str,
    cpu: &'static str,
    io: &'static str,
    source: &'static str,
}

/// All that is known after the work was done everywhere.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    places: [Measured; 3],
    ratios: [Ratio; 3],
    documented: Documented,
    notes: Vec<String>,
}

impl Comparison {
    /// Compares the host, a guest on it, and a guest in a guest on it.
    ///
    /// # Errors
    /// In words: it was not the same work.
    pub(crate) fn new(host: Place, l1: Place, l2: Place, setting: &Setting) -> Result<Self, String> {
        for place in [&l1, &l2] {
            if place.times.checksum != host.times.checksum {
                let [here, there] = [&host, place].map(|place| &place.times.checksum);
                return Err(format!(
                    "the {} computed {there}, the host {here}: one of them cannot compute",
                    place.place
                ));
            }
        }
        let notes = notes([&host, &l1, &l2], setting);
        let places = [host, l1, l2].map(|place| {
            let median_ms = Both { cpu: median(&place.times.cpu_ms), io: median(&place.times.io_ms) };
            Measured { place, median_ms }
        });
        let [host, l1, l2] = places.each_ref().map(|measured| measured.median_ms);
        let ratio = |ratio, over: Both, under: Both| {
            let times = Both { cpu: over.cpu / under.cpu, io: over.io / under.io };
            Ratio { ratio, times }
        };
        let ratios = [ratio("L1 / host", l1, host), ratio("L2 / host", l2, host), ratio(DOCUMENTED.ratio, l2, l1)];
        Ok(Self { places, ratios, documented: DOCUMENTED, notes })
    }

    /// Rows of a table, its header first.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["", "CPU-BOUND", "I/O-BOUND", "DEPTH", "RUN BY"].map(str::to_owned).to_vec()];
        rows.extend(self.places.iter().map(|Measured { place, median_ms }| {
            vec![
                place.place.to_owned(),
                time(median_ms.cpu, &place.times.cpu_ms),
                time(median_ms.io, &place.times.io_ms),
                place.depth.to_string(),
                place.accelerator.clone(),
            ]
        }));
        rows.extend(self.ratios.iter().map(|Ratio { ratio, times: Both { cpu, io } }| {
            vec![(*ratio).to_owned(), format!("{cpu:.2}"), format!("{io:.2}")]
        }));
        let Documented { ratio, cpu, io, .. } = self.documented;
        rows.push(vec![format!("{ratio}, documented"), cpu.to_owned(), io.to_owned()]);
        rows
    }

    /// What the figures do and do not say, a sentence each.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str).chain([self.documented.source])
    }
}

fn notes(places: [&Place; 3], setting: &Setting) -> Vec<String> {
    let rounds = places[0].times.cpu_ms.len();
    let mut notes = vec![format!(
        "rounds in each place: {rounds}; times are their medians (from - to); both guests are {}; depth: in how many virtual \
         machines a place lies, as far as can be seen from here",
        setting.guest
    )];
    if places.iter().any(|place| place.emulated) {
        notes.push(
            "software emulation (TCG) was in play, which is slow: these ratios are its own and say nothing about nesting in \
             hardware, which the documented figure is about"
                .to_owned(),
        );
    }
    notes.push(
        "a guest's disk is thrown away and nobody waits for it, the host waits for its own: of the I/O ratios only L2 / L1 \
         compares like with like"
            .to_owned(),
    );
    // One place is measured after the other: other work hits one and not the next.
    if setting.load > BUSY {
        notes.push(format!(
            "other work kept this machine busy (load {:.1} before the start): measure again when it is idle",
            setting.load
        ));
    }
    notes.extend(places.into_iter().filter_map(clock_doubt));
    notes
}

/// An emulated clock may run at a speed of its own, and then so do the times it measured.
fn clock_doubt(place: &Place) -> Option<String> {
    let inside: f64 = place.times.cpu_ms.iter().chain(&place.times.io_ms).sum();
    let outside = place.outside_ms as f64;
    // Starting the program takes a while too, so the inside may well be shorter, but not by half.
    let plausible = (outside / 2.0..=outside * 1.02).contains(&inside);
    let seconds = |ms: f64| ms / 1000.0;
    (!plausible).then(|| {
        format!(
            "the clock of the {} is not to be believed: {:.1} s passed in it, {:.1} s outside",
            place.place,
            seconds(inside),
            seconds(outside)
        )
    })
}

/// `median ms (lowest - highest)`.
fn time(median: f64, rounds: &[f64]) -> String {
    let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = rounds.iter().copied().fold(0.0, f64::max);
    format!("{median:.0} ms ({lowest:.0} - {highest:.0})")
}

/// Of an even number of values the middle of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_owned();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(place: &'static str, cpu_ms: &[f64], io_ms: &[f64]) -> Place {
        let times = Times { checksum: "00ff".into(), cpu_ms: cpu_ms.into(), io_ms: io_ms.into() };
        let outside_ms = cpu_ms.iter().chain(io_ms).sum::<f64>() as u64 + 100;
        Place { place, depth: 0, accelerator: "kvm".into(), emulated: false, outside_ms, times }
    }

    fn three() -> [Place; 3] {
        [
            Place { accelerator: "-".into(), ..place("host", &[300.0, 310.0, 900.0], &[200.0, 220.0, 210.0]) },
            Place { depth: 1, ..place("L1 guest", &[330.0, 341.0, 345.0], &[100.0, 105.0, 120.0]) },
            Place { depth: 2, ..place("L2 guest", &[372.0, 380.0, 310.0], &[420.0, 400.0, 500.0]) },
        ]
    }

    fn idle() -> Setting {
        Setting { guest: "debian-12, 1 CPU, 512MiB".into(), load: 0.1 }
    }

    fn compare([host, l1, l2]: [Place; 3]) -> Comparison {
        Comparison::new(host, l1, l2, &idle()).unwrap()
    }

    fn said(comparison: &Comparison) -> String {
        comparison.notes().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documented_figure_stands_below_the_ratio_it_is_about_and_one_slow_round_moves_nothing() {
        let rows: Vec<String> = compare(three()).rows().into_iter().map(|row| row.join(" | ")).collect();
        assert_eq!(
            rows,
            [
                " | CPU-BOUND | I/O-BOUND | DEPTH | RUN BY",
                "host | 310 ms (300 - 900) | 210 ms (200 - 220) | 0 | -",
                "L1 guest | 341 ms (330 - 345) | 105 ms (100 - 120) | 1 | kvm",
                "L2 guest | 372 ms (310 - 380) | 420 ms (400 - 500) | 2 | kvm",
                "L1 / host | 1.10 | 0.50",
                "L2 / host | 1.20 | 2.00",
                "L2 / L1 | 1.09 | 4.00",
                "L2 / L1, documented | 1.1 or more | possibly more",
            ]
        );
    }

    #[test]
    fn ratios_of_software_emulation_are_said_to_be_no_word_about_hardware() {
        assert!(!said(&compare(three())).contains("TCG"));
        for emulated in [1, 2] {
            let mut places = three();
            places[emulated].emulated = true;
            assert!(said(&compare(places)).contains("say nothing about nesting in hardware"), "place {emulated}");
        }
    }

    #[test]
    fn figures_of_a_busy_machine_are_to_be_measured_again() {
        assert!(!said(&compare(three())).contains("busy"));
        let [host, l1, l2] = three();
        let busy = Comparison::new(host, l1, l2, &Setting { load: 6.25, ..idle() }).unwrap();
        assert!(said(&busy).contains("busy (load 6.2 before the start)"), "{}", said(&busy));
    }

    #[test]
    fn a_clock_that_runs_at_a_speed_of_its_own_is_not_believed() {
        assert!(!said(&compare(three())).contains("clock"));
        for outside_ms in [1000, 6000] {
            let mut places = three();
            places[2].outside_ms = outside_ms;
            assert!(said(&compare(places)).contains("clock of the L2 guest"), "{outside_ms} ms outside");
        }
    }

    #[test]
    fn places_that_computed_different_things_are_not_compared() {
        let [host, l1, mut l2] = three();
        l2.times.checksum = "00fe".into();
        let error = Comparison::new(host, l1, l2, &idle()).unwrap_err();
        assert!(error.contains("L2 guest computed 00fe, the host 00ff"), "{error}");
    }

    #[test]
    fn programs_read_the_same_figures() {
        let json = serde_json::to_value(compare(three())).unwrap();
        assert_eq!(json["places"][2]["place"], "L2 guest");
        assert_eq!(json["places"][2]["cpu_ms"], serde_json::json!([372.0, 380.0, 310.0]));
        assert_eq!(json["places"][2]["median_ms"]["io"], 420.0);
        assert_eq!(json["ratios"][2]["ratio"], "L2 / L1");
        assert_eq!(json["ratios"][2]["io"], 4.0);
        assert_eq!(json["documented"]["cpu"], "1.1 or more");
    }

    #[test]
    fn of_an_even_number_of_rounds_the_median_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(&[5.0]), 5.0);
    }
}
