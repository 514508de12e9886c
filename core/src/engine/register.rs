//! Answering [`Call`]s.

use super::Engine;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::op;
use crate::register::{Call, numbered};
use core::ffi::c_void;

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Carries out a call.
    ///
    /// # Errors
    /// As [`Call`] says for each; `ENXIO` after [`shutdown`](Self::shutdown).
    ///
    /// # Safety
    /// Memory named by a buffer registration stays valid until it has been
    /// unregistered and its last request has ended; a ring of buffers as
    /// [`Call::RegisterBufRing`] says.
    pub unsafe fn call(&mut self, call: Call<'_>) -> Result<u32, Errno> {
        if self.down {
            return Err(Errno::ENXIO);
        }
        self.permit_call(call.number())?;
        // The caller may know of them.
        self.take_sent();
        let before = self.cq.total();
        // SAFETY: the caller's promise.
        let answer = unsafe { self.carry_out(call) };
        if self.cq.uncommitted() {
            self.posted_by_call(before);
        }
        answer
    }

    /// Tags have to be there when the call is back. They count for timeouts, and
    /// are nothing that came late.
    #[cold]
    fn posted_by_call(&mut self, before: u32) {
        self.posted_early(self.cq.total().wrapping_sub(before));
        if self.engaged {
            self.settle();
        }
        self.publish();
    }

    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn carry_out(&mut self, call: Call<'_>) -> Result<u32, Errno> {
        match call {
            Call::RegisterFiles(fds) => self.register_files(fds, &[]),
            Call::RegisterFilesTagged { fds, tags } => self.register_files(fds, tags),
            Call::RegisterFilesSparse(count) => self.register_places(count),
            Call::UpdateFiles { offset, fds } => self.update_files(offset, fds, &[]),
            Call::UpdateFilesTagged { offset, fds, tags } => self.update_files(offset, fds, tags),
            Call::UnregisterFiles => {
                if !self.files.registered() {
                    return Err(Errno::ENXIO);
                }
                if fault::on(Fault::UnregisterDoesNothing) {
                    return Ok(0);
                }
                self.close_files();
                Ok(0)
            }
            // SAFETY: the caller's promise.
            Call::RegisterBuffers(iovecs) => unsafe { self.register_buffers(iovecs, &[]) },
            // SAFETY: the caller's promise.
            Call::RegisterBuffersTagged { buffers, tags } => unsafe {
                self.register_buffers(buffers, tags)
            },
            // SAFETY: the caller's promise.
            Call::UpdateBuffers { offset, buffers } => unsafe {
                self.update_buffers(offset, buffers, &[])
            },
            // SAFETY: the caller's promise.
            Call::UpdateBuffersTagged { offset, buffers, tags } => unsafe {
                self.update_buffers(offset, buffers, tags)
            },
            Call::RegisterBuffersSparse(count) => self.open_buffers(count).map(|()| 0),
            Call::UnregisterBuffers => {
                if !self.buffers.registered() {
                    return Err(Errno::ENXIO);
                }
                self.close_buffers();
                Ok(0)
            }
            Call::Probe(probe) => {
                let held = self.config.held;
                let (provides, config) = (self.provides(), &self.config);
                probe.fill(|opcode| {
                    self.supports(opcode)
                        && config.takes(op::kind(opcode))
                        && (held || !op::kind(opcode).is_held())
                        && (provides || !op::kind(opcode).provides())
                });
                Ok(0)
            }
            Call::MaxWorkers(counts) => {
                if counts.iter().any(|&count| i32::try_from(count).is_err()) {
                    return Err(Errno::EINVAL);
                }
                self.backend.max_workers(counts).map(|()| 0)
            }
            // SAFETY: the caller's promise.
            Call::RegisterBufRing { base, entries, group, incremental } if self.provides() => unsafe {
                self.register_buf_ring(base, entries, group, incremental)
            },
            Call::UnregisterBufRing(group) if self.provides() => {
                self.provided.unregister(group).map(|()| 0)
            }
            Call::BufRingHead(group) if self.provides() => self.provided.head(group).map(u32::from),
            Call::RegisterBufRing { .. } | Call::UnregisterBufRing(_) | Call::BufRingHead(_) => {
                Err(Errno::EINVAL)
            }
            Call::RegisterEventfd { fd, only_late } => self.register_eventfd(fd, only_late),
            Call::UnregisterEventfd => self.unregister_eventfd(),
            Call::RegisterRestrictions(list) => self.register_restrictions(list),
            Call::EnableRings => self.enable_rings(),
            Call::Cancel { what, timeout } => self.cancel_call(what, timeout),
            Call::RegisterClock(clock) => self.register_clock(clock),
            Call::Refused { errno, .. } => Err(errno),
            Call::Stats(stats) => {
                *stats = self.stats();
                Ok(0)
            }
            Call::Dump(to) => self.dump(to).map(|()| 0).map_err(|_| Errno::ENOMEM),
        }
    }

    /// `io_uring_register`, numbered and laid out as for the system call: what
    /// that answers, a negated errno included ([`crate::register::numbered`]).
    ///
    /// # Safety
    /// As there.
    pub unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
        // SAFETY: the caller's promise, in both.
        unsafe { numbered(opcode, arg, nr_args, |call| self.call(call)) }
    }

    /// Answers the call in the mailbox, if there is one.
    pub(crate) fn answer_mail(&mut self) -> bool {
        let Some(call) = self.shared.mailbox.take() else {
            return false;
        };
        // SAFETY: whoever put it there (Remote::call) made the promise.
        let answer = unsafe { self.call(call) };
        self.shared.mailbox.reply(&self.shared.host, answer);
        true
    }
}
