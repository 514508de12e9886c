//! Register operations as the system call takes them: a number, an address and
//! a count.

use super::Call;
use crate::errno::Errno;
use crate::probe::Probe;
use crate::types::{BufRingEntry, CancelBuilder, Iovec, Timespec};
use crate::uapi::{self, io_uring_probe, io_uring_probe_op};
use core::ffi::c_void;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Decodes an operation of `io_uring_register(2)`, and has `carry_out` do what
/// it means. Answers what the system call does: a count, 0, or a negated errno,
/// for wrong arguments the kernel's.
///
/// The structures that `arg` and the addresses in them point to are those of
/// [`crate::uapi`]; arrays of files are of `i32`, of buffers of
/// [`Iovec`].
///
/// What is not built is `-EINVAL`, as a number that is none.
///
/// # Safety
/// `arg` is null or points to what the operation takes, and so on for the
/// addresses in there; each is aligned as its type, and nobody else uses what
/// the operation writes to. For the rest as
/// [`Engine::call`](crate::engine::Engine::call).
pub unsafe fn numbered(
    opcode: u32,
    arg: *mut c_void,
    nr_args: u32,
    carry_out: impl FnOnce(Call<'_>) -> Result<u32, Errno>,
) -> i32 {
    if opcode >= uapi::IORING_REGISTER_LAST {
        return Errno::EINVAL.to_result();
    }
    // SAFETY: the caller's promise.
    let answer = match unsafe { decode(opcode, arg, nr_args) } {
        Ok(Meant::Call(call)) => carry_out(call),
        // SAFETY: as above, and `decode` has looked at the arguments.
        Ok(Meant::Probe) => unsafe { probe(arg.cast(), nr_args, carry_out) },
        Ok(Meant::BufRingHead(group)) => carry_out(Call::BufRingHead(group)).map(|head| {
            let status = arg.cast::<uapi::io_uring_buf_status>();
            // SAFETY: as above.
            unsafe { (&raw mut (*status).head).write_unaligned(head) };
            0
        }),
        // Not at once: a ring may not even allow the operation.
        Err(errno) => carry_out(Call::Refused { opcode, errno }),
    };
    answer.map_or_else(Errno::to_result, |count| count as i32)
}

/// What is to be done.
enum Meant<'a> {
    Call(Call<'a>),
    /// A probe, whose answer has as many rows as there is room for.
    Probe,
    /// The answer goes into the argument.
    BufRingHead(u16),
}

/// # Safety
/// As for [`numbered`].
unsafe fn decode<'a>(opcode: u32, arg: *mut c_void, nr: u32) -> Result<Meant<'a>, Errno> {
    let none = || if arg.is_null() && nr == 0 { Ok(()) } else { Err(Errno::EINVAL) };
    let count = |count| if nr == count && !arg.is_null() { Ok(()) } else { Err(Errno::EINVAL) };
    // SAFETY: the caller's promises, wherever something is read.
    let call = unsafe {
        match opcode {
            uapi::IORING_REGISTER_FILES => Call::RegisterFiles(array(arg as u64, nr)?),
            uapi::IORING_UNREGISTER_FILES => none().map(|()| Call::UnregisterFiles)?,
            uapi::IORING_REGISTER_FILES_UPDATE => {
                if nr == 0 {
                    return Err(Errno::EINVAL);
                }
                let update: uapi::io_uring_rsrc_update = read(arg)?;
                if update.resv != 0 {
                    return Err(Errno::EINVAL);
                }
                Call::UpdateFiles { offset: update.offset, fds: array(update.data, nr)? }
            }
            uapi::IORING_REGISTER_FILES2 => {
                let files = resources(arg, nr)?;
                let tags = tags(files.tags, files.nr)?;
                match files.data {
                    0 if tags.iter().all(|&tag| tag == 0) => Call::RegisterFilesSparse(files.nr),
                    // A tag without a file, unless there is a table.
                    0 => Call::RegisterFilesTagged { fds: &[], tags },
                    data => Call::RegisterFilesTagged { fds: array(data, files.nr)?, tags },
                }
            }
            uapi::IORING_REGISTER_FILES_UPDATE2 => {
                let update = changes(arg, nr)?;
                Call::UpdateFilesTagged {
                    offset: update.offset,
                    fds: array(update.data, update.nr)?,
                    tags: tags(update.tags, update.nr)?,
                }
            }
            uapi::IORING_REGISTER_BUFFERS => Call::RegisterBuffers(array::<Iovec>(arg as u64, nr)?),
            uapi::IORING_UNREGISTER_BUFFERS => none().map(|()| Call::UnregisterBuffers)?,
            uapi::IORING_REGISTER_BUFFERS2 => {
                let given = resources(arg, nr)?;
                let tags = tags(given.tags, given.nr)?;
                match given.data {
                    0 if tags.iter().all(|&tag| tag == 0) => Call::RegisterBuffersSparse(given.nr),
                    0 => Call::RegisterBuffersTagged { buffers: &[], tags },
                    data => Call::RegisterBuffersTagged { buffers: array(data, given.nr)?, tags },
                }
            }
            uapi::IORING_REGISTER_BUFFERS_UPDATE => {
                let update = changes(arg, nr)?;
                let buffers = array::<Iovec>(update.data, update.nr)?;
                let tags = tags(update.tags, update.nr)?;
                Call::UpdateBuffersTagged { offset: update.offset, buffers, tags }
            }
            uapi::IORING_REGISTER_PROBE => {
                if arg.is_null() || nr as usize > Probe::COUNT {
                    return Err(Errno::EINVAL);
                }
                let bytes =
                    size_of::<io_uring_probe>() + size_of::<io_uring_probe_op>() * nr as usize;
                let given = core::slice::from_raw_parts(arg.cast::<u8>(), bytes);
                if given.iter().any(|&byte| byte != 0) {
                    return Err(Errno::EINVAL);
                }
                return Ok(Meant::Probe);
            }
            uapi::IORING_REGISTER_IOWQ_MAX_WORKERS => {
                count(2)?;
                Call::MaxWorkers(&mut *arg.cast::<[u32; 2]>())
            }
            uapi::IORING_REGISTER_PBUF_RING => {
                count(1)?;
                let ring: uapi::io_uring_buf_reg = read(arg)?;
                let flags = u32::from(ring.flags);
                if flags & !uapi::IOU_PBUF_RING_INC != 0 || ring.resv != [0; 3] {
                    return Err(Errno::EINVAL);
                }
                Call::RegisterBufRing {
                    base: with_exposed_provenance_mut::<BufRingEntry>(address(ring.ring_addr)?),
                    entries: ring.ring_entries,
                    group: ring.bgid,
                    incremental: flags != 0,
                }
            }
            uapi::IORING_UNREGISTER_PBUF_RING => {
                count(1)?;
                let ring: uapi::io_uring_buf_reg = read(arg)?;
                if ring.flags != 0 || ring.resv != [0; 3] {
                    return Err(Errno::EINVAL);
                }
                Call::UnregisterBufRing(ring.bgid)
            }
            uapi::IORING_REGISTER_PBUF_STATUS => {
                count(1)?;
                let status: uapi::io_uring_buf_status = read(arg)?;
                if status.resv != [0; 8] {
                    return Err(Errno::EINVAL);
                }
                let group = u16::try_from(status.buf_group).map_err(|_| Errno::ENOENT)?;
                return Ok(Meant::BufRingHead(group));
            }
            uapi::IORING_REGISTER_EVENTFD | uapi::IORING_REGISTER_EVENTFD_ASYNC => {
                if nr != 1 {
                    return Err(Errno::EINVAL);
                }
                let only_late = opcode == uapi::IORING_REGISTER_EVENTFD_ASYNC;
                Call::RegisterEventfd { fd: read(arg)?, only_late }
            }
            uapi::IORING_UNREGISTER_EVENTFD => none().map(|()| Call::UnregisterEventfd)?,
            uapi::IORING_REGISTER_RESTRICTIONS if arg.is_null() => return Err(Errno::EINVAL),
            uapi::IORING_REGISTER_RESTRICTIONS => {
                Call::RegisterRestrictions(array(arg as u64, nr)?)
            }
            uapi::IORING_REGISTER_ENABLE_RINGS => none().map(|()| Call::EnableRings)?,
            uapi::IORING_REGISTER_CLOCK => {
                if arg.is_null() || nr != 0 {
                    return Err(Errno::EINVAL);
                }
                let clock: uapi::io_uring_clock_register = read(arg)?;
                if clock.resv != [0; 3] {
                    return Err(Errno::EINVAL);
                }
                Call::RegisterClock(clock.clockid)
            }
            uapi::IORING_REGISTER_SYNC_CANCEL => {
                count(1)?;
                cancel(&read(arg)?)?
            }
            _ => return Err(Errno::EINVAL),
        }
    };
    Ok(Meant::Call(call))
}

fn cancel<'a>(reg: &uapi::io_uring_sync_cancel_reg) -> Result<Call<'a>, Errno> {
    if reg.pad != [0; 7] || reg.pad2 != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let (user_data, file) = (reg.addr, reg.fd);
    let what = CancelBuilder { flags: reg.flags, user_data, file, opcode: reg.opcode };
    let uapi::__kernel_timespec { tv_sec, tv_nsec } = reg.timeout;
    let endless = (tv_sec, tv_nsec) == (-1, -1);
    Ok(Call::Cancel { what, timeout: (!endless).then(|| Timespec::from_parts(tv_sec, tv_nsec)) })
}

/// The argument of a registration of resources.
///
/// # Safety
/// As for [`numbered`].
unsafe fn resources(arg: *mut c_void, size: u32) -> Result<uapi::io_uring_rsrc_register, Errno> {
    if size as usize != size_of::<uapi::io_uring_rsrc_register>() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the caller's promise.
    let given: uapi::io_uring_rsrc_register = unsafe { read(arg)? };
    let sparse = given.flags & uapi::IORING_RSRC_REGISTER_SPARSE != 0;
    let unknown = given.flags & !uapi::IORING_RSRC_REGISTER_SPARSE != 0;
    let wrong = given.nr == 0 || given.resv2 != 0 || unknown || sparse && given.data != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(given) }
}

