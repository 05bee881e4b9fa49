//! Detects static programs (elf(5)).

const PT_INTERP: u64 = 3;

/// True if this program names a loader, so it needs libraries of the system it runs on. (A static one may have a dynamic section:
/// it relocates itself.) `None`: it is not a program for a 64-bit little-endian machine.
pub(super) fn wants_loader(elf: &[u8]) -> Option<bool> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: u64, size: usize| {
        let at = usize::try_from(at).ok()?;
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    // e_phoff, e_phentsize, e_phnum; each header begins with its p_type.
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let types = (0..count).map(|index| number(table.checked_add(index * size)?, 4));
    let types = types.collect::<Option<Vec<_>>>()?;
    if types.is_empty() { None } else { Some(types.contains(&PT_INTERP)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with program headers of these types.
    fn elf(types: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[32], file[54], file[56]) = (64, 56, types.len() as u8);
        for kind in types {
            file.push(*kind);
            file.extend([0; 55]);
        }
        file
    }

    #[test]
    fn only_a_program_that_names_a_loader_wants_one() {
        let (load, dynamic, interpreter) = (1, 2, 3);
        assert_eq!(wants_loader(&elf(&[load, dynamic])), Some(false));
        assert_eq!(wants_loader(&elf(&[load, dynamic, interpreter])), Some(true));
    }

    #[test]
    fn what_cannot_be_told_is_not_taken_for_static() {
        let whole = elf(&[1, 2]);
        for bad in [&b"#!/bin/sh\n"[..], &whole[..64 + 56], &whole[..40], &elf(&[]), &[]] {
            assert_eq!(wants_loader(bad), None, "{} bytes", bad.len());
        }
    }

    #[test]
    fn we_ourselves_are_what_the_linker_was_told_to_make() {
        let us = std::fs::read(std::env::current_exe().expect("our own path")).expect("ourselves");
        assert_eq!(wants_loader(&us), Some(!cfg!(target_feature = "crt-static")));
    }
}
