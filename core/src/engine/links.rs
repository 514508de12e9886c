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
use crate::op::{self, Kind, MAX_RW};
use crate::request::Fifo;
use crate::sqe::{Flags, Sqe};
use crate::uapi;

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
    /// Not every SQE may be taken ([`super::restrict`]).
    pub restricted: bool,
    /// A CQE has been skipped: nothing may drain any more.
    skipped: bool,
    /// Chains that wait for everything before them, by their first requests.
    deferred: Fifo,
    /// The requests of those chains, and how many of them are of the batch that
    /// is being taken.
    deferred_requests: u32,
    deferred_of_batch: u32,
    /// Requests whose turn has come.
    pub queued: Fifo,
    /// Those that follow requests which have ended in the current batch.
    pub later: Fifo,
    pub timers: Heap<'m>,
    pub counts: Heap<'m>,
    pub stamp: u32,
    /// CQEs posted, never wrapped, as of the CQ's total `seen`.
    pub events: u64,
    pub seen: u32,
    /// How many SQEs the last batch was to have.
    pub batch_want: u32,
    /// The CQ's total when it began, and whether it is being taken still.
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
            restricted: false,
            skipped: false,
            deferred: Fifo::new(),
            deferred_requests: 0,
            deferred_of_batch: 0,
            queued: Fifo::new(),
            later: Fifo::new(),
            timers: Heap::new(Order::Time, timers),
            counts: Heap::new(Order::Count, counts),
            stamp: 0,
            // Timeouts are subtracted, and may have been posted before.
            events: 1 << 32,
            seen: 0,
            batch_want: 0,
            batch_began: 0,
            in_batch: false,
            timeouts: 0,
        }
    }

    /// Whether every SQE has to be taken the long way.
    #[inline(always)]
    pub fn slow(&self) -> bool {
        self.ordering() || self.restricted
    }

    /// Whether what follows depends on what came before.
    #[inline(always)]
    fn ordering(&self) -> bool {
        self.chain.is_some() || self.draining || self.drain_next || self.refusing
    }

    /// Whether [`Engine::settle`] has anything to look at.
    pub fn engaged(&self) -> bool {
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
        self.engaged = true;
        if !core::mem::replace(&mut self.holding.in_batch, true) {
            self.holding.deferred_of_batch = 0;
        }
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
        self.begin(head, self.holding.batch_want - left + 1);
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
    fn may_wait(&mut self, kind: Kind, sqe: &Sqe) -> bool {
        let for_others = matches!(kind, Kind::Timeout | Kind::PollAdd)
            || self.holding.ordering()
            || sqe.flags & uapi::IOSQE_IO_DRAIN != 0;
        let moves = matches!(kind, Kind::ReadWrite | Kind::Vectored | Kind::Fixed);
        for_others
            || moves
                && self
                    .target(sqe)
                    .is_ok_and(|(target, _)| self.backend.waits_for_readiness(target))
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
        prepare(&self.config, kind, sqe)?;
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
            _ if !self.supports(sqe.opcode) => Err(Errno::EINVAL),
            Kind::Openat | Kind::Statx => {
                // SAFETY: as above.
                unsafe { self.keep(index, 0)? };
                let direct = kind == Kind::Openat && sqe.splice_fd_in != 0;
                match direct && !self.backend.opens_registered(sqe.op_flags) {
                    true => Err(Errno::EINVAL),
                    false => Ok(()),
                }
            }
            // SAFETY: as above.
            _ if select => unsafe { self.prepare_select(index, sqe) },
            Kind::Vectored | Kind::ReadWrite => {
                // SAFETY: as above.
                let bytes = unsafe { self.keep(index, sqe.len)? };
                self.holding.held[index as usize].whole = Some(bytes.min(MAX_RW));
                Ok(())
            }
            Kind::Fixed => {
                self.holding.held[index as usize].whole = Some(sqe.len.min(MAX_RW));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Has the backend keep what an entry points to ([`Backend::keep`]). Answers
    /// the bytes.
    ///
    /// # Safety
    /// As for [`Backend::keep`].
    unsafe fn keep(&mut self, index: u32, len: u32) -> Result<u32, Errno> {
        let held = &mut self.holding.held[index as usize];
        // SAFETY: the caller's promise.
        let kept =
            unsafe { self.backend.keep(index as usize, held.sqe.opcode, held.sqe.addr, len)? };
        held.marks.insert(Marks::KEPT);
        held.sqe.addr = kept.addr;
        Ok(kept.bytes)
    }

    /// Whether an entry may be taken, and gets as far as to drain. As in Linux,
    /// whoever has once skipped a CQE cannot.
    fn sound_flags(&mut self, sqe: &Sqe) -> Result<(), Errno> {
        check_flags(sqe)?;
        // Before its other flags are looked at.
        if sqe.flags & uapi::IOSQE_BUFFER_SELECT != 0 {
            if !self.provides() {
                return Err(Errno::EINVAL);
            }
            if !matches!(sqe.opcode, uapi::IORING_OP_READ | uapi::IORING_OP_READV) {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        self.holding.skipped |= sqe.flags & uapi::IOSQE_CQE_SKIP_SUCCESS != 0;
        let skipped = self.holding.skipped && !fault::on(Fault::DrainAfterSkip);
        if sqe.flags & uapi::IOSQE_IO_DRAIN != 0 && skipped {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.restrict.permit(sqe) { Ok(()) } else { Err(Errno::EACCES) }
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

    /// Ends the chain that was being taken: a batch is at its end, having taken
    /// `taken` SQEs. One that is being refused ends only with `all` of what was
    /// submitted: what is left of it for want of room is refused next time.
    pub(super) fn end_chain(&mut self, all: bool, taken: u32) {
        self.holding.refusing &= !all;
        if let Some((head, _)) = self.holding.chain.take() {
            self.begin(head, taken);
        }
    }

    /// A chain has been taken whole; with it the batch has taken `taken` SQEs.
    fn begin(&mut self, head: u32, taken: u32) {
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
        holding.deferred_of_batch += length;
        holding.deferred.push(self.pool.outcomes, head);
        // As in Linux, what a batch has ended counts as under way until the batch
        // is at its end.
        if taken <= holding.deferred_of_batch {
            self.release_deferred();
        }
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
    pub(super) fn release_deferred(&mut self) -> bool {
        let (mut any, mut drain) = (false, false);
        while let Some(head) = self.holding.deferred.first() {
            drain |= self.holding.held[head as usize].marks.contains(Marks::DRAIN);
            let waiting = self.waiting_requests() + self.holding.deferred_requests;
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

    /// Ends all that has not started: the ring is shut down.
    pub(super) fn discard_held(&mut self) {
        self.holding.draining = false;
        self.end_chain(true, 0);
        while let Some((index, _)) = self.holding.timers.first(self.holding.held) {
            self.disarm(index);
            // A guard ends with what it guards.
            if !self.guards(index) {
                self.queue_end(index, Errno::ECANCELED.to_result());
            }
        }
        while let Some(head) = self.holding.deferred.pop(self.pool.outcomes) {
            self.queue(head, Step::Fail);
        }
        self.holding.deferred_requests = 0;
        self.settle();
    }
}
