//! Keys of the runner `gce` only: which machine is created on Compute Engine.

use std::{fmt::Display, ops::Range};

use crate::{
    GceRunner,
    error::Mistakes,
    file::RunnerTable,
    gce_value::{self as value, GceValueError, TextCheck},
    located::At,
};

/// Checks and returns the machine that the file describes.
pub(crate) fn check(table: &RunnerTable, mistakes: &mut Mistakes) -> GceRunner {
    let usual = GceRunner::default();
    let zones = table.zones.as_ref().map_or(&[][..], |zones| zones.get());
    let zones: Vec<String> = zones.iter().filter_map(|at| text(at, "a zone", value::zone, mistakes)).collect();
    if let (Some(at), Err(error)) = (&table.zones, value::check_zones(&zones)) {
        wrong(at.span(), "`zones` is not a list of zones to try", error, mistakes);
    }
    let labels = table.labels.as_ref().map(At::get);
    let labels = labels.into_iter().flatten().filter_map(|(key, label)| {
        let key = text(key, "the key of a label", value::label_key, mistakes);
        key.zip(text(label, "the value of a label", value::label_value, mistakes))
    });
    let labels = labels.collect();
    if let Some(at) = &table.labels
        && let Err(error) = value::check_label_count(at.get().len())
    {
        wrong(at.span(), "too many labels", error, mistakes);
    }
    let mut text_of = |at: &Option<At<String>>, what: &str, check: TextCheck| {
        at.as_ref().and_then(|at| text(at, what, check, mistakes))
    };
    GceRunner {
        project: text_of(&table.project, "the id of a project", value::project),
        machine_type: text_of(&table.machine_type, "a machine type", value::machine_type),
        network: text_of(&table.network, "a network", value::network),
        subnet: text_of(&table.subnet, "a subnet", value::subnet),
        proxy_command: text_of(&table.proxy_command, "a command for `ssh`", value::proxy_command),
        cache_disk: text_of(&table.cache_disk, "the name of a disk", value::cache_disk),
        zones,
        labels,
        spot: table.spot.as_ref().map_or(usual.spot, |at| *at.get()),
        external_ip: table.external_ip.as_ref().map_or(usual.external_ip, |at| *at.get()),
        image: table
            .image
            .as_ref()
            .and_then(|at| taken(at.text(), at.span(), "an image family", str::parse, mistakes))
            .unwrap_or(usual.image),
        max_duration: table
            .max_duration
            .as_ref()
            .and_then(|at| {
                taken(&at.get().0, at.span(), "how long an instance may live", value::max_duration, mistakes)
            })
            .unwrap_or(usual.max_duration),
        disk: table
            .disk
            .as_ref()
            .and_then(|at| taken(&at.get().0, at.span(), "the size of a boot disk", value::disk, mistakes)),
    }
}

fn text(at: &At<String>, what: &str, check: TextCheck, mistakes: &mut Mistakes) -> Option<String> {
    taken(at.text(), at.span(), what, check, mistakes)
}

fn taken<T>(
    text: &str,
    span: Range<usize>,
    what: &str,
    check: impl FnOnce(&str) -> Result<T, GceValueError>,
    mistakes: &mut Mistakes,
) -> Option<T> {
    check(text).map_err(|error| wrong(span, &format!("{text:?} is not {what}"), error, mistakes)).ok()
}

fn wrong(span: Range<usize>, message: &str, help: impl Display, mistakes: &mut Mistakes) {
    mistakes.push(mistakes.at(span, message, "invalid").with_help(help.to_string()));
}
