//! What the control groups of this process leave it of the machine: containers, CI jobs and services live in one.
//!
//! A limit holds for a group and all groups below it together, so every group on the way up counts. Version 1 and version 2 are read, side
//! by side where both are mounted; everything through a root folder, so that it is a function of files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use matrix::ByteSize;
use procfs::process::MountInfo;

/// The limit on memory that leaves the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The group's folder.
    pub group: PathBuf,
    /// The limit.
    pub limit: ByteSize,
    /// What is left of it: file cache that the kernel can drop counts as free.
    pub left: ByteSize,
}

/// Limits at least this large are none: version 1 writes the largest number it has, rounded to pages.
const NO_LIMIT: u64 = 1 << 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The limit on this process's memory that leaves the least, if there is one.
pub(super) fn memory(root: &Path) -> Option<MemoryLimit> {
    let groups = [Version::One, Version::Two].into_iter().flat_map(|version| {
        groups(root, version, "memory").into_iter().filter_map(move |group| memory_of(root, &group, version))
    });
    groups.min_by_key(|limit| limit.left)
}

/// How many CPUs' time this process may use, where a group limits that; may be a part of one.
pub(super) fn cpus(root: &Path) -> Option<f64> {
    let groups = [Version::One, Version::Two]
        .into_iter()
        .flat_map(|version| groups(root, version, "cpu").into_iter().filter_map(move |group| cpus_of(&group, version)));
    groups.min_by(f64::total_cmp)
}

/// The folders of this process's group and of those above it, as far as they can be seen from here.
fn groups(root: &Path, version: Version, controller: &str) -> Vec<PathBuf> {
    let found = mount(root, version, controller).zip(own_path(root, version, controller));
    let Some((Mount { shown, at }, own)) = found else { return Vec::new() };
    // In a namespace the path may lie outside of what is mounted: then the mounted group is the one that is known.
    let below = Path::new(&own).strip_prefix(&shown).unwrap_or(Path::new(""));
    let below: PathBuf = below.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    below.ancestors().map(|folder| at.join(folder)).collect()
}

/// A mounted hierarchy.
struct Mount {
    /// The group that is at the mount point.
    shown: PathBuf,
    at: PathBuf,
}

/// As `/proc/self/mountinfo` has it. Read line by line: one that is not understood hides no other.
fn mount(root: &Path, version: Version, controller: &str) -> Option<Mount> {
    let text = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mut mounts = text.lines().filter_map(|line| MountInfo::from_line(line).ok());
    let mount = mounts.find(|mount| match version {
        Version::One => mount.fs_type == "cgroup" && mount.super_options.contains_key(controller),
        Version::Two => mount.fs_type == "cgroup2",
    })?;
    let point = unescaped(mount.mount_point.to_str()?);
    Some(Mount { shown: unescaped(&mount.root).into(), at: root.join(point.trim_start_matches('/')) })
}

/// The kernel writes blanks in paths as octal numbers.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (code, character)| path.replace(code, character))
}

/// `/proc/self/cgroup`: `NUMBER:CONTROLLERS:PATH`; version 2 has the number 0 and no controllers.
fn own_path(root: &Path, version: Version, controller: &str) -> Option<String> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match version {
            Version::One => controllers.split(',').any(|name| name == controller),
            Version::Two => number == "0" && controllers.is_empty(),
        };
        fits.then(|| path.to_owned())
    })
}

fn memory_of(root: &Path, group: &Path, version: Version) -> Option<MemoryLimit> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limits, current, cache): (&[&str], _, &[&str]) = match version {
        // Above `memory.high` a group is throttled until it stands still.
        Version::Two => {
            (&["memory.max", "memory.high"], "memory.current", &["inactive_file", "active_file", "slab_reclaimable"])
        }
        Version::One => {
            (&["memory.limit_in_bytes"], "memory.usage_in_bytes", &["total_inactive_file", "total_active_file"])
        }
    };
    // `max` is no number.
    let limit = limits.iter().filter_map(|name| number(name)).filter(|limit| *limit < NO_LIMIT).min()?;
    let stat = read("memory.stat").unwrap_or_default();
    let counted = |name: &&str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // What is not listed cannot be dropped, as far as is known.
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let cache = cache.iter().map(counted).fold(0, u64::saturating_add);
    // A group whose use cannot be read is taken for full.
    let used = number(current).unwrap_or(u64::MAX).saturating_sub(cache);
    Some(MemoryLimit {
        group: Path::new("/").join(group.strip_prefix(root).unwrap_or(group)),
        limit: ByteSize::from_bytes(limit),
        left: ByteSize::from_bytes(limit.saturating_sub(used)),
    })
}

