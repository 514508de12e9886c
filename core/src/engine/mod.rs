//! The engine: the one owner of everything mutable in a ring.
//!
//! It takes SQEs, starts them on its [`Backend`], and is the only producer
//! of CQEs. Whatever another thread has to say reaches it by a lane of
//! `Shared`; who drives it is chosen at set-up ([`crate::config::Mode`]).

mod bell;
mod buffers;
mod build;
mod cancel;
mod complete;
mod enter;
mod fixed;
mod links;
mod messages;
mod picks;
mod places;
mod poll;
mod prepare;
mod register;
mod remote;
mod restrict;
mod run;
mod submit;
mod tables;
mod tags;
mod timers;
mod turns;
mod wait;

#[cfg(not(loom))]
pub use build::StaticMemory;
pub use build::{Memory, Parts, RingMemory, build};
pub(crate) use cancel::cancel_from_outside;
pub use enter::EnterFlags;
pub use messages::{Inbox, SentFile, send_message};
pub use remote::{Completer, Remote};
pub(crate) use tables::BufferEntry;
pub use wait::Until;

use crate::config::{Config, Mode};
use crate::fault::{self, Fault};
use crate::files::Table;
use crate::hal::{Backend, Driver, Host, Parked};
use crate::mailbox::Mailbox;
use crate::messages::Messages;
use crate::op::{self, Kind};
use crate::provided::Provided;
use crate::request::{Fifo, Pool};
use crate::ring::{CqProducer, MadeRoom, RingRef, SqConsumer};
use crate::sent::SentFiles;
use crate::slot::Slots;
use crate::stats::Stats;
use crate::sync::{AtomicU32, Ordering, fence};
use crate::uapi::{IORING_SQ_CQ_OVERFLOW, IORING_SQ_NEED_WAKEUP, IORING_SQ_TASKRUN};
use crate::wake::{EventCount, Key};

/// What more than one thread of a ring touches: the lanes to the engine and
/// the words that sleepers and wakers meet on.
pub(crate) struct Shared<'m, H> {
    pub host: H,
    pub ring: RingRef<'m>,
    pub slots: Slots<'m>,
    /// The engine (or a server) sleeps here.
    pub engine_wait: EventCount,
    /// Application threads sleep here: for CQEs, for SQ room.
    pub app_wait: EventCount,
    pub mailbox: Mailbox,
    pub messages: Messages<'m>,
    pub sent: SentFiles<'m>,
    /// 1: the driver of the engine shall come to an end.
    pub stop: AtomicU32,
    /// 1: the engine has come to an end.
    pub stopped: AtomicU32,
    /// Timeouts that have ended, unless the engine's owner is who waits.
    pub timeouts: AtomicU32,
    pub mode: Mode,
    /// 1: the host has an eventfd to be rung.
    pub bell: AtomicU32,
    /// 1: the ring has been set up disabled, and not enabled since.
    pub disabled: AtomicU32,
    /// 1: waits go by the clock that runs on in suspend.
    pub boot_clock: AtomicU32,
}

impl<H: Host> Shared<'_, H> {
    /// Wakes a sleeping engine, after something was published for it.
    #[inline]
    pub fn wake_engine(&self) {
        self.engine_wait.notify(&Driver(&self.host));
    }

    /// Whether there is something for a sleeping driver of the engine besides
    /// SQEs. After the fence of [`EventCount::prepare`].
    pub fn has_news(&self) -> bool {
        self.has_work() || self.stopping()
    }

    /// Whether a turn of the engine, without SQEs, would find something to do.
    pub fn has_work(&self) -> bool {
        self.slots.any_returned()
            || self.mailbox.waiting()
            || (self.overflowing() && self.ring.cq_ready() < self.ring.cqes.len() as u32)
    }

    pub fn overflowing(&self) -> bool {
        self.showing(IORING_SQ_CQ_OVERFLOW)
    }

    /// Whether any of `flags` is shown.
    #[inline(always)]
    pub fn showing(&self, flags: u32) -> bool {
        // Relaxed: written by the engine; others look after a fence.
        self.ring.sq_flags.load(Ordering::Relaxed) & flags != 0
    }

    pub fn stopping(&self) -> bool {
        // Relaxed: the word carries no data; looked at after a fence.
        self.stop.load(Ordering::Relaxed) != 0
    }

    /// Shows TASKRUN, after a push on the return list.
    pub fn show_taskrun(&self) {
        // Release: pairs with the Acquire in `hide_taskrun`.
        let order = fault::order(Fault::TaskrunSetRelaxed, Ordering::Release);
        self.ring.sq_flags.fetch_or(IORING_SQ_TASKRUN, order);
    }

    /// Hides TASKRUN, before the return list is looked at: a push after that
    /// shows it again.
    pub fn hide_taskrun(&self) {
        // Acquire: pairs with the Release in `show_taskrun`: whose flag we
        // take away, their push we see. Otherwise it would be on the list
        // with nothing to tell of it.
        let order = fault::order(Fault::TaskrunClearRelaxed, Ordering::Acquire);
        self.ring.sq_flags.fetch_and(!IORING_SQ_TASKRUN, order);
    }

    pub fn set_flag(&self, flag: u32) {
        // Relaxed: a hint; where it is not, the caller fences.
        self.ring.sq_flags.fetch_or(flag, Ordering::Relaxed);
    }

    pub fn clear_flag(&self, flag: u32) {
        // Relaxed: as above.
        self.ring.sq_flags.fetch_and(!flag, Ordering::Relaxed);
    }
}

