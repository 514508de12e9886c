//! Tables of registered files and buffers: registration, updates, the end.

use super::{Engine, tags};
use crate::config::MAX_BUFFERS;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host};
use crate::request::Table;
use crate::types::Iovec;
use crate::uapi::IORING_REGISTER_FILES_SKIP;
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
    pub(super) fn open_files(&mut self, count: u32) -> Result<(), Errno> {
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

    /// Registers a table of empty places.
    pub(super) fn register_places(&mut self, count: u32) -> Result<u32, Errno> {
        self.open_files(count)?;
        self.show_files();
        Ok(0)
    }

    /// Shows other rings a table that has been registered.
    fn show_files(&self) {
        self.shared.sent.open(self.files.len(), |place| self.files.peek(place).is_some());
    }

    pub(super) fn register_files(&mut self, fds: &[i32], tags: &[u64]) -> Result<u32, Errno> {
        if self.files.registered() && fault::on(Fault::RegisterTwiceSucceeds) {
            return Ok(0);
        }
        // A table that is there comes first.
        if !self.files.registered() {
            tags::check(tags, fds.len())?;
        }
        self.open_files(u32::try_from(fds.len()).map_err(|_| Errno::EMFILE)?)?;
        for (place, &fd) in fds.iter().enumerate() {
            match self.fill_place(place as u32, fd, tags::of(tags, place)) {
                Ok(()) => {}
                Err(errno) => {
                    self.forget_tags(Table::Files);
                    // As if nothing had been asked (the fault of the seed's
                    // time: a table freed here and once more at teardown).
                    if !fault::on(Fault::FailedRegistrationStays) {
                        self.close_files();
                    }
                    return Err(errno);
                }
            }
        }
        self.show_files();
        Ok(0)
    }

    /// Fills an empty place: -1 leaves it as it is, and has no tag.
    fn fill_place(&mut self, place: u32, fd: i32, tag: u64) -> Result<(), Errno> {
        if fd == -1 {
            return if tag == 0 { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let file = self.backend.open(fd)?;
        match self.take_tag(tag) {
            Ok(tag) => {
                self.files.put(place, file);
                self.files.set_tag(place, tag);
                Ok(())
            }
            Err(errno) => {
                self.backend.close(file);
                Err(errno)
            }
        }
    }

    pub(super) fn update_files(
        &mut self,
        offset: u32,
        fds: &[i32],
        tags: &[u64],
    ) -> Result<u32, Errno> {
        tags::check(tags, fds.len())?;
        let count = u32::try_from(fds.len()).map_err(|_| Errno::EINVAL)?;
        self.update_each(offset, count, |_, done| {
            Ok((fds[done as usize], tags::of(tags, done as usize)))
        })
    }

    /// Replaces `count` places from `offset` on by what `number` says of each (a
    /// file number, and a tag or 0), up to the first that fails.
    pub(super) fn update_each(
        &mut self,
        offset: u32,
        count: u32,
        mut number: impl FnMut(&mut Self, u32) -> Result<(i32, u64), Errno>,
    ) -> Result<u32, Errno> {
        let count = update_range(self.files.len(), offset, count)?;
        for done in 0..count {
            let replaced =
                number(self, done).and_then(|(fd, tag)| self.replace_file(offset + done, fd, tag));
            if let Err(errno) = replaced {
                let counted = done + u32::from(fault::on(Fault::UpdateCountsFailed));
                return if counted == 0 { Err(errno) } else { Ok(counted) };
            }
        }
        Ok(count)
    }

    /// The old file goes even if there is no new one.
    fn replace_file(&mut self, place: u32, fd: i32, tag: u64) -> Result<(), Errno> {
        if tag != 0 && (fd == -1 || fd == IORING_REGISTER_FILES_SKIP) {
            return Err(Errno::EINVAL);
        }
        if fd == IORING_REGISTER_FILES_SKIP && !fault::on(Fault::UpdateSkipEmpties) {
            return Ok(());
        }
        if fd == -1 || fd == IORING_REGISTER_FILES_SKIP {
            self.empty_place(place);
            return Ok(());
        }
        // It is never empty for those who look for a place.
        let sent = self.shared.sent.occupy(place);
        self.drop_sent(sent);
        self.drop_file(place);
        let filled = self.fill_place(place, fd, tag);
        self.shared.sent.settle(place, filled.is_ok());
        filled
    }

    /// Empties a place of the table of files. True if there was one.
    pub(super) fn empty_place(&mut self, place: u32) -> bool {
        let sent = self.shared.sent.vacate(place);
        let any = self.files.get(place).is_some() || sent.is_some();
        self.drop_sent(sent);
        self.drop_file(place);
        any
    }

    /// Takes a file out of the table.
    fn drop_file(&mut self, place: u32) {
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        if let Some(file) = self.files.clear(place, in_flight) {
            self.backend.close(file.value);
            self.post_tag(file.tag);
        }
    }

    /// Disposes of a file that was sent and has no place any more.
    pub(super) fn drop_sent(&mut self, number: Option<i32>) {
        if let Some(Ok(file)) = number.map(|number| self.backend.adopt(number)) {
            self.backend.close(file);
        }
    }

    /// Puts the files in the table that have come from other rings.
    #[inline(always)]
    pub(crate) fn take_sent(&mut self) {
        if self.shared.sent.any() {
            self.put_sent();
        }
    }

    #[cold]
    fn put_sent(&mut self) {
        while let Some((place, number)) = self.shared.sent.take() {
            match self.backend.adopt(number) {
                Ok(file) => self.put_file(place, file),
                // Its sender has been told that it is here: it takes the place
                // of what was, all the same.
                Err(_) => {
                    self.drop_file(place);
                    self.shared.sent.settle(place, false);
                }
            }
        }
    }

    /// Puts a file at a place that is the engine's, from which an older one goes.
    pub(super) fn put_file(&mut self, place: u32, file: B::File) {
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        if let Some(old) = self.files.replace(place, file, in_flight) {
            self.backend.close(old.value);
            self.post_tag(old.tag);
        }
    }

    /// Ends the registration of files; those in use go with their requests.
    pub(super) fn close_files(&mut self) {
        self.shared.sent.close();
        while let Some((_, number)) = self.shared.sent.take() {
            if !fault::on(Fault::SentFileForgotten) {
                self.drop_sent(Some(number));
            }
        }
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        let backend = &mut self.backend;
        self.files.close(in_flight, |file| backend.close(file));
        self.end_tags(Table::Files, Self::post_tag);
    }

    /// Ends the registration of buffers, in the same way.
    pub(super) fn close_buffers(&mut self) {
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        let backend = &mut self.backend;
        self.buffers.close(in_flight, |buffer| backend.unmap(buffer.handle));
        self.end_tags(Table::Buffers, Self::post_tag);
    }

    pub(super) fn open_buffers(&mut self, count: u32) -> Result<(), Errno> {
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
    pub(super) unsafe fn register_buffers(
        &mut self,
        iovecs: &[Iovec],
        tags: &[u64],
    ) -> Result<u32, Errno> {
        if !self.buffers.registered() {
            tags::check(tags, iovecs.len())?;
        }
        self.open_buffers(u32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?)?;
        // SAFETY: the caller's promise, in both.
        let put = unsafe {
            self.each_buffer(iovecs, |engine, at| {
                engine.replace_buffer(at as u32, &iovecs[at], tags::of(tags, at))
            })
        };
        match put {
            Ok(()) => Ok(0),
            Err((_, errno)) => {
                self.forget_tags(Table::Buffers);
                self.close_buffers();
                Err(errno)
            }
        }
    }

    /// # Safety
    /// As for [`call`](Self::call).
    pub(super) unsafe fn update_buffers(
        &mut self,
        offset: u32,
        iovecs: &[Iovec],
        tags: &[u64],
    ) -> Result<u32, Errno> {
        tags::check(tags, iovecs.len())?;
        let count = u32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?;
        let count = update_range(self.buffers.len(), offset, count)?;
        // SAFETY: the caller's promise, in both.
        let put = unsafe {
            self.each_buffer(iovecs, |engine, at| {
                engine.replace_buffer(offset + at as u32, &iovecs[at], tags::of(tags, at))
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
    unsafe fn replace_buffer(&mut self, place: u32, iovec: &Iovec, tag: u64) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        let new = unsafe { self.map(iovec)? };
        let tag = match new {
            None if tag != 0 => return Err(Errno::EINVAL),
            None => NONE,
            Some(entry) => match self.take_tag(tag) {
                Ok(tag) => tag,
                Err(errno) => {
                    self.backend.unmap(entry.handle);
                    return Err(errno);
                }
            },
        };
        let in_flight = self.pool.in_flight(&self.shared.slots, self.pending);
        if let Some(old) = self.buffers.clear(place, in_flight) {
            self.backend.unmap(old.value.handle);
            self.post_tag(old.tag);
        }
        if let Some(entry) = new {
            self.buffers.put(place, entry);
            self.buffers.set_tag(place, tag);
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
