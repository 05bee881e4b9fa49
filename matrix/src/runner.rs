//! `[runner]`: which keys belong to which kind, and their values.

use std::ops::{Range, RangeInclusive};

use crate::{
    Runner, RunnerKind,
    error::Mistakes,
    file::RunnerTable,
    gce_runner,
    located::At,
    quantity::{DISK_RANGE, MEMORY_RANGE, count, size_at, words},
    ssh_runner, text,
};

const RETRIES: u32 = 2;
const CPU_RANGE: RangeInclusive<u32> = 1..=4096;
const RETRY_RANGE: RangeInclusive<u32> = 0..=10;

/// The runner of the file; that its image is in the catalog is checked elsewhere.
pub(crate) fn check(table: &RunnerTable, mistakes: &mut Mistakes) -> Runner {
    let kind = kind(table);
    check_keys(table, kind, mistakes);
    if let Some(at) = &table.identity {
        text::check_no_nul(at, mistakes);
    }
    if let Some(at) = &table.kernel_args {
        text::check_no_nul(at, mistakes);
    }
    let gce = (kind == RunnerKind::Gce).then(|| gce_runner::check(table, mistakes));
    // Both keys mean something else on Compute Engine.
    let (image, disk) = match gce {
        Some(_) => (None, None),
        None => (table.image.as_ref(), table.disk.as_ref()),
    };
    Runner {
        kind,
        host: (kind == RunnerKind::Ssh).then(|| ssh_runner::check(table, mistakes)).flatten(),
        identity: table.identity.as_ref().map(|file| file.text().into()),
        memory: table.memory.as_ref().and_then(|memory| size_at(memory, MEMORY_RANGE, mistakes)),
        cpus: table.cpus.as_ref().and_then(|cpus| count(cpus, CPU_RANGE, mistakes)),
        retries: table.retries.as_ref().and_then(|retries| count(retries, RETRY_RANGE, mistakes)).unwrap_or(RETRIES),
        image: image.map(|image| image.text().to_owned()),
        kernel_args: words(table.kernel_args.as_ref()),
        disk: disk.and_then(|disk| size_at(disk, DISK_RANGE, mistakes)),
        gce,
    }
}

/// The kind that the file names.
pub(crate) fn kind(table: &RunnerTable) -> RunnerKind {
    table.kind.as_ref().map(|kind| *kind.get()).unwrap_or_default()
}

/// Refuses keys that have no effect with this kind.
fn check_keys(table: &RunnerTable, kind: RunnerKind, mistakes: &mut Mistakes) {
    fn span<T>(at: &Option<At<T>>) -> Option<Range<usize>> {
        at.as_ref().map(At::span)
    }
    let ssh: &[RunnerKind] = &[RunnerKind::Ssh];
    let gce: &[RunnerKind] = &[RunnerKind::Gce];
    // `auto` and `host` accept what belongs to an L1, because the command line may say `qemu`.
    let l1: &[RunnerKind] = &[RunnerKind::Auto, RunnerKind::Host, RunnerKind::Qemu];
    let l1_or_gce: &[RunnerKind] = &[RunnerKind::Auto, RunnerKind::Host, RunnerKind::Qemu, RunnerKind::Gce];
    let keys = [
        ("host", span(&table.host), ssh),
        ("identity", span(&table.identity), ssh),
        ("kernel_args", span(&table.kernel_args), l1),
        ("image", span(&table.image), l1_or_gce),
        ("disk", span(&table.disk), l1_or_gce),
        ("project", span(&table.project), gce),
        ("zones", span(&table.zones), gce),
        ("machine_type", span(&table.machine_type), gce),
        ("spot", span(&table.spot), gce),
        ("network", span(&table.network), gce),
        ("subnet", span(&table.subnet), gce),
        ("external_ip", span(&table.external_ip), gce),
        ("proxy_command", span(&table.proxy_command), gce),
        ("labels", span(&table.labels), gce),
        ("cache_disk", span(&table.cache_disk), gce),
        ("max_duration", span(&table.max_duration), gce),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&kind)) else { continue };
        let (runners, help) = match kinds {
            [RunnerKind::Ssh] => ("`ssh`", format!("write `kind = \"ssh\"`, or remove `{key}`")),
            [RunnerKind::Gce] => ("`gce`", format!("write `kind = \"gce\"`, or remove `{key}`")),
            [.., RunnerKind::Gce] => ("`qemu` or `gce`", "remove it".to_owned()),
            _ => ("`qemu`", "remove it".to_owned()),
        };
        let message = format!("`{key}` applies to the runner {runners} only");
        mistakes.push(mistakes.at(span, message, "no effect").with_help(help));
    }
}