impl<H: Host + Sync> MadeRoom for Shared<'_, H> {
    fn made_room(&self) {
        // Pairs with the fence of EventCount::prepare in the engine, which
        // shows CQ_OVERFLOW before it: either we see the flag, or the engine
        // sees the room.
        if !fault::on(Fault::RoomNoFence) {
            fence(Ordering::SeqCst);
        }
        if self.overflowing() && !fault::on(Fault::RoomNoWake) {
            self.engine_wait.notify_after_fence(&Driver(&self.host));
        }
    }
}

/// The owner of a ring. See the module's text.
///
/// Made by [`build()`]. Inline, the application keeps it next to its halves
/// and calls [`enter`](Engine::enter); under SQPOLL it moves to the polling
/// thread ([`poll_loop`](Engine::poll_loop)); served, into a
/// [`Served`](crate::served::Served).
pub struct Engine<'m, B: Backend, H: Host> {
    pub(crate) shared: &'m Shared<'m, H>,
    sq: SqConsumer<'m>,
    cq: CqProducer<'m>,
    pool: Pool<'m>,
    /// Completed requests whose CQEs wait for room, in order.
    overflow: Fifo,
    /// Requests found complete by polling, not yet finished. Empty outside
    /// of `poll_backend`.
    reaped: Fifo,
    /// Requests that are held back.
    holding: links::Holding<'m>,
    /// Provided buffers.
    provided: Provided<'m>,
    /// Held requests wait for something that [`settle`](Self::settle) sees, or
    /// something else needs a look at every batch.
    engaged: bool,
    /// The application's eventfd.
    bell: bell::Bell,
    /// Messages of other rings.
    inward: messages::Inward,
    /// What the application may do.
    restrict: restrict::Restrictions,
    tags: tags::Tags,
    files: Table<'m, B::File>,
    buffers: Table<'m, BufferEntry<B::Buffer>>,
    backend: B,
    config: Config,
    /// Requests the backend has and has not completed.
    pending: u32,
    /// POLL_ADDs so far, updates included: the newest of those that match is
    /// the one that a POLL_REMOVE means.
    polls: u32,
    /// The SQ holds entries that cannot be taken before a completion.
    starved: bool,
    down: bool,
    /// Driven inline, not down, enabled, not engaged, and without an eventfd:
    /// [`enter`](Self::enter) has a short way.
    short: bool,
    stats: Stats,
}

impl<'m, B: Backend, H: Host> Engine<'m, B, H> {
    /// The configuration it was built with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `IORING_FEAT_*`: the promises that this ring keeps.
    pub fn features(&self) -> u32 {
        use crate::uapi::{
            IORING_FEAT_CQE_SKIP, IORING_FEAT_EXT_ARG, IORING_FEAT_LINKED_FILE,
            IORING_FEAT_MIN_TIMEOUT, IORING_FEAT_NO_IOWAIT, IORING_FEAT_NODROP,
            IORING_FEAT_SQPOLL_NONFIXED, IORING_FEAT_SUBMIT_STABLE,
        };
        let nonfixed = match self.config.policy {
            crate::config::Policy::Current => IORING_FEAT_SQPOLL_NONFIXED,
            crate::config::Policy::Seed => 0,
        };
        let held = match self.config.held {
            true => IORING_FEAT_CQE_SKIP | IORING_FEAT_LINKED_FILE,
            false => 0,
        };
        IORING_FEAT_NODROP
            | IORING_FEAT_SUBMIT_STABLE
            | held
            | if self.tags() { crate::uapi::IORING_FEAT_RSRC_TAGS } else { 0 }
            | IORING_FEAT_EXT_ARG
            | IORING_FEAT_MIN_TIMEOUT
            | IORING_FEAT_NO_IOWAIT
            | nonfixed
            | self.backend.features()
    }

