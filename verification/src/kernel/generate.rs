//! Makes programs. The same seed and number make the same program for ever.

use super::draw::Draw;
use super::model::Model;
use super::program::{Mode, Program, Setup, Slot, Sqe, Step};
use super::registrations;
use super::rng::Rng;

/// What a generator of programs is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The seed of the whole run.
    pub seed: u64,
    /// Only rings of this mode.
    pub mode: Option<Mode>,
}

/// The `index`-th program.
pub fn program(wish: &Wish, index: u64) -> Program {
    let mut rng = Rng::nth(wish.seed, index);
    let mode = wish.mode.unwrap_or(Mode::ALL[(index % 3) as usize]);
    let setup = setup(&mut rng, mode);
    let mut draft = Draft { mode, model: Model::new(&setup), rng, steps: Vec::new() };
    if fails(&setup) {
        return Program { setup, steps: Vec::new() };
    }
    draft.body();
    Program { setup, steps: draft.steps }
}

/// Whether no ring comes of this, and so no step makes sense.
fn fails(setup: &Setup) -> bool {
    const MOST: u32 = 1 << 15;
    let (sq, cq) = (setup.entries, setup.cq_entries);
    let rounded = sq.clamp(1, MOST).next_power_of_two();
    sq == 0
        || (sq > MOST && !setup.clamp)
        || cq.is_some_and(|cq| {
            cq == 0
                || (cq > 2 * MOST && !setup.clamp)
                || cq.min(2 * MOST).next_power_of_two() < rounded
        })
}

fn setup(rng: &mut Rng, mode: Mode) -> Setup {
    let mut entries = *rng.pick(&[1, 2, 3, 4, 4, 7, 8, 8, 8, 16, 16, 24, 32]);
    let cq_entries = match rng.below(100) {
        0..35 => None,
        35..75 => Some(entries),
        75..97 => Some(entries + rng.below(u64::from(entries) * 3) as u32),
        97 => Some(0),
        98 => Some(entries / 2),
        _ => Some(200_000),
    };
    if rng.chance(1) {
        entries = *rng.pick(&[0, 40_000]);
    }
    let pool = (rng.chance(12) && entries <= 32).then(|| rng.range(1, 5) as u32);
    Setup {
        mode,
        entries,
        cq_entries,
        array: rng.chance(60),
        submit_all: pool.is_some() || rng.chance(40),
        clamp: rng.chance(4),
        pool,
        uapi_layout: rng.chance(50),
        disabled: false,
    }
}

/// A program in the making.
pub(super) struct Draft {
    mode: Mode,
    pub rng: Rng,
    pub model: Model,
    pub steps: Vec<Step>,
}

impl Draft {
    /// Adds a step, if the program stays valid.
    pub fn add(&mut self, step: Step) -> bool {
        let mut next = self.model.clone();
        let valid = next.step(&step).is_ok();
        if valid {
            self.model = next;
            self.steps.push(step);
        }
        valid
    }

    fn body(&mut self) {
        if self.rng.chance(70) {
            registrations::files(self);
        }
        if self.rng.chance(75) {
            registrations::buffers(self);
        }
        let mut left = self.rng.range(3, 40) as i64;
        let mut batches = 0;
        while left > 0 && batches < 60 {
            batches += 1;
            left -= self.batch();
            match self.rng.weighted(&[60, 14, 5, 7, 14]) {
                0 => {}
                1 => self.world(),
                2 => registrations::files(self),
                3 => registrations::buffers(self),
                _ => {
                    let peek = self.rng.chance(30);
                    self.add(Step::Settle { peek });
                    if self.rng.chance(4) {
                        self.add(Step::Interrupt);
                    }
                }
            }
            if self.model.waiting() > 0 && self.rng.chance(40) {
                self.satisfy();
            }
        }
        let peek = self.rng.chance(20);
        self.add(Step::Settle { peek });
    }

