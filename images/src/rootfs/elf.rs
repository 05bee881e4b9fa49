//! Reads ELF files: the architecture, and the needed libraries.

use matrix::Arch;

/// The architecture; `None`: it is not an ELF file, or for another one.
pub(super) fn arch(head: &[u8]) -> Option<Arch> {
    if head.get(..4)? != b"\x7fELF" {
        return None;
    }
    // elf.h: EM_X86_64, EM_AARCH64.
    match number(head, 18, 2)? {
        62 => Some(Arch::X86_64),
        183 => Some(Arch::Aarch64),
        _ => None,
    }
}

/// Names of the libraries that a 64-bit program or library needs; `None`: it cannot be read.
pub(super) fn needed(file: &[u8]) -> Option<Vec<String>> {
    const SHT_DYNAMIC: u64 = 6;
    const DT_NEEDED: u64 = 1;
    if file.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (sections, size, count) = (number(file, 0x28, 8)?, number(file, 0x3a, 2)?, number(file, 0x3c, 2)?);
    let section = |index: u64| sections.checked_add(index.checked_mul(size)?);
    let mut names = Vec::new();
    for index in 0..count {
        // Each is read whole: 64 bytes.
        let header = bytes_at(file, section(index)?, 64)?;
        if number(header, 4, 4)? != SHT_DYNAMIC {
            continue;
        }
        let (offset, bytes) = (number(header, 0x18, 8)?, number(header, 0x20, 8)?);
        let strings = number(bytes_at(file, section(number(header, 0x28, 4)?)?, 64)?, 0x18, 8)?;
        for entry in (offset..offset.checked_add(bytes)?).step_by(16) {
            let entry = bytes_at(file, entry, 16)?;
            if number(entry, 0, 8)? == DT_NEEDED {
                let name = file.get(usize::try_from(strings.checked_add(number(entry, 8, 8)?)?).ok()?..)?;
                let name = name.split(|byte| *byte == 0).next()?;
                names.push(str::from_utf8(name).ok()?.to_owned());
            }
        }
    }
    Some(names)
}

/// A little-endian number: all supported architectures are little-endian.
fn number(file: &[u8], at: u64, bytes: usize) -> Option<u64> {
    Some(bytes_at(file, at, bytes)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn bytes_at(file: &[u8], at: u64, bytes: usize) -> Option<&[u8]> {
    let at = usize::try_from(at).ok()?;
    file.get(at..at.checked_add(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_is_for_its_cpu_and_needs_the_c_library() {
        let shell = std::fs::read("/bin/sh").expect("every machine has one");
        assert_eq!(arch(&shell), Some(Arch::here()));
        let needed = needed(&shell).expect("it is a program");
        assert!(needed.iter().any(|name| name.starts_with("libc.")), "{needed:?}");
    }

    #[test]
    fn what_is_no_program_needs_nothing() {
        assert_eq!((arch(b"#!/bin/sh"), arch(b"")), (None, None));
        assert_eq!(needed(b"#!/bin/sh"), None);
        assert_eq!(needed(&[b"\x7fELF\x02".as_slice(), &[0xff; 100]].concat()), None);
    }
}
