//! What the Google Cloud CLI is set to: its environment variables win over the file of its active configuration, as they do there
//! (`gcloud topic configurations`, `gcloud topic startup`).

use std::path::{Path, PathBuf};

use configparser::ini::Ini;

/// Project, zone and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The project that is charged.
    pub(crate) project: Option<String>,
    /// The zone of whoever names none.
    pub(crate) zone: Option<String>,
    /// Where the services are.
    pub(crate) endpoints: Endpoints,
}

/// Base addresses of Google's services, each with a slash at its end. Private endpoints and other universes have others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) compute: String,
    pub(crate) org_policy: String,
    pub(crate) resource_manager: String,
    pub(crate) billing: String,
}

impl Settings {
    /// Those of this process' environment and user.
    pub(crate) fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from(&variable, &|path| std::fs::read_to_string(path).ok())
    }

    /// Pure: `variable` and `file` look things up.
    fn from(variable: &dyn Fn(&str) -> Option<String>, file: &dyn Fn(&Path) -> Option<String>) -> Self {
        let folder = variable("CLOUDSDK_CONFIG")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config/gcloud")));
        let active = || {
            let folder = folder.as_ref()?;
            let name = variable("CLOUDSDK_ACTIVE_CONFIG_NAME")
                .or_else(|| file(&folder.join("active_config")))
                .map_or_else(|| "default".to_owned(), |name| name.trim().to_owned());
            // A name with a path in it names no configuration.
            if name.contains('/') {
                return None;
            }
            let mut settings = Ini::new();
            settings.set_inline_comment_symbols(Some(&[]));
            settings.read(file(&folder.join("configurations").join(format!("config_{name}")))?).ok()?;
            Some(settings)
        };
        let configuration = active();
        let configured = |section: &str, key: &str| {
            let name = format!("CLOUDSDK_{section}_{key}").to_uppercase();
            variable(&name).or_else(|| configuration.as_ref()?.get(section, key).filter(|value| !value.is_empty()))
        };
        let endpoint = |service: &str, usual: &str| {
            let mut base = configured("api_endpoint_overrides", service).unwrap_or_else(|| usual.to_owned());
            if !base.ends_with('/') {
                base.push('/');
            }
            base
        };
        Self {
            project: configured("core", "project").or_else(|| variable("GOOGLE_CLOUD_PROJECT")),
            zone: configured("compute", "zone"),
            endpoints: Endpoints {
                compute: endpoint("compute", "https://compute.googleapis.com/compute/v1/"),
                org_policy: endpoint("orgpolicy", "https://orgpolicy.googleapis.com/"),
                resource_manager: endpoint("cloudresourcemanager", "https://cloudresourcemanager.googleapis.com/"),
                billing: endpoint("cloudbilling", "https://cloudbilling.googleapis.com/"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Settings {
        let find = |among: &[(&str, &str)], name: &str| {
            among.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::from(&|name| find(variables, name), &|path| find(files, &path.display().to_string()))
    }

    const WORK: (&str, &str) = (
        "/home/me/.config/gcloud/configurations/config_work",
        "[core]\naccount = me@example.com\nproject = from-file\n\n[compute]\nzone = us-central1-a\n\n[api_endpoint_overrides]\ncompute = https://private.example.com/compute/v1\n",
    );

    #[test]
    fn the_active_configuration_is_read_and_the_environment_wins() {
        let files = [("/home/me/.config/gcloud/active_config", "work\n"), WORK];
        let settings = read(&[("HOME", "/home/me")], &files);
        assert_eq!(settings.project.as_deref(), Some("from-file"));
        assert_eq!(settings.zone.as_deref(), Some("us-central1-a"));
        assert_eq!(settings.endpoints.compute, "https://private.example.com/compute/v1/");
        assert_eq!(settings.endpoints.org_policy, "https://orgpolicy.googleapis.com/");
        let variables = [
            ("HOME", "/home/me"),
            ("CLOUDSDK_CORE_PROJECT", "from-variable"),
            ("CLOUDSDK_COMPUTE_ZONE", "europe-west4-b"),
            ("GOOGLE_CLOUD_PROJECT", "last"),
        ];
        let settings = read(&variables, &files);
        assert_eq!(
            (settings.project.as_deref(), settings.zone.as_deref()),
            (Some("from-variable"), Some("europe-west4-b"))
        );
    }

    #[test]
    fn without_a_configuration_only_the_environment_speaks() {
        let settings = read(&[("HOME", "/home/me"), ("GOOGLE_CLOUD_PROJECT", "p")], &[WORK]);
        assert_eq!((settings.project.as_deref(), settings.zone), (Some("p"), None), "config_work is not active");
        let elsewhere = [("CLOUDSDK_CONFIG", "/c"), ("CLOUDSDK_ACTIVE_CONFIG_NAME", "ci")];
        let file = ("/c/configurations/config_ci", "[core]\nproject = ci-project\n");
        assert_eq!(read(&elsewhere, &[file]).project.as_deref(), Some("ci-project"));
        let outside = [("CLOUDSDK_CONFIG", "/c"), ("CLOUDSDK_ACTIVE_CONFIG_NAME", "../x")];
        assert_eq!(read(&outside, &[("/c/configurations/config_../x", "[core]\nproject = no\n")]).project, None);
        assert_eq!(read(&[], &[]).project, None);
    }
}
