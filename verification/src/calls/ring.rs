//! The two rings that a script is run on.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use annulus::types::{SubmitArgs, Timespec};
use annulus::uapi;
use annulus_linux::squeue::Entry;

use super::Seen;
use crate::kernel::threads::{Others, others};

/// A wait for completions that do not come ends after so many seconds.
const LONGEST_WAIT: u64 = 3;
/// How long a polling thread polls before it sleeps.
const IDLE_MS: u32 = 1;
/// Entries that nobody takes, as a disabled ring's, are not waited for any longer.
const TAKES: Duration = Duration::from_millis(500);
/// Nobody has that much to do.
const REST: Duration = Duration::from_secs(5);

/// Who drives a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The application.
    Inline,
    /// Whoever has work: not the kernel's.
    Served,
    /// A thread of its own.
    Polled,
}

impl Drive {
    /// What it is called in a report.
    pub fn name(self) -> &'static str {
        match self {
            Drive::Inline => "inline",
            Drive::Served => "served",
            Drive::Polled => "sqpoll",
        }
    }
}

/// Waits until a polling thread has done all there is to do and sleeps, and whoever
/// works for it: what it does before that is in its hands alone.
fn rest(mut wake: impl FnMut() -> bool) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let left = wake();
        // The kernel's goes round with what it may not take.
        let done = if left { began.elapsed() > TAKES } else { others()? == Others::Asleep };
        if done {
            return Ok(());
        }
        if began.elapsed() > REST {
            return Err(io::Error::other("the polling thread does not come to rest"));
        }
        sleep(Duration::from_micros(100));
    }
}

/// How a ring is to be set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Entries of the CQ, or as many as there are.
    pub cq_entries: Option<u32>,
    /// It starts disabled.
    pub disabled: bool,
}

impl Wish {
    /// Nothing but a ring.
    pub const PLAIN: Self = Self { cq_entries: None, disabled: false };
}

/// One of the two.
pub trait Ring {
    /// `io_uring_register`.
    ///
    /// # Safety
    /// `arg` is what the operation takes.
    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32;

    /// Submits entries, and waits for so many completions: what the call
    /// answers.
    fn submit(&mut self, entries: &[Entry], wait: usize) -> io::Result<usize>;

    /// Sets or clears `IORING_CQ_EVENTFD_DISABLED`.
    fn disable_eventfd(&mut self, yes: bool);

    /// Waits until nobody does anything, if another thread drives the ring.
    fn rest(&mut self) -> io::Result<()>;

    /// The completions that are there, as (user_data, res, flags).
    fn reap(&mut self) -> Vec<(u64, i32, u32)>;

    /// The number that names the ring.
    fn fd(&self) -> RawFd;

    /// Another of its kind.
    fn another(&self, wish: Wish) -> Box<dyn Ring>;

    /// A message without a ring to send it from: what the call answers.
    fn send(&self, entry: &Entry) -> i32;
}

impl dyn Ring + '_ {
    /// An operation with an argument, told in `seen`.
    pub fn call<T>(&mut self, seen: &mut Seen, opcode: u32, arg: &mut T, nr_args: u32) {
        // SAFETY: the scripts give what the operation takes.
        let answer = unsafe { self.register(opcode, (&raw mut *arg).cast(), nr_args) };
        seen.push(format!("register {opcode}: {answer}"));
    }

    /// An operation without one.
    pub fn call_null(&mut self, seen: &mut Seen, opcode: u32, nr_args: u32) {
        // SAFETY: null is no argument.
        let answer = unsafe { self.register(opcode, std::ptr::null_mut(), nr_args) };
        seen.push(format!("register {opcode} without an argument: {answer}"));
    }

    /// Tells of the completions that are there, in their order.
    pub fn look(&mut self, seen: &mut Seen) {
        self.rest().expect("the threads of this process");
        let cqes = self.reap();
        seen.push(format!("completions: {cqes:?}"));
    }

    /// Submits, waits, and tells of the completions in an order of their own.
    pub fn run(&mut self, seen: &mut Seen, entries: &[Entry], wait: usize) {
        let answer = match self.submit(entries, wait) {
            Ok(count) => count as i64,
            Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        if wait == 0 {
            // What has been waited for has come.
            self.rest().expect("the threads of this process");
        }
        let mut cqes = self.reap();
        cqes.sort_unstable();
        seen.push(format!("submit: {answer}, {cqes:?}"));
    }
}

/// The machine's own.
pub struct Kernel(io_uring::IoUring);

impl Kernel {
    pub fn new(wish: Wish, drive: Drive) -> io::Result<Self> {
        let mut builder = io_uring::IoUring::builder();
        if let Some(entries) = wish.cq_entries {
            builder.setup_cqsize(entries);
        }
        if wish.disabled {
            builder.setup_r_disabled();
        }
        if drive == Drive::Polled {
            builder.setup_sqpoll(IDLE_MS);
        }
        builder.build(8).map(Self)
    }
}

