//! Requests about other requests: removals, updates, cancellation. The
//! application submits each alone, so that it is known what they find.

use annulus::uapi::*;

use super::super::action::{Key, OPEN_FILES, Op};
use super::super::place::now;
use super::{Model, NONE, State};

const EBADF: i32 = -9;
const ENOENT: i32 = -2;
const EALREADY: i32 = -114;

impl Model {
    /// The request about others that was submitted has been carried out.
    pub fn control_up_to_now(&mut self) {
        while self.next < self.limit && self.spec(self.next).op.is_control() {
            self.take_up_to(self.next);
        }
    }

    /// Carries out a request about others: its result.
    pub fn control(&mut self, id: u32) -> i32 {
        let spec = self.spec(id);
        let target = id.wrapping_sub(u32::from(spec.target));
        match spec.op {
            Op::Remove => match self.timeout(target, false) {
                true => {
                    self.cancelled(target);
                    0
                }
                false => ENOENT,
            },
            Op::Update { guard } => {
                if !self.timeout(target, guard) {
                    return ENOENT;
                }
                self.told += 1;
                let told = self.told;
                let req = self.req(target);
                (req.deadline, req.armed) = (now() + u64::from(spec.time), told);
                req.count = None;
                0
            }
            Op::Cancel { key, all } => self.cancel(id, key, all),
            Op::Provide { .. } | Op::Unprovide { .. } => self.provide(id, spec),
            Op::Unpoll | Op::Repoll { .. } => self.change_poll(id),
            _ => 0,
        }
    }

    /// Whether a timeout is there to be found.
    fn timeout(&self, id: u32, guards: bool) -> bool {
        self.reqs.get(id as usize).is_some_and(|req| {
            req.state == State::Armed && req.deadline > now() && (req.guards != NONE) == guards
        })
    }

    fn cancel(&mut self, id: u32, key: Key, all: bool) -> i32 {
        let spec = self.spec(id);
        if key == Key::File && spec.file >= OPEN_FILES {
            return EBADF;
        }
        let all = all || key == Key::Any;
        let target = id.wrapping_sub(u32::from(spec.target));
        // Of waits that share a name the newest.
        let newest = if all { None } else { self.newest(spec.name, target) };
        let (mut ended, mut running) = (0, false);
        let mut at = 0;
        while let Some(&other) = self.active.get(at) {
            at += 1;
            let req = self.reqs[other as usize];
            let matches = match key {
                Key::Data if spec.name == 0 => other == target && req.name == 0,
                Key::Data => req.name == spec.name && (all || newest == Some(other)),
                Key::File => !req.spec.fixed && req.spec.file == spec.file && req.spec.has_file(),
                Key::Opcode => req.spec.opcode() == spec.wanted_opcode(),
                Key::Any => true,
            };
            if !matches || other == id || req.removed {
                continue;
            }
            match req.state {
                State::Flying if req.waits() || req.spec.can_end && !req.woken => {
                    // A wait as often as somebody wants, others once.
                    if req.waits() || !self.asked.contains(&other) {
                        self.asked.push(other);
                    }
                    ended += 1;
                }
                State::Home if req.ended_by_us => ended += 1,
                State::Flying | State::Home => running = true,
                State::Armed if key != Key::File && self.timeout(other, false) => {
                    self.cancelled(other);
                    // It has left the list; its guard stood behind it.
                    at -= 1;
                    ended += 1;
                }
                _ => {}
            }
        }
        match (all, ended, running) {
            (true, ended, _) => ended,
            (false, 0, true) => EALREADY,
            (false, 0, false) => ENOENT,
            _ => 0,
        }
    }
}

/// Flags of a cancellation.
pub fn cancel_flags(key: Key, all: bool) -> u32 {
    let by = match key {
        Key::Data => 0,
        Key::File => IORING_ASYNC_CANCEL_FD,
        Key::Opcode => IORING_ASYNC_CANCEL_OP,
        Key::Any => IORING_ASYNC_CANCEL_ANY,
    };
    by | if all { IORING_ASYNC_CANCEL_ALL } else { 0 }
}
