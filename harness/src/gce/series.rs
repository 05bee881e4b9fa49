//! Which machine types can run virtual machines of their own: rules as data (`series.toml`). Pure.

use std::sync::LazyLock;

use serde::Deserialize;

/// A machine series.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Series {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    /// What it is called.
    pub(crate) title: String,
    nests: bool,
    #[serde(default)]
    why: String,
    /// CPU platforms that its machines may have; empty: not known.
    #[serde(default)]
    pub(crate) platforms: Vec<String>,
    /// The oldest CPU platform that is asked for.
    #[serde(default)]
    pub(crate) minimum: Option<String>,
    /// Its machines have some, which cost more than CPUs and memory do.
    #[serde(default)]
    accelerators: bool,
    /// The type of its boot disk.
    #[serde(default)]
    pub(crate) disk: Option<String>,
}

/// Whether a machine type can be an L1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Suitability {
    /// As far as the rules say.
    Nests,
    /// It cannot, and why.
    Not(String),
    /// The rules do not know it.
    Unknown,
}

#[derive(Deserialize)]
struct Rules {
    series: Vec<Series>,
}

static RULES: LazyLock<Vec<Series>> = LazyLock::new(|| {
    // The test below reads it, too.
    toml::from_str::<Rules>(include_str!("series.toml")).map(|rules| rules.series).unwrap_or_default()
});

/// The rules for a machine type: `n2-standard-4`, `n2-custom-8-16384`, `custom-8-16384` (that is N1).
pub(crate) fn series(machine_type: &str) -> Option<&'static Series> {
    let prefix = machine_type.split('-').next().unwrap_or_default();
    let prefix = if prefix == "custom" { "n1" } else { prefix };
    RULES.iter().find(|series| series.name.as_deref() == Some(prefix) || series.names.iter().any(|name| name == prefix))
}

impl Series {
    /// What it is called in the price list, where its CPUs and its memory are all that is paid for.
    pub(crate) fn priced_as(&self) -> Option<&str> {
        (!self.accelerators).then_some(self.title.as_str())
    }
}

impl Suitability {
    /// That of a machine type.
    pub(crate) fn of(machine_type: &str) -> Self {
        match series(machine_type) {
            None => Self::Unknown,
            Some(series) if series.nests => Self::Nests,
            Some(series) => Self::Not(series.why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_whole() {
        let rules = toml::from_str::<Rules>(include_str!("series.toml")).unwrap().series;
        for series in &rules {
            assert_eq!(series.name.is_some(), series.names.is_empty(), "{}: one way to be named", series.title);
            assert_eq!(series.nests, series.why.is_empty(), "{}: why not", series.title);
            assert_eq!(series.nests, !series.platforms.is_empty() && series.disk.is_some(), "{}", series.title);
            assert!(series.platforms.iter().all(|platform| platform.starts_with("Intel ")), "{}", series.title);
        }
        let names: Vec<_> = rules.iter().flat_map(|series| series.name.iter().chain(&series.names)).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn machine_types_that_cannot_nest_are_known_by_their_series() {
        for (machine_type, words) in [
            ("e2-standard-4", "E2"),
            ("n2d-standard-4", "AMD"),
            ("c4a-highmem-8", "Arm"),
            ("t2a-standard-1", "Arm"),
            ("m3-ultramem-32", "memory-optimized"),
            ("a3-highgpu-8g", "A3"),
            ("f1-micro", "shared core"),
        ] {
            let Suitability::Not(why) = Suitability::of(machine_type) else { panic!("{machine_type}") };
            assert!(why.contains(words), "{machine_type}: {why}");
        }
        for machine_type in ["n2-standard-4", "n1-highcpu-8", "custom-8-16384", "n2-custom-8-16384", "c3-standard-4"] {
            assert_eq!(Suitability::of(machine_type), Suitability::Nests, "{machine_type}");
        }
        assert_eq!(series("custom-8-16384").and_then(|series| series.minimum.as_deref()), Some("Intel Haswell"));
        assert_eq!(Suitability::of("q9-standard-4"), Suitability::Unknown);
        let priced_as = |machine_type| series(machine_type).and_then(Series::priced_as);
        assert_eq!(["n2-standard-4", "a2-highgpu-1g", "g2-standard-4"].map(priced_as), [Some("N2"), None, None]);
    }
}
