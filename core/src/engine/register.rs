//! Answering [`Call`]s.

use super::Engine;
use crate::config::MAX_BUFFERS;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::op;
use crate::register::{Call, numbered};
use crate::types::Iovec;
use crate::uapi::IORING_REGISTER_FILES_SKIP;
use core::ffi::c_void;
use core::num::NonZeroUsize;

/// The kernel's bound for one registered buffer.
const MAX_BUFFER: usize = 1 << 30;

/// A registered buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferEntry<T> {
    pub start: NonZeroUsize,
    pub len: usize,
    pub handle: T,
}

impl<T> BufferEntry<T> {
    /// Whether a range lies inside.
    #[inline(always)]
    pub fn holds(&self, addr: u64, len: u32) -> bool {
        self.range().holds(addr, len.into())
    }

    /// Where it is.
    #[inline(always)]
    pub fn range(&self) -> Range {
        Range { start: self.start.get() as u64, len: self.len as u64 }
    }
}

/// Where a buffer is.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    start: u64,
    len: u64,
}

impl Range {
    /// Whether a range lies inside.
    #[inline(always)]
    pub fn holds(&self, addr: u64, len: u64) -> bool {
        // Where the range starts in the buffer, and where one of its length
        // may start; an address before the buffer wraps to far behind it.
        let start = addr.wrapping_sub(self.start);
        let last = self.len.checked_sub(len);
        last.is_some_and(|last| start <= last)
    }
}

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
        match call {
            Call::RegisterFiles(fds) => self.register_files(fds),
            Call::RegisterFilesSparse(count) => self.open_files(count).map(|()| 0),
            Call::UpdateFiles { offset, fds } => self.update_files(offset, fds),
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
            Call::RegisterBuffers(iovecs) => unsafe { self.register_buffers(iovecs) },
            // SAFETY: the caller's promise.
            Call::UpdateBuffers { offset, buffers } => unsafe {
                self.update_buffers(offset, buffers)
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
                let (backend, held) = (&self.backend, self.config.held);
                let provides = self.provides();
                probe.fill(|opcode| {
                    op::supported(opcode, |opcode| backend.supports(opcode))
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
            Call::RegisterBufRing { base, entries, group } if self.provides() => unsafe {
                self.register_buf_ring(base, entries, group)
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

    fn open_files(&mut self, count: u32) -> Result<(), Errno> {
        if self.files.registered() {
            return Err(Errno::EBUSY);
        }
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if count > self.files.capacity() {
            return Err(Errno::EMFILE);
        }
        self.files.open(count);
        Ok(())
    }

    fn register_files(&mut self, fds: &[i32]) -> Result<u32, Errno> {
        if self.files.registered() && fault::on(Fault::RegisterTwiceSucceeds) {
            return Ok(0);
        }
        self.open_files(u32::try_from(fds.len()).map_err(|_| Errno::EMFILE)?)?;
        for (place, &fd) in fds.iter().enumerate() {
            if fd == -1 {
                continue;
            }
            match self.backend.open(fd) {
                Ok(file) => self.files.put(place as u32, file),
                Err(errno) => {
                    // As if nothing had been asked (the fault of the seed's
                    // time: a table freed here and once more at teardown).
                    if !fault::on(Fault::FailedRegistrationStays) {
                        self.close_files();
                    }
                    return Err(errno);
                }
            }
        }
        self.files.rewind();
        Ok(0)
    }

    fn update_files(&mut self, offset: u32, fds: &[i32]) -> Result<u32, Errno> {
        let count = u32::try_from(fds.len()).map_err(|_| Errno::EINVAL)?;
        self.update_each(offset, count, |_, done| Ok(fds[done as usize]))
    }

    /// Replaces `count` places from `offset` on by what `number` says of each,
    /// up to the first that fails.
    pub(super) fn update_each(
        &mut self,
        offset: u32,
        count: u32,
        mut number: impl FnMut(&mut Self, u32) -> Result<i32, Errno>,
    ) -> Result<u32, Errno> {
        let count = update_range(self.files.len(), offset, count)?;
        for done in 0..count {
            let replaced = number(self, done).and_then(|fd| self.replace_file(offset + done, fd));
            if let Err(errno) = replaced {
                let counted = done + u32::from(fault::on(Fault::UpdateCountsFailed));
                return if counted == 0 { Err(errno) } else { Ok(counted) };
            }
        }
        Ok(count)
    }

    /// The old file goes even if there is no new one.
    fn replace_file(&mut self, place: u32, fd: i32) -> Result<(), Errno> {
        if fd == IORING_REGISTER_FILES_SKIP && !fault::on(Fault::UpdateSkipEmpties) {
            return Ok(());
        }
        self.empty_place(place);
        if fd == -1 || fd == IORING_REGISTER_FILES_SKIP {
            return Ok(());
        }
        let file = self.backend.open(fd)?;
        self.files.put(place, file);
        Ok(())
    }

    /// Empties a place of the table of files. True if there was one.
    pub(super) fn empty_place(&mut self, place: u32) -> bool {
        let any = self.files.get(place).is_some();
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        if let Some(file) = self.files.clear(place, in_flight) {
            self.backend.close(file);
        }
        any
    }

    /// Ends the registration of files; those in use go with their requests.
    pub(super) fn close_files(&mut self) {
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        let backend = &mut self.backend;
        self.files.close(in_flight, |file| backend.close(file));
    }

    /// Ends the registration of buffers, in the same way.
    pub(super) fn close_buffers(&mut self) {
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        let backend = &mut self.backend;
        self.buffers.close(in_flight, |buffer| backend.unmap(buffer.handle));
    }

    fn open_buffers(&mut self, count: u32) -> Result<(), Errno> {
        if self.buffers.registered() {
            return Err(Errno::EBUSY);
        }
        if count == 0 || count > MAX_BUFFERS {
            return Err(Errno::EINVAL);
        }
        if count > self.buffers.capacity() {
            return Err(Errno::ENOMEM);
        }
        self.buffers.open(count);
        Ok(())
    }

    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn register_buffers(&mut self, iovecs: &[Iovec]) -> Result<u32, Errno> {
        self.open_buffers(u32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?)?;
        // SAFETY: the caller's promise, in both.
        let put = unsafe {
            self.each_buffer(iovecs, |engine, at| engine.put_buffer(at as u32, &iovecs[at]))
        };
        match put {
            Ok(()) => Ok(0),
            Err((_, errno)) => {
                self.close_buffers();
                Err(errno)
            }
        }
    }

    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn update_buffers(&mut self, offset: u32, iovecs: &[Iovec]) -> Result<u32, Errno> {
        let count = u32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?;
        let count = update_range(self.buffers.len(), offset, count)?;
        // SAFETY: the caller's promise, in both.
        let put = unsafe {
            self.each_buffer(iovecs, |engine, at| {
                engine.replace_buffer(offset + at as u32, &iovecs[at])
            })
        };
        match put {
            Ok(()) => Ok(count),
            Err((0, errno)) => Err(errno),
            Err((done, _)) => Ok(done as u32),
        }
    }

    /// Calls `put` for each buffer of a call, up to the first that fails:
    /// which, and why. Neighbours share a mapping, if the backend's do.
    ///
    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn each_buffer(
        &mut self,
        iovecs: &[Iovec],
        mut put: impl FnMut(&mut Self, usize) -> Result<(), Errno>,
    ) -> Result<(), (usize, Errno)> {
        let mut from = 0;
        while from < iovecs.len() {
            let (count, len) =
                if B::SHARES_MAPPINGS { neighbours(&iovecs[from..]) } else { (1, 0) };
            // If the whole cannot be mapped the parts tell which of them.
            let whole = (count > 1).then(|| {
                // SAFETY: the caller's promise, for each part of it.
                unsafe { self.backend.map(iovecs[from].base as usize, len) }
            });
            let done = (from..from + count).try_for_each(|at| put(self, at).map_err(|e| (at, e)));
            if let Some(Ok(whole)) = whole {
                self.backend.unmap(whole);
            }
            done?;
            from += count;
        }
        Ok(())
    }

    /// The new buffer is mapped before the old one goes: a bad one changes
    /// nothing, as in the kernel (where it differs from a bad file).
    ///
    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn replace_buffer(&mut self, place: u32, iovec: &Iovec) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        let new = unsafe { self.map(iovec)? };
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        if let Some(old) = self.buffers.clear(place, in_flight) {
            self.backend.unmap(old.handle);
        }
        if let Some(entry) = new {
            self.buffers.put(place, entry);
        }
        Ok(())
    }

    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn put_buffer(&mut self, place: u32, iovec: &Iovec) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        if let Some(entry) = unsafe { self.map(iovec)? } {
            self.buffers.put(place, entry);
        }
        Ok(())
    }

    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn map(&mut self, iovec: &Iovec) -> Result<Option<BufferEntry<B::Buffer>>, Errno> {
        let (addr, len) = (iovec.base as usize, iovec.len);
        if isize::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        if addr == 0 && len == 0 {
            return Ok(None);
        }
        let start = NonZeroUsize::new(addr).ok_or(Errno::EFAULT)?;
        if len == 0 || len > MAX_BUFFER {
            return Err(Errno::EFAULT);
        }
        if addr.checked_add(len).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        // SAFETY: the caller's promise.
        let handle = unsafe { self.backend.map(addr, len)? };
        Ok(Some(BufferEntry { start, len, handle }))
    }
}

/// How many buffers from the first on follow each other in memory (at least
/// 1), and their bytes.
fn neighbours(iovecs: &[Iovec]) -> (usize, usize) {
    let mut iovecs = iovecs.iter();
    let Some(first) = iovecs.next() else { return (0, 0) };
    let (start, mut count, mut len) = (first.base as usize, 1, first.len);
    for next in iovecs {
        let joins = start.checked_add(len) == Some(next.base as usize) && next.len != 0;
        // What goes on past the last address is no buffer.
        let more = len.checked_add(next.len).filter(|&more| start.checked_add(more).is_some());
        let (true, Some(more)) = (joins, more) else { break };
        (count, len) = (count + 1, more);
    }
    (count, len)
}

/// Checks an update's range against the table; its length as a count.
fn update_range(table: u32, offset: u32, count: u32) -> Result<u32, Errno> {
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let end = offset.checked_add(count).ok_or(Errno::EOVERFLOW)?;
    if table == 0 {
        return Err(Errno::ENXIO);
    }
    if end > table {
        return Err(Errno::EINVAL);
    }
    Ok(count)
}
