//! Slots as the outside sees them: tokens, and the lane by which they come
//! home.
//!
//! A slot's *shared* part is here, three words. Everything else about a
//! request ([`crate::request`]) belongs to the engine alone and is plain
//! memory.
//!
//! # Life cycle
//!
//! ```text
//!              (1) arm                 (2) a notice: CAS
//!   IDLE ───────────────▶ LIVE ───────────────────────▶ LIVE|QUEUED
//!    ▲                     ▲                                 │ pushed on the return list,
//!    │                     │      (3) READY: store           │ popped by the engine
//!    │                     ├─────────────────────────────────┤
//!    │    (4) FINAL: store, generation + 1                   │
//!    └───────────────────────────────────────────────────────┘
//!         (5) ended in the engine: store, generation + 1 (from LIVE),
//!             or CAS if a notice may come at the same time
//! ```
//!
//! * The state of a LIVE slot is its token: the index in bits 0..16, the
//!   generation in 18..32. Bit 16 set is IDLE, bit 17 QUEUED.
//! * While a slot is IDLE or QUEUED only the engine writes its state; while
//!   it is LIVE only a notice that brings the right generation does, by CAS,
//!   and that one wins the right to write `message` and to push the slot.
//!   So a slot is never on the list twice, and a stale, repeated or invented
//!   token ends at the CAS: [`Stale`].
//! * One notice at a time. The engine reads the message and clears QUEUED
//!   *before* it acts on it, for acting may bring the next notice at once.

mod run;

pub(crate) use run::{End, Run};

use crate::fault::{self, Fault};
use crate::sync::{AtomicU32, Ordering};

const INDEX: u32 = 0xffff;
const IDLE: u32 = 1 << 16;
const QUEUED: u32 = 1 << 17;
/// One generation.
const GENERATION: u32 = 1 << 18;
const NIL: u32 = 0;

/// Names one incarnation of a slot: index in the low half, generation above
/// it. Made by the engine, brought back by whoever completes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u32);

impl Token {
    /// Of no request that was ever made, or of slot 0's first: for where there
    /// has to be one that nobody looks at.
    #[cfg(feature = "nvme")]
    pub(crate) const NONE: Self = Self(0);

    /// The token of a state.
    #[inline(always)]
    fn of(state: u32) -> Self {
        Self(state & !(IDLE | QUEUED))
    }

    /// The slot's index: below the number of requests, or equal to it for
    /// the reserved slot. A backend may keep its own state per index.
    #[inline(always)]
    pub fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }

    /// The whole token as a number, for carrying it through a device or
    /// another thread.
    #[inline(always)]
    pub fn to_raw(self) -> u32 {
        self.0
    }

    /// The token of that number. Any number is safe: one that names no live
    /// request is refused where it is used.
    #[inline(always)]
    pub fn from_raw(raw: u32) -> Self {
        Self::of(raw)
    }

    /// The state of its slot while that waits for a notice.
    #[inline(always)]
    fn live_state(self) -> u32 {
        self.0
    }

    /// The state of its slot once that is closed to it.
    #[inline(always)]
    fn idle_after(self) -> u32 {
        let step = if fault::on(Fault::RetireKeepsGeneration) { 0 } else { GENERATION };
        // A token has neither flag.
        self.0.wrapping_add(step + IDLE)
    }
}

/// The token names no request that waits for a notice: it ended already, was
/// completed twice, or never was. The notice was counted and had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token names no request that waits for a completion: it was completed before, or is not of this ring"
)]
pub struct Stale;

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The request has ended with this result.
    Final(i32),
    /// The request can go on ([`crate::hal::Backend::resume`]).
    Ready,
}

/// `message` of a READY notice; no errno or byte count is this small.
const READY: i32 = i32::MIN;

/// The shared part of one slot. As large as a request's record, so that one
/// shift finds both.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct SharedSlot {
    state: AtomicU32,
    /// The slot below on the return list, plus one.
    next: AtomicU32,
    message: Message,
}

