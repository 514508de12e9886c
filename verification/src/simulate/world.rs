//! Everything in a run besides the engine: the backend's state, what the
//! contract's model knows, what is visible of the rings, and who acts next.

use annulus::cqueue::Entry as Cqe;
use annulus::hal::{Parked, Token};
use annulus::ring::{CqHalf, Offsets};
use annulus::uapi::{IORING_SQ_CQ_OVERFLOW, IORING_SQ_NEED_WAKEUP};
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use super::action::{Action, Drive, Odd, Outcome, Setup};
use super::device::{Device, Flight, Phase};
use super::draw::Drawn;
use super::model::{By, Model};
use super::place;

/// Calls of a backend between two actions that a sound engine never makes.
pub const ENDLESS: u32 = 100_000;

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

    /// Entries that the engine has taken.
    pub fn sq_head(&self) -> u32 {
        self.word(self.offsets.sq_head)
    }

    pub fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.sq_flags) & IORING_SQ_NEED_WAKEUP != 0
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
    /// CQEs that the current wait is for.
    pub want: u32,
    /// How the last sleep ended.
    pub parked: Option<Parked>,
    /// The deadline of the current wait.
    pub deadline: Option<u64>,
    /// The application's half of the CQ.
    pub cq: Option<CqHalf<'static>>,
    /// CQEs that it has taken and nobody has looked at.
    kept: VecDeque<Cqe>,
    /// How many it has taken since the engine was last at rest, while that was
    /// at work.
    pub crossed: u32,
    /// The application sleeps.
    pub sleeps: bool,
    /// The application waits for the answer of a call.
    pub calls: bool,
    /// Looks of the backend at what the application does, since the last action.
    pub amid: u32,
    /// Looks of a driver that found nothing.
    pub vain: u32,
    /// Its looks at the clock that may have been for an entry's sake.
    pub glances: u32,
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
            want: 0,
            parked: None,
            deadline: None,
            cq: None,
            kept: VecDeque::new(),
            crossed: 0,
            sleeps: false,
            calls: false,
            amid: 0,
            vain: 0,
            glances: 0,
        }
    }

    /// Begins anew.
    pub fn reset(&mut self, setup: Setup, source: Source, keep: bool) {
        self.model.reset(setup);
        self.device.reset(setup.requests as usize + 1, setup.polled);
        self.source = source;
        self.trace = keep.then(Vec::new);
        (self.steps, self.looked, self.waiting, self.parked) = (0, 0, false, None);
        (self.want, self.deadline, self.sleeps) = (0, None, false);
        (self.crossed, self.calls, self.amid, self.vain) = (0, false, 0, 0);
        self.glances = 0;
        self.kept.clear();
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

    pub fn note(&mut self, action: Option<Action>) -> Option<Action> {
        (self.device.calls, self.amid) = (0, 0);
        self.steps += u64::from(action.is_some());
        if let (Some(action), Some(trace)) = (action, &mut self.trace) {
            trace.push(action);
        }
        action
    }

    /// What happens while the engine sleeps, or waits in circles.
    pub fn meanwhile(&mut self, deadline: Option<u64>) -> Option<Action> {
        if self.device.closing {
            self.device.calls += 1;
            assert!(self.device.calls < ENDLESS, "requests come to no end, whatever comes");
            return self
                .device
                .nth(0, |_| true)
                .map(|_| Action::Complete { nth: 0, outcome: Outcome::Whole });
        }
        if self.calls {
            return None;
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

    /// The application is about to sleep: everything else must be done, unless
    /// that is somebody else's business (true).
    pub fn asleep(&mut self) -> bool {
        self.device.calls += 1;
        assert!(self.device.calls < ENDLESS, "the engine goes round and never sleeps");
        if self.device.closing {
            return false;
        }
        let drive = self.model.setup.drive;
        if drive == Drive::Polled || self.calls {
            return true;
        }
        // It waits when all has been taken that was submitted, not before. It may
        // wait to drive the engine, too.
        let begins = drive == Drive::Served && self.rings().sq_head() < self.model.limit;
        if let Some(last) = self.model.limit.checked_sub(1).filter(|_| !begins) {
            self.model.take_up_to(last);
        }
        if drive == Drive::Served {
            return true;
        }
        self.model.come_home();
        self.model.must_look();
        self.look();
        self.rest();
        false
    }

    /// The application goes on, and the engine with it if they are one.
    pub fn woken(&mut self, parked: Parked) {
        self.parked = Some(parked);
        if !self.device.closing && self.model.setup.drive == Drive::Inline {
            self.model.goes_on();
        }
    }

    /// The engine asks a backend that has to be polled.
    pub fn poll_goes_on(&mut self) {
        self.device.calls += 1;
        assert!(self.device.calls < ENDLESS, "the engine polls and never sees");
        if !(self.waiting || self.device.closing) || self.device.calls < 3 {
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
        if tail.wrapping_sub(self.looked) > rings.cq + self.kept.len() as u32 {
            self.model.fail("more CQEs than the CQ holds");
        }
        while self.looked != tail && self.model.why.is_none() {
            let cqe = self.kept.pop_front().unwrap_or_else(|| rings.cqe(self.looked));
            self.looked = self.looked.wrapping_add(1);
            self.model.cqe(&cqe);
        }
    }

    /// Copies what has been posted, before others write there, to be looked at.
    pub fn keep(&mut self) {
        let rings = self.rings();
        let known = self.looked.wrapping_add(self.kept.len() as u32);
        let new = rings.cq_tail().wrapping_sub(known);
        self.kept.extend((0..new).map(|nth| rings.cqe(known.wrapping_add(nth))));
    }

    /// The engine has come to rest.
    pub fn rest(&mut self) {
        let rings = self.rings();
        // Room that was made meanwhile may not have been seen.
        self.model.at_rest(rings.overflowing(), rings.unread() + self.crossed);
    }

    /// The application takes CQEs.
    pub fn reap(&mut self, count: u8) -> u32 {
        let cq = self.cq.as_mut().expect("a run has a CQ");
        let count = cq.queue().take(count.into()).count() as u32;
        self.model.reaped += count;
        count
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
