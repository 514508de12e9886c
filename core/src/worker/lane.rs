//! One class's queue and stacks. All of it is used under the pool's lock.

use crate::sync::{AtomicU32, Ordering};

pub(super) const NIL: u32 = u32::MAX;

/// A seat's word while its worker runs, or nobody sits there.
const AWAKE: u32 = 0;
/// A seat's word while its worker is on the idle stack.
pub(super) const IDLE: u32 = 1;

/// Room for one worker.
#[derive(Debug)]
pub struct Seat {
    /// What its idle worker sleeps on. Written under the pool's lock only.
    pub(super) word: AtomicU32,
    /// The seat below on the idle or the free stack. Used under the lock only.
    pub(super) below: AtomicU32,
}

impl Seat {
    /// An empty seat.
    pub fn new() -> Self {
        Self { word: AtomicU32::new(AWAKE), below: AtomicU32::new(NIL) }
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// The queue: first and last job, threaded through `links`.
    head: u32,
    tail: u32,
    pub queued: u32,
    /// The stacks of seats: workers that sleep, and nobody.
    idle: u32,
    pub idle_count: u32,
    pub free: u32,
    /// Seats in use.
    pub workers: u32,
    /// Workers woken or made that have not looked at the queue since.
    pub coming: u32,
    /// Seats that may be in use.
    pub limit: u32,
    /// Creations that have failed in passing and are tried again.
    pub tries: u32,
    /// Jobs taken by workers.
    pub taken: u64,
}

impl Lane {
    pub fn new(limit: u32) -> Self {
        Self {
            head: NIL,
            tail: NIL,
            queued: 0,
            idle: NIL,
            idle_count: 0,
            free: NIL,
            workers: 0,
            coming: 0,
            limit,
            tries: 0,
            taken: 0,
        }
    }

    /// Workers beyond the limit. One is never too many.
    pub fn surplus(&self) -> u32 {
        self.workers.saturating_sub(self.limit.max(1))
    }

    pub fn push(&mut self, links: &mut [u32], index: u32) {
        links[index as usize] = NIL;
        match self.tail {
            NIL => self.head = index,
            tail => links[tail as usize] = index,
        }
        self.tail = index;
        self.queued += 1;
    }

    pub fn pop(&mut self, links: &[u32]) -> Option<u32> {
        let index = self.head;
        if index == NIL {
            return None;
        }
        self.head = links[index as usize];
        if self.head == NIL {
            self.tail = NIL;
        }
        self.queued -= 1;
        Some(index)
    }

    /// Takes one certain job out, wherever it is. False if it is not there.
    pub fn remove(&mut self, links: &mut [u32], index: u32) -> bool {
        let (mut above, mut at) = (NIL, self.head);
        while at != index {
            if at == NIL {
                return false;
            }
            (above, at) = (at, links[at as usize]);
        }
        let below = links[index as usize];
        match above {
            NIL => self.head = below,
            above => links[above as usize] = below,
        }
        if below == NIL {
            self.tail = above;
        }
        self.queued -= 1;
        true
    }

    pub fn push_free(&mut self, seats: &[Seat], seat: u32) {
        // Relaxed: `below` is used under the lock only.
        seats[seat as usize].below.store(self.free, Ordering::Relaxed);
        self.free = seat;
    }

    pub fn pop_free(&mut self, seats: &[Seat]) -> Option<u32> {
        let seat = self.free;
        // Relaxed: as above.
        self.free = seats.get(seat as usize)?.below.load(Ordering::Relaxed);
        Some(seat)
    }

    pub fn push_idle(&mut self, seats: &[Seat], seat: u32) {
        // Relaxed, both: written under the lock only. The sleeper compares
        // `word` again in `park`, which is one step towards `unpark`.
        seats[seat as usize].below.store(self.idle, Ordering::Relaxed);
        seats[seat as usize].word.store(IDLE, Ordering::Relaxed);
        self.idle = seat;
        self.idle_count += 1;
    }

    /// Takes a sleeper off the stack and counts it as coming. The caller
    /// unparks it after it has left the lock.
    pub fn pop_idle(&mut self, seats: &[Seat]) -> Option<u32> {
        let seat = self.idle;
        // Relaxed: under the lock only; what the worker then reads is ordered
        // by the lock that it takes.
        self.idle = seats.get(seat as usize)?.below.load(Ordering::Relaxed);
        seats[seat as usize].word.store(AWAKE, Ordering::Relaxed);
        self.idle_count -= 1;
        self.coming += 1;
        Some(seat)
    }

    /// Takes one certain sleeper off the stack, wherever it is.
    pub fn remove_idle(&mut self, seats: &[Seat], seat: u32) {
        // Relaxed, all: under the lock only.
        let below = seats[seat as usize].below.load(Ordering::Relaxed);
        if self.idle == seat {
            self.idle = below;
        } else {
            let mut above = self.idle;
            loop {
                let link = &seats[above as usize].below;
                let at = link.load(Ordering::Relaxed);
                if at == seat {
                    link.store(below, Ordering::Relaxed);
                    break;
                }
                above = at;
            }
        }
        seats[seat as usize].word.store(AWAKE, Ordering::Relaxed);
        self.idle_count -= 1;
    }
}
