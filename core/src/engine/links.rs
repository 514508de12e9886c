//! Requests that do not start when their SQE is taken: chains and drains.
//!
//! A chain is taken whole before its first request starts. Each of the others
//! waits in its slot, with a copy of its SQE, until the one before it has ended.
//! What has its turn then, or has ended without one, joins `queued`, which is
//! gone through after each batch of SQEs and of completions: as in Linux, the
//! rest of the batch comes first, and no chain is a recursion.
//!
//! ```text
//!   SQE ──▶ chain ──complete──▶ launch ─────────▶ backend, timers, done
//!                      │          ▲
//!              drain   ▼          │ nothing else is in flight
//!                   deferred ──▶ queued ◀── the request before has ended
//! ```

use super::Engine;
use super::prepare::{check_flags, prepare};
use super::submit::Issue;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host};
use crate::held::{Heap, Held, Marks, Order, Step};
use crate::op::{self, Kind};
use crate::request::{Fifo, HELD};
use crate::sqe::{Flags, Sqe};
use crate::uapi;

/// The kernel's bound for the bytes of one read or write (`MAX_RW_COUNT`).
const MAX_RW: u32 = 0x7fff_f000;

/// `IOSQE_*` that hold a request, or its CQE, back.
pub(super) const HOLDING: u8 = Flags::IO_LINK
    .union(Flags::IO_HARDLINK)
    .union(Flags::IO_DRAIN)
    .union(Flags::SKIP_SUCCESS)
    .union(Flags::BUFFER_SELECT)
    .bits();

const LINKED: u8 = Flags::IO_LINK.union(Flags::IO_HARDLINK).bits();

/// The engine's part for held requests.
pub(crate) struct Holding<'m> {
    /// A record a slot; none if the configuration has no room for them.
    pub held: &'m mut [Held],
    /// The chain that is being taken: its first and its last request.
    chain: Option<(u32, u32)>,
    /// A chain larger than the pool is being refused.
    refusing: bool,
    /// What follows waits for what came before.
    draining: bool,
    /// What follows the current chain drains.
    drain_next: bool,
    /// A CQE has been skipped: nothing may drain any more.
    skipped: bool,
    /// Chains that wait for everything before them, by their first requests.
    deferred: Fifo,
    /// The requests of those chains.
    deferred_requests: u32,
    /// Requests whose turn has come.
    pub queued: Fifo,
    /// Those that follow requests which have ended in the current batch.
    later: Fifo,
    pub timers: Heap<'m>,
    pub counts: Heap<'m>,
    pub stamp: u32,
    /// CQEs posted, never wrapped, as of the CQ's total `seen`.
    pub events: u64,
    pub seen: u32,
    /// The CQ's total when the last batch of SQEs began, and whether that is
    /// being taken still.
    pub batch_began: u32,
    pub in_batch: bool,
    /// Timeouts that have ended by time or count, whose CQEs count for none.
    pub timeouts: u64,
}

impl<'m> Holding<'m> {
    pub fn new(held: &'m mut [Held], timers: &'m mut [u32], counts: &'m mut [u32]) -> Self {
        Self {
            held,
            chain: None,
            refusing: false,
            draining: false,
            drain_next: false,
            skipped: false,
            deferred: Fifo::new(),
            deferred_requests: 0,
            queued: Fifo::new(),
            later: Fifo::new(),
            timers: Heap::new(Order::Time, timers),
            counts: Heap::new(Order::Count, counts),
            stamp: 0,
            // Timeouts are subtracted, and may have been posted before.
            events: 1 << 32,
            seen: 0,
            batch_began: 0,
            in_batch: false,
            timeouts: 0,
        }
    }

    /// Whether every SQE has to be taken the long way.
    #[inline(always)]
    pub fn slow(&self) -> bool {
        self.chain.is_some() || self.draining || self.drain_next || self.refusing
    }

    /// Whether [`Engine::settle`] has anything to look at.
    fn engaged(&self) -> bool {
        self.slow()
            || !self.queued.is_empty()
            || !self.deferred.is_empty()
            || !self.timers.is_empty()
    }

