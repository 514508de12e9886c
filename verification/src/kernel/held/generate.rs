//! Draws programs: the same seed and number, the same program.

mod ends;

use annulus::uapi;

use super::super::generate::Wish;
use super::super::program::Mode;
use super::super::rng::Rng;
use super::buffers::EACH;
use super::files::{FileOp, Owners};
use super::program::{Act, EVENT, File, NOBODY, Program, RING, Round, Spoil, Sqe, Time, What};

/// The user data of the first SQE.
const FIRST: u64 = 100;

/// The program of this number.
pub fn program(wish: &Wish, index: u64) -> Program {
    let mut rng = Rng::nth(wish.seed ^ 0x6865_6c64, index);
    let mode = match rng.weighted(&[8, 2, 3]) {
        0 => Mode::Inline,
        1 => Mode::SqPoll,
        _ => Mode::Served,
    };
    let mut draw = Draw {
        made: Vec::new(),
        full: [false; 3],
        times: rng.chance(45),
        counts: rng.chance(60),
        wall: rng.chance(30),
        workers: rng.chance(20),
        drains: if rng.chance(25) { 12 } else { 0 },
        skips: 0,
        timed: rng.chance(50),
        alone: false,
        polled: false,
        twins: rng.chance(30),
        series: rng.chance(50),
        buffers: rng.chance(45),
        few: rng.chance(20),
        files: rng.chance(35),
        quiet: rng.chance(60),
        owners: Owners::new(rng.chance(30)),
        rng,
    };
    draw.twins &= !draw.files;
    let (tight, registered) = (draw.rng.chance(25), draw.rng.chance(25));
    let table = draw.files && draw.rng.chance(70);
    // Whoever has skipped a CQE may not drain any more.
    draw.skips = if draw.drains == 0 || draw.rng.chance(15) { 18 } else { 0 };
    let mode = wish.mode.unwrap_or(mode);
    let submit_all = draw.rng.chance(if mode == Mode::SqPoll { 85 } else { 60 });
    draw.polled = mode == Mode::SqPoll;
    draw.alone = draw.polled && !submit_all;
    let count = draw.rng.range(1, 5);
    let mut rounds: Vec<_> = (0..count).map(|n| draw.round(n == 0)).collect();
    if draw.alone {
        // How far those before it have come is open as well: so is whether what
        // follows a drain is held up by them.
        let sqes = rounds.iter_mut().flat_map(|round: &mut Round| &mut round.sqes);
        sqes.for_each(|sqe| sqe.flags &= !uapi::IOSQE_IO_DRAIN);
    }
    Program { mode, submit_all, few: draw.few, tight, registered, table, rounds }
}

struct Draw {
    rng: Rng,
    /// What has been drawn, for those who look for it.
    made: Vec<Sqe>,
    /// Which pipes have something in them.
    full: [bool; 3],
    /// Times that come to their end.
    times: bool,
    /// The wall clock; no update gives a point in time then.
    wall: bool,
    /// Timeouts that count. One that ends while a batch is taken is counted out
    /// before it was counted in, so in Linux others would end too early.
    counts: bool,
    /// IOSQE_ASYNC.
    workers: bool,
    /// Drains, of a hundred.
    drains: u64,
    /// Skipped CQEs, of a hundred.
    skips: u64,
    /// Timeouts may be guarded, and no update has a time that ends: which of a
    /// guard and a timeout that end together is first is open.
    timed: bool,
    /// Nobody looks for others or counts them: a polling thread that has ended a
    /// batch at an SQE that fails goes on by itself, and how far a chain has come
    /// until then is open.
    alone: bool,
    /// A thread polls: of several that wait for one file it may see some before
    /// the others have been woken, so what goes on behind one counts none.
    polled: bool,
    /// Several have one user data. Linux has a LINK_TIMEOUT that ends look for
    /// what it guards by that, so none does.
    twins: bool,
    /// Timeouts that fire more than once; an update would make them go on for
    /// ever, so none has a time that ends.
    series: bool,
    /// Provided buffers.
    buffers: bool,
    /// The ring is small.
    few: bool,
    /// Chains have files of their own.
    files: bool,
    /// If so: nobody looks for others in the whole program, so that workers may
    /// begin at any time.
    quiet: bool,
    owners: Owners,
}

