//! The runner `gce`: the machine that is created on Compute Engine.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize,
    gce_value::{self as value, GceValueError, TextCheck},
};

/// The machine to create. What is `None` is decided when it is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GceRunner {
    /// Id of the project that it belongs to.
    pub project: Option<String>,
    /// The zones to create it in, in the order they are tried; each once, at most [`value::MAX_ZONES`]; may be empty.
    pub zones: Vec<String>,
    /// Its machine type, such as `n2-standard-8`.
    pub machine_type: Option<String>,
    /// It is a Spot VM: cheaper, and Compute Engine may take it back at any time.
    pub spot: bool,
    /// What its boot disk is made from.
    pub image: GceImage,
    /// Its network: a name, or `projects/P/global/networks/N`.
    pub network: Option<String>,
    /// Its subnet: a name, or `projects/P/regions/R/subnetworks/S`.
    pub subnet: Option<String>,
    /// It has an address of its own on the internet.
    pub external_ip: bool,
    /// The command that connects to its SSH server, as `ProxyCommand` of ssh_config; `None`: `ssh` connects by itself.
    pub proxy_command: Option<String>,
    /// The user's labels, at most [`value::MAX_LABELS`].
    pub labels: BTreeMap<String, String>,
    /// Name of a persistent disk that keeps images and templates between runs; `None`: they are made in each run.
    pub cache_disk: Option<String>,
    /// Compute Engine deletes it after so long, whatever happens: whole seconds, 10 minutes to 7 days.
    pub max_duration: Duration,
    /// Size of its boot disk: whole gibibytes, at least 10.
    pub disk: Option<ByteSize>,
}

impl Default for GceRunner {
    fn default() -> Self {
        Self {
            project: None,
            zones: Vec::new(),
            machine_type: None,
            spot: false,
            image: GceImage::default(),
            network: None,
            subnet: None,
            external_ip: true,
            proxy_command: None,
            labels: BTreeMap::new(),
            cache_disk: None,
            max_duration: Duration::from_secs(4 * 60 * 60),
            disk: None,
        }
    }
}

/// Values that win over those of a [`GceRunner`]; those that are `None` or empty do not. Labels are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `GceRunner`")]
pub struct GceOverrides {
    pub project: Option<String>,
    pub zones: Vec<String>,
    pub machine_type: Option<String>,
    pub spot: Option<bool>,
    pub image: Option<GceImage>,
    pub network: Option<String>,
    pub subnet: Option<String>,
    pub external_ip: Option<bool>,
    pub proxy_command: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub cache_disk: Option<String>,
    pub max_duration: Option<Duration>,
    pub disk: Option<ByteSize>,
}

impl GceRunner {
    /// The same machine, but for these values.
    ///
    /// # Errors
    ///
    /// A value, or all zones or labels together, are not what Compute Engine takes.
    pub(crate) fn with(self, overrides: GceOverrides) -> Result<Self, GceValueError> {
        let mut labels = self.labels;
        labels.extend(overrides.labels);
        let runner = Self {
            project: overrides.project.or(self.project),
            zones: if overrides.zones.is_empty() { self.zones } else { overrides.zones },
            machine_type: overrides.machine_type.or(self.machine_type),
            spot: overrides.spot.unwrap_or(self.spot),
            image: overrides.image.unwrap_or(self.image),
            network: overrides.network.or(self.network),
            subnet: overrides.subnet.or(self.subnet),
            external_ip: overrides.external_ip.unwrap_or(self.external_ip),
            proxy_command: overrides.proxy_command.or(self.proxy_command),
            labels,
            cache_disk: overrides.cache_disk.or(self.cache_disk),
            max_duration: overrides.max_duration.unwrap_or(self.max_duration),
            disk: overrides.disk.or(self.disk),
        };
        runner.check().map(|()| runner)
    }

    /// Checks what the types alone do not guarantee.
    pub(crate) fn check(&self) -> Result<(), GceValueError> {
        let Self {
            project,
            zones,
            machine_type,
            spot: _,
            // Checked as it is read.
            image: _,
            network,
            subnet,
            external_ip: _,
            proxy_command,
            labels,
            cache_disk,
            max_duration,
            disk,
        } = self;
        let texts: [(_, TextCheck); 6] = [
            (project, value::project),
            (machine_type, value::machine_type),
            (network, value::network),
            (subnet, value::subnet),
            (proxy_command, value::proxy_command),
            (cache_disk, value::cache_disk),
        ];
        for (text, check) in texts {
            text.as_deref().map(check).transpose()?;
        }
        value::check_zones(zones)?;
        value::check_label_count(labels.len())?;
        for (key, label) in labels {
            value::label_key(key)?;
            value::label_value(label)?;
        }
        value::check_max_duration(*max_duration)?;
        disk.map_or(Ok(()), value::check_disk)
    }
}

/// A family of images, of which the newest is taken; written `PROJECT/FAMILY` or `FAMILY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GceImage {
    /// The project that publishes it; `None`: the one that the machine belongs to.
    pub project: Option<String>,
    /// Its name.
    pub family: String,
}

impl Default for GceImage {
    fn default() -> Self {
        Self { project: Some("debian-cloud".to_owned()), family: "debian-13".to_owned() }
    }
}

impl fmt::Display for GceImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(project) = &self.project {
            write!(f, "{project}/")?;
        }
        f.write_str(&self.family)
    }
}

impl FromStr for GceImage {
    type Err = GceValueError;

    fn from_str(text: &str) -> Result<Self, GceValueError> {
        value::image(text).map(|(project, family)| Self { project, family })
    }
}

written_as_text!(GceImage);

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn what_is_said_later_wins_and_what_is_not_said_stays() {
        let runner = GceRunner {
            project: Some("first-project".to_owned()),
            zones: vec!["us-central1-a".to_owned()],
            spot: true,
            labels: [label("team", "a"), label("kept", "x")].into(),
            ..GceRunner::default()
        };
        assert_eq!(runner.clone().with(GceOverrides::default()).as_ref(), Ok(&runner));
        let overrides = GceOverrides {
            project: Some("second-project".to_owned()),
            spot: Some(false),
            labels: [label("team", "b")].into(),
            disk: Some(ByteSize::from_mib(20 << 10)),
            ..GceOverrides::default()
        };
        let expected = GceRunner {
            project: Some("second-project".to_owned()),
            spot: false,
            labels: [label("team", "b"), label("kept", "x")].into(),
            disk: Some(ByteSize::from_mib(20 << 10)),
            ..runner.clone()
        };
        assert_eq!(runner.with(overrides), Ok(expected));
    }

    #[test]
    fn labels_of_matrix_and_command_line_are_counted_together() {
        let labels = |of: &str| (0..30).map(|number| label(&format!("{of}{number}"), "x")).collect();
        let runner = GceRunner { labels: labels("a"), ..GceRunner::default() };
        let overrides = GceOverrides { labels: labels("b"), ..GceOverrides::default() };
        let error = runner.with(overrides).expect_err("too many");
        assert_eq!(error.to_string(), "there are 60 labels, the limit is 50");
    }
}
