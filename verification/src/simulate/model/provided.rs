//! Provided buffers, as the application knows them: what it has given, and what
//! CQEs have told of.

use std::collections::VecDeque;

use annulus::uapi::*;

use super::super::action::{Op, Register, Spec};
use super::super::provided::GROUPS;
use super::{Model, State};

const ENOENT: i32 = -2;
const EBADF: i32 = -9;
const ENOMEM: i32 = -12;
const EEXIST: i32 = -17;
const EINVAL: i32 = -22;
const ENOBUFS: i32 = -105;

/// A buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub addr: u64,
    pub len: u16,
    pub id: u16,
    /// Of a ring, to which it goes back when it is not used.
    pub of_ring: bool,
}

/// A group: what can be picked from it, first what comes first.
#[derive(Debug, Default)]
pub struct Group {
    is: Is,
    buffers: VecDeque<Buffer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Is {
    #[default]
    Nothing,
    List,
    /// With so many places, and as many buffers picked.
    Ring {
        places: u16,
        head: u16,
    },
}

impl Model {
    /// No groups.
    pub fn reset_groups(&mut self) {
        self.groups.clear();
        self.groups.resize_with(GROUPS.into(), Group::default);
    }

    fn group(&mut self, group: u8) -> &mut Group {
        &mut self.groups[usize::from(group % GROUPS)]
    }

    /// Makes a group; false if there are as many as there may be.
    fn make(&mut self, group: u8, is: Is) -> bool {
        let groups = self.groups.iter().filter(|group| group.is != Is::Nothing).count();
        let room = groups < self.setup.groups as usize;
        if room {
            *self.group(group) = Group { is, buffers: VecDeque::new() };
        }
        room
    }

    /// Buffers that can still be provided.
    fn room_for_buffers(&self) -> usize {
        let lists = self.groups.iter().filter(|group| group.is == Is::List);
        let used: usize = lists.map(|group| group.buffers.len()).sum();
        self.setup.provided as usize - used
    }

    /// PROVIDE_BUFFERS, REMOVE_BUFFERS: the result.
    pub fn provide(&mut self, id: u32, spec: Spec) -> i32 {
        let is = self.group(spec.buffer).is;
        match (spec.op, is) {
            (_, Is::Ring { .. }) => EINVAL,
            (Op::Unprovide { .. }, Is::Nothing) => ENOENT,
            (Op::Unprovide { count }, Is::List) => {
                let buffers = &mut self.group(spec.buffer).buffers;
                let count = buffers.len().min(count.into());
                buffers.drain(..count);
                count as i32
            }
            (Op::Provide { count }, is) => {
                if is == Is::Nothing && !self.make(spec.buffer, Is::List) {
                    return ENOMEM;
                }
                let count = self.room_for_buffers().min(count.into()) as u8;
                let new = (0..count).map(|nth| spec.provides(id, nth));
                self.group(spec.buffer).buffers.extend(new);
                // Some are enough for a good answer.
                if count == 0 { ENOMEM } else { 0 }
            }
            _ => 0,
        }
    }

    /// A call about a ring of buffers: its answer.
    pub fn ring_call(&mut self, call: Register) -> i32 {
        match call {
            Register::Ring { group, places } => {
                let ring = Is::Ring { places: 1 << places, head: 0 };
                match (self.group(group).is, self.is_dry(group)) {
                    (Is::Nothing, _) if self.make(group, ring) => 0,
                    (Is::Nothing, _) => ENOMEM,
                    (Is::List, true) => {
                        self.group(group).is = ring;
                        0
                    }
                    _ => EEXIST,
                }
            }
            Register::NoRing { group } | Register::Head { group } => {
                let gone = matches!(call, Register::NoRing { .. });
                match self.group(group).is {
                    Is::Nothing => ENOENT,
                    Is::List => EINVAL,
                    Is::Ring { .. } if gone => {
                        *self.group(group) = Group::default();
                        0
                    }
                    Is::Ring { head, .. } => head.into(),
                }
            }
            _ => 0,
        }
    }