/// The argument of an update of resources.
///
/// # Safety
/// As for [`numbered`].
unsafe fn changes(arg: *mut c_void, size: u32) -> Result<uapi::io_uring_rsrc_update2, Errno> {
    if size as usize != size_of::<uapi::io_uring_rsrc_update2>() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the caller's promise.
    let given: uapi::io_uring_rsrc_update2 = unsafe { read(arg)? };
    let wrong = given.nr == 0 || given.resv != 0 || given.resv2 != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(given) }
}

/// The tags of `count` resources, or none.
///
/// # Safety
/// As for [`array()`].
unsafe fn tags<'a>(addr: u64, count: u32) -> Result<&'a [u64], Errno> {
    // SAFETY: the caller's promise.
    if addr == 0 { Ok(&[]) } else { unsafe { array(addr, count) } }
}

fn address(addr: u64) -> Result<usize, Errno> {
    usize::try_from(addr).map_err(|_| Errno::EFAULT)
}

/// # Safety
/// `arg` is null, or a `T` can be read there; any bytes are one.
unsafe fn read<T: Copy>(arg: *const c_void) -> Result<T, Errno> {
    if arg.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { arg.cast::<T>().read_unaligned() })
}

/// # Safety
/// `addr` is 0, or `count` values can be read there for `'a`; any bytes are
/// one.
unsafe fn array<'a, T>(addr: u64, count: u32) -> Result<&'a [T], Errno> {
    let first = with_exposed_provenance::<T>(address(addr)?);
    if first.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(first, count as usize) })
}

