//! Draws programs: the same seed and number, the same program.

use annulus::uapi;

use super::super::generate::Wish;
use super::super::program::Mode;
use super::super::rng::Rng;
use super::program::{
    Act, Cancel, Counter, FIRST, Later, MESSAGES, Message, ONE, OTHER, Place, Program, Spoil, Sqe,
    Step, TAGS, Time, To, Wait, What,
};

const LINKED: u8 = uapi::IOSQE_IO_LINK | uapi::IOSQE_IO_HARDLINK;
/// Waits of a program that take time.
const WAITS: u32 = 3;

/// The program of this number.
pub fn program(wish: &Wish, index: u64) -> Program {
    let mut rng = Rng::nth(wish.seed ^ 0x7061_6972, index);
    let drawn = match rng.weighted(&[6, 2, 3]) {
        0 => Mode::Inline,
        1 => Mode::SqPoll,
        _ => Mode::Served,
    };
    let mode = wish.mode.unwrap_or(drawn);
    let (small, registered) = (rng.chance(20), rng.chance(30));
    let mut draw = Draw {
        requests: Vec::new(),
        messages: 0,
        tags: 0,
        waits: 0,
        full: [false; 2],
        plain: rng.chance(20),
        counts: !small && rng.chance(20),
        tagged: registered && rng.chance(60),
        registered,
        small,
        disabled: rng.chance(15),
        rng,
    };
    let disabled = draw.disabled;
    let submit_all = mode == Mode::SqPoll || draw.rng.chance(60);
    let mut steps = Vec::new();
    if registered {
        let pipes = [Place::Pipe(0), Place::Pipe(1)];
        let list = pipes.map(|place| (place, if draw.tagged { draw.tag() } else { 0 }));
        steps.push(Step { act: Act::Files(list.into()), unread: false });
    }
    for _ in 0..draw.rng.range(3, 12) {
        let act = draw.act();
        // Nobody waits for what is in a CQ already.
        let unread = draw.rng.chance(if small { 45 } else { 6 });
        steps.push(Step { act, unread });
    }
    if draw.disabled {
        steps.push(Step { act: Act::Enable { ring: OTHER }, unread: false });
    }
    Program { mode, submit_all, small, registered, disabled, steps }
}

struct Draw {
    rng: Rng,
    /// What has been drawn and may wait, with its ring.
    requests: Vec<(usize, Sqe)>,
    messages: u64,
    tags: u64,
    /// Waits that take time.
    waits: u32,
    /// Which pipes have something in them.
    full: [bool; 2],
    /// Nothing but what ends where it is submitted, so that all has an order.
    plain: bool,
    /// Timeouts that count, and one SQE at a time: what of a batch is counted
    /// is not the business of this family.
    counts: bool,
    /// Files have tags, and places change. Linux finds a file by any name, so
    /// nobody cancels by one.
    tagged: bool,
    registered: bool,
    small: bool,
    /// The other ring is not enabled yet.
    disabled: bool,
}

impl Draw {
    fn act(&mut self) -> Act {
        let ring = if self.rng.chance(70) { ONE } else { OTHER };
        let pipes = if self.plain { 0 } else { 12 };
        let tables = if self.tagged { 12 } else { 0 };
        let disabled = if self.disabled { 20 } else { 0 };
        match self.rng.weighted(&[50, 14, 12, 12, 12, 3, 4, 6, pipes, tables, disabled]) {
            0 => self.push(ring),
            1 if self.waits < WAITS => self.wait_alone(ring),
            1 | 2 => Act::Send(self.message()),
            3 => {
                let time = self.rng.chance(30);
                Act::Cancel { ring, cancel: self.cancel(ring), time }
            }
            4 => {
                let fd = match self.rng.weighted(&[12, 1, 1]) {
                    0 => Counter::Own,
                    1 => Counter::File,
                    _ => Counter::None,
                };
                Act::Eventfd { ring, late: self.rng.chance(40), fd }
            }
            5 => Act::EventfdEnd { ring },
            6 => Act::Silence { ring, yes: self.rng.chance(50) },
            7 => Act::Clock { ring, id: *self.rng.pick(&[1, 1, 7, 7, 7, 0, 4, 9, u32::MAX]) },
            8 => {
                let pipe = self.rng.below(2) as u8;
                let full = &mut self.full[usize::from(pipe)];
                *full = !*full;
                if *full { Act::Feed(pipe) } else { Act::Empty(pipe) }
            }
            9 => self.table(),
            _ => self.enabling(),
        }
    }

