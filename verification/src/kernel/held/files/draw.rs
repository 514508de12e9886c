//! Draws them, and gives each chain its files.

use annulus::uapi;

use super::super::super::rng::Rng;
use super::super::program::{Sqe, What};
use super::{FileOp, How, MOST, Name, On, With};

/// Who owns which files.
pub struct Owners {
    /// Chains that have some.
    count: u8,
    /// Only the first chain uses places, of which it may have whatever is free:
    /// which that is would depend on all others.
    alloc: bool,
}

impl Owners {
    /// Nobody has any.
    pub fn new(alloc: bool) -> Self {
        Self { count: 0, alloc }
    }

    /// Gives each chain of these SQEs files of its own. A batch that ends after
    /// `end` of them ends a chain.
    pub fn assign(&mut self, sqes: &mut [Sqe], end: usize) {
        let mut own = None;
        for (n, sqe) in sqes.iter_mut().enumerate() {
            if n == end {
                own = None;
            }
            if let What::Files { of, op } = &mut sqe.what {
                if own.is_none() && self.count < MOST {
                    own = Some(self.count);
                    self.count += 1;
                }
                match own {
                    Some(own) => {
                        *of = own;
                        if let Some(on) = op.on() {
                            *on = self.may(own, *on);
                        }
                    }
                    None => sqe.what = What::Nop(0),
                }
            }
            if !sqe.linked() {
                own = None;
            }
        }
    }

    fn may(&self, own: u8, on: On) -> On {
        match on {
            On::Alloc if !self.alloc => On::Place,
            On::Alloc | On::Place if self.alloc && own != 0 => On::Number,
            other => other,
        }
    }
}

impl FileOp {
    /// One of all there are.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.weighted(&[20, 10, 8, 6, 6, 8, 9, 11, 30]) {
            0 => Self::open(rng),
            1 => FileOp::Close {
                on: *rng.pick(&[On::Number, On::Place, On::Place, On::None, On::Beyond, On::Both]),
            },
            2 => {
                let modes = [
                    0,
                    0,
                    uapi::FALLOC_FL_KEEP_SIZE,
                    uapi::FALLOC_FL_PUNCH_HOLE | uapi::FALLOC_FL_KEEP_SIZE,
                    uapi::FALLOC_FL_PUNCH_HOLE,
                ];
                FileOp::Allocate {
                    on: Self::file(rng),
                    mode: *rng.pick(&modes),
                    off: *rng.pick(&[0, 100, 900, 2000, u64::MAX]),
                    len: *rng.pick(&[8, 100, 3000, 0]),
                }
            }
            3 => FileOp::Advise {
                on: Self::file(rng),
                advice: rng.below(8) as u32,
                off: *rng.pick(&[0, 100, u64::MAX]),
                len: *rng.pick(&[0, 8, 4096]),
            },
            4 => FileOp::SyncRange {
                on: Self::file(rng),
                flags: rng.below(9) as u32,
                off: *rng.pick(&[0, 100, u64::MAX]),
                len: *rng.pick(&[0, 8, 4096]),
            },
            5 => FileOp::Sync { on: Self::file(rng), flags: *rng.pick(&[0, 1, 1, 2]) },
            6 => {
                let masks = [libc::STATX_BASIC_STATS, libc::STATX_SIZE, 1 << 31];
                FileOp::Attributes { name: Self::name(rng), mask: *rng.pick(&masks) }
            }
            7 => {
                use With::{Empty, None, Nowhere, Number, Skip};
                FileOp::Update {
                    to: *rng.pick(&[On::Place, On::Place, On::Place, On::Alloc, On::Beyond]),
                    with: *rng.pick(&[Number, Number, Number, Empty, Skip, None, Nowhere]),
                }
            }
            _ => FileOp::Transfer {
                on: Self::file(rng),
                how: *rng.pick(&[How::Flat, How::Vector, How::Fixed]),
                write: rng.chance(45),
                off: *rng.pick(&[0, 0, 100, 1010, 1024, 2000, u64::MAX, u64::MAX]),
                len: *rng.pick(&[8, 16, 24, 24, 0]),
                bad: rng.chance(6),
            },
        }
    }

    fn open(rng: &mut Rng) -> Self {
        let name = Self::name(rng);
        let to = *rng.pick(&[On::Number, On::Number, On::Place, On::Place, On::Alloc, On::Beyond]);
        let mut flags = *rng.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
        if name == Name::New && rng.chance(75) {
            flags |= libc::O_CREAT;
        }
        for (flag, percent) in [
            (libc::O_CREAT, 5),
            (libc::O_EXCL, 10),
            (libc::O_TRUNC, 8),
            (libc::O_APPEND, 8),
            (libc::O_DIRECTORY, 4),
            (libc::O_PATH, 3),
            // Into a table it is refused.
            (libc::O_CLOEXEC, 6),
        ] {
            if rng.chance(percent) {
                flags |= flag;
            }
        }
        FileOp::Open { name, flags, to }
    }

    fn name(rng: &mut Rng) -> Name {
        use Name::{Dot, Missing, New, Nowhere, Own};
        *rng.pick(&[Own, Own, Own, Own, New, New, New, Dot, Missing, Nowhere])
    }

    fn file(rng: &mut Rng) -> On {
        *rng.pick(&[
            On::Number,
            On::Number,
            On::Number,
            On::Place,
            On::Place,
            On::Place,
            On::None,
            On::Beyond,
        ])
    }
}
