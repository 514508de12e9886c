//! Entries that belong together, and what they must come to.

use std::ffi::CString;
use std::fs::File;

use annulus_linux::squeue;
use annulus_linux::types::{Iovec, Timespec};

use super::disk::Run;

/// What a group does.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Each entry ends with one of two results, and if it is a fault, that is
    /// its name.
    Ends { wanted: [[i32; 2]; 3], fault: Option<&'static str> },
    /// Reads blocks.
    Read { disk: usize, run: Run },
    /// Reads as much as can be had without waiting.
    ReadNow { disk: usize, run: Run },
    /// Reads blocks to a provided buffer.
    Select { disk: usize, run: Run },
    /// Reads blocks of a file that is closed while the read is under way, and
    /// its number taken by another.
    ReadClosed { disk: usize, run: Run },
    /// Reads a file of its own that becomes shorter meanwhile.
    ReadCut { write: u32 },
    /// Writes blocks.
    Write { disk: usize, run: Run, write: u32 },
    /// A chain that writes blocks, syncs, and reads them back.
    Chain { disk: usize, run: Run, write: u32 },
    /// A chain that opens a file into the table, reads blocks, and closes it.
    OpenRead { disk: usize, run: Run },
    /// Opens a file as a descriptor, which another group closes.
    Open,
    /// Makes a hole of blocks.
    Punch { disk: usize, run: Run },
    /// A message through a pipe: the reader, which may poll first, then the
    /// writer.
    Pipe { pipe: usize, write: u32 },
    /// Writes to a file system that gets full.
    Fill { write: u32 },
    /// Gives a buffer back to where reads choose from.
    Provide,
    /// Cancels what may be anywhere by now.
    Aim,
}

/// One entry's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Result and flags.
    pub answer: Option<(i32, u32)>,
    /// Nothing must come of it.
    pub silent: bool,
}

/// A group in flight.
#[derive(Debug)]
pub struct Group {
    pub what: What,
    /// Tells it from others that had its place.
    pub serial: u32,
    pub parts: Vec<Part>,
    /// Completions that have to come.
    pub left: usize,
    /// Buffers of the pool that it has.
    pub buffers: Vec<usize>,
    /// Where its data begins in each.
    pub skip: usize,
    pub iovecs: Vec<Iovec>,
    pub time: Timespec,
    pub path: CString,
    /// The place of the table that it opens a file into.
    pub place: Option<u32>,
    /// To be closed, or cut, once its entries are taken.
    pub file: Option<File>,
    /// A cancellation was meant for it.
    pub aimed: bool,
}

impl Group {
    /// One that does nothing yet.
    pub fn new(serial: u32) -> Box<Self> {
        let what = What::Ends { wanted: [[0; 2]; 3], fault: None };
        Box::new(Self {
            what,
            serial,
            parts: Vec::new(),
            left: 0,
            buffers: Vec::new(),
            skip: 0,
            iovecs: Vec::new(),
            time: Timespec::new(),
            path: CString::default(),
            place: None,
            file: None,
            aimed: false,
        })
    }

    /// The result of an entry that has ended; 0 for one that was to say nothing.
    pub fn result(&self, part: usize) -> i32 {
        self.parts[part].answer.map_or(0, |(result, _)| result)
    }

    /// All results.
    pub fn results(&self) -> Vec<i32> {
        (0..self.parts.len()).map(|part| self.result(part)).collect()
    }
}

/// Which group, and which of its entries, a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub slot: u16,
    pub part: u16,
    pub serial: u32,
}

impl Name {
    pub fn user_data(self) -> u64 {
        u64::from(self.slot) | u64::from(self.part) << 16 | u64::from(self.serial) << 32
    }

    pub fn of(user_data: u64) -> Self {
        Self {
            slot: user_data as u16,
            part: (user_data >> 16) as u16,
            serial: (user_data >> 32) as u32,
        }
    }
}

/// A group and its entries.
pub type Drawn = (Box<Group>, Vec<squeue::Entry>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let name = Name { slot: 0x1234, part: 2, serial: 0x89ab_cdef };
        assert_eq!(Name::of(name.user_data()), name);
    }
}
