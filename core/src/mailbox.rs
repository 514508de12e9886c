//! The mailbox: how a thread that does not own the engine asks it for
//! something cold (a registration, statistics, a dump).
//!
//! One call at a time, synchronous: the caller's arguments stay where they
//! are and the engine works on them while the caller waits.

use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::Park;
use crate::register::Call;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, spin_loop};
use crate::wake::{EventCount, wait_until};

const EMPTY: u32 = 0;
const TAKEN: u32 = 1;
const POSTED: u32 = 2;
const ANSWERED: u32 = 3;
const CLOSED: u32 = 4;

/// One place for one call.
pub(crate) struct Mailbox {
    /// EMPTY → TAKEN (a caller, CAS) → POSTED → ANSWERED (the engine) →
    /// EMPTY (the same caller); EMPTY → CLOSED when the engine ends.
    state: AtomicU32,
    call: UnsafeCell<Option<Call<'static>>>,
    answer: UnsafeCell<Result<u32, Errno>>,
    changed: EventCount,
}

// SAFETY: `call` is written by the caller that holds TAKEN and read by the
// engine in POSTED; `answer` the other way round in POSTED and ANSWERED. The
// state's Release stores and Acquire loads order them. A `Call` holds
// exclusive borrows of the waiting caller, which are Send.
unsafe impl Sync for Mailbox {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Mailbox {}

impl Mailbox {
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            call: UnsafeCell::new(None),
            answer: UnsafeCell::new(Ok(0)),
            changed: EventCount::new(),
        }
    }

    /// Puts a call to the engine and waits for its answer. `wake` wakes it.
    ///
    /// # Errors
    /// The engine's answer; `ENXIO` if the engine has stopped.
    pub fn call<P: Park>(
        &self,
        park: &P,
        call: Call<'_>,
        wake: impl FnOnce(),
    ) -> Result<u32, Errno> {
        let mut closed = false;
        // An interrupted wait is taken up again: the call is in the engine's
        // hands and its arguments are borrowed until it answers.
        while wait_until(&self.changed, park, None, || {
            // Acquire: pairs with the Release of EMPTY below: the caller
            // before us has read its answer.
            let acquire = fault::order(Fault::MailClaimRelaxed, Ordering::Acquire);
            match self.state.compare_exchange(EMPTY, TAKEN, acquire, Ordering::Relaxed) {
                Ok(_) => true,
                Err(CLOSED) => {
                    closed = true;
                    true
                }
                Err(_) => false,
            }
        })
        .is_err()
        {}
        if closed {
            return Err(Errno::ENXIO);
        }
        // SAFETY: only the lifetime changes; we do not return before the
        // engine has taken the call out and answered.
        let call = unsafe { core::mem::transmute::<Call<'_>, Call<'static>>(call) };
        // SAFETY: TAKEN is ours.
        self.call.with_mut(|cell| unsafe { *cell = Some(call) });
        // Release: pairs with the Acquire load in `take`.
        self.state.store(POSTED, fault::order(Fault::MailPostRelaxed, Ordering::Release));
        wake();
        while wait_until(&self.changed, park, None, || {
            // Acquire: pairs with the Release of ANSWERED in `reply`.
            let order = fault::order(Fault::MailAnswerLoadRelaxed, Ordering::Acquire);
            self.state.load(order) == ANSWERED
        })
        .is_err()
        {}
        // SAFETY: ANSWERED, and only this caller leaves that state.
        let answer = self.answer.with(|cell| unsafe { *cell });
        // Release: pairs with the Acquire CAS of the next caller.
        self.state.store(EMPTY, fault::order(Fault::MailEmptyRelaxed, Ordering::Release));
        if !fault::on(Fault::MailEmptyNoWake) {
            self.changed.notify(park);
        }
        answer
    }

    /// Whether a call waits. Engine only, once a turn.
    #[inline(always)]
    pub fn waiting(&self) -> bool {
        // Relaxed: a hint; `take` acquires, and a sleeper looks after a fence.
        self.state.load(Ordering::Relaxed) == POSTED
    }

    /// Takes the call that waits. Engine only; [`reply`](Self::reply) follows.
    pub fn take(&self) -> Option<Call<'static>> {
        // Acquire: pairs with the Release of POSTED in `call`.
        let order = fault::order(Fault::MailTakeRelaxed, Ordering::Acquire);
        if self.state.load(order) != POSTED {
            return None;
        }
        // SAFETY: POSTED: the engine's alone until it answers.
        self.call.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Answers the call taken last.
    pub fn reply<P: Park>(&self, park: &P, answer: Result<u32, Errno>) {
        // SAFETY: still POSTED.
        self.answer.with_mut(|cell| unsafe { *cell = answer });
        // Release: pairs with the Acquire load of ANSWERED in `call`.
        self.state.store(ANSWERED, fault::order(Fault::MailAnswerRelaxed, Ordering::Release));
        if !fault::on(Fault::MailAnswerNoWake) {
            self.changed.notify(park);
        }
    }

    /// Closes the mailbox for good, answering what still comes with `ENXIO`.
    pub fn close<P: Park>(&self, park: &P) {
        loop {
            // Relaxed: CLOSED carries no data.
            match self.state.compare_exchange(EMPTY, CLOSED, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) | Err(CLOSED) => break,
                Err(_) => {
                    if self.take().is_some() {
                        self.reply(park, Err(Errno::ENXIO));
                    }
                    // The caller is between two of its own stores.
                    spin_loop();
                }
            }
        }
        // Nobody need be woken for it: who sleeps here waits for an answer
        // (given above), or for a place that a caller before it holds, and
        // that caller wakes it when it leaves.
    }
}