impl Draw {
    fn round(&mut self, first: bool) -> Round {
        let mut pipes = Vec::new();
        for pipe in 0..=EVENT {
            if !self.rng.chance(if first { 15 } else { 25 }) {
                continue;
            }
            let full = &mut self.full[usize::from(pipe)];
            pipes.push(if *full { Act::Empty(pipe) } else { Act::Feed(pipe) });
            *full = !*full;
        }
        if self.buffers && self.rng.chance(20) {
            pipes.push(Act::Fill(self.rng.range(1, 4) as u8));
        }
        // Whoever looks for others finds them or not, and what is counted has
        // come or not, as workers are quick: they are not in the same round.
        // Linux has workers start whatever follows a drain.
        let workers = self.drains != 0
            || self.files && (self.quiet || self.rng.chance(60))
            || self.workers && self.rng.chance(50);
        let mut short = 3;
        let count = self.rng.range(1, if self.few { 8 } else { 12 });
        let mut sqes: Vec<Sqe> = Vec::new();
        let mut chain_waits = false;
        // A worker does what is left of the chain; it may come to what follows in
        // any later round.
        let (mut worked, mut loose) = (false, false);
        for n in 0..count {
            let before = sqes.last().filter(|sqe| sqe.flags & LINKED != 0);
            let in_chain = before.is_some();
            let guardable = before.is_some_and(|sqe| match sqe.what {
                What::LinkTimeout { .. } => false,
                What::Timeout { .. } => self.timed,
                _ => true,
            });
            let waits = before.is_some_and(|sqe| sqe.what.touches_pipes());
            let guards = if waits { 40 } else { u32::from(guardable) * 13 };
            let timeout = before.is_some_and(|sqe| matches!(sqe.what, What::Timeout { .. }));
            // Also where there is nothing to guard; a timeout only if it may be.
            let stray = u32::from(self.timed || !timeout);
            let mut what = self.what(guards + stray, workers || self.alone);
            (worked, loose) = (worked && in_chain, loose && in_chain);
            if workers && self.files && (self.quiet || !loose) && self.rng.chance(45) {
                what = What::Files { of: u8::MAX, op: FileOp::draw(&mut self.rng) };
            }
            if let What::LinkTimeout { time, .. } = &mut what
                && worked
                && self.drains == 0
            {
                // Linux does not start it, and says that it had nothing to do.
                *time = Time::Hour;
            } else if (self.drains != 0 && in_chain || worked) && what.waits_in_worker() {
                what = What::Nop(0);
            }
            let works = matches!(what, What::Files { .. });
            worked |= works;
            if let What::LinkTimeout { time, .. } = &mut what
                && (self.twins || before.is_some_and(|sqe| sqe.what.time().is_some_and(Time::ends)))
            {
                // Which of the two is first is open.
                *time = Time::Hour;
            }
            if let What::LinkTimeout { flags, .. } = &mut what
                && timeout
                && self.counts
            {
                // In what is left of a batch it may be over when it starts.
                *flags &= !uapi::IORING_TIMEOUT_ABS;
            }
            if what.time().is_some_and(Time::ends) {
                if short == 0 {
                    what = What::Nop(0);
                }
                short -= u32::from(short != 0);
            }
            chain_waits &= in_chain;
            if let What::Timeout { count, flags, .. } = &mut what
                && self.polled
                && chain_waits
                && *flags & uapi::IORING_TIMEOUT_MULTISHOT == 0
            {
                *count = 0;
            }
            chain_waits |= what.touches_pipes();
            let mut flags = self.link(if works { 75 } else { 35 + 20 * u64::from(in_chain) });
            flags |= self.drain() | self.skip(what);
            // What follows would be done by the same worker.
            if workers && (flags & LINKED == 0 || works) && self.rng.chance(40) {
                flags |= uapi::IOSQE_ASYNC;
            }
            loose |= matches!(what, What::Timeout { .. } | What::LinkTimeout { .. })
                || what.touches_pipes() && flags & uapi::IOSQE_IO_HARDLINK != 0;
            let spoil = self.rng.chance(3).then(|| *self.rng.pick(&Spoil::ALL));
            let user_data = match self.made.last() {
                Some(_) if self.twins && self.rng.chance(12) => self.target(|_| true),
                _ => FIRST + self.made.len() as u64 + n,
            };
            let reads = matches!(what, What::Read { .. } | What::Readv { .. });
            let free = self.buffers && !workers && !self.alone;
            let select = if free && reads { self.select(spoil.is_some()) } else { None };
            if let (What::Readv { len, .. }, Some(_)) = (&mut what, select) {
                // Of one buffer, and an eventfd refuses half a count.
                *len = 8;
            }
            sqes.push(Sqe { what, flags, user_data, select, spoil });
        }
        let leave = if self.rng.chance(8) { self.rng.range(1, count) } else { 0 };
        for end in [count, count - leave] {
            Self::end_batch(&mut sqes[..end as usize], workers);
        }
        self.owners.assign(&mut sqes, (count - leave) as usize);
        let leave = leave as u32;
        self.made.extend(sqes.iter().cloned());
        let unread = self.rng.chance(if self.few { 45 } else { 3 });
        Round { pipes, sqes, leave, unread }
    }

