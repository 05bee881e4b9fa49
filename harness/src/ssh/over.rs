//! Finds the mark that says a command's main process is over, and takes it out of the stream.

/// Looks for one mark in a stream that comes in pieces.
#[derive(Debug)]
pub(super) struct OverMark {
    mark: Vec<u8>,
    /// The end of what came so far, as far as it could be the beginning of the mark.
    held: Vec<u8>,
    pub(super) seen: bool,
}

impl OverMark {
    pub(super) fn new(mark: Vec<u8>) -> Self {
        // An empty mark would be seen everywhere.
        Self { seen: mark.is_empty(), mark, held: Vec::new() }
    }

    /// What of the stream can be passed on now that `bytes` came.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        if self.seen {
            return all;
        }
        if let Some(at) = all.windows(self.mark.len()).position(|window| window == self.mark) {
            all.drain(at..at + self.mark.len());
            self.seen = true;
            return all;
        }
        let longest = (self.mark.len() - 1).min(all.len());
        let held = (1..=longest).rev().find(|&n| self.mark.starts_with(&all[all.len() - n..])).unwrap_or(0);
        self.held = all.split_off(all.len() - held);
        all
    }

    /// What was held back when the stream ended.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_mark_is_found_and_cut_out_however_the_stream_is_split(
            before in "[ab]{0,20}", after in "[abc]{0,20}", sizes in prop::collection::vec(1_usize..5, 1..60),
        ) {
            let stream = format!("{before}abac{after}").into_bytes();
            let (mut mark, mut out, mut rest) = (OverMark::new(b"abac".to_vec()), Vec::new(), &stream[..]);
            for size in sizes.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(size.min(rest.len()));
                out.extend(mark.pass(piece));
                rest = tail;
            }
            out.extend(mark.rest());
            prop_assert!(mark.seen);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{before}{after}"));
        }

        #[test]
        fn a_stream_without_the_mark_passes_whole(pieces in prop::collection::vec("[ab]{0,7}", 0..9)) {
            let mut mark = OverMark::new(b"abac".to_vec());
            let mut out: Vec<u8> = pieces.iter().flat_map(|piece| mark.pass(piece.as_bytes())).collect();
            out.extend(mark.rest());
            prop_assert!(!mark.seen);
            prop_assert_eq!(String::from_utf8(out).unwrap(), pieces.concat());
        }
    }
}
