//! Everything in a run besides the engine: the backend's state, what the
//! contract's model knows, what is visible of the rings, and who acts next.

use annulus::cqueue::Entry as Cqe;
use annulus::hal::{Parked, Token};
use annulus::ring::Offsets;
use annulus::uapi::IORING_SQ_CQ_OVERFLOW;
use core::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::action::{Action, Odd, Outcome, Setup};
use super::device::{Device, Flight, Phase};
use super::draw::Drawn;
use super::model::{By, Model};
use super::place;

/// Calls of a backend between two actions that a sound engine never makes.
const ENDLESS: u32 = 100_000;

/// Where actions come from.
pub enum Source {
    /// Nowhere.
    None,
    /// They are drawn.
    Drawn(Drawn),
    /// They are given.
    Listed { list: Vec<Action>, at: usize },
}

/// The rings as anybody may see them.
#[derive(Clone, Copy)]
pub struct Rings {
    pub base: NonNull<u8>,
    pub offsets: Offsets,
    pub cq: u32,
}

impl Rings {
    fn word(&self, offset: usize) -> u32 {
        // SAFETY: a word of the rings' memory, which lasts for ever.
        unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire)
    }

    pub fn cq_tail(&self) -> u32 {
        self.word(self.offsets.cq_tail)
    }

    /// CQEs that the application has not taken.
    pub fn unread(&self) -> u32 {
        self.cq_tail().wrapping_sub(self.word(self.offsets.cq_head))
    }

    pub fn overflowing(&self) -> bool {
        self.word(self.offsets.sq_flags) & IORING_SQ_CQ_OVERFLOW != 0
    }

    fn cqe(&self, position: u32) -> Cqe {
        let at = self.offsets.cqes + (position & (self.cq - 1)) as usize * size_of::<Cqe>();
        // SAFETY: an entry of the CQ that the engine has published, in the
        // only thread there is.
        unsafe { self.base.add(at).cast::<Cqe>().read() }
    }
}

/// See the module's text.
pub struct World {
    pub model: Model,
    pub device: Device,
    pub source: Source,
    /// Actions so far, if they are kept.
    pub trace: Option<Vec<Action>>,
    pub steps: u64,
    pub rings: Option<Rings>,
    /// CQEs looked at.
    looked: u32,
    /// The engine waits, for all that one knows.
    pub waiting: bool,
    /// How the last sleep ended.
    pub parked: Option<Parked>,
    /// The deadline of the current wait.
    pub deadline: Option<u64>,
}

impl World {
    pub const fn new() -> Self {
        Self {
            model: Model::new(),
            device: Device::new(),
            source: Source::None,
            trace: None,
            steps: 0,
            rings: None,
            looked: 0,
            waiting: false,
            parked: None,
            deadline: None,
        }
    }

    /// Begins anew.
    pub fn reset(&mut self, setup: Setup, source: Source, keep: bool) {
        self.model.reset(setup);
        self.device.reset(setup.requests as usize + 1, setup.polled);
        self.source = source;
        self.trace = keep.then(Vec::new);
        (self.steps, self.looked, self.waiting, self.parked) = (0, 0, false, None);
        place::set_now(0);
    }

    fn rings(&self) -> Rings {
        self.rings.expect("a run has rings")
    }

    /// The next action of the application or anybody.
    pub fn next(&mut self) -> Option<Action> {
        let action = match &mut self.source {
            Source::None => None,
            Source::Drawn(drawn) => drawn.next(&self.model, &self.device, self.rings),
            Source::Listed { list, at } => {
                let action = list.get(*at).copied();
                *at += 1;
                action
            }
        };
        self.note(action)
    }

    fn note(&mut self, action: Option<Action>) -> Option<Action> {
        self.device.calls = 0;
        self.steps += u64::from(action.is_some());
        if let (Some(action), Some(trace)) = (action, &mut self.trace) {
            trace.push(action);
        }
        action
    }

    /// What happens while the engine sleeps, or waits in circles.
    pub fn meanwhile(&mut self, deadline: Option<u64>) -> Option<Action> {
        if self.device.closing {
            return self
                .device
                .nth(0, |_| true)
                .map(|_| Action::Complete { nth: 0, outcome: Outcome::Whole });
        }
        let action = match &mut self.source {
            Source::None => None,
            Source::Drawn(drawn) => Some(drawn.outside(&self.device, deadline)),
            Source::Listed { list, at } => {
                let action = list.get(*at).copied().filter(Action::is_outside);
                *at += usize::from(action.is_some());
                action
            }
        };
        self.note(action)
    }

    /// The engine is about to sleep: everything else must be done.
    pub fn asleep(&mut self) {
        self.device.calls += 1;
        assert!(self.device.calls < ENDLESS, "the engine goes round and never sleeps");
        if self.device.closing {
            return;
        }
        // It waits when all has been taken that was submitted, not before.
        if let Some(last) = self.model.limit.checked_sub(1) {
            self.model.take_up_to(last);
        }
        self.model.come_home();
        self.model.must_look();
        self.look();
        self.rest();
    }