    fn link(&mut self, percent: u64) -> u8 {
        match self.rng.chance(percent) {
            false => 0,
            true if self.rng.chance(30) => uapi::IOSQE_IO_HARDLINK,
            true => uapi::IOSQE_IO_LINK,
        }
    }

    fn drain(&mut self) -> u8 {
        if self.rng.chance(self.drains) { uapi::IOSQE_IO_DRAIN } else { 0 }
    }

    fn skip(&mut self, what: What) -> u8 {
        match self.rng.chance(self.skips) && !what.counts() {
            true => uapi::IOSQE_CQE_SKIP_SUCCESS,
            false => 0,
        }
    }

    /// A group that a read picks its buffer from, mostly.
    fn select(&mut self, spoilt: bool) -> Option<u16> {
        let select = self.rng.chance(40).then(|| *self.rng.pick(&[0, 0, 0, 1, RING, RING, NOBODY]));
        // A read that fails at once is said to have used its buffer or not, by what
        // it reads from.
        select.filter(|&group| !spoilt || group != RING)
    }

    /// Linux has a worker start a chain within which a batch ends, and it would
    /// wait for a pipe there, to be interrupted and not cancelled.
    fn end_batch(sqes: &mut [Sqe], workers: bool) {
        let linked = |sqe: &Sqe| sqe.flags & LINKED != 0;
        let open = sqes.iter().rev().take_while(|sqe| linked(sqe)).count();
        let head = sqes.len() - open;
        let unfit = |sqe: &Sqe| !workers || sqe.what.touches_pipes();
        if sqes[head..].iter().any(unfit)
            && let Some(last) = sqes.last_mut()
        {
            last.flags &= !LINKED;
        }
    }

    fn what(&mut self, guards: u32, workers: bool) -> What {
        let lookers = if workers { 0 } else { 1 };
        let provide = if self.buffers { 6 * lookers } else { 0 };
        let weights = [
            20,
            6,
            10,
            4,
            6,
            12,
            8,
            12,
            guards,
            7 * lookers,
            7 * lookers,
            2 * lookers,
            2,
            provide,
            provide / 4,
        ];
        match self.rng.weighted(&weights) {
            0 => What::Nop(0),
            1 => What::Nop(*self.rng.pick(&[-5, -125, -62, 7])),
            2 => self.source(),
            3 => {
                let off = *self.rng.pick(&[0, 100, 1000]);
                What::Readv { file: File::Source, off, len: *self.rng.pick(&[4, 16]) }
            }
            4 => What::Write { file: File::Sink },
            5 => {
                let (file, off) = (self.pipe(), u64::MAX);
                match self.rng.chance(25) {
                    true => What::Readv { file, off, len: 4 },
                    false => What::Read { file, off, len: 8 },
                }
            }
            6 => What::Poll { file: self.pipe() },
            7 => self.timeout(workers),
            8 => self.link_timeout(),
            9 => self.timeout_remove(),
            10 => self.cancel(),
            11 => What::PollRemove { target: self.target(|w| matches!(w, What::Poll { .. })) },
            13 => self.provide(),
            14 => self.withdraw(),
            _ => match self.rng.chance(50) {
                true => What::Read { file: File::None, off: 0, len: 8 },
                false => What::Write { file: File::Pipe(self.rng.below(2) as u8) },
            },
        }
    }

    fn provide(&mut self) -> What {
        let group = *self.rng.pick(&[0, 0, 0, 1, RING]);
        let first = self.rng.below(EACH.into()) as u16;
        let count = self.rng.range(1, 4).min(u64::from(EACH - first)) as u16;
        What::Provide { group, first, count }
    }

    fn withdraw(&mut self) -> What {
        let group = *self.rng.pick(&[0, 0, 1, RING, NOBODY]);
        What::Withdraw { group, count: self.rng.range(1, 5) as u16 }
    }

    /// A read of a file of 1,024 bytes.
    fn source(&mut self) -> What {
        let (off, len) = *self.rng.pick(&[(0, 16), (512, 32), (1008, 16), (1010, 32), (1024, 8)]);
        What::Read { file: File::Source, off, len }
    }

    fn pipe(&mut self) -> File {
        File::Pipe(*self.rng.pick(&[0, 0, 0, 1, 1, 1, EVENT, EVENT]))
    }

    fn flags(&mut self, of: &[(u32, u64)]) -> u32 {
        of.iter().fold(
            0,
            |all, &(flag, percent)| if self.rng.chance(percent) { all | flag } else { all },
        )
    }
}

const LINKED: u8 = uapi::IOSQE_IO_LINK | uapi::IOSQE_IO_HARDLINK;