/// Carries out a probe with `rows` rows at `to`.
///
/// # Safety
/// They can be written.
unsafe fn probe(
    to: *mut io_uring_probe,
    rows: u32,
    carry_out: impl FnOnce(Call<'_>) -> Result<u32, Errno>,
) -> Result<u32, Errno> {
    let mut probe = Probe::new();
    carry_out(Call::Probe(&mut probe))?;
    let ops = &probe.ops()[..probe.ops().len().min(rows as usize)];
    let head = io_uring_probe {
        last_op: probe.last_op(),
        ops_len: ops.len() as u8,
        ..io_uring_probe::default()
    };
    // SAFETY: the caller's promise.
    unsafe {
        to.write(head);
        core::ptr::copy_nonoverlapping(ops.as_ptr(), to.add(1).cast(), ops.len());
    }
    Ok(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::null_mut;

    /// What an operation with these arguments becomes: the call's number, or
    /// what it is refused with.
    fn meant<T>(opcode: u32, arg: &mut T, nr_args: u32) -> Result<u32, Errno> {
        decoded(opcode, (&raw mut *arg).cast(), nr_args)
    }

    fn decoded(opcode: u32, arg: *mut c_void, nr_args: u32) -> Result<u32, Errno> {
        let mut seen = None;
        // SAFETY: null, or what the operation takes.
        let answer = unsafe {
            numbered(opcode, arg, nr_args, |call| match call {
                Call::Refused { errno, .. } => Err(errno),
                call => {
                    seen = call.number();
                    Ok(0)
                }
            })
        };
        match Errno::from_result(answer) {
            Some(errno) => Err(errno),
            None => Ok(seen.expect("a register operation")),
        }
    }

    #[test]
    fn counts_and_addresses_are_checked_as_in_the_kernel() {
        use uapi::*;
        let (einval, efault) = (Err(Errno::EINVAL), Err(Errno::EFAULT));
        for opcode in [IORING_REGISTER_FILES, IORING_REGISTER_BUFFERS] {
            assert_eq!(decoded(opcode, null_mut(), 1), efault);
        }
        for opcode in
            [IORING_UNREGISTER_FILES, IORING_UNREGISTER_BUFFERS, IORING_UNREGISTER_EVENTFD]
        {
            assert_eq!(decoded(opcode, null_mut(), 0), Ok(opcode));
            assert_eq!(decoded(opcode, null_mut(), 1), einval);
            assert_eq!(meant(opcode, &mut 0, 0), einval);
        }
        for opcode in [
            IORING_REGISTER_PROBE,
            IORING_REGISTER_IOWQ_MAX_WORKERS,
            IORING_REGISTER_PBUF_RING,
            IORING_UNREGISTER_PBUF_RING,
            IORING_REGISTER_PBUF_STATUS,
            IORING_REGISTER_SYNC_CANCEL,
        ] {
            assert_eq!(decoded(opcode, null_mut(), 1), einval, "{opcode}");
            assert_eq!(meant(opcode, &mut [0u64; 8], 300), einval, "{opcode}");
        }
        for opcode in [IORING_REGISTER_FILES2, IORING_REGISTER_BUFFERS2] {
            let mut resources = io_uring_rsrc_register { nr: 1, flags: 1, ..Default::default() };
            assert_eq!(meant(opcode, &mut resources, 32), Ok(opcode));
            assert_eq!(meant(opcode, &mut resources, 31), einval);
            assert_eq!(decoded(opcode, null_mut(), 32), efault);
            resources.data = 8;
            assert_eq!(meant(opcode, &mut resources, 32), einval);
            resources = io_uring_rsrc_register { nr: 1, flags: 2, ..Default::default() };
            assert_eq!(meant(opcode, &mut resources, 32), einval);
            resources = io_uring_rsrc_register { flags: 1, ..Default::default() };
            assert_eq!(meant(opcode, &mut resources, 32), einval);
        }
        for opcode in [IORING_REGISTER_PERSONALITY, IORING_REGISTER_LAST, u32::MAX] {
            assert_eq!(decoded(opcode, null_mut(), 0), einval);
        }
    }

    #[test]
    fn a_probe_has_as_many_rows_as_there_is_room_for() {
        #[repr(C)]
        struct Some {
            head: io_uring_probe,
            ops: [io_uring_probe_op; 3],
        }
        let mut some = Some { head: Default::default(), ops: Default::default() };
        let ask = |some: &mut Some| {
            let arg = (&raw mut *some).cast();
            // SAFETY: a probe of three rows.
            unsafe {
                numbered(uapi::IORING_REGISTER_PROBE, arg, 3, |call| {
                    let Call::Probe(probe) = call else { return Err(Errno::EINVAL) };
                    *probe = Probe::of(|_| false);
                    Ok(0)
                })
            }
        };
        assert_eq!(ask(&mut some), 0);
        assert_eq!((some.head.last_op, some.head.ops_len), (uapi::IORING_OP_LAST - 1, 3));
        assert_eq!(some.ops.map(|op| (op.op, op.flags)), [(0, 1), (1, 0), (2, 0)]);
        assert_eq!(ask(&mut some), Errno::EINVAL.to_result(), "not zeroed");
    }

    #[test]
    fn a_time_of_minus_one_is_none() {
        let mut reg = uapi::io_uring_sync_cancel_reg::default();
        for (tv_sec, tv_nsec, nanos) in
            [(-1, -1, None), (-1, 0, Some(0)), (1, 5, Some(1_000_000_005))]
        {
            reg.timeout = uapi::__kernel_timespec { tv_sec, tv_nsec };
            let Ok(Call::Cancel { timeout, .. }) = cancel(&reg) else { panic!("a cancellation") };
            assert_eq!(timeout.map(|timeout| timeout.as_nanos()), nanos);
        }
        reg.pad[6] = 1;
        assert!(cancel(&reg).is_err());
    }
}