    /// The engine goes on.
    pub fn woken(&mut self, parked: Parked) {
        self.parked = Some(parked);
        if !self.device.closing {
            self.model.goes_on();
        }
    }

    /// The engine asks a backend that has to be polled.
    pub fn poll_goes_on(&mut self) {
        self.device.calls += 1;
        assert!(self.device.calls < ENDLESS, "the engine polls and never sees");
        if !(self.waiting || self.device.closing) || self.device.calls < 4 {
            return;
        }
        let deadline = self.deadline;
        match self.meanwhile(deadline) {
            Some(action) => self.outside(action),
            None => match deadline {
                Some(deadline) => place::set_now(deadline.max(place::now())),
                // A wait for what never comes ends when something has.
                None => self.outside(Action::Complete { nth: 0, outcome: Outcome::Whole }),
            },
        }
    }

    /// Looks at what has been posted.
    pub fn look(&mut self) {
        let rings = self.rings();
        let tail = rings.cq_tail();
        if tail.wrapping_sub(self.looked) > rings.cq {
            self.model.fail("more CQEs than the CQ holds");
        }
        while self.looked != tail && self.model.why.is_none() {
            let cqe = rings.cqe(self.looked);
            self.looked = self.looked.wrapping_add(1);
            self.model.cqe(&cqe);
        }
    }

    /// The engine has come to rest.
    pub fn rest(&mut self) {
        let rings = self.rings();
        self.model.at_rest(rings.overflowing(), rings.unread());
    }

    /// A worker brings a request's result, or a device has it.
    pub fn complete(&mut self, slot: usize, outcome: Outcome) {
        let Some(flight) = self.device.flights[slot] else { return };
        let result = self.model.spec(flight.id).result(outcome);
        if let Phase::Poll { .. } = flight.phase {
            self.end_wait(slot, result);
            return;
        }
        if let Phase::Polled(_) = flight.phase {
            if let Some(flight) = &mut self.device.flights[slot] {
                flight.phase = Phase::Polled(Some(result));
            }
            return;
        }
        let Some(completer) = self.device.completer else { return };
        match completer.complete(flight.token, result) {
            Ok(()) => {
                self.device.land(slot);
                self.model.ended(flight.id, result, By::Completer);
            }
            // It has been woken, and that has not been seen.
            Err(_) if self.device.woken[slot] => {}
            Err(_) => {
                let id = flight.id;
                self.model.fail(format!("the completion of request {id} is refused"));
            }
        }
    }

    fn wake(&mut self, nth: u8) {
        let waits = |flight: &Flight| matches!(flight.phase, Phase::Asleep(_) | Phase::Poll { .. });
        let Some(slot) = self.device.nth(nth, waits) else { return };
        match self.device.flights[slot] {
            // Nothing else ends a wait that goes on.
            Some(Flight { phase: Phase::Poll { .. }, .. }) if self.device.closing => {
                self.end_wait(slot, -5);
            }
            _ => self.wake_slot(slot),
        }
    }

    /// Something happens that is not the application's doing.
    pub fn outside(&mut self, action: Action) {
        let can_end = |flight: &Flight| match flight.phase {
            Phase::Running => true,
            Phase::Polled(result) => result.is_none(),
            Phase::Asleep(_) | Phase::Poll { .. } => false,
        };
        match action {
            Action::Complete { nth, outcome } => match self.device.nth(nth, can_end) {
                Some(slot) => self.complete(slot, outcome),
                None if self.device.closing || self.waiting => self.wake(nth),
                None => {}
            },
            Action::Wake { nth } => self.wake(nth),
            Action::Ready { file, events } => self.becomes_ready(file, events),
            Action::Odd(odd) => self.odd(odd),
            Action::Tick(nanos) => place::set_now(place::now() + u64::from(nanos)),
            Action::Reset => {
                for slot in 0..self.device.flights.len() {
                    self.complete(slot, Outcome::Error);
                }
            }
            _ => {}
        }
    }

    fn odd(&mut self, odd: Odd) {
        let device = &self.device;
        let Some(completer) = device.completer else { return };
        let raw = match odd {
            Odd::Ended(nth) if device.ends != 0 => {
                device.ended[usize::from(nth) % device.ends.min(8)]
            }
            Odd::Again if device.ends != 0 => device.ended[(device.ends - 1) % 8],
            Odd::Invented(raw) => raw,
            _ => return,
        };
        let token = Token::from_raw(raw);
        // A number may happen to be right.
        if device.flights.iter().flatten().any(|flight| flight.token == token) {
            return;
        }
        if completer.complete(token, 77).is_ok() || completer.ready(token).is_ok() {
            self.model.fail(format!("token {raw:#x} names no request that waits, and is taken"));
        }
    }
}
