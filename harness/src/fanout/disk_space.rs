//! Room for the disks of guests. They grow as guests write, so it is looked at for as long as guests run.

use std::path::Path;

use matrix::ByteSize;

use crate::host;

/// Less room than this and guests stop one after the other: none is started any more.
pub const LEAST_ROOM: ByteSize = ByteSize::from_mib(24);

/// Room below a folder, where there is too little for another guest. Blocks.
pub(super) fn shortage(folder: &Path) -> Option<ByteSize> {
    // Where that cannot be asked nothing is known to be short: a disk that cannot be written then says so itself.
    host::free_bytes(folder).ok().filter(|free| *free < LEAST_ROOM)
}

/// What is to be done while there is too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskShortage {
    /// What runs gives its room back when it ends.
    Wait,
    /// Nothing does: no cell that waits can ever start.
    Refuse,
}

/// Pure.
pub(super) fn while_short(running: usize) -> DiskShortage {
    if running > 0 { DiskShortage::Wait } else { DiskShortage::Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_disk_is_full_cells_wait_for_what_runs_and_for_nothing_else() {
        assert_eq!(while_short(2), DiskShortage::Wait);
        assert_eq!(while_short(0), DiskShortage::Refuse);
    }

    #[test]
    fn a_folder_with_room_is_not_short_and_one_that_is_not_there_is_not_said_to_be() {
        assert_eq!(shortage(&std::env::temp_dir()), None);
        assert_eq!(shortage(Path::new("/does/not/exist")), None);
    }
}