    fn tag(&mut self) -> u64 {
        self.tags += 1;
        if self.rng.chance(70) { TAGS + self.tags } else { 0 }
    }

    fn table(&mut self) -> Act {
        let (places, all) =
            ([Place::Pipe(0), Place::Pipe(1)], [Place::Empty, Place::Skip, Place::Bad]);
        let one = |draw: &mut Self| {
            let place =
                if draw.rng.chance(70) { *draw.rng.pick(&places) } else { *draw.rng.pick(&all) };
            (place, draw.tag())
        };
        match self.rng.below(10) {
            0 => Act::FilesEnd,
            1 => Act::Files(vec![one(self), one(self)]),
            n => {
                let list = (0..self.rng.range(1, 2)).map(|_| one(self)).collect();
                Act::FilesUpdate((n % 2) as u32, list)
            }
        }
    }

    /// What is said to a ring that is disabled.
    fn enabling(&mut self) -> Act {
        if self.rng.chance(40) {
            self.disabled = false;
            return Act::Enable { ring: OTHER };
        }
        use uapi::{
            IORING_RESTRICTION_REGISTER_OP as REGISTER,
            IORING_RESTRICTION_SQE_FLAGS_ALLOWED as MAY,
            IORING_RESTRICTION_SQE_FLAGS_REQUIRED as MUST, IORING_RESTRICTION_SQE_OP as OP,
        };
        let rules = [
            (OP, uapi::IORING_OP_NOP),
            (OP, uapi::IORING_OP_MSG_RING),
            (OP, uapi::IORING_OP_READ),
            (OP, uapi::IORING_OP_TIMEOUT),
            (OP, uapi::IORING_OP_POLL_ADD),
            (REGISTER, uapi::IORING_REGISTER_SYNC_CANCEL as u8),
            (REGISTER, uapi::IORING_REGISTER_EVENTFD as u8),
            (REGISTER, uapi::IORING_UNREGISTER_EVENTFD as u8),
            (REGISTER, uapi::IORING_REGISTER_CLOCK as u8),
            (MAY, LINKED),
            (MAY, uapi::IOSQE_CQE_SKIP_SUCCESS | uapi::IOSQE_ASYNC),
            (MUST, uapi::IOSQE_IO_LINK),
        ];
        let mut list: Vec<_> = rules.into_iter().filter(|_| self.rng.chance(45)).collect();
        if self.rng.chance(8) {
            list.push(*self.rng.pick(&[(OP, 200), (REGISTER, 99), (7, 0)]));
        }
        Act::Restrict(list)
    }

    fn push(&mut self, ring: usize) -> Act {
        let most = if self.counts { 1 } else { 6 };
        let count = self.rng.range(1, most);
        // Workers and whoever looks for what they do are not of one batch.
        // Of a ring that is disabled all is one batch in the end.
        let later = self.disabled && ring == OTHER;
        let workers = !self.counts && self.rng.chance(20) && !later;
        let wait = !workers && self.waits < WAITS && self.rng.chance(15);
        let mut sqes: Vec<Sqe> = Vec::new();
        while (sqes.len() as u64) < count {
            let before = sqes.last().filter(|sqe| sqe.linked()).map(|sqe| sqe.what);
            let what = self.what(ring, workers, before);
            let mut flags = 0;
            // What follows a time that is over may come before or after what
            // follows others.
            let over = matches!(what, What::Timeout { time: Time::Past, .. });
            if self.rng.chance(30) && sqes.len() as u64 + 1 < count && !over {
                let hard = self.rng.chance(30);
                flags |= if hard { uapi::IOSQE_IO_HARDLINK } else { uapi::IOSQE_IO_LINK };
            }
            if what.at_once() {
                if self.rng.chance(10) {
                    flags |= uapi::IOSQE_CQE_SKIP_SUCCESS;
                }
                // What follows would be done by the same worker.
                if workers && flags & LINKED == 0 && self.rng.chance(50) {
                    flags |= uapi::IOSQE_ASYNC;
                }
            }
            let sqe = Sqe { what, flags, user_data: FIRST + self.requests.len() as u64 };
            self.requests.push((ring, sqe));
            sqes.push(sqe);
        }
        let wait = wait.then(|| self.wait());
        Act::Push { ring, sqes, wait }
    }

