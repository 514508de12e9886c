//! Provided buffers: filling groups, and picking from them when a read starts.
//!
//! A read that waits for readiness has no buffer of a ring: it picks one when
//! it is tried again, so that those who wait do not hold what others could use.
//! One of a list that PROVIDE_BUFFERS has filled it keeps, as in Linux 6.18.

use core::ptr::NonNull;

use super::Engine;
use super::submit::Issue;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host, Target};
use crate::held::{Held, Marks};
use crate::op::MAX_RW;
use crate::provided::{MAX_RING, Picked};
use crate::request::{CANCELLED, HELD};
use crate::sqe::Sqe;
use crate::types::{BufRingEntry, Iovec};
use crate::uapi::{
    IORING_CQE_BUFFER_SHIFT, IORING_CQE_F_BUF_MORE, IORING_CQE_F_BUFFER, IORING_OP_READ,
    IORING_OP_READV, IOSQE_ASYNC, IOSQE_BUFFER_SELECT,
};

/// Buffers that one group can tell apart.
const IDS: u32 = 1 << 16;

/// The checks of a PROVIDE_BUFFERS that need nothing but the SQE.
pub(super) fn check_provide(sqe: &Sqe) -> Result<(), Errno> {
    let count = sqe.fd as u32;
    if sqe.op_flags != 0 || sqe.splice_fd_in != 0 {
        return Err(Errno::EINVAL);
    }
    if count == 0 || count > IDS {
        return Err(Errno::E2BIG);
    }
    if sqe.len == 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = u64::from(sqe.len) * u64::from(count);
    let end = sqe.addr.checked_add(bytes).ok_or(Errno::EOVERFLOW)?;
    usize::try_from(end).map_err(|_| Errno::EFAULT)?;
    if sqe.off > u64::from(u16::MAX) {
        return Err(Errno::E2BIG);
    }
    if sqe.off as u32 + count > IDS { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The checks of a REMOVE_BUFFERS that need nothing but the SQE.
pub(super) fn check_remove(sqe: &Sqe) -> Result<(), Errno> {
    let count = sqe.fd as u32;
    let wrong = sqe.op_flags != 0
        || sqe.addr != 0
        || sqe.len != 0
        || sqe.off != 0
        || sqe.splice_fd_in != 0
        || count == 0
        || count > IDS;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The flags of a CQE that tells of a buffer.
pub(super) fn shown(buffer: Option<Picked>) -> u32 {
    let id = |buffer: Picked| match fault::on(Fault::BufferIdOffByOne) {
        true => buffer.id.wrapping_add(1),
        false => buffer.id,
    };
    buffer
        .map_or(0, |buffer| IORING_CQE_F_BUFFER | u32::from(id(buffer)) << IORING_CQE_BUFFER_SHIFT)
}

/// The flags of a held request's CQE.
pub(super) fn flags(held: &Held) -> u32 {
    let more = held.marks.contains(Marks::BUF_MORE);
    shown(held.picked) | if more { IORING_CQE_F_BUF_MORE } else { 0 }
}

/// The bytes of a read of `wanted` into a buffer; 0 wants all of it.
pub(super) fn length(picked: &Picked, wanted: u32) -> u32 {
    let len = picked.len.min(MAX_RW);
    if wanted == 0 || wanted > len { len } else { wanted }
}

/// What a read without a buffer ends with.
fn no_buffer() -> Errno {
    if fault::on(Fault::NoBufferMistold) { Errno::ENOMEM } else { Errno::ENOBUFS }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// PROVIDE_BUFFERS.
    #[cold]
    pub(super) fn provide_buffers(&mut self, index: u32, sqe: &Sqe) -> Issue {
        let bytes = u64::from(sqe.len) * u64::from(sqe.fd as u32);
        let bytes = bytes.min(MAX_RW.into()) as u32;
        // SAFETY: no array; the place says whether there can be memory.
        let kept = unsafe { self.backend.keep(index as usize, IORING_OP_READ, sqe.addr, bytes) };
        if let Err(errno) = kept {
            return self.fail(index, sqe.user_data, errno.to_result());
        }
        self.backend.forget(index as usize);
        let first = Picked { addr: sqe.addr, len: sqe.len, id: sqe.off as u16 };
        let provided = self.provided.provide(sqe.buf_index, first, sqe.fd as u32);
        let result = provided.map_or_else(Errno::to_result, |()| 0);
        self.end(index, sqe.user_data, result)
    }

    /// REMOVE_BUFFERS.
    #[cold]
    pub(super) fn remove_buffers(&mut self, index: u32, sqe: &Sqe) -> Issue {
        let removed = self.provided.remove(sqe.buf_index, sqe.fd as u32);
        let result = removed.map_or_else(Errno::to_result, |count| count as i32);
        self.end(index, sqe.user_data, result)
    }

    /// Prepares a read that picks its buffer, in record `index`.
    ///
    /// # Safety
    /// A READV's element is valid for reads, for all that the place cannot find
    /// out.
    pub(super) unsafe fn prepare_select(&mut self, index: u32, sqe: &Sqe) -> Result<(), Errno> {
        let held = &mut self.holding.held[index as usize];
        match sqe.opcode {
            IORING_OP_READ => {}
            // Of one buffer, of which the length counts: a READ.
            IORING_OP_READV if sqe.len != 1 => return Err(Errno::EINVAL),
            IORING_OP_READV => {
                let mut iovec = [0; size_of::<Iovec>()];
                let addr = usize::try_from(sqe.addr).map_err(|_| Errno::EFAULT)?;
                // SAFETY: the caller's promise.
                unsafe { self.backend.read_memory(addr, &mut iovec)? };
                let word = core::array::from_fn(|i| iovec[size_of::<usize>() + i]);
                let len = usize::from_ne_bytes(word);
                if isize::try_from(len).is_err() {
                    return Err(Errno::EINVAL);
                }
                held.sqe.opcode = IORING_OP_READ;
                held.marks.insert(Marks::WAS_READV);
                held.sqe.len = len.min(MAX_RW as usize) as u32;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        held.wanted = held.sqe.len;
        Ok(())
    }

    /// Picks a buffer for request `index`, if it is one that does.
    ///
    /// # Errors
    /// What it ends with: `ENOBUFS`, or that there is no file to read from.
    pub(super) fn select(&mut self, index: u32) -> Result<(), Errno> {
        let sqe = self.holding.held[index as usize].sqe;
        if sqe.flags & IOSQE_BUFFER_SELECT == 0 || self.pick_for(index) {
            return Ok(());
        }
        match self.target(&sqe)?.0 {
            Target::Fd(fd) if !self.backend.is_open(fd) => Err(Errno::EBADF),
            _ => Err(no_buffer()),
        }
    }

    /// Picks a buffer for request `index`, if there is one.
    fn pick_for(&mut self, index: u32) -> bool {
        let held = &self.holding.held[index as usize];
        let (group, wanted) = (held.sqe.buf_index, held.wanted);
        let picked = self.provided.pick(group).or_else(|| self.provided.part(group));
        let Some(picked) = picked else { return false };
        let held = &mut self.holding.held[index as usize];
        let len = length(&picked, wanted);
        (held.sqe.addr, held.sqe.len) = (picked.addr, len);
        held.whole = Some(len);
        held.picked = Some(picked);
        held.marks.set(Marks::UNSPENT, self.provided.takes_back(group));
        true
    }

    /// Request `index` has been tried and goes on: the buffer that it has picked
    /// is its own, or as much of it as it has asked for.
    pub(super) fn spend_asked(&mut self, index: u32) {
        if self.unspent(index) {
            self.spend(index, None);
        }
    }

    /// Request `index` has ended with `res` as it was tried, but comes home
    /// later: others may pick a buffer before.
    pub(super) fn spend_early(&mut self, index: u32, res: i32) {
        if self.unspent(index) {
            self.spend_moved(index, res);
        }
    }

    fn unspent(&self, index: u32) -> bool {
        self.pool.records[index as usize].what.has(HELD)
            && self.holding.held[index as usize].marks.contains(Marks::UNSPENT)
    }

    /// Request `index`, which has picked a buffer of a ring, has ended with `res`
    /// as it was tried. As in Linux, what waits for readiness uses as much as was
    /// moved, and a buffer that it has failed with stays; storage, and what was
    /// to be done asynchronously, uses what was asked for.
    #[cold]
    pub(super) fn spend_moved(&mut self, index: u32, res: i32) {
        let held = &self.holding.held[index as usize];
        let (sqe, waited) = (held.sqe, held.waits != 0);
        let moved = match self.target(&sqe) {
            _ if sqe.flags & IOSQE_ASYNC != 0 || u32::try_from(res) == Ok(sqe.len) => false,
            _ if waited => true,
            Ok((target, _)) => self.backend.waits_for_readiness(target),
            Err(_) => false,
        };
        match u32::try_from(res) {
            Err(_) if moved => self.unselect(index),
            Ok(res) if moved && !fault::on(Fault::PartWholeIfShort) => self.spend(index, Some(res)),
            _ => self.spend(index, None),
        }
    }

    /// Request `index` uses so many bytes of the buffer that it has picked, if
    /// that is used up by parts; or what it has asked for.
    fn spend(&mut self, index: u32, bytes: Option<u32>) {
        let held = &mut self.holding.held[index as usize];
        held.marks.remove(Marks::UNSPENT);
        let (group, wanted) = (held.sqe.buf_index, held.wanted);
        let Some(picked) = held.picked else { return };
        let asked = if wanted == 0 { picked.len } else { wanted.min(picked.len) };
        if self.provided.spend(group, picked, bytes.unwrap_or(asked)) {
            held.marks.insert(Marks::BUF_MORE);
        }
    }

    /// The buffer that request `index` has picked was not used.
    pub(super) fn unselect(&mut self, index: u32) {
        let held = &mut self.holding.held[index as usize];
        let group = held.sqe.buf_index;
        held.marks.remove(Marks::UNSPENT);
        if let Some(picked) = held.picked.take()
            && !fault::on(Fault::BufferNotPutBack)
        {
            self.provided.put_back(group, picked);
        }
    }

    /// [`unselect`](Self::unselect) for a request that waits for readiness. As in
    /// Linux, one that was to be done asynchronously keeps its buffer; and so
    /// does one that has it of a list, whatever its group has become since.
    pub(super) fn lend(&mut self, index: u32) {
        if self.unspent(index) {
            let keeps = self.holding.held[index as usize].sqe.flags & IOSQE_ASYNC != 0;
            if !keeps {
                self.unselect(index);
            }
        }
    }

    /// [`unselect`](Self::unselect) for a request that has found no file.
    pub(super) fn unselect_unopened(&mut self, index: u32) {
        let held = &self.holding.held[index as usize];
        let unspent = held.marks.contains(Marks::UNSPENT);
        // Of a ring only what was picked just now: others have picked since.
        let late = !unspent && self.provided.takes_back(held.sqe.buf_index);
        if held.picked.is_none() || late {
            return;
        }
        let opened = match self.target(&held.sqe) {
            Ok((Target::Fd(fd), _)) => self.backend.is_open(fd),
            Ok(_) => true,
            Err(_) => false,
        };
        if !opened {
            self.unselect(index);
        }
    }

    /// A read that waited without a buffer has been woken: gives it one. If
    /// there is none, what it ends with, as in Linux even if somebody else has
    /// what it was woken for.
    pub(super) fn select_again(&mut self, index: u32) -> Result<(), Errno> {
        let waited = self.selects(index) && self.holding.held[index as usize].picked.is_none();
        // One that has been cancelled reads nothing any more.
        if !waited || self.pool.records[index as usize].what.has(CANCELLED) {
            return Ok(());
        }
        let token = self.shared.slots.token(index);
        // It has its file, whatever has become of that number since.
        if !self.pick_for(index) {
            self.backend.end(token);
            return Err(no_buffer());
        }
        let sqe = &self.holding.held[index as usize].sqe;
        self.backend.rebuffer(token, sqe.addr, sqe.len);
        Ok(())
    }

    /// Whether a request that is under way is a read that picks its buffer.
    fn selects(&self, index: u32) -> bool {
        self.pool.records[index as usize].what.has(HELD)
            && self.holding.held[index as usize].sqe.flags & IOSQE_BUFFER_SELECT != 0
    }

    /// Whether there may be provided buffers.
    pub(super) fn provides(&self) -> bool {
        self.provided.any() && self.config.held
    }

    /// Registers a ring of buffers.
    ///
    /// # Safety
    /// As [`Call::RegisterBufRing`](crate::register::Call::RegisterBufRing)
    /// says.
    pub(super) unsafe fn register_buf_ring(
        &mut self,
        base: *mut BufRingEntry,
        entries: u32,
        group: u16,
        parts: bool,
    ) -> Result<u32, Errno> {
        let page = base.addr() & 0xfff == 0;
        if !entries.is_power_of_two() || entries > MAX_RING || !page {
            return Err(Errno::EINVAL);
        }
        let base = NonNull::new(base).ok_or(Errno::EFAULT)?;
        self.provided.register(group, base, entries, parts).map(|()| 0)
    }
}