/// What the last notice says.
///
/// Written by whoever won the slot's QUEUED bit, read by the engine before it
/// clears that bit. A relaxed word would do no harm in the hands of a backend
/// that breaks the rules, so that is what it is; under loom it is a cell, for
/// which an access that the rules do not order fails the model.
#[derive(Debug)]
struct Message(#[cfg(not(loom))] AtomicU32, #[cfg(loom)] crate::sync::UnsafeCell<i32>);

#[cfg(not(loom))]
impl Message {
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[inline(always)]
    fn write(&self, message: i32) {
        // Relaxed: published by the push on the return list.
        self.0.store(message as u32, Ordering::Relaxed);
    }

    #[inline(always)]
    fn read(&self) -> i32 {
        // Relaxed: ordered by the taking of the return list.
        self.0.load(Ordering::Relaxed) as i32
    }
}

/// Who has the news: the engine reads what is below them on the list before the
/// lane says that it is empty, and whoever tells it next writes that after.
///
/// Both are relaxed, and loom shows no load a later store of another thread's;
/// so under loom a cell goes with them, for which an access that the lane does
/// not order fails the model.
#[derive(Debug)]
struct Turn(#[cfg(loom)] crate::sync::UnsafeCell<()>);

#[cfg(not(loom))]
impl Turn {
    fn new() -> Self {
        Self()
    }

    fn written(&self) {}

    fn read(&self) {}
}

/// The shared parts of a ring's slots, and their way home.
pub(crate) struct Slots<'m> {
    slots: &'m [SharedSlot],
    /// The top of the return list, plus one.
    head: AtomicU32,
    /// What is below the news on the return list, plus one.
    below_news: AtomicU32,
    news: Turn,
    /// Notices refused.
    stale: AtomicU32,
}

impl SharedSlot {
    pub fn new(index: u32) -> Self {
        let state = AtomicU32::new(index | IDLE);
        Self { state, next: AtomicU32::new(NIL), message: Message::new() }
    }
}

impl<'m> Slots<'m> {
    pub fn new(slots: &'m [SharedSlot]) -> Self {
        let below_news = AtomicU32::new(NIL);
        let (head, stale) = (AtomicU32::new(NIL), AtomicU32::new(0));
        Self { slots, head, below_news, news: Turn::new(), stale }
    }

    // -- the outside ------------------------------------------------------

    /// Brings a notice home. True if the list was empty before.
    pub fn post(&self, token: Token, notice: Notice) -> Result<bool, Stale> {
        let slot = self.slots.get(token.index()).ok_or_else(|| self.refuse())?;
        let live = token.live_state();
        // Acquire: pairs with the engine's Release in `take_notice`: the
        // message of the notice before has been read. Release is not needed,
        // the push below publishes.
        let acquire = fault::order(Fault::QueuedSetRelaxed, Ordering::Acquire);
        if fault::on(Fault::ReturnPushTwice) {
            slot.state.fetch_or(QUEUED, acquire);
        } else {
            let mut expected = live;
            if fault::on(Fault::StaleTokenAccepted) {
                expected = Token::of(slot.state.load(Ordering::Relaxed)).live_state();
            }
            slot.state
                .compare_exchange(expected, expected | QUEUED, acquire, Ordering::Relaxed)
                .map_err(|_| self.refuse())?;
        }
        let message = match notice {
            // No errno and no count, but it must not be taken for the other.
            Notice::Final(result) => result.max(READY + 1),
            Notice::Ready => READY,
        };
        slot.message.write(message);
        Ok(self.push(token.index(), &slot.next))
    }

    /// Puts the news on the list: another lane, whose business it is that they
    /// are there once only, has something for the engine. They come home as the
    /// index behind the last slot's. True if the list was empty before.
    pub fn announce(&self) -> bool {
        self.news.written();
        self.push(self.slots.len(), &self.below_news)
    }

    /// What is below an entry of the list.
    fn below(&self, index: usize) -> &AtomicU32 {
        self.slots.get(index).map_or(&self.below_news, |slot| &slot.next)
    }

    fn push(&self, index: usize, next: &AtomicU32) -> bool {
        // Relaxed: the value is only compared and passed on.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // Relaxed: published by the CAS.
            next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire swap in `take`; later pushes
            // are RMWs and carry the release sequence on.
            //
            // No ABA: a slot that was popped and pushed again between our
            // load and CAS makes `head` equal and `next` still right, since
            // the list is only ever taken whole; there is no pop to fool.
            match self.head.compare_exchange_weak(
                head,
                index as u32 + 1,
                fault::order(Fault::ReturnPushRelaxed, Ordering::Release),
                Ordering::Relaxed,
            ) {
                Ok(_) => return head == NIL,
                Err(now) => head = now,
            }
        }
    }

    /// Counts a token that names no slot that waits.
    #[cold]
    #[inline(never)]
    pub fn refuse(&self) -> Stale {
        // Relaxed: a statistic.
        self.stale.fetch_add(1, Ordering::Relaxed);
        Stale
    }

    // -- the engine -------------------------------------------------------

    /// Whether something may have come home.
    #[inline(always)]
    pub fn any_returned(&self) -> bool {
        // Relaxed: a hint; `take` acquires, and a sleeper looks after a fence.
        self.head.load(Ordering::Relaxed) != NIL
    }

    /// Takes everything that has come home, oldest first. Engine only.
    pub fn take(&self) -> Returned {
        // Acquire: pairs with the Release CAS in `push`.
        let mut top =
            self.head.swap(NIL, fault::order(Fault::ReturnTakeRelaxed, Ordering::Acquire));
        // Reverse: the list is newest first, completions keep their order.
        // Relaxed: a taken list is the engine's own.
        let mut first = NIL;
        while top != NIL {
            let next = self.below(top as usize - 1);
            let below = next.load(Ordering::Relaxed);
            next.store(first, Ordering::Relaxed);
            first = top;
            top = below;
        }
        Returned { first }
    }

    /// The next index of a taken list.
    pub fn next_returned(&self, list: &mut Returned) -> Option<u32> {
        let index = list.first.checked_sub(1)?;
        // Relaxed: the engine's own since `take`. Read before the notice is
        // taken, for after that the slot may be pushed again.
        list.first = self.below(index as usize).load(Ordering::Relaxed);
        if index as usize == self.slots.len() {
            self.news.read();
        }
        Some(index)
    }

    /// Reads a returned slot's notice and lets the next one in (READY), or
    /// closes the slot to any other (FINAL).
    pub fn take_notice(&self, index: u32) -> Notice {
        let slot = &self.slots[index as usize];
        let message = slot.message.read();
        // Relaxed: ordered by `take`.
        let state = slot.state.load(Ordering::Relaxed);
        if message == READY {
            if !fault::on(Fault::QueuedClearedLate) {
                self.let_next_in(slot, state);
            }
            Notice::Ready
        } else {
            self.retire(index);
            Notice::Final(message)
        }
    }

    /// The fault QueuedClearedLate does here what `take_notice` forgot.
    pub fn acted_on(&self, index: u32) {
        if fault::on(Fault::QueuedClearedLate) {
            let slot = &self.slots[index as usize];
            let state = slot.state.load(Ordering::Relaxed);
            self.let_next_in(slot, state);
        }
    }

    fn let_next_in(&self, slot: &SharedSlot, state: u32) {
        // Release: pairs with the Acquire CAS in `post`: we have read the
        // message that it will overwrite. A plain store: nobody else writes
        // the state of a queued slot.
        slot.state
            .store(state & !QUEUED, fault::order(Fault::QueuedClearRelaxed, Ordering::Release));
    }

    /// The slots, for a run over requests that keeps them in registers.
    #[inline(always)]
    pub fn run(&self) -> Run<'m> {
        Run::new(self.slots)
    }

    /// Closes a slot: every token made so far is stale from now on.
    #[inline]
    pub fn retire(&self, index: u32) {
        self.run().retire(index);
    }

    /// [`retire`](Self::retire), for a slot whose token others still have and
    /// may bring a notice for. False if one has: the slot is on its way home,
    /// and stays as it is.
    pub fn try_retire(&self, index: u32) -> bool {
        if fault::on(Fault::RetireBlind) {
            self.retire(index);
            return true;
        }
        let slot = &self.slots[index as usize];
        let token = self.token(index);
        let (live, idle) = (token.live_state(), token.idle_after());
        // Relaxed: as in `retire`; what a notice that was first has to say
        // is read when the slot is taken off the list.
        slot.state.compare_exchange(live, idle, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The token of a live slot. Engine only.
    pub fn token(&self, index: u32) -> Token {
        self.run().token(index)
    }

    /// Notices refused so far.
    pub fn stale(&self) -> u32 {
        // Relaxed: a statistic.
        self.stale.load(Ordering::Relaxed)
    }

    /// A slot's state for the eye: (live, queued, generation).
    pub fn peek(&self, index: usize) -> (bool, bool, u32) {
        // Relaxed: for the eye only.
        let state = self.slots[index].state.load(Ordering::Relaxed);
        (state & IDLE == 0, state & QUEUED != 0, state / GENERATION)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

/// A list of slots that came home, oldest first.
#[derive(Debug)]
pub(crate) struct Returned {
    first: u32,
}

/// Where models watch what the lane carries.
#[cfg(loom)]
#[path = "slot/watched.rs"]
mod watched;