    fn what(&mut self, ring: usize, workers: bool, before: Option<What>) -> What {
        let waits = u32::from(!self.plain && !workers);
        let guarded = matches!(before, Some(What::Read(_) | What::Poll(_) | What::Nop(_)));
        let guards = 40 * u32::from(guarded) * waits;
        let weights = [20, 3, 30, 9 * waits, 5 * waits, 14 * waits, guards, 8 * waits, 5 * waits];
        match self.rng.weighted(&weights) {
            0 => What::Nop(0),
            1 => What::Nop(*self.rng.pick(&[-5, 7])),
            2 => What::Message(self.message()),
            3 => What::Read(self.rng.below(2) as u8),
            4 => What::Poll(self.rng.below(2) as u8),
            5 => self.timeout(),
            6 => What::LinkTimeout { time: self.time(), flags: self.clock() },
            7 => self.timeout_remove(ring),
            _ => What::Cancel(self.cancel(ring)),
        }
    }

    fn time(&mut self) -> Time {
        match self.rng.weighted(&[40, 35, if self.counts { 0 } else { 15 }]) {
            1 if self.counts => Time::Hour,
            0 => Time::Hour,
            1 => Time::Units(self.rng.range(1, 2) as u32),
            _ => Time::Past,
        }
    }

    /// Which clock, and whether it is a point in time.
    fn clock(&mut self) -> u32 {
        use uapi::{
            IORING_TIMEOUT_ABS as ABS, IORING_TIMEOUT_BOOTTIME as BOOT,
            IORING_TIMEOUT_REALTIME as WALL,
        };
        let clock = match self.rng.weighted(&[30, 30, 30, 4]) {
            0 => 0,
            1 => BOOT,
            2 => WALL,
            _ => BOOT | WALL,
        };
        clock | if self.rng.chance(50) { ABS } else { 0 }
    }

    fn timeout(&mut self) -> What {
        let (time, mut flags) = (self.time(), self.clock());
        if self.rng.chance(15) {
            flags |= uapi::IORING_TIMEOUT_ETIME_SUCCESS;
        }
        let mut count = 0;
        if self.counts {
            count = self.rng.range(1, 5) as u32;
        } else if self.rng.chance(15) {
            flags |= uapi::IORING_TIMEOUT_MULTISHOT;
            count = self.rng.range(1, 2) as u32;
        }
        What::Timeout { time, count, flags }
    }

    fn timeout_remove(&mut self, ring: usize) -> What {
        let update = match self.rng.weighted(&[30, 40, 25, 5]) {
            0 => 0,
            1 => uapi::IORING_TIMEOUT_UPDATE,
            2 => uapi::IORING_LINK_TIMEOUT_UPDATE,
            // A clock cannot be changed.
            _ => uapi::IORING_TIMEOUT_UPDATE | uapi::IORING_TIMEOUT_BOOTTIME,
        };
        let guard = update == uapi::IORING_LINK_TIMEOUT_UPDATE;
        let target = self.target(ring, |what| match what {
            What::LinkTimeout { .. } => guard,
            What::Timeout { .. } => !guard,
            _ => false,
        });
        let absolute = update != 0 && !self.counts && self.rng.chance(30);
        let flags = update | if absolute { uapi::IORING_TIMEOUT_ABS } else { 0 };
        // It would go on for ever.
        let series = |sqe: &Sqe| match sqe.what {
            What::Timeout { flags, .. } => flags & uapi::IORING_TIMEOUT_MULTISHOT != 0,
            _ => false,
        };
        let found = self.requests.iter().find(|(_, sqe)| sqe.user_data == target);
        match found.is_some_and(|(_, sqe)| series(sqe)) {
            true => What::TimeoutRemove { target, time: Time::Hour, flags: 0 },
            false => What::TimeoutRemove { target, time: self.time(), flags },
        }
    }