    /// Whether a group may be made a ring now, and is none.
    pub fn becomes_ring(&self, group: u8) -> bool {
        let group = &self.groups[usize::from(group % GROUPS)];
        !matches!(group.is, Is::Ring { .. })
    }

    /// Where the next buffer of a ring goes, how many there is room for, and its
    /// places.
    pub fn ring_room(&mut self, group: u8) -> Option<(u16, u16, u16)> {
        let group = self.group(group);
        let Is::Ring { places, head } = group.is else { return None };
        let full = group.buffers.len() as u16;
        Some((head.wrapping_add(full), places - full, places))
    }

    /// The application has put a buffer into a ring.
    pub fn filled(&mut self, group: u8, buffer: Buffer) {
        self.group(group).buffers.push_back(buffer);
    }

    /// Whether a group has no buffer.
    pub fn is_dry(&self, group: u8) -> bool {
        self.groups[usize::from(group % GROUPS)].buffers.is_empty()
    }

    /// A read that asks for a provided buffer ends so without one.
    pub fn without_buffer(&self, spec: &Spec) -> Option<i32> {
        let result = if spec.is_open() { ENOBUFS } else { EBADF };
        (spec.selects() && self.is_dry(spec.buffer)).then_some(result)
    }

    /// A read picks the first buffer of its group.
    pub fn picks(&mut self, id: u32) -> bool {
        let spec = self.spec(id);
        let group = self.group(spec.buffer);
        let Some(buffer) = group.buffers.pop_front() else { return false };
        if let Is::Ring { head, .. } = &mut group.is {
            *head = head.wrapping_add(1);
        }
        let req = self.req(id);
        req.picked = Some(buffer);
        req.spec.len = req.wanted.min(buffer.len);
        true
    }

    /// The buffer of a read was not used, and goes back to where it was.
    pub fn gives_back(&mut self, id: u32) {
        let group = self.spec(id).buffer;
        if let Some(buffer) = self.req(id).picked.take() {
            let group = self.group(group);
            group.buffers.push_front(buffer);
            if let Is::Ring { head, .. } = &mut group.is {
                *head = head.wrapping_sub(1);
            }
        }
    }

    /// A read waits for readiness: others can have its buffer, if it is of a ring
    /// and it is not to be done asynchronously.
    pub fn lends(&mut self, id: u32) {
        let req = self.reqs[id as usize];
        if req.picked.is_some_and(|buffer| buffer.of_ring) && !req.spec.has(IOSQE_ASYNC) {
            self.gives_back(id);
        }
    }

    /// A read that has waited gets a buffer.
    pub fn picks_again(&mut self, id: u32, addr: u64, len: u32) {
        if self.reqs[id as usize].picked.is_some() || !self.picks(id) {
            return self.fail(format!("request {id} has a buffer already, or there is none"));
        }
        let req = &self.reqs[id as usize];
        let right = req.picked.map(|buffer| (buffer.addr, u32::from(req.spec.len)));
        if right != Some((addr, len)) {
            self.fail(format!("request {id} gets {len} bytes at {addr:#x}, {right:x?} is right"));
        }
    }

    /// A read that has waited finds no buffer.
    pub fn no_buffer(&mut self, id: u32) {
        let spec = self.spec(id);
        if self.reqs[id as usize].picked.is_some() || !self.is_dry(spec.buffer) {
            return self.fail(format!("request {id} ends without a buffer, and there is one"));
        }
        if self.reqs[id as usize].state != State::Flying {
            return self.fail(format!("request {id} ends, and is not in flight"));
        }
        let req = self.req(id);
        (req.result, req.failed) = (ENOBUFS, true);
        self.end(id, true);
    }
}

impl super::Req {
    /// What its CQE says of a buffer.
    pub fn shown(&self) -> u32 {
        let id = |buffer: Buffer| u32::from(buffer.id) << IORING_CQE_BUFFER_SHIFT;
        self.picked.map_or(0, |buffer| IORING_CQE_F_BUFFER | id(buffer))
    }
}
