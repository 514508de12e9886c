//! The tables of registered files and buffers, as the application knows them.

use super::super::action::{OPEN_FILES, Register};
use super::Model;

const EBUSY: i32 = -16;
const EINVAL: i32 = -22;
const EBADF: i32 = -9;
const ENXIO: i32 = -6;
const EMFILE: i32 = -24;
const ENOMEM: i32 = -12;

/// A table: places, some with a handle.
#[derive(Debug, Default)]
pub struct Table {
    places: Vec<Option<u32>>,
}

impl Table {
    const fn new() -> Self {
        Self { places: Vec::new() }
    }

    pub fn get(&self, place: u8) -> Option<u32> {
        self.places.get(usize::from(place)).copied().flatten()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }
}

/// Both.
#[derive(Debug, Default)]
pub struct Tables {
    pub files: Table,
    pub buffers: Table,
}

impl Tables {
    pub const fn new() -> Self {
        Self { files: Table::new(), buffers: Table::new() }
    }

    pub fn reset(&mut self) {
        self.files.places.clear();
        self.buffers.places.clear();
    }
}

impl Model {
    /// What a call must answer, and what it changes; the handles that it has
    /// made are in `made`.
    pub fn registered(&mut self, call: Register, answer: i32) {
        let made = core::mem::take(&mut self.made);
        let want = self.expect(call, &made);
        if want != answer {
            self.fail(format!("{call:?} answers {answer}, {want} is right"));
        }
        self.made = made;
        self.made.clear();
    }

    fn expect(&mut self, call: Register, made: &[u32]) -> i32 {
        let (files, buffers) = (self.setup.files as usize, self.setup.buffers as usize);
        match call {
            Register::Ring { .. } | Register::NoRing { .. } | Register::Head { .. } => {
                self.ring_call(call)
            }
            Register::Files { count, mask } => {
                fill(&mut self.tables.files, count, mask, files, EMFILE, made)
            }
            Register::Buffers { count, mask } => {
                fill(&mut self.tables.buffers, count, mask, buffers, ENOMEM, made)
            }
            Register::NoFiles => empty(&mut self.tables.files),
            Register::NoBuffers => empty(&mut self.tables.buffers),
            Register::UpdateFile { place, file } => {
                let bad = file >= 0 && file as u8 >= OPEN_FILES;
                let table = &mut self.tables.files;
                let answer = room(table, place);
                if answer != 1 || file == -2 {
                    return answer;
                }
                table.places[usize::from(place)] = made.first().copied();
                if bad { EBADF } else { 1 }
            }
            Register::UpdateBuffer { place, .. } => {
                let table = &mut self.tables.buffers;
                let answer = room(table, place);
                if answer == 1 {
                    table.places[usize::from(place)] = made.first().copied();
                }
                answer
            }
        }
    }
}

/// A table is registered: one place for each, those of the mask filled.
fn fill(table: &mut Table, count: u8, mask: u8, most: usize, many: i32, made: &[u32]) -> i32 {
    if !table.places.is_empty() {
        return EBUSY;
    }
    if count == 0 {
        return EINVAL;
    }
    if usize::from(count) > most {
        return many;
    }
    let mut made = made.iter();
    for place in 0..count {
        let full = mask >> (place % 8) & 1 != 0;
        table.places.push(if full { made.next().copied() } else { None });
    }
    0
}

fn empty(table: &mut Table) -> i32 {
    if table.places.is_empty() {
        return ENXIO;
    }
    table.places.clear();
    0
}

/// What an update of one place answers.
fn room(table: &Table, place: u8) -> i32 {
    match table.len() {
        0 => ENXIO,
        len if usize::from(place) >= len => EINVAL,
        _ => 1,
    }
}