    /// The backend, for what is not a request (its own statistics).
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Whether `opcode` is carried out, where held requests and provided buffers
    /// are.
    pub(crate) fn supports(&self, opcode: u8) -> bool {
        op::supported(opcode, |opcode| match op::kind(opcode) {
            Kind::MsgRing => self.shared.host.sends_messages(),
            _ => self.backend.supports(opcode),
        })
    }

    /// Requests that the backend has.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Whether something in flight is only found by polling.
    pub(crate) fn busy_polling(&self) -> bool {
        self.backend.polling()
    }

    /// Whether a completion has come, or must be polled for since an interrupt
    /// came. For the second look of a driver that is about to sleep and waits
    /// for completions only.
    pub(crate) fn must_not_sleep(&self) -> bool {
        let polling = self.backend.polling() && !fault::on(Fault::PollingNoRecheck);
        self.shared.slots.any_returned() || polling
    }

    /// Whether there are SQEs that could be taken. Not while the next one
    /// waits for a completion: only that can change it.
    pub(crate) fn has_sqes(&self) -> bool {
        !self.starved && self.sq.ready() != 0 && !self.disabled()
    }

    /// When the engine wants to be driven, whatever happens: for the backend's
    /// sake, or a timeout's.
    pub(crate) fn deadline(&mut self) -> Option<u64> {
        earlier(self.backend.deadline(), self.first_time())
    }

    /// Looks for completions though nothing told of any.
    pub(crate) fn look(&mut self) {
        let polled = self.poll_backend();
        if self.engaged && self.settle() || polled {
            self.publish();
        }
    }

    /// Sleeps until notified, until `deadline`, or until the backend has to
    /// look after its requests, which it does before this comes back.
    pub(crate) fn sleep(&mut self, key: Key, deadline: Option<u64>) -> Parked {
        let own = self.deadline();
        let first = earlier(own, deadline);
        let host = Driver(&self.shared.host);
        let parked = self.shared.engine_wait.wait(&host, key, first);
        if own.is_some() {
            let did = self.poll_backend();
            if (self.engaged && self.settle() || did) && !self.down {
                self.publish();
            }
            if parked == Parked::TimedOut && first != deadline {
                return Parked::Woken;
            }
        }
        parked
    }

    pub(crate) fn count_sleep(&mut self) {
        self.stats.sleeps += 1;
    }

    pub(crate) fn counters(&self) -> Stats {
        self.stats
    }

    /// Requests that are not free.
    pub(crate) fn in_use(&self) -> u32 {
        self.pool.used()
    }

    /// SQEs taken and CQEs posted.
    pub(crate) fn totals(&self) -> (u32, u32) {
        (self.sq.total(), self.cq.total())
    }

    /// The engine's part of a dump: requests and resources.
    pub(crate) fn dump_requests(&self, to: &mut dyn core::fmt::Write) -> core::fmt::Result {
        writeln!(
            to,
            "requests: {} of {} in use, reserve {}, {} CQEs wait for room{}",
            self.pool.used(),
            self.pool.capacity(),
            if self.pool.fallback_busy() { "in use" } else { "free" },
            self.overflow.len(),
            if self.starved { ", SQEs wait for a request" } else { "" },
        )?;
        let (deferred, timed) = self.holding.waiting();
        writeln!(to, "held: {deferred} wait for all before them, {timed} for a time")?;
        for (index, record) in self.pool.records.iter().enumerate() {
            if self.shared.slots.peek(index).0 {
                let name = crate::uapi::opcode_name(record.what.opcode()).unwrap_or("?");
                writeln!(to, "request {index}: {name}, user_data {:#x}", record.user_data)?;
            }
        }
        writeln!(
            to,
            "files: {} of {} places, buffers: {} of {} places",
            self.files.used(),
            self.files.len(),
            self.buffers.used(),
            self.buffers.len(),
        )
    }

    /// Does everything that waits to be done except taking SQEs: returns,
    /// polled completions, CQEs that waited for room. True if anything was.
    #[inline(always)]
    pub(crate) fn progress(&mut self) -> bool {
        // Two loads say that nothing has come home: the head of the return
        // list, and the flags, which show TASKRUN and CQ_OVERFLOW.
        let home = self.shared.slots.any_returned()
            || self.shared.showing(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)
            // Whoever else writes this memory may have cleared the flag.
            || !self.overflow.is_empty();
        let did = home && self.come_home();
        let polled = self.backend.polling() && self.poll_backend();
        self.engaged && self.settle() || polled || did
    }

