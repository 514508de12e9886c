//! A served ring: whoever has work claims the engine.
//!
//! For applications that only peek, wait on an eventfd, or share a ring
//! among threads. Application threads claim it inside [`Served::enter`]; a
//! helper thread ([`Served::help`]) claims it for completions that arrive
//! while the application is outside.
//!
//! ```text
//!   brings work                     holds the claim
//!   publish                         ... drive ...
//!   full fence                      release the claim
//!   try to claim                    full fence
//!   held: leave, the holder looks   look for work; found: claim again
//! ```

use crate::engine::{Engine, EnterFlags, Remote, Until};
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Driver, Host};
use crate::register::{Call, numbered};
use crate::sync::{AtomicU32, Ordering, UnsafeCell, fence, spin_loop};
use crate::wake::{EventCount, wait_until};
use core::ffi::c_void;

const FREE: u32 = 0;
const HELD: u32 = 1;

/// An engine that threads take turns to drive.
pub struct Served<'m, B: Backend, H: Host> {
    claim: AtomicU32,
    /// Threads that must have the claim sleep here.
    freed: EventCount,
    /// When the helper wakes by itself, as of its last look. Under the claim, as
    /// the engine.
    asleep_until: UnsafeCell<Option<u64>>,
    engine: UnsafeCell<Engine<'m, B, H>>,
    remote: Remote<'m, H>,
}

// SAFETY: the engine is reached by whoever holds the claim, one at a time;
// the claim's Acquire and Release order their accesses.
unsafe impl<B: Backend + Send, H: Host + Sync> Sync for Served<'_, B, H>
where
    B::File: Send,
    B::Buffer: Send,
{
}
// SAFETY: as above; moving it moves the engine, which nobody drives then.
unsafe impl<B: Backend + Send, H: Host + Sync> Send for Served<'_, B, H>
where
    B::File: Send,
    B::Buffer: Send,
{
}

impl<'m, B: Backend, H: Host> Served<'m, B, H> {
    /// Takes over an engine built with [`Mode::Served`](crate::config::Mode).
    pub fn new(engine: Engine<'m, B, H>, remote: Remote<'m, H>) -> Self {
        Self {
            claim: AtomicU32::new(FREE),
            freed: EventCount::new(),
            asleep_until: UnsafeCell::new(None),
            engine: UnsafeCell::new(engine),
            remote,
        }
    }

    fn try_claim(&self) -> bool {
        // Acquire: pairs with the Release in `release`: the engine as the
        // last holder left it.
        let order = fault::order(Fault::ClaimAcquireRelaxed, Ordering::Acquire);
        self.claim.compare_exchange(FREE, HELD, order, Ordering::Relaxed).is_ok()
    }

    /// Gives the claim back; true if there is work that a claim attempt may
    /// have failed for meanwhile. `polls`: the engine has requests in flight
    /// that only polling finds, which is the helper's business.
    fn release(&self, polls: bool) -> bool {
        // Release: pairs with the Acquire in `try_claim`.
        self.claim.store(FREE, fault::order(Fault::ClaimReleaseRelaxed, Ordering::Release));
        // Between giving up the claim and looking: pairs with the fence that
        // whoever brings work makes before it tries to claim.
        if !fault::on(Fault::ReleaseNoFence) {
            fence(Ordering::SeqCst);
        }
        if !fault::on(Fault::FreedNoWake) {
            self.freed.notify_after_fence(self.remote.host());
        }
        if polls && !fault::on(Fault::PollsNoWake) {
            self.remote.engine_wait().notify_after_fence(&Driver(self.remote.host()));
        }
        !fault::on(Fault::ClaimNoRecheck) && self.remote.has_work()
    }

    /// Whether requests are in flight that are the helper's business: found by
    /// polling only, or with an earlier deadline than it sleeps with.
    ///
    /// # Safety
    /// The claim is the caller's.
    unsafe fn helper_needed(&self, engine: &mut Engine<'m, B, H>) -> bool {
        let Some(deadline) = engine.deadline() else { return engine.busy_polling() };
        // SAFETY: the caller's promise.
        let known = self.asleep_until.with(|until| unsafe { *until });
        // Awake by now, the helper will look again before it sleeps.
        engine.busy_polling() || known.is_none_or(|until| deadline < until)
    }

