//! Provided buffers: the application's side, and the backend's.
//!
//! The memory of the buffers is nowhere: nobody reads or writes it. That of the
//! rings is real, for the engine reads what the application has filled in.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use annulus::hal::{Start, Token};
use annulus::register::Call;
use annulus::squeue::Entry;
use annulus::types::BufRingEntry;
use annulus::uapi::*;

use super::action::{OPEN_FILES, Op, Outcome, Register, Spec};
use super::device::{Flight, Phase};
use super::model::{Buffer, By};
use super::world::World;

/// Groups that are used, of which a ring may have fewer.
pub const GROUPS: u8 = 3;
/// Where the buffers of request 0 are; those of others follow.
const MEMORY: u64 = 0x8000_0000;
/// Bytes for those of one request, or of one ring.
const SPAN: u64 = 0x10_0000;
/// Bytes of a ring's memory.
const RING: usize = 4096;

/// Memory of a ring of buffers, where one may begin.
#[repr(align(4096))]
struct Page(#[allow(dead_code)] [u8; RING]);

thread_local! {
    /// One ring for each group. Each run uses them anew.
    static RINGS: Cell<Option<NonNull<Page>>> = const { Cell::new(None) };
}

/// The memory of a group's ring.
pub fn ring_of(group: u8) -> NonNull<BufRingEntry> {
    let rings = RINGS.get().unwrap_or_else(|| {
        let pages: Box<[Page]> = (0..GROUPS).map(|_| Page([0; RING])).collect();
        let rings = NonNull::from(Box::leak(pages)).cast();
        RINGS.set(Some(rings));
        rings
    });
    // SAFETY: one of the pages.
    unsafe { rings.add(usize::from(group % GROUPS)) }.cast()
}

/// The tail of a group's ring.
fn tail_of(group: u8) -> &'static AtomicU16 {
    // SAFETY: a word of a page that lasts for ever, reached by atomic accesses
    // only: it lies where the first entry has nothing.
    unsafe { ring_of(group).cast::<AtomicU16>().add(7).as_ref() }
}

/// An empty ring.
pub fn clear_ring(group: u8) {
    tail_of(group).store(0, Ordering::Release);
}

impl Spec {
    /// Whether it asks for a provided buffer.
    pub fn selects(&self) -> bool {
        self.has(IOSQE_BUFFER_SELECT)
    }

    /// Whether its file is open, for all that its number says.
    pub fn is_open(&self) -> bool {
        self.fixed || self.file < OPEN_FILES
    }

    /// What a backend answers as it starts it: that a file is not open it says
    /// only then.
    pub fn result_at_once(&self, outcome: Outcome) -> i32 {
        if self.selects() && !self.is_open() { -9 } else { self.result(outcome) }
    }

    /// The parts of an entry that are about provided buffers.
    pub fn fill_provided(&self, id: u32, entry: &mut Entry) {
        (entry.buf_index, entry.addr) = (self.buffer.into(), 0);
        match self.op {
            Op::Provide { count } => {
                let first = self.provides(id, 0);
                (entry.fd, entry.addr) = (count.into(), first.addr);
                entry.off = first.id.into();
            }
            Op::Unprovide { count } => {
                (entry.fd, entry.off, entry.len) = (count.into(), 0, 0);
            }
            _ => {}
        }
    }

    /// The `nth` buffer that request `id` provides.
    pub fn provides(&self, id: u32, nth: u8) -> Buffer {
        Buffer {
            addr: MEMORY + u64::from(id) * SPAN + u64::from(nth) * u64::from(self.len),
            len: self.len,
            id: (id as u16).wrapping_mul(8).wrapping_add(nth.into()) & 0x7fff,
            of_ring: false,
        }
    }
}

impl World {
    /// The application fills places of a ring, if it has one with room.
    pub fn fill_ring(&mut self, group: u8, count: u8, len: u16) {
        let Some((tail, room, places)) = self.model.ring_room(group) else { return };
        for n in 0..room.min(count.into()) {
            let at = tail.wrapping_add(n);
            let addr = MEMORY / 2 + u64::from(group) * SPAN * 64 + u64::from(at) * 4096;
            let buffer = Buffer { addr, len, id: 0x8000 | at, of_ring: true };
            // SAFETY: a place of the ring that the engine is done with; the
            // tail is not part of what is written.
            unsafe {
                let entry = ring_of(group).add(usize::from(at & (places - 1))).as_mut();
                entry.set_addr(addr);
                entry.set_len(len.into());
                entry.set_bid(buffer.id);
            }
            // Release: the engine's Acquire sees what has been filled in.
            tail_of(group).store(at.wrapping_add(1), Ordering::Release);
            self.model.filled(group, buffer);
        }
    }

    /// A read that waits is given a buffer.
    pub fn rebuffer(&mut self, token: Token, addr: u64, len: u32) {
        match self.device.flights.get(token.index()) {
            Some(Some(Flight { id, phase: Phase::Asleep(_), .. })) => {
                let id = *id;
                self.model.picks_again(id, addr, len);
            }
            _ => self.model.fail("what is given a buffer does not wait for one"),
        }
    }

    /// A read that waits for readiness has been woken: it goes on waiting, or
    /// reads, or fails.
    pub fn resume_read(&mut self, slot: usize, id: u32, left: u8) -> Start {
        if left > 1 {
            if let Some(flight) = &mut self.device.flights[slot] {
                flight.phase = Phase::Asleep(left - 1);
            }
            self.model.lends(id);
            return Start::Waiting;
        }
        let outcome = if id.is_multiple_of(3) { Outcome::Error } else { Outcome::Whole };
        let result = self.model.spec(id).result(outcome);
        if result < 0 {
            // As it has moved nothing, it has used nothing.
            self.model.lends(id);
        }
        self.model.ended(id, result, By::Resume);
        self.device.land(slot);
        Start::Done(result)
    }
}

/// The call about a ring of buffers, if it is one.
pub fn ring_call(call: Register) -> Option<Call<'static>> {
    match call {
        Register::Ring { group, places } => Some(Call::RegisterBufRing {
            base: ring_of(group).as_ptr(),
            entries: 1 << places,
            group: group.into(),
            incremental: false,
        }),
        Register::NoRing { group } => Some(Call::UnregisterBufRing(group.into())),
        Register::Head { group } => Some(Call::BufRingHead(group.into())),
        _ => None,
    }
}