    /// Looks whether SQEs have to be taken the long way, and each batch has an
    /// end to be looked after.
    fn note_engaged(&mut self) {
        self.engaged = self.holding.engaged() || self.bell.only_late;
    }

    /// Whether [`quiet`](Self::quiet) may look at the flags only.
    fn may_be_short(&self) -> bool {
        self.config.mode == Mode::Inline
            && !self.down
            && !self.engaged
            && !self.bell.on
            && !self.disabled()
    }

    /// Whether [`enter`](Self::enter) may look at nothing but the SQ, for a
    /// call that need not wait. The flags are enough here: inline, whatever
    /// came home shows TASKRUN, if not now then to the next call.
    #[inline(always)]
    fn quiet(&self) -> bool {
        self.short
            && !self.shared.showing(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)
            && !self.backend.polling()
    }

    #[cold]
    fn come_home(&mut self) -> bool {
        let mut did = self.collect();
        if !self.overflow.is_empty() {
            did |= self.flush_overflow();
        } else if self.shared.overflowing() {
            // Not by us: in shared memory anybody may have set it, and it
            // would keep us awake.
            self.shared.clear_flag(IORING_SQ_CQ_OVERFLOW);
        }
        if self.short && self.backend.unattended() {
            // Hidden when the list was taken.
            self.shared.show_taskrun();
        }
        did
    }

    /// How many of `most` entries are ready, for a driver that others push them
    /// for. To be asked before they are taken: whoever knows of a file that has
    /// come from another ring, and has pushed one of these, finds it.
    pub(crate) fn pushed(&mut self, most: u32) -> u32 {
        let ready = self.sq.ready().min(most);
        // After the look at the tail.
        if ready != 0 && !fault::on(Fault::SentFileLate) {
            self.take_sent();
        }
        ready
    }

    /// One round of a driver that is not the application itself: progress,
    /// calls, SQEs if `submit`. True if anything was done.
    pub(crate) fn turn(&mut self, submit: bool) -> bool {
        let mut did = self.progress();
        // Whoever asked is told by the mailbox; the others have no use for it,
        // unless CQEs have come of it.
        let mail = self.shared.mailbox.waiting() && self.answer_mail();
        did |= mail && self.cq.uncommitted();
        // Not while the SQE at the head waits for a completion: it would be
        // started in vain, round after round.
        if submit && !self.starved && !self.disabled() {
            let ready = self.pushed(u32::MAX);
            let batch = self.submit(ready, 0);
            if batch.progress() {
                self.sq.commit();
                did = true;
            }
            // A batch that took nothing may have found completions.
            did |= self.cq.uncommitted();
        }
        if did {
            self.publish();
        }
        did || mail
    }

    /// Ends everything: cancels what has not begun, waits for what runs,
    /// gives registered files and buffers back. No CQE is written from here
    /// on. Called by `Drop` if the owner did not.
    pub fn shutdown(&mut self) {
        if core::mem::replace(&mut self.down, true) {
            return;
        }
        self.short = false;
        self.close_messages();
        self.publish();
        self.backend.cancel_all();
        self.discard_held();
        while self.pending != 0 {
            self.progress();
            if self.pending == 0 {
                break;
            }
            if self.backend.polling() {
                crate::sync::spin_loop();
                continue;
            }
            let key = self.shared.engine_wait.prepare();
            if fault::on(Fault::ShutdownNoRecheck) || !self.must_not_sleep() {
                self.sleep(key, None);
            }
        }
        self.discard_held();
        while let Some(index) = self.overflow.pop(self.pool.outcomes) {
            self.no_longer_waiting(index);
        }
        // Nothing waits for room any more, nor will.
        self.shared.clear_flag(IORING_SQ_CQ_OVERFLOW);
        self.close_files();
        self.close_buffers();
        let _ = self.unregister_eventfd();
        // Release: pairs with the Acquire load in `Remote::stopped`: who sees
        // it sees the last CQEs too.
        let order = fault::order(Fault::StoppedRelaxed, Ordering::Release);
        self.shared.stopped.store(1, order);
        if matches!(self.config.mode, Mode::SqPoll { .. }) {
            // As in Linux: who enters only when told to must learn of the end.
            self.shared.set_flag(IORING_SQ_NEED_WAKEUP);
        }
        self.shared.mailbox.close(&self.shared.host);
        if !fault::on(Fault::EndNoWake) {
            self.shared.app_wait.notify(&self.shared.host);
        }
    }
}

/// The earlier of two points in time that may not be.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl<B: Backend, H: Host> Drop for Engine<'_, B, H> {
    fn drop(&mut self) {
        self.shutdown();
    }
}
