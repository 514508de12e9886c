//! Draws registrations of files and buffers, and what can be wrong with them.

use super::generate::Draft;
use super::memory::ARENA;
use super::program::{Buf, Fd, Mem, Slot, Step};
use super::rng::Rng;
use super::world::NEVER_OPEN;

/// A descriptor, mostly one that can be registered.
pub fn file(rng: &mut Rng) -> Fd {
    use Slot::*;
    match rng.below(100) {
        0..88 => Fd::Slot(*rng.pick(&[
            A, A, A2, ARead, AWrite, B, BAppend, CDirect, C, Null, Zero, PipeR, PipeW, QuietR,
            QuietW,
        ])),
        88..95 => Fd::Raw(-1),
        95 => Fd::Raw(NEVER_OPEN),
        96 => Fd::Raw(-3),
        97 => Fd::Slot(Spare),
        _ => Fd::Slot(*rng.pick(&[Dir, Full, TinyR, TinyW])),
    }
}

/// A step about registered files, with the SQ emptied before.
pub fn files(draft: &mut Draft) {
    draft.add(Step::Drain);
    let rng = &mut draft.rng;
    let some = |rng: &mut Rng, most| (0..rng.range(1, most)).map(|_| file(rng)).collect::<Vec<_>>();
    let step = match (&draft.model.files, rng.below(100)) {
        (None, 0..70) | (Some(_), 0..6) => Step::Files(some(rng, 8)),
        (None, 70..90) => Step::FilesSparse(rng.below(6) as u32),
        (Some(table), 6..80) => {
            let len = table.len() as u64;
            let off = if rng.chance(90) { rng.below(len) } else { len };
            let most = if rng.chance(85) { len.saturating_sub(off).max(1) } else { 9 };
            let mut fds = some(rng, most);
            if rng.chance(10) {
                fds[0] = Fd::Raw(-2);
            }
            if rng.chance(3) {
                fds.clear();
            }
            Step::FilesUpdate(off as u32, fds)
        }
        (None, 90..93) => Step::Files(Vec::new()),
        (None, 93..96) => Step::FilesUpdate(0, some(rng, 3)),
        (Some(_), 80..84) => Step::FilesSparse(3),
        _ => Step::FilesEnd,
    };
    draft.add(step);
}

fn buffer(rng: &mut Rng) -> Buf {
    match rng.below(100) {
        0..87 => {
            let len = *rng.pick(&[1, 100, 512, 4096, 4097, 8192, 20_000]);
            let at = rng.below(u64::from(ARENA) - len + 1) as u32;
            Buf { at: Mem::Arena(if rng.chance(40) { at & !511 } else { at }), len }
        }
        87..93 => Buf::EMPTY,
        93 => Buf { at: Mem::Arena(ARENA - 100), len: 101 },
        94 => Buf { at: Mem::Arena(0), len: 0 },
        95 => Buf { at: Mem::Null, len: 100 },
        96 => Buf { at: Mem::Unmapped, len: 10 },
        97 => Buf { at: Mem::Arena(0), len: (1 << 30) + 1 },
        98 => Buf { at: Mem::Kernel, len: 10 },
        _ => Buf { at: Mem::Arena(0), len: (1 << 31) + u64::from(rng.chance(50)) },
    }
}

/// A step about registered buffers, with the SQ emptied before.
pub fn buffers(draft: &mut Draft) {
    draft.add(Step::Drain);
    let rng = &mut draft.rng;
    let some =
        |rng: &mut Rng, most| (0..rng.range(1, most)).map(|_| buffer(rng)).collect::<Vec<_>>();
    let step = match (&draft.model.buffers, rng.below(100)) {
        (None, 0..75) | (Some(_), 0..6) => Step::Buffers(some(rng, 5)),
        (None, 75..90) => Step::BuffersSparse(rng.below(6) as u32),
        (Some(table), 6..80) => {
            let len = table.len() as u64;
            let off = if rng.chance(90) { rng.below(len) } else { len };
            let most = if rng.chance(85) { len.saturating_sub(off).max(1) } else { 7 };
            let mut bufs = some(rng, most);
            if rng.chance(3) {
                bufs.clear();
            }
            Step::BuffersUpdate(off as u32, bufs)
        }
        (None, 90..93) => Step::Buffers(Vec::new()),
        (None, 93..96) => Step::BuffersUpdate(0, some(rng, 3)),
        (Some(_), 80..84) => Step::BuffersSparse(3),
        _ => Step::BuffersEnd,
    };
    draft.add(step);
}
