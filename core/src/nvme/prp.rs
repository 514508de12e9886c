//! Where a command's data are: physical region pages (Base section 4.1.1), or
//! one SGL data block (Base section 4.1.2) where that saves the list.

use core::ptr::NonNull;

use super::identify::SglAlignment;
use super::spec::{Command, PSDT_SGL};
use crate::hal::device::{PAGE, Span};

/// Entries of a PRP list page.
const ENTRIES: usize = PAGE / 8;
const OFFSET: u64 = PAGE as u64 - 1;

/// A slot's own pages for a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub at: NonNull<u64>,
    pub device: u64,
    pub pages: usize,
}

/// Pages that a list for `bytes` needs: one entry a page besides the first,
/// and one to go on for each page of the list that is not the last.
pub(super) const fn list_pages(bytes: usize) -> usize {
    let entries = bytes.div_ceil(PAGE);
    if entries <= ENTRIES { 1 } else { (entries - 1).div_ceil(ENTRIES - 1) }
}

/// Writes `command`'s data pointer for `len` bytes (not 0) that begin at
/// `first` and go on as `span` says, given the bytes before a place.
///
/// False if they cannot be told: an address off the grid, or too many pages.
///
/// # Safety
/// `list` is the slot's own, of as many pages as it says, and no command in
/// flight uses it.
#[inline(always)]
pub(super) unsafe fn point(
    command: &mut Command,
    list: impl FnOnce() -> List,
    sgl: Option<SglAlignment>,
    first: Span,
    len: usize,
    span: impl Fn(usize) -> Span,
) -> bool {
    let room = PAGE - (first.device & OFFSET) as usize;
    if first.device & 3 == 0 {
        (command.psdt, command.data1) = (0, first.device);
        if len <= room {
            command.data2 = 0;
            return true;
        }
        if len <= room + PAGE {
            let second =
                if first.len > room { first.device + room as u64 } else { span(room).device };
            command.data2 = second;
            return second & OFFSET == 0;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { point_far(command, list(), sgl, first, len, span) }
}

/// [`point`] for what is long or off the grid.
///
/// # Safety
/// As for [`point`].
#[inline(never)]
unsafe fn point_far(
    command: &mut Command,
    list: List,
    sgl: Option<SglAlignment>,
    first: Span,
    len: usize,
    span: impl Fn(usize) -> Span,
) -> bool {
    let fits = match sgl {
        Some(SglAlignment::Byte) => true,
        Some(SglAlignment::Dword) => first.device & 3 == 0 && len.is_multiple_of(4),
        None => false,
    };
    if fits && first.len >= len {
        // An SGL data block descriptor: address, length, type 0.
        command.psdt = PSDT_SGL;
        (command.data1, command.data2) = (first.device, len as u64);
        return true;
    }
    if first.device & 3 != 0 {
        return false;
    }
    let mut done = PAGE - (first.device & OFFSET) as usize;
    let mut place = 0;
    let write = |place: usize, entry: u64| {
        // SAFETY: below the list's pages, checked where `place` is moved;
        // the slot's own (the caller's promise). Volatile: a device reads it.
        unsafe { list.at.add(place).write_volatile(entry.to_le()) };
    };
    let mut run = Span { device: first.device + done as u64, len: first.len.saturating_sub(done) };
    while done < len {
        if run.len == 0 {
            run = span(done);
        }
        if run.device & OFFSET != 0 || run.len == 0 {
            return false;
        }
        // The last entry of a page leads to the next, if there are more.
        if place % ENTRIES == ENTRIES - 1 && len - done > PAGE {
            if place + 1 >= list.pages * ENTRIES {
                return false;
            }
            write(place, list.device + (place as u64 + 1) * 8);
            place += 1;
        }
        if place >= list.pages * ENTRIES {
            return false;
        }
        write(place, run.device);
        place += 1;
        done += PAGE;
        run = Span { device: run.device + PAGE as u64, len: run.len.saturating_sub(PAGE) };
    }
    command.psdt = 0;
    (command.data1, command.data2) = (first.device, list.device);
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// The pages that a device would reach, and the bytes of each.
    fn walk(command: &Command, list: &[u64], device: u64, len: usize) -> Vec<(u64, usize)> {
        let mut out = Vec::new();
        let first = (PAGE - (command.data1 & OFFSET) as usize).min(len);
        out.push((command.data1, first));
        let mut left = len - first;
        if left == 0 {
            return out;
        }
        if left <= PAGE {
            out.push((command.data2, left));
            return out;
        }
        let mut at = ((command.data2 - device) / 8) as usize;
        while left > 0 {
            if at % ENTRIES == ENTRIES - 1 && left > PAGE {
                at = ((u64::from_le(list[at]) - device) / 8) as usize;
                continue;
            }
            let piece = left.min(PAGE);
            out.push((u64::from_le(list[at]), piece));
            (at, left) = (at + 1, left - piece);
        }
        out
    }

    fn build(start: u64, len: usize, pages: usize, contiguous: bool) -> Option<Vec<(u64, usize)>> {
        let mut memory = vec![0u64; pages * ENTRIES];
        let device = 0x7000_0000;
        let list = List { at: NonNull::new(memory.as_mut_ptr()).unwrap(), device, pages };
        let to_end = |addr: u64| PAGE - (addr & OFFSET) as usize;
        // Apart: every second page.
        let span = |skip: usize| {
            let addr = start + skip as u64;
            match contiguous {
                true => Span { device: addr, len: usize::MAX >> 1 },
                false => Span { device: (addr & !OFFSET) * 2 + (addr & OFFSET), len: to_end(addr) },
            }
        };
        let mut command = Command::default();
        // SAFETY: the list is ours.
        let told = unsafe { point(&mut command, || list, None, span(0), len, span) };
        told.then(|| walk(&command, &memory, device, len))
    }

    #[test]
    fn every_byte_is_reached_in_order() {
        for contiguous in [true, false] {
            for offset in [0, 4, 512, 4092] {
                let all = [1usize, 2, 3, 5, 513, 511, 512, 514, 1022, 1023, 1024, 1025, 1026];
                for pages in all.into_iter().take(if cfg!(miri) { 5 } else { 13 }) {
                    for cut in [0usize, 512] {
                        let start = 0x10_0000 + offset;
                        let len = pages * PAGE - cut;
                        let walked = build(start, len, 3, contiguous).expect("it fits");
                        assert_eq!(walked.iter().map(|(_, bytes)| bytes).sum::<usize>(), len);
                        let mut done = 0u64;
                        for (device, bytes) in walked {
                            let addr = start + done;
                            let page =
                                if contiguous { addr & !OFFSET } else { (addr & !OFFSET) * 2 };
                            assert_eq!(device, page + (addr & OFFSET), "{pages} pages at {offset}");
                            done += bytes as u64;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        assert_eq!(build(0x1001, 512, 1, true), None, "not a multiple of four");
        let most = ENTRIES * PAGE;
        assert!(build(0x1000, most + PAGE, 1, true).is_some());
        assert_eq!(build(0x1000, most + 2 * PAGE, 1, true), None, "more than the list holds");
    }

    #[test]
    fn lists_have_the_pages_they_need() {
        for bytes in [PAGE, 512 * PAGE, 513 * PAGE, 1023 * PAGE, 1024 * PAGE, 5000 * PAGE] {
            let pages = list_pages(bytes);
            assert!(build(0x1004, bytes, pages, true).is_some(), "{bytes}");
        }
        assert_eq!(list_pages(512 << 10), 1);
    }

    #[test]
    fn one_sgl_descriptor_for_one_piece() {
        let mut command = Command::default();
        let none = || -> List { unreachable!() };
        let span = |skip: usize| Span { device: 0x1_2341 + skip as u64, len: 1 << 20 };
        let byte = Some(SglAlignment::Byte);
        let mut list = [0u64; 1];
        let own = List { at: NonNull::from(&mut list[0]), device: 0, pages: 0 };
        // SAFETY: a list of no pages is not written.
        assert!(unsafe { point(&mut command, || own, byte, span(0), 5000, span) });
        assert_eq!((command.psdt, command.data1, command.data2), (PSDT_SGL, 0x1_2341, 5000));
        let even = |skip: usize| Span { device: 0x1_2000 + skip as u64, len: 1 << 20 };
        // SAFETY: as above.
        assert!(unsafe { point(&mut command, none, byte, even(0), 4096, even) });
        assert_eq!((command.psdt, command.data1, command.data2), (0, 0x1_2000, 0));
    }
}
