//! What the programs of two rings need of a ring beyond [`Target`].

use std::ffi::c_void;

use annulus_linux::types::{SubmitArgs, Timespec};
use linux_raw_sys::io_uring as uapi;

use super::super::annulus::{Annulus, answer};
use super::super::target::{RawSqe, Target};
use super::super::uring::{Kernel, call};

/// The argument of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Microseconds, if not 0.
    pub least: u32,
    /// Seconds and nanoseconds.
    pub time: Option<[i64; 2]>,
}

/// A ring that others can name, with every call that it takes.
pub trait Named: Target {
    /// The number that names it.
    fn fd(&self) -> i32;

    /// `io_uring_register`.
    ///
    /// # Safety
    /// `arg` is what the operation takes.
    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr: u32) -> i32;

    /// `io_uring_enter` with `EXT_ARG` and this argument, or none.
    fn wait(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        argument: Option<Argument>,
    ) -> i32;

    /// Sets or clears `IORING_CQ_EVENTFD_DISABLED`.
    fn silence(&mut self, yes: bool);

    /// `IORING_REGISTER_SEND_MSG_RING`.
    fn send(sqe: &RawSqe) -> i32;
}

impl Named for Kernel {
    fn fd(&self) -> i32 {
        self.number()
    }

    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr: u32) -> i32 {
        let args = [self.number() as usize, opcode as usize, arg as usize, nr as usize, 0, 0];
        call(libc::SYS_io_uring_register, args)
    }

    fn wait(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        argument: Option<Argument>,
    ) -> i32 {
        let time = argument.and_then(|argument| argument.time);
        let arg = uapi::io_uring_getevents_arg {
            sigmask: 0,
            sigmask_sz: 8,
            min_wait_usec: argument.map_or(0, |argument| argument.least),
            ts: time.as_ref().map_or(0, |time| &raw const *time as u64),
        };
        let at = if argument.is_some() { &raw const arg as usize } else { 0 };
        let flags = flags | uapi::IORING_ENTER_EXT_ARG;
        let head = [self.number() as usize, to_submit as usize, min_complete as usize];
        let [fd, submit, complete] = head;
        let args = [fd, submit, complete, flags as usize, at, size_of_val(&arg)];
        call(libc::SYS_io_uring_enter, args)
    }

    fn silence(&mut self, yes: bool) {
        self.set_cq_flags(if yes { annulus::uapi::IORING_CQ_EVENTFD_DISABLED } else { 0 });
    }

    fn send(sqe: &RawSqe) -> i32 {
        let opcode = annulus::uapi::IORING_REGISTER_SEND_MSG_RING as usize;
        let args = [-1i32 as u32 as usize, opcode, &raw const *sqe as usize, 1, 0, 0];
        call(libc::SYS_io_uring_register, args)
    }
}

impl Named for Annulus {
    fn fd(&self) -> i32 {
        self.number()
    }

    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr: u32) -> i32 {
        // SAFETY: the caller's promise.
        answer(unsafe { self.ring().submitter().register(opcode, arg, nr) })
    }

    fn wait(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        argument: Option<Argument>,
    ) -> i32 {
        let args = argument.map(|Argument { least, time }| {
            let args = SubmitArgs::new().min_wait_usec(least);
            match time {
                Some([sec, nsec]) => {
                    args.timespec(&Timespec::new().sec(sec as u64).nsec(nsec as u32))
                }
                None => args,
            }
        });
        let flags = flags | uapi::IORING_ENTER_EXT_ARG;
        // SAFETY: what the SQEs point to lasts as long as the process.
        answer(unsafe {
            self.ring().submitter().enter(to_submit, min_complete, flags, args.as_ref())
        })
    }

    fn silence(&mut self, yes: bool) {
        self.ring().completion().disable_eventfd(yes);
    }

    fn send(sqe: &RawSqe) -> i32 {
        answer(annulus_linux::register_sync_msg(&Annulus::entry(sqe)).map(|()| 0))
    }
}
