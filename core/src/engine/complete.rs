//! Completing: results come home, CQEs go out, nothing is lost between.

use super::Engine;
use crate::config::Mode;
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host, Start, Token};
use crate::request::{DIRECT, ENDED, Fifo, HELD, Outcome, Record, Run};
use crate::slot::{End, Notice};
use crate::sync::{Ordering, fence};
use crate::uapi::{IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN};

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Posts the CQE of a request that ends inside the engine, and frees its
    /// record, or keeps both until there is room.
    #[inline(always)]
    pub(super) fn complete_now(&mut self, index: u32, cqe: Cqe) {
        if self.overflow.is_empty() && self.cq.push(cqe) {
            self.pool.put(index);
        } else {
            self.wait_for_room(index, cqe);
        }
    }

    #[cold]
    fn wait_for_room(&mut self, index: u32, cqe: Cqe) {
        self.pool.records[index as usize].user_data = cqe.user_data;
        let outcome = &mut self.pool.outcomes[index as usize];
        outcome.res = cqe.res;
        outcome.cflags = cqe.flags;
        self.queue_for_room(index);
    }

    /// Posts CQEs that waited for room, in their order. True if any was.
    pub(super) fn flush_overflow(&mut self) -> bool {
        let mut any = false;
        while let Some(index) = self.overflow.first() {
            let cqe = self.waiting_cqe(index);
            let lost = !any && fault::on(Fault::OverflowLosesOne);
            if !lost && !self.cq.push(cqe) {
                // What a served ring takes for room may be a tail that somebody
                // else has written, in shared memory: it is put right.
                return any || self.cq.uncommitted();
            }
            any = true;
            self.starved = false;
            self.overflow.pop(self.pool.outcomes);
            self.no_longer_waiting(index);
        }
        self.shared.clear_flag(IORING_SQ_CQ_OVERFLOW);
        any
    }

    /// A pending request has its result: the completion's reference is gone,
    /// the last of the two.
    fn finish(&mut self, index: u32, result: i32) {
        self.pending -= 1;
        self.starved &= fault::on(Fault::StarvedForEver);
        let Record { user_data, what } = self.pool.records[index as usize];
        if !what.ordinary() {
            return self.finish_odd(index, result);
        }
        self.complete_now(index, late(user_data, index, result));
    }

    /// The rest of [`finish`](Self::finish), where there is more to it than a
    /// CQE.
    #[cold]
    fn finish_odd(&mut self, index: u32, result: i32) {
        let Record { user_data, what } = self.pool.records[index as usize];
        let result = self.let_go(index, result);
        let cqe = late(user_data, index, result);
        if what.has(HELD) {
            self.conclude_late(index, what.opcode(), cqe.res);
        } else {
            self.complete_now(index, cqe);
        }
        self.post_ended_tags();
    }

    /// [`finish`](Self::finish) of a request whose token others still have, and
    /// may bring a notice for.
    fn finish_resumed(&mut self, index: u32, result: i32) {
        if self.shared.slots.try_retire(index) {
            self.finish(index, result);
        } else {
            // A notice has crossed the end. The slot is free when that has
            // come home, and others may pick a buffer before.
            self.spend_early(index, result);
            self.pool.outcomes[index as usize].res = result;
            self.pool.records[index as usize].what.set(ENDED);
        }
    }

    /// One of several results of request `index`. True if it goes on.
    #[cold]
    pub(super) fn more(&mut self, index: u32, result: i32) -> bool {
        if self.post_more(index, result) {
            return true;
        }
        self.backend.end(self.shared.slots.token(index));
        self.finish_resumed(index, result);
        false
    }

    /// Ends a request's hold on a file and a buffer that lost their places
    /// while it was in flight, and puts a file that it has opened in its place.
    /// Answers its result.
    #[cold]
    fn let_go(&mut self, index: u32, result: i32) -> i32 {
        let what = self.pool.records[index as usize].what;
        if let Some(file) = self.files.release(what) {
            self.backend.close(file.value);
            self.post_tag_later(file.tag);
        }
        if let Some(buffer) = self.buffers.release(what) {
            self.backend.unmap(buffer.value.handle);
            self.post_tag_later(buffer.tag);
        }
        if !what.has(DIRECT) {
            return result;
        }
        let file_index = self.pool.outcomes[index as usize].cflags;
        self.opened(file_index, result)
    }

    /// Handles everything that came home, oldest first. True if anything had.
    pub(super) fn collect(&mut self) -> bool {
        let before = self.cq.total();
        if self.shared.showing(IORING_SQ_TASKRUN) {
            // Before the list is taken. A flag that comes late, after its
            // push was taken, stays until the next look.
            if !fault::on(Fault::TaskrunHiddenLate) {
                self.shared.hide_taskrun();
            }
            // After the flag: who shows it has left a file before.
            self.take_sent();
        }
        if !self.shared.slots.any_returned() {
            self.posted_early(before.wrapping_sub(self.cq.total()));
            return false;
        }
        let slots = &self.shared.slots;
        let mut list = slots.take();
        if fault::on(Fault::TaskrunHiddenLate) {
            self.shared.hide_taskrun();
        }
        let mut resumed = false;
        while let Some(index) = slots.next_returned(&mut list) {
            let Some(Record { what, .. }) = self.pool.records.get_mut(index as usize) else {
                self.take_messages();
                continue;
            };
            if what.has(ENDED) {
                what.clear(ENDED);
                let result = self.pool.outcomes[index as usize].res;
                slots.retire(index);
                self.finish(index, result);
                continue;
            }
            match slots.take_notice(index) {
                Notice::Final(result) => self.finish(index, result),
                Notice::Ready => {
                    resumed = true;
                    // Pairs with the fence in `Completer::ready`: a notice
                    // that was refused because of this one told of something
                    // that the backend sees from here on.
                    if !fault::on(Fault::ResumeNoFence) {
                        fence(Ordering::SeqCst);
                    }
                    if let Err(errno) = self.select_again(index) {
                        self.finish_resumed(index, errno.to_result());
                        continue;
                    }
                    let slots = &self.shared.slots;
                    // SAFETY: the request is still pending, so its memory is
                    // still promised, as at its start.
                    match unsafe { self.backend.resume(slots.token(index)) } {
                        Start::Done(result) | Start::Refused(result) => {
                            self.finish_resumed(index, result);
                        }
                        Start::More(result) => {
                            if self.more(index, result) {
                                slots.acted_on(index);
                            }
                        }
                        Start::Waiting => {
                            self.waits(index);
                            self.lend(index);
                            self.shared.slots.acted_on(index);
                        }
                        Start::Pending | Start::NoRoom => {
                            self.spend_asked(index);
                            self.shared.slots.acted_on(index);
                        }
                    }
                }
            }
        }
        if resumed {
            self.backend.kick();
        }
        // None of them has come of taking SQEs, though that may be going on.
        self.posted_early(before.wrapping_sub(self.cq.total()));
        true
    }

    /// Asks the backend for completions. True if there were any.
    ///
    /// Their CQEs go straight into the CQ, with the positions in registers; the
    /// first that cannot, and all after it, for the order's sake, wait in
    /// `reaped` until the backend has said everything.
    pub(super) fn poll_backend(&mut self) -> bool {
        // Not while CQEs wait for room: what there is becomes theirs by
        // `flush_overflow`, and until then nobody else is to know of it.
        let anybodys = self.overflow.is_empty() || fault::on(Fault::RoomOfOthers);
        if self.cq.run().room < self.pending && anybodys {
            self.cq.refresh();
        }
        let cqes = self.cq.run();
        debug_assert!(cqes.room == 0 || anybodys);
        let room = cqes.room as usize;
        let slots = self.shared.slots.run();
        let reaped = &mut self.reaped;
        let Run { records, outcomes, stack, places } = self.pool.run();
        let bottom = stack.len();
        // As many as there are CQEs and places on the stack for.
        let room = room.min(places.len());
        let (records, mut places) = (&mut records[..slots.len()], &mut places[..room]);
        let mut posted = 0;
        self.backend.poll(|token: Token, result| {
            let index = token.index();
            // Looked at before the slot is, whose place in memory is found by
            // the same shift.
            let Some(&record) = records.get(index) else {
                self.shared.slots.refuse();
                return;
            };
            match slots.end(token) {
                End::Closed => {
                    if let Some(place) = places.get_mut(posted)
                        && record.what.ordinary()
                    {
                        let tail = cqes.first.wrapping_add(posted as u32);
                        cqes.put(tail, late(record.user_data, index as u32, result));
                        *place = index as u32;
                        posted += 1;
                    } else {
                        reap(outcomes, reaped, index, result);
                        places = Default::default();
                    }
                }
                End::Crossed => crossed(records, outcomes, index, result),
                // A device's or backend's error: nobody's request ends by it.
                End::Stale => {
                    self.shared.slots.refuse();
                }
            }
        });
        self.pool.set_top(bottom + posted);
        self.cq.advance(cqes.first.wrapping_add(posted as u32));
        if posted != 0 {
            self.pending -= posted as u32;
            self.starved &= fault::on(Fault::StarvedForEver);
        }
        let mut any = posted != 0;
        while let Some(index) = self.reaped.pop(self.pool.outcomes) {
            any = true;
            let result = self.pool.outcomes[index as usize].res;
            self.finish(index, result);
        }
        any
    }

    /// Makes new CQEs and SQ room visible to whoever waits for them.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        if self.cq.commit() {
            self.shared.host.cqes_posted();
            if self.bell.on {
                self.ring_bell();
            }
        }
        if self.config.mode != Mode::Inline {
            // Relaxed: the engine's own word.
            if self.shared.timeouts.load(Ordering::Relaxed) != self.ended_timeouts() {
                self.tell_timeouts();
            }
            // The engine's one fence a batch: pairs with the fence of
            // EventCount::prepare in a waiting application.
            if !fault::on(Fault::PublishNoFence) {
                fence(Ordering::SeqCst);
            }
            if !fault::on(Fault::PublishNoWake) {
                self.shared.app_wait.notify_after_fence(&self.shared.host);
            }
        }
    }

    #[cold]
    fn tell_timeouts(&self) {
        // Release: pairs with the Acquire in `Remote::wait_cqes`: who sees that
        // a timeout has ended sees its CQE.
        let order = fault::order(Fault::TimeoutsTellRelaxed, Ordering::Release);
        self.shared.timeouts.store(self.ended_timeouts(), order);
    }
}

/// Keeps the result of a request whose CQE cannot be written while its backend
/// tells of it.
#[cold]
#[inline(never)]
fn reap(outcomes: &mut [Outcome], reaped: &mut Fifo, index: usize, result: i32) {
    outcomes[index].res = result;
    reaped.push(outcomes, index as u32);
}

/// Keeps the result of a request whose end a notice has crossed: the slot is
/// on the return list, and free when it has come home.
#[cold]
#[inline(never)]
fn crossed(records: &mut [Record], outcomes: &mut [Outcome], index: usize, result: i32) {
    outcomes[index].res = result;
    records[index].what.set(ENDED);
}

/// The CQE of a request whose result came after its start.
#[inline(always)]
fn late(user_data: u64, index: u32, result: i32) -> Cqe {
    let res = result - i32::from(result > 0 && fault::on(Fault::LateResultOffByOne));
    let lost = fault::on(Fault::LateUserDataLost);
    let user_data = if lost { index.into() } else { user_data };
    Cqe { user_data, res, flags: 0 }
}