    fn cancel(&mut self, ring: usize) -> Cancel {
        use uapi::{
            IORING_ASYNC_CANCEL_ALL as ALL, IORING_ASYNC_CANCEL_ANY as ANY,
            IORING_ASYNC_CANCEL_FD as FD, IORING_ASYNC_CANCEL_FD_FIXED as FIXED,
            IORING_ASYNC_CANCEL_OP as OP, IORING_ASYNC_CANCEL_USERDATA as USERDATA,
        };
        let files = if self.tagged { 0 } else { 18 };
        let mut flags = match self.rng.weighted(&[45, files, 16, 12, 8, 3]) {
            0 => *self.rng.pick(&[0, 0, ALL]),
            1 => FD | *self.rng.pick(&[ALL, ANY, USERDATA, OP | ALL]),
            2 => OP | ALL,
            3 => ANY | *self.rng.pick(&[0, ALL]),
            4 => USERDATA | *self.rng.pick(&[0, OP, ANY]),
            _ => 1 << self.rng.range(6, 31),
        };
        if flags & FD != 0 && self.registered && ring == ONE {
            flags |= FIXED;
        }
        let ops = [
            uapi::IORING_OP_READ,
            uapi::IORING_OP_POLL_ADD,
            uapi::IORING_OP_TIMEOUT,
            uapi::IORING_OP_MSG_RING,
        ];
        let waits = |what: &What| !what.at_once() && !matches!(what, What::Cancel(_));
        let target = self.target(ring, waits);
        Cancel { target, pipe: self.rng.below(2) as u8, op: *self.rng.pick(&ops), flags }
    }

    /// The user data of something of this ring that `is`, or of nothing.
    fn target(&mut self, ring: usize, is: impl Fn(&What) -> bool) -> u64 {
        let fit = |(of, sqe): &&(usize, Sqe)| *of == ring && is(&sqe.what);
        let fit: Vec<u64> =
            self.requests.iter().filter(fit).map(|(_, sqe)| sqe.user_data).collect();
        if fit.is_empty() || self.rng.chance(10) { 7 } else { *self.rng.pick(&fit) }
    }

    fn message(&mut self) -> Message {
        self.messages += 1;
        let to = match self.rng.weighted(&[40, 40, 4, 4, 3]) {
            0 => To::Ring(OTHER),
            1 => To::Ring(ONE),
            2 => To::File,
            3 => To::None,
            _ => To::Place(self.rng.below(3) as i32),
        };
        // With that flag Linux fills the end of a CQ up.
        let all = !uapi::IORING_CQE_F_32;
        let flags = [0, 1, uapi::IORING_CQE_F_MORE, 1 << 16, all];
        Message {
            to,
            res: *self.rng.pick(&[0, 1, -5, i32::MIN, i32::MAX]),
            data: MESSAGES + self.messages,
            pass: self.rng.chance(35).then(|| *self.rng.pick(&flags)),
            skip: self.rng.chance(4),
            spoil: self.rng.chance(8).then(|| *self.rng.pick(&Spoil::ALL)),
        }
    }

    fn wait_alone(&mut self, ring: usize) -> Act {
        let later = self.rng.chance(60).then(|| {
            let at = self.rng.range(1, 3) as u32;
            self.messages += 1;
            (
                at,
                match self.rng.chance(70) || self.plain {
                    true => Later::Send(self.rng.below(2) as usize, MESSAGES + self.messages),
                    false => {
                        let pipe = self.rng.below(2) as u8;
                        self.full[usize::from(pipe)] = true;
                        Later::Feed(pipe)
                    }
                },
            )
        });
        let mut wait = self.wait();
        // What comes just when the time is over is seen or not.
        for time in [Some(&mut wait.least), wait.time.as_mut()].into_iter().flatten() {
            *time += u32::from(later.is_some_and(|(at, _)| at == *time));
        }
        Act::Wait { ring, wait, later }
    }

    fn wait(&mut self) -> Wait {
        self.waits += 1;
        let least = if self.rng.chance(40) { self.rng.range(1, 3) as u32 } else { 0 };
        let nothing = self.rng.chance(4);
        let endless = least != 0 && self.rng.chance(30);
        let time = (!endless).then(|| self.rng.below(5) as u32);
        let most = if self.small { 9 } else { 4 };
        Wait {
            count: self.rng.below(most) as u32,
            least,
            time,
            absolute: time.is_some() && self.rng.chance(40),
            no_iowait: self.rng.chance(20),
            nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_repeat() {
        let wish = Wish { seed: 3, mode: None };
        for index in 0..300 {
            assert_eq!(program(&wish, index), program(&wish, index));
        }
    }
}
