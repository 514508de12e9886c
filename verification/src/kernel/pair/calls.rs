//! Register calls, with their arguments as the kernel lays them out.

use std::ptr::null_mut;

use annulus::uapi::*;

use super::program::{Cancel, Counter};
use super::target::Named;
use super::world::NONE;

/// No time.
const ENDLESS: [i64; 2] = [-1, -1];

/// Register calls that programs of two rings make. All answer as the kernel.
pub trait Calls: Named {
    /// A call that changes nothing but the ring.
    fn call<T>(&mut self, opcode: u32, arg: &mut T, nr: u32) -> i32 {
        // SAFETY: the argument is the operation's; what is registered is the
        // kernel's own (a file, a rule), never memory.
        unsafe { self.register(opcode, (&raw mut *arg).cast(), nr) }
    }

    /// A call without an argument.
    fn plain(&mut self, opcode: u32) -> i32 {
        // SAFETY: null is no argument.
        unsafe { self.register(opcode, null_mut(), 0) }
    }

    /// `IORING_REGISTER_SYNC_CANCEL`.
    fn cancel(&mut self, cancel: &Cancel, fd: i32, time: Option<[i64; 2]>) -> i32 {
        let &Cancel { target, op, flags, .. } = cancel;
        let [tv_sec, tv_nsec] = time.unwrap_or(ENDLESS);
        let timeout = __kernel_timespec { tv_sec, tv_nsec };
        let of =
            io_uring_sync_cancel_reg { addr: target, fd, flags, timeout, ..Default::default() };
        self.call(
            IORING_REGISTER_SYNC_CANCEL,
            &mut io_uring_sync_cancel_reg { opcode: op, ..of },
            1,
        )
    }

    /// `IORING_REGISTER_EVENTFD`, or the ASYNC kind.
    fn eventfd(&mut self, late: bool, fd: Counter, own: i32, file: i32) -> i32 {
        let opcode = if late { IORING_REGISTER_EVENTFD_ASYNC } else { IORING_REGISTER_EVENTFD };
        let mut fd = match fd {
            Counter::Own => own,
            Counter::File => file,
            Counter::None => NONE,
        };
        self.call(opcode, &mut fd, 1)
    }

    /// `IORING_UNREGISTER_EVENTFD`.
    fn eventfd_end(&mut self) -> i32 {
        self.plain(IORING_UNREGISTER_EVENTFD)
    }

    /// `IORING_REGISTER_CLOCK`.
    fn clock(&mut self, clockid: u32) -> i32 {
        let mut arg = io_uring_clock_register { clockid, resv: [0; 3] };
        self.call(IORING_REGISTER_CLOCK, &mut arg, 0)
    }

    /// `IORING_REGISTER_FILES2`.
    fn tagged_files(&mut self, list: &[(i32, u64)]) -> i32 {
        let (fds, tags): (Vec<i32>, Vec<u64>) = list.iter().copied().unzip();
        let mut arg = io_uring_rsrc_register {
            nr: fds.len() as u32,
            data: fds.as_ptr() as u64,
            tags: tags.as_ptr() as u64,
            ..Default::default()
        };
        self.call(IORING_REGISTER_FILES2, &mut arg, size_of::<io_uring_rsrc_register>() as u32)
    }

    /// `IORING_REGISTER_FILES_UPDATE2`.
    fn tagged_update(&mut self, offset: u32, list: &[(i32, u64)]) -> i32 {
        let (fds, tags): (Vec<i32>, Vec<u64>) = list.iter().copied().unzip();
        let mut arg = io_uring_rsrc_update2 {
            offset,
            nr: fds.len() as u32,
            data: fds.as_ptr() as u64,
            tags: tags.as_ptr() as u64,
            ..Default::default()
        };
        let size = size_of::<io_uring_rsrc_update2>() as u32;
        self.call(IORING_REGISTER_FILES_UPDATE2, &mut arg, size)
    }

    /// `IORING_REGISTER_RESTRICTIONS`.
    fn restrict(&mut self, rules: &[(u32, u8)]) -> i32 {
        let rule = |&(opcode, arg): &(u32, u8)| io_uring_restriction {
            opcode: opcode as u16,
            arg,
            ..Default::default()
        };
        // One that can be pointed to, if there is none.
        let mut all: Vec<_> = rules.iter().map(rule).chain([rule(&(0, 0))]).collect();
        self.call(IORING_REGISTER_RESTRICTIONS, &mut all[0], rules.len() as u32)
    }

    /// `IORING_REGISTER_ENABLE_RINGS`.
    fn enable(&mut self) -> i32 {
        self.plain(IORING_REGISTER_ENABLE_RINGS)
    }
}

impl<T: Named> Calls for T {}