    /// Runs `f` on the engine, waiting for the claim.
    fn with<R>(&self, f: impl FnOnce(&mut Engine<'m, B, H>) -> R) -> R {
        // Interrupted or not: the holder is never long.
        while wait_until(&self.freed, self.remote.host(), None, || self.try_claim()).is_err() {}
        let (result, polls) = self.engine.with_mut(|engine| {
            // SAFETY: the claim is ours.
            let engine = unsafe { &mut *engine };
            let result = f(engine);
            // SAFETY: as above.
            (result, unsafe { self.helper_needed(engine) })
        });
        if self.release(polls) {
            self.serve();
        }
        result
    }

    /// Drives the engine if there is work and nobody else does.
    ///
    /// Whoever brings work publishes it, makes a full fence (a
    /// [`Completer`](crate::engine::Completer) does both), then calls this.
    pub fn serve(&self) {
        loop {
            if !self.try_claim() {
                // The holder looks again after its release.
                return;
            }
            let polls = self.engine.with_mut(|engine| {
                // SAFETY: the claim is ours.
                let engine = unsafe { &mut *engine };
                engine.turn(false);
                // SAFETY: as above.
                unsafe { self.helper_needed(engine) }
            });
            // Words that another process writes may promise work for ever.
            // What is left at the end is the helper's, which ends the engine.
            if !self.release(polls) || self.remote.stopping() {
                return;
            }
        }
    }

    /// The helper thread's work: serves whenever woken, until
    /// [`Remote::stop`]; then ends the engine.
    pub fn help(&self) {
        let host = Driver(self.remote.host());
        while !self.remote.stopping() {
            self.serve();
            let key = self.remote.engine_wait().prepare();
            let stopping = self.remote.stopping() && !fault::on(Fault::HelperStopMissed);
            let mut deadline = None;
            if self.idle(&mut deadline) && !stopping {
                self.remote.engine_wait().wait(&host, key, deadline);
            } else {
                spin_loop();
            }
            if deadline.is_some() {
                self.with(Engine::look);
            }
        }
        self.with(|engine| engine.shutdown());
    }

    /// Whether nothing is left for the helper to do, after it has announced
    /// its sleep.
    fn idle(&self, deadline: &mut Option<u64>) -> bool {
        if fault::on(Fault::HelperNoRecheck) {
            return true;
        }
        if !self.try_claim() {
            // The holder looks for work after its release, and wakes us if
            // the engine must be polled. If it looked before the work came,
            // whoever brought the work sees us sleeping.
            return true;
        }
        let polls = self.engine.with_mut(|engine| {
            // SAFETY: the claim is ours.
            let engine = unsafe { &mut *engine };
            *deadline = engine.deadline();
            engine.busy_polling()
        });
        // SAFETY: the claim is ours.
        self.asleep_until.with_mut(|until| unsafe { *until = *deadline });
        // Not asking to be woken: we are awake.
        let work = self.release(false);
        !polls && !work
    }

    /// `io_uring_enter`, from any thread.
    ///
    /// # Errors
    /// As [`Engine::enter`]; `EOWNERDEAD` if the engine has ended.
    pub fn enter(
        &self,
        to_submit: u32,
        min_complete: u32,
        flags: EnterFlags,
        until: impl Into<Until>,
    ) -> Result<u32, Errno> {
        if self.remote.stopped() {
            return Err(Errno::EOWNERDEAD);
        }
        let taken = self.with(|engine| {
            if engine.disabled() {
                return Err(Errno::EBADFD);
            }
            engine.progress();
            let ready = engine.pushed(to_submit);
            let taken = engine.enter_submit(ready, 0);
            engine.publish();
            taken
        })?;
        if flags.contains(EnterFlags::GETEVENTS) && taken == to_submit {
            match self.remote.wait_cqes(min_complete, until) {
                Err(errno) if taken == 0 => return Err(errno),
                _ => {}
            }
        }
        Ok(taken)
    }

    /// Puts a call to the engine, from any thread.
    ///
    /// # Errors
    /// The call's; `ENXIO` if the engine has ended.
    ///
    /// # Safety
    /// As for [`Engine::call`].
    pub unsafe fn call(&self, call: Call<'_>) -> Result<u32, Errno> {
        if self.remote.stopped() {
            return Err(Errno::ENXIO);
        }
        // SAFETY: the caller's promise.
        let carry_out = |call| self.with(|engine| unsafe { engine.call(call) });
        match call {
            Call::Cancel { what, timeout } => {
                self.remote.cancel(timeout, || carry_out(Call::Cancel { what, timeout }))
            }
            call => carry_out(call),
        }
    }

    /// As [`Engine::register`], from any thread.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn register(&self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
        // SAFETY: the caller's promise, in both.
        unsafe { numbered(opcode, arg, nr_args, |call| self.call(call)) }
    }
}