impl Ring for Kernel {
    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
        let fd = self.0.as_raw_fd();
        // SAFETY: the caller's promise.
        unsafe { register(fd, opcode, arg, nr_args) }
    }

    fn submit(&mut self, entries: &[Entry], wait: usize) -> io::Result<usize> {
        const { assert!(size_of::<Entry>() == size_of::<io_uring::squeue::Entry>()) };
        for entry in entries {
            // SAFETY: both are the uapi's 64 bytes; what they point to lasts.
            unsafe {
                let entry: io_uring::squeue::Entry = std::mem::transmute_copy(entry);
                self.0.submission().push(&entry).map_err(io::Error::other)?;
            }
        }
        let most = io_uring::types::Timespec::new().sec(LONGEST_WAIT);
        let args = io_uring::types::SubmitArgs::new().timespec(&most);
        let answer = self.0.submitter().submit_with_args(wait, &args);
        // How many a polling thread had left when it asked is nobody's promise.
        let polled = self.0.params().is_setup_sqpoll();
        answer.map(|count| if polled { entries.len() } else { count })
    }

    fn rest(&mut self) -> io::Result<()> {
        if !self.0.params().is_setup_sqpoll() {
            return Ok(());
        }
        rest(|| {
            let left = !self.0.submission().is_empty();
            // A disabled ring says no, and its entries stay.
            let _ = left && self.0.submit().is_ok();
            left
        })
    }

    fn disable_eventfd(&mut self, yes: bool) {
        let value = if yes { uapi::IORING_CQ_EVENTFD_DISABLED } else { 0 };
        // Relaxed: the kernel looks within its own calls.
        cq_flags(&self.0).store(value, Ordering::Relaxed);
    }

    fn reap(&mut self) -> Vec<(u64, i32, u32)> {
        self.0.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())).collect()
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn another(&self, wish: Wish) -> Box<dyn Ring> {
        let polled = self.0.params().is_setup_sqpoll();
        let drive = if polled { Drive::Polled } else { Drive::Inline };
        Box::new(Self::new(wish, drive).expect("another ring"))
    }

    fn send(&self, entry: &Entry) -> i32 {
        let arg = (&raw const *entry).cast_mut().cast();
        // SAFETY: an entry, which is only read.
        unsafe { register(-1, uapi::IORING_REGISTER_SEND_MSG_RING, arg, 1) }
    }
}

/// The system call.
///
/// # Safety
/// `arg` is what the operation takes.
unsafe fn register(fd: RawFd, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
    // SAFETY: the caller's promise.
    match unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, arg, nr_args) } {
        answer @ 0.. => answer as i32,
        _ => -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
    }
}

/// The ring's own word of `IORING_CQ_*` flags, in a mapping that lasts.
fn cq_flags(ring: &io_uring::IoUring) -> &'static AtomicU32 {
    let params = ring.params();
    const { assert!(size_of::<io_uring::Parameters>() == size_of::<uapi::io_uring_params>()) };
    // SAFETY: the one is the other.
    let params: uapi::io_uring_params = unsafe { std::mem::transmute_copy(params) };
    let offset = params.cq_off.flags as usize;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of the ring, up to behind the word.
    unsafe {
        let null = std::ptr::null_mut();
        let at = libc::mmap(null, offset + 4, access, flags, ring.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        &*at.byte_add(offset).cast::<AtomicU32>()
    }
}

/// Ours.
pub struct Ours(annulus_linux::Ring);

impl Ours {
    pub fn new(wish: Wish, drive: Drive) -> io::Result<Self> {
        let mut builder = annulus_linux::Ring::builder();
        if let Some(entries) = wish.cq_entries {
            builder.setup_cqsize(entries);
        }
        if wish.disabled {
            builder.setup_r_disabled();
        }
        match drive {
            Drive::Inline => &mut builder,
            Drive::Served => builder.setup_served(),
            Drive::Polled => builder.setup_sqpoll(IDLE_MS),
        };
        builder.build(8).map(Self).map_err(io::Error::other)
    }
}

impl Ring for Ours {
    unsafe fn register(&mut self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
        // SAFETY: the caller's promise.
        match unsafe { self.0.submitter().register(opcode, arg, nr_args) } {
            Ok(count) => count as i32,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    fn submit(&mut self, entries: &[Entry], wait: usize) -> io::Result<usize> {
        for entry in entries {
            // SAFETY: what it points to lasts.
            unsafe { self.0.submission().push(entry) }.map_err(io::Error::other)?;
        }
        let most = Timespec::new().sec(LONGEST_WAIT);
        let args = SubmitArgs::new().timespec(&most);
        let answer = self.0.submitter().submit_with_args(wait, &args);
        let polled = self.0.params().is_setup_sqpoll();
        answer.map(|count| if polled { entries.len() } else { count })
    }

    fn rest(&mut self) -> io::Result<()> {
        if !self.0.params().is_setup_sqpoll() {
            return Ok(());
        }
        rest(|| {
            let left = !self.0.submission().is_empty();
            let _ = left && self.0.submit().is_ok();
            left
        })
    }

    fn disable_eventfd(&mut self, yes: bool) {
        self.0.completion().disable_eventfd(yes);
    }

    fn reap(&mut self) -> Vec<(u64, i32, u32)> {
        self.0.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())).collect()
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn another(&self, wish: Wish) -> Box<dyn Ring> {
        let params = self.0.params();
        let drive = match params.is_setup_sqpoll() {
            true => Drive::Polled,
            false if params.is_setup_served() => Drive::Served,
            false => Drive::Inline,
        };
        Box::new(Self::new(wish, drive).expect("another ring"))
    }

    fn send(&self, entry: &Entry) -> i32 {
        match annulus_linux::register_sync_msg(entry) {
            Ok(()) => 0,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}
