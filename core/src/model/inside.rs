//! What the crate's own models (`tests/loom`) reach of its inside.
//!
//! Only in builds with `--cfg loom`. Thin: every line that could be wrong is
//! in the code that the models check.

use crate::config::Config;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::hal::Park;
use crate::mailbox::Mailbox;
use crate::messages::{Letter, Messages, words};
use crate::register::Call;
use crate::ring::{CqHalf, CqProducer, RingRef};
use crate::slot::{Notice, SharedSlot, Slots, Stale, Token};
use crate::sync::AtomicU32;
use core::ptr::NonNull;

pub use crate::wake::{EventCount, Key, wait_until};

/// A completion queue without an engine.
///
/// # Safety
/// As for `RingRef::init`, with the offsets of `config`.
pub unsafe fn cq(config: &Config, memory: NonNull<u8>) -> (CqWriter, CqHalf<'static>) {
    let (sq_entries, cq_entries) = (config.sq_entries, config.cq_entries);
    // SAFETY: the caller's promise.
    let ring = unsafe { RingRef::init(memory, &config.offsets(), sq_entries, cq_entries) };
    (CqWriter(CqProducer::new(ring)), CqHalf::new(ring, None))
}

/// The engine's half of the CQ.
pub struct CqWriter(CqProducer<'static>);

impl CqWriter {
    /// Writes an entry if there is room, and publishes it.
    pub fn post(&mut self, cqe: Cqe) -> bool {
        self.0.push(cqe) && self.0.commit()
    }
}

/// The slots' shared parts and the return list, without an engine.
pub struct ReturnLane {
    slots: Slots<'static>,
    memory: NonNull<[SharedSlot]>,
}

// SAFETY: `memory` is only for giving it back; `slots` is Send and Sync.
unsafe impl Send for ReturnLane {}
// SAFETY: as above.
unsafe impl Sync for ReturnLane {}

impl Drop for ReturnLane {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`, and `slots` is not used any more.
        drop(unsafe { std::boxed::Box::from_raw(self.memory.as_ptr()) });
    }
}

impl ReturnLane {
    /// `count` idle slots.
    pub fn new(count: usize) -> Self {
        let slots: std::vec::Vec<_> = (0..count as u32).map(SharedSlot::new).collect();
        let memory = std::boxed::Box::leak(slots.into_boxed_slice());
        let memory = NonNull::from(memory);
        // SAFETY: valid until `drop`.
        Self { slots: Slots::new(unsafe { memory.as_ref() }), memory }
    }

    /// Opens a slot.
    pub fn arm(&self, index: u32) -> Token {
        self.slots.run().arm(index)
    }

    /// A FINAL notice. True if the list was empty.
    ///
    /// # Errors
    /// As a completer's.
    pub fn complete(&self, token: Token, result: i32) -> Result<bool, Stale> {
        self.slots.post(token, Notice::Final(result))
    }

    /// A READY notice. True if the list was empty.
    ///
    /// # Errors
    /// As a completer's.
    pub fn ready(&self, token: Token) -> Result<bool, Stale> {
        self.slots.post(token, Notice::Ready)
    }

    /// Takes what has come home, oldest first: index and result, None for
    /// READY. `act` is the engine's acting on the notice. True if there was
    /// anything.
    pub fn take(&self, mut act: impl FnMut(u32, Option<i32>)) -> bool {
        if !self.slots.any_returned() {
            return false;
        }
        let mut list = self.slots.take();
        while let Some(index) = self.slots.next_returned(&mut list) {
            match self.slots.take_notice(index) {
                Notice::Final(result) => act(index, Some(result)),
                Notice::Ready => {
                    act(index, None);
                    self.slots.acted_on(index);
                }
            }
        }
        true
    }
}

/// The mailbox without an engine.
pub struct Post(Mailbox);

impl Default for Post {
    fn default() -> Self {
        Self(Mailbox::new())
    }
}

impl Post {
    /// As `Remote::call`.
    ///
    /// # Errors
    /// The answer's, or `ENXIO`.
    pub fn call<P: Park>(
        &self,
        park: &P,
        call: Call<'_>,
        wake: impl FnOnce(),
    ) -> Result<u32, Errno> {
        self.0.call(park, call, wake)
    }

    /// Whether a call waits.
    pub fn waiting(&self) -> bool {
        self.0.waiting()
    }

    /// Answers the call that waits, if there is one.
    pub fn answer<P: Park>(
        &self,
        park: &P,
        answer: impl FnOnce(Call<'_>) -> Result<u32, Errno>,
    ) -> bool {
        let Some(call) = self.0.take() else {
            return false;
        };
        self.0.reply(park, answer(call));
        true
    }

    /// Closes it.
    pub fn close<P: Park>(&self, park: &P) {
        self.0.close(park);
    }
}

/// The lane of messages, without an engine.
pub struct MessageLane {
    messages: Messages<'static>,
    letters: NonNull<[Letter]>,
    used: NonNull<[AtomicU32]>,
}

// SAFETY: the pointers are only for giving the memory back; `messages` is Send
// and Sync.
unsafe impl Send for MessageLane {}
// SAFETY: as above.
unsafe impl Sync for MessageLane {}

impl Drop for MessageLane {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`, and `messages` is not used any more.
        unsafe {
            drop(std::boxed::Box::from_raw(self.letters.as_ptr()));
            drop(std::boxed::Box::from_raw(self.used.as_ptr()));
        }
    }
}

impl MessageLane {
    /// Room for `count` messages.
    pub fn new(count: u32) -> Self {
        let letters: std::vec::Vec<_> = (0..count).map(|_| Letter::new()).collect();
        let used: std::vec::Vec<_> = (0..words(count)).map(|_| AtomicU32::new(0)).collect();
        let letters = NonNull::from(std::boxed::Box::leak(letters.into_boxed_slice()));
        let used = NonNull::from(std::boxed::Box::leak(used.into_boxed_slice()));
        // SAFETY: valid until `drop`.
        let messages = unsafe { Messages::new(letters.as_ref(), used.as_ref()) };
        Self { messages, letters, used }
    }

    /// A message. True if the lane was empty.
    ///
    /// # Errors
    /// As an inbox's.
    pub fn send(&self, cqe: Cqe) -> Result<bool, Errno> {
        self.messages.send(Some(cqe))
    }

    /// Takes what has come, oldest first; at the `end` nothing comes any more.
    pub fn take(&self, end: bool, mut seen: impl FnMut(Cqe)) {
        let mut list = if end { self.messages.close() } else { self.messages.take() };
        while let Some(letter) = self.messages.next(&mut list) {
            seen(self.messages.read(letter).expect("only messages are sent"));
            self.messages.give_back(letter);
        }
    }
}
