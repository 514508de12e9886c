//! Waits for readiness: their entries, and what the simulated backend does
//! with them.
//!
//! A file has a word of events that hold, which actions change. A wait is woken
//! for a new event that it wants, and now and then for nothing.

use annulus::hal::{Cancel, Request, Start, Token};
use annulus::squeue::Entry;
use annulus::uapi::*;

use super::action::{Fate, Op, Spec, TAG};
use super::device::{Flight, Phase};
use super::model::By;
use super::world::World;

/// `user_data` of waits that share one: of name 1 and up.
pub const NAMES: u64 = 0x52_0000_0000;
/// Files whose readiness is told apart.
pub const FILES: usize = 4;
/// Events that are waited for in any case.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP | EPOLLNVAL | EPOLLRDHUP;
/// Requests that can be told apart by events that never come.
pub const MARKS: u32 = 1 << 9;

/// Events that never come, and tell the backend which request it is: nothing
/// else of the entry reaches it.
fn mark(id: u32) -> u32 {
    (id & 0x7f) << 6 | (id >> 7 & 3) << 14
}

/// The request, modulo [`MARKS`], that has marked these events.
pub fn marked(events: u32) -> u32 {
    events >> 6 & 0x7f | (events >> 14 & 3) << 7
}

impl Spec {
    /// Whether it waits for readiness.
    pub fn polls(&self) -> bool {
        matches!(self.op, Op::Poll { .. })
    }

    /// Whether it does so more than once.
    pub fn polls_on(&self) -> bool {
        self.op == Op::Poll { multi: true }
    }

    /// The file whose readiness it waits for.
    pub fn watched(&self) -> usize {
        usize::from(self.file) % FILES
    }

    /// The events that the entry of request `id` waits for.
    pub fn events(&self, id: u32) -> u32 {
        u32::from(self.mask) & (EPOLLIN | EPOLLPRI | EPOLLOUT) | mark(id) | ALWAYS
    }

    /// The parts of an entry that are about readiness; `about` is the
    /// `user_data` of the request it is about.
    pub fn fill_poll(&self, id: u32, about: u64, entry: &mut Entry) {
        let about = if self.name == 0 { about } else { NAMES + u64::from(self.name) };
        let events = self.events(id) & !ALWAYS;
        (entry.off, entry.len) = (0, 0);
        match self.op {
            Op::Poll { multi } => {
                entry.op_flags = events;
                entry.len = if multi { IORING_POLL_ADD_MULTI } else { 0 };
                if self.name != 0 {
                    entry.user_data = about;
                }
            }
            Op::Repoll { events: gives, name } => {
                entry.addr = about;
                if gives {
                    (entry.op_flags, entry.len) = (events, IORING_POLL_UPDATE_EVENTS);
                }
                if name != 0 {
                    entry.off = NAMES + u64::from(name);
                    entry.len |= IORING_POLL_UPDATE_USER_DATA;
                }
            }
            _ => entry.addr = about,
        }
    }
}

/// The `user_data` of request `id`, or of the name that it has.
pub fn user_data(id: u32, name: u8) -> u64 {
    if name == 0 { TAG + u64::from(id) } else { NAMES + u64::from(name) }
}

impl World {
    /// A wait is started.
    pub fn start_poll(&mut self, flight: Flight, spec: Spec, request: &Request<u32, u32>) -> Start {
        let (id, slot, others) = (flight.id, flight.token.index(), self.device.flying != 0);
        let (events, once) = (request.op_flags & 0xffff, request.op_flags & EPOLLONESHOT != 0);
        let now = self.model.ready[spec.watched()] & events;
        if now != 0 && once {
            self.model.ended(id, now as i32, By::Start);
            return Start::Done(now as i32);
        }
        let full = matches!(spec.fate, Fate::NoRoom(times) if self.model.refusals(id) < times);
        if others && (full || request.fallback) {
            self.model.no_room(id);
            return Start::NoRoom;
        }
        let phase = Phase::Poll { events, once, over: None };
        self.device.flights[slot] = Some(Flight { phase, ..flight });
        self.device.flying += 1;
        match spec.fate {
            _ if now == 0 => Start::Pending,
            Fate::Now(_) => {
                self.model.tells(id, now as i32);
                Start::More(now as i32)
            }
            _ => {
                self.wake_slot(slot);
                Start::Pending
            }
        }
    }