fn cpus_of(group: &Path, version: Version) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match version {
        Version::Two => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        Version::One => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // `max` and -1: none.
    let (quota, period) = (quota.trim().parse::<u32>().ok()?, period.trim().parse::<u32>().ok()?);
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A made-up machine.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(cgroup: &str, mountinfo: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.write("proc/self/cgroup", cgroup).write("proc/self/mountinfo", mountinfo);
            tree
        }

        fn write(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn two(own: &str) -> Self {
            Self::new(
                &format!("0::{own}\n"),
                "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            )
        }

        /// Group, limit and what is left of it, in MiB.
        fn memory(&self) -> Option<(String, u64, u64)> {
            memory(self.0.path()).map(|found| (found.group.display().to_string(), found.limit.mib(), found.left.mib()))
        }
    }

    #[test]
    fn a_machine_without_limits_has_none() {
        let tree = Tree::two("/user.slice");
        assert_eq!(tree.memory(), None);
        tree.write("sys/fs/cgroup/user.slice/memory.max", "max\n")
            .write("sys/fs/cgroup/user.slice/memory.current", "4096\n");
        assert_eq!(tree.memory(), None);
        assert_eq!(Tree::new("", "").memory(), None);
        assert_eq!(memory(Path::new("/does/not/exist")), None);
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts_and_cache_can_be_dropped() {
        let tree = Tree::two("/ci.slice/job.scope");
        tree.write("sys/fs/cgroup/ci.slice/memory.max", &(4 * GIB).to_string())
            .write("sys/fs/cgroup/ci.slice/memory.high", "max\n")
            .write("sys/fs/cgroup/ci.slice/memory.current", &(2 * GIB).to_string())
            .write(
                "sys/fs/cgroup/ci.slice/memory.stat",
                &format!(
                    "anon {}\nfile {GIB}\ninactive_file {}\nactive_file {}\nshmem 9\nslab_reclaimable 0\n",
                    GIB,
                    GIB / 2,
                    GIB / 4
                ),
            )
            .write("sys/fs/cgroup/ci.slice/job.scope/memory.max", &(8 * GIB).to_string())
            .write("sys/fs/cgroup/ci.slice/job.scope/memory.current", "0\n");
        assert_eq!(tree.memory(), Some(("/sys/fs/cgroup/ci.slice".into(), 4096, 4096 - 2048 + 768)));
    }

    #[test]
    fn where_a_group_is_throttled_is_a_limit_too() {
        let tree = Tree::two("/a");
        tree.write("sys/fs/cgroup/a/memory.max", "max")
            .write("sys/fs/cgroup/a/memory.high", &(3 * GIB).to_string())
            .write("sys/fs/cgroup/a/memory.current", &GIB.to_string());
        assert_eq!(tree.memory(), Some(("/sys/fs/cgroup/a".into(), 3072, 2048)));
    }

    #[test]
    fn a_group_that_is_over_its_limit_or_does_not_say_what_it_uses_has_nothing_left() {
        let tree = Tree::two("/a");
        tree.write("sys/fs/cgroup/a/memory.max", &GIB.to_string());
        assert_eq!(tree.memory(), Some(("/sys/fs/cgroup/a".into(), 1024, 0)));
        tree.write("sys/fs/cgroup/a/memory.current", &(2 * GIB).to_string());
        assert_eq!(tree.memory(), Some(("/sys/fs/cgroup/a".into(), 1024, 0)));
    }

    #[test]
    fn in_a_container_the_mounted_group_is_the_containers() {
        // Without a namespace of its own: the path is the host's, what is mounted is the container's group.
        let mounted = "900 899 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        for own in ["0::/docker/abc\n", "0::/\n", "0::/../other\n"] {
            let tree = Tree::new(own, mounted);
            tree.write("sys/fs/cgroup/memory.max", &(4 * GIB).to_string())
                .write("sys/fs/cgroup/memory.current", &GIB.to_string());
            assert_eq!(tree.memory(), Some(("/sys/fs/cgroup".into(), 4096, 3072)), "{own}");
        }
    }

    #[test]
    fn version_1_is_read_where_it_is_mounted_and_its_largest_number_is_no_limit() {
        let tree = Tree::new(
            "9:memory:/jobs/7\n1:cpu,cpuacct:/jobs/7\n0::/\n",
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
            .write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
        assert_eq!(tree.memory(), None);
        tree.write("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", &(4 * GIB).to_string())
            .write("sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", &(2 * GIB).to_string())
            .write(
                "sys/fs/cgroup/memory/jobs/7/memory.stat",
                &format!("inactive_file 5\ntotal_inactive_file {GIB}\ntotal_active_file 0\n"),
            );
        assert_eq!(tree.memory(), Some(("/sys/fs/cgroup/memory/jobs/7".into(), 4096, 3072)));
        assert_eq!(cpus(tree.0.path()), None);
        tree.write("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "150000\n")
            .write("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n")
            .write("sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us", "-1\n")
            .write("sys/fs/cgroup/cpu/jobs/7/cpu.cfs_period_us", "100000\n");
        assert_eq!(cpus(tree.0.path()), Some(1.5));
    }

    #[test]
    fn a_part_of_a_cpu_is_a_part_of_a_cpu() {
        let tree = Tree::two("/a/b");
        tree.write("sys/fs/cgroup/a/cpu.max", "50000 100000\n").write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(cpus(tree.0.path()), Some(0.5));
    }

    #[test]
    fn a_path_with_blanks_is_found() {
        let tree = Tree::new("0::/a b\n", "30 23 0:26 / /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw\n");
        tree.write("sys/fs/my groups/a b/memory.max", &GIB.to_string())
            .write("sys/fs/my groups/a b/memory.current", "0");
        assert_eq!(tree.memory(), Some(("/sys/fs/my groups/a b".into(), 1024, 1024)));
    }
}
