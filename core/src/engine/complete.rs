//! Completing: results come home, CQEs go out, nothing is lost between.

use super::Engine;
use crate::config::Mode;
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host, Start, Token};
use crate::request::{COMPLETION, SUBMISSION};
use crate::slot::Notice;
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
        let record = &mut self.pool.records[index as usize];
        record.user_data = cqe.user_data;
        record.res = cqe.res;
        record.cflags = cqe.flags;
        self.stats.overflows += 1;
        if self.overflow.is_empty() && !fault::on(Fault::OverflowNotShown) {
            self.shared.set_flag(IORING_SQ_CQ_OVERFLOW);
        }
        self.overflow.push(self.pool.records, index);
    }

    /// Posts CQEs that waited for room, in their order. True if any was.
    pub(super) fn flush_overflow(&mut self) -> bool {
        let mut any = false;
        while let Some(index) = self.overflow.first() {
            let record = &self.pool.records[index as usize];
            let cqe = Cqe { user_data: record.user_data, res: record.res, flags: record.cflags };
            let lost = !any && fault::on(Fault::OverflowLosesOne);
            if !lost && !self.cq.push(cqe) {
                return any;
            }
            any = true;
            self.starved = false;
            self.overflow.pop(self.pool.records);
            self.pool.put(index);
        }
        self.shared.clear_flag(IORING_SQ_CQ_OVERFLOW);
        any
    }

    /// Drops one of a record's two references; the record ends with the last.
    #[inline]
    pub(super) fn drop_reference(&mut self, index: u32, reference: u8) {
        let record = &mut self.pool.records[index as usize];
        debug_assert!(record.refs & reference != 0, "a reference dropped twice");
        record.refs &= !reference;
        if record.refs == 0 || fault::on(Fault::ReferenceIgnored) {
            let cqe = Cqe { user_data: record.user_data, res: record.res, flags: record.cflags };
            let (file, buffer) = (record.file, record.buffer);
            self.let_go(file, buffer);
            self.complete_now(index, cqe);
        }
    }

    /// Ends a request's hold on its registered file and buffer.
    #[inline]
    pub(super) fn let_go(&mut self, file: u32, buffer: u32) {
        if file != NONE
            && let Some(file) = self.files.release(file)
        {
            self.backend.close(file);
        }
        if buffer != NONE
            && let Some(buffer) = self.buffers.release(buffer)
        {
            self.backend.unmap(buffer.handle);
        }
    }

    /// A pending request has its result.
    fn finish(&mut self, index: u32, result: i32) {
        self.pending -= 1;
        self.starved &= fault::on(Fault::StarvedForEver);
        let record = &mut self.pool.records[index as usize];
        record.res = result - i32::from(result > 0 && fault::on(Fault::LateResultOffByOne));
        if fault::on(Fault::LateUserDataLost) {
            record.user_data = u64::from(index);
        }
        debug_assert!(record.refs & SUBMISSION == 0, "nothing comes home during a start");
        self.drop_reference(index, COMPLETION);
    }

    /// Handles everything that came home, oldest first. True if anything had.
    pub(super) fn collect(&mut self) -> bool {
        if self.shared.showing(IORING_SQ_TASKRUN) {
            // Before the list is taken. A flag that comes late, after its
            // push was taken, stays until the next look.
            if !fault::on(Fault::TaskrunHiddenLate) {
                self.shared.hide_taskrun();
            }
        }
        if !self.shared.slots.any_returned() {
            return false;
        }
        let slots = &self.shared.slots;
        let mut list = slots.take();
        if fault::on(Fault::TaskrunHiddenLate) {
            self.shared.hide_taskrun();
        }
        let mut resumed = false;
        while let Some(index) = slots.next_returned(&mut list) {
            let record = &mut self.pool.records[index as usize];
            if core::mem::take(&mut record.ended) {
                let result = record.res;
                slots.retire(index);
                self.finish(index, result);
                continue;
            }
            match slots.take_notice(index) {
                Notice::Final(result) => self.finish(index, result),
                Notice::Ready => {
                    resumed = true;
                    // SAFETY: the request is still pending, so its memory is
                    // still promised, as at its start.
                    match unsafe { self.backend.resume(slots.token(index)) } {
                        Start::Done(result) | Start::Refused(result) => {
                            if slots.try_retire(index) {
                                self.finish(index, result);
                            } else {
                                // A notice has crossed the end. The slot is
                                // free when that has come home.
                                let record = &mut self.pool.records[index as usize];
                                record.res = result;
                                record.ended = true;
                            }
                        }
                        Start::Pending | Start::NoRoom => slots.acted_on(index),
                    }
                }
            }
        }
        if resumed {
            self.backend.kick();
        }
        true
    }

    /// Asks the backend for completions. True if there were any.
    pub(super) fn poll_backend(&mut self) -> bool {
        let slots = &self.shared.slots;
        let records = &mut *self.pool.records;
        let reaped = &mut self.reaped;
        self.backend.poll(|token: Token, result| {
            // A token that is not live is a device's or backend's error: it
            // is counted, and nobody's request ends by it.
            if slots.is_live(token) {
                let index = token.index() as u32;
                records[index as usize].res = result;
                if slots.peek(token.index()).1 {
                    // A notice has crossed the end: the slot is on the return
                    // list, and free when it has come home.
                    records[index as usize].ended = true;
                } else {
                    slots.retire(index);
                    reaped.push(records, index);
                }
            }
        });
        let mut any = false;
        while let Some(index) = self.reaped.pop(self.pool.records) {
            any = true;
            let result = self.pool.records[index as usize].res;
            self.finish(index, result);
        }
        any
    }

    /// Makes new CQEs and SQ room visible to whoever waits for them.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        if self.cq.commit() {
            self.shared.host.cqes_posted();
        }
        if self.config.mode != Mode::Inline {
            // The engine's one fence a batch: pairs with the fence of
            // EventCount::prepare in a waiting application.
            if !fault::on(Fault::PublishNoFence) {
                fence(Ordering::SeqCst);
            }
            self.shared.app_wait.notify_after_fence(&self.shared.host);
        }
    }
}