    /// A wait has been woken.
    pub fn resume_poll(&mut self, slot: usize) -> Start {
        let Some(Flight { id, token, phase: Phase::Poll { events, once, over }, .. }) =
            self.device.flights[slot]
        else {
            return Start::Pending;
        };
        let now = self.model.ready[self.model.spec(id).watched()] & events;
        let result = match over {
            Some(result) => result,
            None if now == 0 => return Start::Pending,
            None if once => now as i32,
            None => {
                self.model.tells(id, now as i32);
                return Start::More(now as i32);
            }
        };
        // A notice may cross the end, which then comes home with it.
        if id % 4 == 3
            && !self.device.closing
            && self.model.nothing_waits()
            && let Some(completer) = self.device.completer
        {
            if completer.ready(token).is_err() {
                self.model.fail(format!("a wake-up of request {id} is refused"));
            }
            self.model.early += 1;
        }
        self.model.ended(id, result, By::Resume);
        self.device.land(slot);
        Start::Done(result)
    }

    /// A wait is to wait for something else, or for the same anew.
    pub fn update_poll(&mut self, token: Token, new: Option<u32>) {
        let slot = token.index();
        let Some(Some(Flight { id, phase: Phase::Poll { events, .. }, .. })) =
            self.device.flights.get_mut(slot)
        else {
            return self.model.fail("what is updated does not wait for readiness");
        };
        *events = new.unwrap_or(*events);
        let (id, events) = (*id, *events);
        self.model.updated(id, new);
        if self.model.ready[self.model.spec(id).watched()] & events != 0 {
            self.wake_slot(slot);
        }
    }

    /// A wait ends with the events that it has just told of, or a read without
    /// a buffer.
    pub fn end_early(&mut self, token: Token) {
        let slot = token.index();
        let Some(Some(flight)) = self.device.flights.get(slot) else {
            return self.model.fail("what is ended is not in flight");
        };
        let id = flight.id;
        match flight.phase {
            Phase::Poll { .. } => self.model.tells_no_more(id),
            _ => self.model.no_buffer(id),
        }
        self.device.land(slot);
    }

    /// A wait ends with this result when it has been woken.
    pub fn end_wait(&mut self, slot: usize, result: i32) -> Cancel {
        if let Some(Flight { phase: Phase::Poll { over, .. }, .. }) = &mut self.device.flights[slot]
        {
            *over = Some(result);
            self.wake_slot(slot);
        }
        Cancel::Ended
    }

    /// These events hold for a file from now on, and no others.
    pub fn becomes_ready(&mut self, file: u8, holds: u16) {
        let file = usize::from(file) % FILES;
        let holds = u32::from(holds) & (EPOLLIN | EPOLLPRI | EPOLLOUT | ALWAYS);
        let new = holds & !self.model.ready[file];
        self.model.ready[file] = holds;
        for slot in 0..self.device.flights.len() {
            if let Some(Flight { id, phase: Phase::Poll { events, .. }, .. }) =
                self.device.flights[slot]
                && events & new != 0
                && self.model.spec(id).watched() == file
            {
                self.wake_slot(slot);
            }
        }
    }

    /// A notice that a request can go on.
    pub fn wake_slot(&mut self, slot: usize) {
        let (Some(flight), Some(completer)) = (self.device.flights[slot], self.device.completer)
        else {
            return;
        };
        let queued = self.device.woken[slot];
        if completer.ready(flight.token).is_err() != queued {
            let id = flight.id;
            self.model.fail(format!("a wake-up of request {id} is wrongly refused or taken"));
        }
        self.device.woken[slot] = true;
        self.model.req(flight.id).woken = true;
    }
}
