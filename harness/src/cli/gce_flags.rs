//! Options of `run` for the runner `gce`.

use clap::Args as Arguments;
use matrix::{ByteSize, GceImage, GceOverrides, gce_value};

/// Which machine is created on Compute Engine; each wins over the key of the same name in the matrix.
#[derive(Debug, Default, Arguments)]
#[command(next_help_heading = "Compute Engine")]
pub(super) struct GceFlags {
    /// Id of the project that the instance belongs to [default: what the matrix says, else that of the credentials].
    #[arg(long = "gce-project", value_name = "ID", value_parser = gce_value::project)]
    project: Option<String>,
    /// A zone to create the instance in; several are tried in this order.
    #[arg(long = "gce-zone", value_name = "ZONE", value_delimiter = ',', value_parser = gce_value::zone)]
    zones: Vec<String>,
    /// Its machine type, such as `n2-standard-8`; its series must have nested virtualization.
    #[arg(long = "gce-machine-type", value_name = "TYPE", value_parser = gce_value::machine_type)]
    machine_type: Option<String>,
    /// Size of its boot disk, such as `64GiB`.
    #[arg(long = "gce-disk", value_name = "SIZE", value_parser = gce_value::disk)]
    disk: Option<ByteSize>,
    /// Create a Spot VM, which is cheaper and may be taken back at any time.
    #[arg(long = "gce-spot", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    spot: Option<bool>,
    /// Image family of its boot disk, `FAMILY` or `PROJECT/FAMILY` [default: what the matrix says, else `debian-cloud/debian-13`].
    #[arg(long = "gce-image", value_name = "FAMILY")]
    image: Option<GceImage>,
    /// Its network: a name, or `projects/P/global/networks/N`.
    #[arg(long = "gce-network", value_name = "NETWORK", value_parser = gce_value::network)]
    network: Option<String>,
    /// Its subnet: a name, or `projects/P/regions/R/subnetworks/S`.
    #[arg(long = "gce-subnet", value_name = "SUBNET", value_parser = gce_value::subnet)]
    subnet: Option<String>,
    /// It has an address of its own on the internet [default: what the matrix says, else true].
    #[arg(long = "gce-external-ip", value_name = "BOOL")]
    external_ip: Option<bool>,
    /// The command that connects to its SSH server, as `ProxyCommand` of ssh_config.
    #[arg(long = "gce-proxy-command", value_name = "COMMAND", value_parser = gce_value::proxy_command)]
    proxy_command: Option<String>,
    /// A label of the instance, added to those of the matrix; may be given several times.
    #[arg(long = "gce-label", value_name = "KEY=VALUE", value_parser = gce_value::label)]
    labels: Vec<(String, String)>,
    /// Name of a persistent disk that keeps images and templates between runs.
    #[arg(long = "gce-cache-disk", value_name = "NAME", value_parser = gce_value::cache_disk)]
    cache_disk: Option<String>,
    /// Compute Engine deletes the instance after so long, whatever happens: `10m` to `7d` [default: what the matrix says, else 4h].
    #[arg(long = "gce-max-duration", value_name = "TIME", value_parser = gce_value::max_duration)]
    max_duration: Option<std::time::Duration>,
}

impl GceFlags {
    /// What they change of the matrix's machine.
    pub(super) fn overrides(self) -> GceOverrides {
        GceOverrides {
            project: self.project,
            zones: self.zones,
            machine_type: self.machine_type,
            spot: self.spot,
            image: self.image,
            network: self.network,
            subnet: self.subnet,
            external_ip: self.external_ip,
            proxy_command: self.proxy_command,
            labels: self.labels.into_iter().collect(),
            cache_disk: self.cache_disk,
            max_duration: self.max_duration,
            disk: self.disk,
        }
    }
}