    /// Requests that wait, for the eye: in chains that drain, with a time.
    pub fn waiting(&self) -> (u32, usize) {
        (self.deferred_requests, self.timers.indices().len())
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Takes an SQE that is held back, or while others are, in record `index`.
    #[cold]
    pub(super) fn take_held(&mut self, index: u32, kind: Kind, sqe: &Sqe, left: u32) -> Issue {
        if self.holding.held.is_empty() {
            return self.fail(index, sqe.user_data, Errno::EINVAL.to_result());
        }
        (self.engaged, self.holding.in_batch) = (true, true);
        let linked = sqe.flags & LINKED != 0;
        if self.holding.refusing {
            self.holding.refusing = linked;
            return self.refuse(index, sqe, Errno::ECANCELED);
        }
        let open = self.holding.chain.is_some();
        if index == self.pool.fallback() && (linked || open || self.may_wait(kind, sqe)) {
            return Issue::NoRoom;
        }
        if linked && !open {
            let more = self.chain_length(left) - 1;
            if !self.pool.has(more) {
                self.collect();
            }
            if !self.pool.has(more) {
                if more < self.pool.capacity() {
                    return Issue::NoRoom;
                }
                self.holding.refusing = true;
                return self.refuse(index, sqe, Errno::ENOMEM);
            }
        }
        let user_data = sqe.user_data;
        self.pool.records[index as usize].user_data = user_data;
        self.holding.held[index as usize] = Held::new(*sqe);
        let flags = self.sound_flags(sqe);
        let refused = flags.and_then(|()| self.prepare_held(index, kind, sqe)).err();
        self.mark(index, sqe.flags, flags.is_ok());
        if let Some(errno) = refused {
            self.stats.refused += 1;
            self.holding.held[index as usize].fail();
            self.pool.outcomes[index as usize].res = errno.to_result();
            if let Some((head, _)) = self.holding.chain {
                let first = &mut self.holding.held[head as usize];
                if !first.marks.contains(Marks::FAILED) {
                    first.fail();
                    self.pool.outcomes[head as usize].res = Errno::ECANCELED.to_result();
                }
            }
        }
        let head = match &mut self.holding.chain {
            Some((head, last)) => {
                self.holding.held[*last as usize].link = index;
                *last = index;
                *head
            }
            None => index,
        };
        self.holding.chain = linked.then_some((head, index));
        if linked {
            return Issue::Taken;
        }
        self.begin(head);
        if refused.is_some() { Issue::Failed } else { Issue::Taken }
    }

    /// One SQE of a chain that is larger than the pool.
    fn refuse(&mut self, index: u32, sqe: &Sqe, errno: Errno) -> Issue {
        self.stats.refused += 1;
        let cqe = Cqe { user_data: sqe.user_data, res: errno.to_result(), flags: 0 };
        self.complete_now(index, cqe);
        Issue::Taken
    }

    /// Whether a request may have to wait for more than a device.
    fn may_wait(&self, kind: Kind, sqe: &Sqe) -> bool {
        matches!(kind, Kind::Timeout)
            || self.holding.slow()
            || sqe.flags & uapi::IOSQE_IO_DRAIN != 0
    }

    /// How many SQEs of the `left` that the batch has the chain at the SQ's
    /// head has. The flags are looked at again when each is taken.
    fn chain_length(&self, left: u32) -> u32 {
        let mut position = self.sq.position();
        for length in 1..=left {
            match self.sq.entry(position) {
                Some(cell) if cell.words().head().flags() & LINKED != 0 => {}
                _ => return length,
            }
            position = position.wrapping_add(1);
        }
        left.max(1)
    }

    /// All checks, and everything that has to be read while the SQE is taken.
    fn prepare_held(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
        let select = sqe.flags & uapi::IOSQE_BUFFER_SELECT != 0;
        if select && !self.provides() {
            return Err(Errno::EINVAL);
        }
        if select && !matches!(sqe.opcode, uapi::IORING_OP_READ | uapi::IORING_OP_READV) {
            return Err(Errno::EOPNOTSUPP);
        }
        prepare(kind, sqe)?;
        if kind.provides() {
            return if self.provides() { Ok(()) } else { Err(Errno::EINVAL) };
        }
        match kind {
            Kind::Nop | Kind::Cancel => Ok(()),
            // SAFETY: whoever pushed the SQE promised that what it points to
            // is valid until it was taken (SubmissionQueue::push).
            Kind::Timeout => unsafe { self.prepare_timeout(index, sqe) },
            // SAFETY: as above.
            Kind::TimeoutRemove => unsafe { self.prepare_update(index, sqe) },
            Kind::LinkTimeout => {
                // SAFETY: as above.
                unsafe { self.prepare_timeout(index, sqe)? };
                let guarded = self.holding.chain.ok_or(Errno::EINVAL)?.1;
                let guarded = &self.holding.held[guarded as usize].sqe;
                if op::kind(guarded.opcode) == Kind::LinkTimeout {
                    return Err(Errno::EINVAL);
                }
                // Not before: one that is refused guards nothing.
                let held = &mut self.holding.held[index as usize];
                held.marks.insert(Marks::GUARD | Marks::ALWAYS_SUCCESS);
                Ok(())
            }
            _ if !op::supported(sqe.opcode, |opcode| self.backend.supports(opcode)) => {
                Err(Errno::EINVAL)
            }
            Kind::Openat | Kind::Statx => {
                let at = index as usize;
                // SAFETY: as above.
                let kept = unsafe { self.backend.keep(at, sqe.opcode, sqe.addr, 0)? };
                let held = &mut self.holding.held[at];
                held.marks.insert(Marks::KEPT);
                held.sqe.addr = kept.addr;
                Ok(())
            }
            // SAFETY: as above.
            _ if select => unsafe { self.prepare_select(index, sqe) },
            Kind::Vectored | Kind::ReadWrite => {
                let at = index as usize;
                // SAFETY: as above.
                let kept = unsafe { self.backend.keep(at, sqe.opcode, sqe.addr, sqe.len)? };
                let held = &mut self.holding.held[index as usize];
                held.marks.insert(Marks::KEPT);
                held.sqe.addr = kept.addr;
                held.whole = Some(kept.bytes.min(MAX_RW));
                Ok(())
            }
            Kind::Fixed => {
                self.holding.held[index as usize].whole = Some(sqe.len.min(MAX_RW));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether an entry gets as far as to drain. As in Linux, whoever has once
    /// skipped a CQE cannot.
    fn sound_flags(&mut self, sqe: &Sqe) -> Result<(), Errno> {
        check_flags(sqe)?;
        self.holding.skipped |= sqe.flags & uapi::IOSQE_CQE_SKIP_SUCCESS != 0;
        let skipped = self.holding.skipped && !fault::on(Fault::DrainAfterSkip);
        match sqe.flags & uapi::IOSQE_IO_DRAIN != 0 && skipped {
            true => Err(Errno::EOPNOTSUPP),
            false => Ok(()),
        }
    }

    /// What its flags say of a request that is taken; only those that are
    /// `sound` drain.
    fn mark(&mut self, index: u32, flags: u8, sound: bool) {
        let open = self.holding.chain.map(|(head, _)| head);
        let holding = &mut self.holding;
        let mut marks = Marks::empty();
        let hard = flags & uapi::IOSQE_IO_HARDLINK != 0 && !fault::on(Fault::HardLinkBreaks);
        marks.set(Marks::HARD, hard);
        let skip = flags & uapi::IOSQE_CQE_SKIP_SUCCESS != 0 && !fault::on(Fault::SkipIgnored);
        marks.set(Marks::SKIP, skip);
        if sound && flags & uapi::IOSQE_IO_DRAIN != 0 && !fault::on(Fault::DrainIgnored) {
            marks.insert(Marks::DRAIN);
            holding.draining = true;
            if let Some(head) = open {
                // In the middle of a chain: the chain drains, and so does what
                // follows it.
                holding.held[head as usize].marks.insert(Marks::DRAIN);
                holding.drain_next = true;
            }
        }
        if sound && holding.drain_next && open.is_none() {
            holding.drain_next = false;
            holding.draining = true;
            marks.insert(Marks::DRAIN);
        }
        holding.held[index as usize].marks.insert(marks);
    }

    /// Ends the chain that was being taken: a batch is at its end.
    pub(super) fn end_chain(&mut self) {
        if let Some((head, _)) = self.holding.chain.take() {
            self.begin(head);
        }
    }

    /// A chain has been taken whole.
    fn begin(&mut self, head: u32) {
        self.engaged = true;
        let held = &mut self.holding.held[head as usize];
        if held.marks.contains(Marks::FAILED) {
            held.marks.remove(Marks::HARD);
            let res = self.pool.outcomes[head as usize].res;
            return self.conclude(head, res);
        }
        if !self.holding.draining {
            if !self.launch(head) {
                self.queue(head, Step::Start);
            }
            return;
        }
        let drains = held.marks.contains(Marks::DRAIN);
        let length = self.length(head);
        let holding = &mut self.holding;
        holding.deferred_requests += length;
        holding.deferred.push(self.pool.outcomes, head);
        self.release_deferred();
        if !drains && self.holding.deferred.is_empty() {
            self.holding.draining = false;
        }
    }

    fn length(&self, head: u32) -> u32 {
        let mut length = 0;
        let mut index = head;
        while index != NONE {
            length += 1;
            index = self.holding.held[index as usize].link;
        }
        length
    }

    /// Lets the chains go that have nothing more to wait for. True if any went.
    fn release_deferred(&mut self) -> bool {
        let (mut any, mut drain) = (false, false);
        while let Some(head) = self.holding.deferred.first() {
            drain |= self.holding.held[head as usize].marks.contains(Marks::DRAIN);
            let waiting = self.overflow.len() + self.holding.deferred_requests;
            if (drain || !any) && self.pool.used() > waiting {
                break;
            }
            self.holding.deferred_requests -= self.length(head);
            self.holding.deferred.pop(self.pool.outcomes);
            self.queue(head, Step::Start);
            any = true;
        }
        any
    }

    /// Puts a request where its turn comes.
    pub(super) fn queue(&mut self, index: u32, step: Step) {
        self.engaged = true;
        self.holding.held[index as usize].step = step;
        self.holding.queued.push(self.pool.outcomes, index);
    }

    /// Puts a request behind one that has ended: in a batch, after all that the
    /// batch itself has brought about.
    fn queue_next(&mut self, index: u32, step: Step) {
        if !self.holding.in_batch {
            return self.queue(index, step);
        }
        self.engaged = true;
        self.holding.held[index as usize].step = step;
        self.holding.later.push(self.pool.outcomes, index);
    }

    /// A batch is at its end: timeouts look at the clock, then count its CQEs,
    /// and what follows its requests has its turn.
    pub(super) fn end_batch(&mut self) {
        self.holding.in_batch = false;
        self.expire();
        self.count_out();
        while let Some(index) = self.holding.later.pop(self.pool.outcomes) {
            self.holding.queued.push(self.pool.outcomes, index);
        }
    }

    /// Has a request end with `res` when its turn comes.
    pub(super) fn queue_end(&mut self, index: u32, res: i32) {
        self.pool.outcomes[index as usize].res = res;
        self.queue(index, Step::End);
    }

    /// Starts a held request. False for want of room.
    fn launch(&mut self, index: u32) -> bool {
        let held = &self.holding.held[index as usize];
        let sqe = held.sqe;
        let kind = op::kind(sqe.opcode);
        match kind {
            Kind::Nop => self.conclude(index, super::prepare::nop_result(&sqe)),
            Kind::Timeout => self.arm(index),
            Kind::TimeoutRemove => {
                let res = self.remove_timeout(index);
                self.conclude(index, res);
            }
            Kind::Cancel => {
                let res = self.cancel(&sqe);
                self.conclude(index, res);
            }
            _ => {
                if let Err(errno) = self.select(index) {
                    self.conclude(index, errno.to_result());
                    return true;
                }
                let sqe = self.holding.held[index as usize].sqe;
                self.pool.records[index as usize].what.set(HELD);
                if let Issue::NoRoom = self.issue_prepared(index, kind, &sqe) {
                    self.unselect(index);
                    return false;
                }
            }
        }
        // What is still under way has its guard look after it.
        if self.under_way(index) {
            let guard = self.holding.held[index as usize].link;
            if guard != NONE && self.guards(guard) {
                self.arm_guard(guard, index);
            }
        }
        true
    }

    fn under_way(&self, index: u32) -> bool {
        self.shared.slots.peek(index as usize).0
            || self.holding.held[index as usize].places[Order::Time as usize] != NONE
    }

    pub(super) fn guards(&self, index: u32) -> bool {
        self.holding.held[index as usize].marks.contains(Marks::GUARD)
    }

    /// A held request that was under way has ended with `res`.
    #[cold]
    pub(super) fn conclude_late(&mut self, index: u32, opcode: u8, res: i32) {
        if op::only_tells(opcode) && res != Errno::ECANCELED.to_result() {
            self.holding.held[index as usize].marks.insert(Marks::ALWAYS_SUCCESS);
        }
        self.conclude(index, res);
    }

    /// A held request has ended with `res`: its CQE, and what follows it.
    #[cold]
    pub(super) fn conclude(&mut self, index: u32, res: i32) {
        let at = index as usize;
        self.starved &= fault::on(Fault::StarvedForEver);
        if res == Errno::EBADF.to_result() {
            self.unselect_unopened(index);
        }
        self.pool.records[at].what.clear(HELD);
        let held = &mut self.holding.held[at];
        let time = res == Errno::ETIME.to_result() && held.marks.contains(Marks::TIME_IS_SUCCESS);
        let short = held.whole.is_some_and(|whole| res >= 0 && whole != res as u32)
            && !fault::on(Fault::ShortKeepsChain);
        let failed = (res < 0 && !time || short) && !held.marks.contains(Marks::ALWAYS_SUCCESS);
        if failed {
            held.fail();
        }
        let marks = held.marks;
        let mut next = core::mem::replace(&mut held.link, NONE);
        if marks.contains(Marks::KEPT) {
            self.backend.forget(at);
        }
        if next != NONE && self.guards(next) {
            let guard = next;
            next = core::mem::replace(&mut self.holding.held[guard as usize].link, NONE);
            self.holding.timers.remove(self.holding.held, guard);
            self.pool.outcomes[guard as usize].res = Errno::ECANCELED.to_result();
            if !fault::on(Fault::GuardNotDisarmed) {
                self.queue_next(guard, Step::End);
            }
        }
        let breaks = failed && !marks.contains(Marks::HARD) && !fault::on(Fault::FailureKeepsChain);
        if next != NONE && breaks {
            let quiet = marks.contains(Marks::SKIP_LINKS) && !fault::on(Fault::SkippedChainSpeaks);
            self.quieten(next, quiet);
            self.queue_next(next, Step::Fail);
        } else if next != NONE {
            self.queue_next(next, Step::Start);
        }
        if marks.contains(Marks::SKIP) && !failed {
            self.pool.put(index);
        } else {
            let user_data = self.pool.records[at].user_data;
            let flags = super::buffers::shown(self.holding.held[at].picked);
            self.complete_now(index, Cqe { user_data, res, flags });
        }
    }

    /// Whether the CQEs of a chain that is cancelled are posted.
    fn quieten(&mut self, first: u32, quiet: bool) {
        let mut index = first;
        while index != NONE {
            let held = &mut self.holding.held[index as usize];
            held.marks.set(Marks::SKIP, quiet);
            index = held.link;
        }
    }

    /// Ends a chain without a start.
    fn fail_chain(&mut self, first: u32) {
        let mut index = first;
        while index != NONE {
            let at = index as usize;
            let held = &mut self.holding.held[at];
            let next = core::mem::replace(&mut held.link, NONE);
            let res = match held.marks.contains(Marks::FAILED) {
                true => self.pool.outcomes[at].res,
                false => Errno::ECANCELED.to_result(),
            };
            let marks = held.marks;
            self.pool.records[at].what.clear(HELD);
            if marks.contains(Marks::KEPT) {
                self.backend.forget(at);
            }
            if marks.contains(Marks::SKIP) {
                self.pool.put(index);
            } else {
                let user_data = self.pool.records[at].user_data;
                self.complete_now(index, Cqe { user_data, res, flags: 0 });
            }
            index = next;
        }
        self.starved = false;
    }

    /// Goes through what has its turn. True if there was anything.
    fn run_queued(&mut self) -> bool {
        let mut any = false;
        let mut launched = false;
        // A batch: timeouts that start in it do not count its CQEs.
        self.holding.batch_began = self.cq.total();
        self.holding.in_batch = true;
        for _ in 0..self.holding.queued.len() {
            let Some(index) = self.holding.queued.pop(self.pool.outcomes) else { break };
            match self.holding.held[index as usize].step {
                Step::Start if !self.down => {
                    if !self.launch(index) {
                        self.holding.queued.push_first(self.pool.outcomes, index);
                        break;
                    }
                    launched = true;
                }
                Step::Start | Step::Fail => self.fail_chain(index),
                Step::End => {
                    let res = self.pool.outcomes[index as usize].res;
                    self.conclude(index, res);
                }
            }
            any = true;
        }
        self.end_batch();
        if launched {
            self.backend.kick();
        }
        any
    }

    /// Does everything that held requests wait for: turns, times, counts,
    /// drains. True if there was anything.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&mut self) -> bool {
        let mut any = self.expire();
        // What has been cancelled comes home before what follows is started, and
        // what has come home is counted.
        while self.collect() | self.count_out() | self.run_queued() | self.release_deferred() {
            any = true;
        }
        self.engaged = self.holding.engaged();
        self.short = self.may_be_short();
        any
    }

    /// Ends all that has not started: the ring is shut down.
    pub(super) fn discard_held(&mut self) {
        self.holding.draining = false;
        self.end_chain();
        while let Some((index, _)) = self.holding.timers.first(self.holding.held) {
            self.disarm(index);
            self.queue_end(index, Errno::ECANCELED.to_result());
        }
        while let Some(head) = self.holding.deferred.pop(self.pool.outcomes) {
            self.queue(head, Step::Fail);
        }
        self.holding.deferred_requests = 0;
        self.settle();
    }
}
