//! What is to be said where a guest's disk is not as large as the matrix says. Pure.

use matrix::{ByteSize, Guest};

/// Of guests whose root file system is much smaller than the disk that the matrix asks for. Partitions beside it, and what a file system
/// keeps for itself, take less than a quarter.
pub(super) fn small_root(image: &str, bytes: u64, asked: ByteSize) -> Option<String> {
    let root = ByteSize::from_mib(bytes >> 20);
    (root.bytes() < asked.bytes() / 4 * 3).then(|| {
        format!(
            "guests of {image} have a root file system of {root} on a disk of {asked}: the image does not grow it when it boots; add \
             growpart (package cloud-guest-utils or cloud-utils-growpart) to the image, or leave `guest.disk` out"
        )
    })
}

/// Of guests whose disk is larger than what the matrix asks for, because their image's is.
pub(super) fn larger(image: &str, bytes: ByteSize, asked: ByteSize) -> Option<String> {
    // Who says nothing of it wants what there is.
    (asked < bytes && asked != Guest::DEFAULT_DISK)
        .then(|| format!("guests of {image} have disks of {bytes}, not {asked}: their image's disk has that size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn gib(gib: u64) -> ByteSize {
        ByteSize::from_mib(gib << 10)
    }

    #[test]
    fn a_root_file_system_that_does_not_fill_its_disk_is_told_with_both_sizes() {
        let said = |kib: u64, asked: u64| small_root("own", kib << 10, gib(asked));
        insta::assert_snapshot!(said(1_534_908, 8).unwrap(), @"guests of own have a root file system of 1498MiB on a disk of 8GiB: the image does not grow it when it boots; add growpart (package cloud-guest-utils or cloud-utils-growpart) to the image, or leave `guest.disk` out");
        assert_eq!(said(8_154_000, 8), None, "what ext4 keeps for itself");
        assert_eq!(said(3_948_000, 4), None);
        assert_eq!(said(9_400_000, 4), None, "the image's own disk is larger than what was asked for");
    }

    #[test]
    fn a_disk_that_is_larger_than_what_was_asked_for_is_told_with_both_sizes() {
        insta::assert_snapshot!(larger("own", gib(10), gib(5)).unwrap(), @"guests of own have disks of 10GiB, not 5GiB: their image's disk has that size");
        assert_eq!(larger("own", gib(2), gib(5)), None, "it grows");
        assert_eq!(larger("own", gib(10), Guest::DEFAULT_DISK), None, "nobody said how large it should be");
    }
}