    /// Pushes some SQEs and does something about them. How many it made.
    fn batch(&mut self) -> i64 {
        let most = *self.rng.pick(&[1, 1, 2, 3, 4, 6, 8, 16]);
        let mut sqes: Vec<Sqe> = Vec::new();
        let mut tries = 0;
        while sqes.len() < most && tries < 2 * most + 4 {
            tries += 1;
            let sqe = Draw { rng: &mut self.rng, model: &self.model }.sqe();
            sqes.push(sqe);
            if self.model.clone().step(&Step::Push(sqes.clone())).is_err() {
                sqes.pop();
                // Often it is what is in flight that is in the way.
                if sqes.is_empty() && tries % 3 == 0 {
                    self.add(Step::Settle { peek: false });
                }
            }
        }
        if sqes.is_empty() {
            return 0;
        }
        let made = sqes.len() as i64;
        self.add(Step::Push(sqes));
        match self.rng.weighted(&[60, 20, 10, 10]) {
            0 => self.enter(),
            1 => {
                self.add(Step::Drain);
            }
            2 => {
                let peek = self.rng.chance(30);
                self.add(Step::Settle { peek });
            }
            _ => {}
        }
        if self.rng.chance(30) {
            let most = self.rng.range(1, 8) as u32;
            self.add(Step::Reap(most));
        }
        made
    }

    fn enter(&mut self) {
        const GETEVENTS: u32 = 1;
        const SQ_WAKEUP: u32 = 2;
        const SQ_WAIT: u32 = 4;
        let queued = self.model.queued as u32;
        let to_submit = match self.rng.below(100) {
            0..70 => queued,
            70..80 => self.rng.below(u64::from(queued) + 1) as u32,
            80..90 => queued + self.rng.range(1, 5) as u32,
            90..96 => 0,
            _ => *self.rng.pick(&[1000, i32::MAX as u32]),
        };
        let polled = self.mode == Mode::SqPoll;
        let mut flags = if self.rng.chance(if polled { 20 } else { 60 }) { GETEVENTS } else { 0 };
        if self.rng.chance(10) {
            flags |= *self.rng.pick(&[SQ_WAKEUP, SQ_WAIT, SQ_WAKEUP | SQ_WAIT]);
        }
        if self.rng.chance(2) {
            flags |= 1 << self.rng.range(8, 31);
        }
        // A wait for more than can come costs its whole timeout: seldom.
        let likely = if self.rng.chance(92) { to_submit.min(queued) } else { queued + 3 };
        let min_complete = match flags & GETEVENTS {
            0 => self.rng.below(3) as u32,
            _ if self.rng.chance(3) => 100_000,
            _ => self.rng.below(u64::from(likely) + 1) as u32,
        };
        self.add(Step::Enter { to_submit, min_complete, flags });
    }

    /// Does something outside the ring.
    fn world(&mut self) {
        use Slot::*;
        self.add(Step::Drain);
        let step = match self.rng.weighted(&[30, 8, 25, 12, 10]) {
            0 => {
                let slot = *self.rng.pick(&[PipeW, QuietW, QuietW, TinyW]);
                Step::Feed(slot, self.rng.range(1, 900) as u32)
            }
            1 => Step::Empty(*self.rng.pick(&[PipeR, QuietR, TinyR, TinyR])),
            2 => {
                let all = &Slot::ALL;
                Step::Copy(*self.rng.pick(all), *self.rng.pick(all))
            }
            3 => Step::Close(
                *self.rng.pick(&[A2, BAppend, PipeW, QuietW, PipeR, QuietR, Null, Spare]),
            ),
            _ => Step::Seek(*self.rng.pick(&[A, A2, B, C, ARead]), self.rng.below(12_000) as u32),
        };
        self.add(step);
    }

    /// Gives those who wait what they wait for.
    fn satisfy(&mut self) {
        use Slot::*;
        self.add(Step::Drain);
        let bytes = self.rng.range(1, 900) as u32;
        for slot in [PipeW, QuietW] {
            self.add(Step::Feed(slot, bytes));
        }
        self.add(Step::Empty(TinyR));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_valid_and_repeat() {
        let wish = Wish { seed: 3, mode: None };
        for index in 0..300 {
            let made = program(&wish, index);
            assert_eq!(made, program(&wish, index));
            Model::plan(&made).unwrap_or_else(|race| panic!("{index}: {race:?}\n{made}"));
        }
    }
}
