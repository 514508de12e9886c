//! The kernel's own io_uring, by its system calls: a library would refuse the
//! bad input that is compared here.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use linux_raw_sys::io_uring as uapi;

use super::apart::Apart;
use super::program::{Mode, Setup};
use super::target::{Cqe, RawBuf, RawSqe, Sizes, Target};

/// How long the kernel's polling thread polls before it sleeps.
pub const IDLE_MS: u32 = 1;

/// A mapping of a ring's.
struct Map {
    at: NonNull<u8>,
    len: usize,
}

impl Map {
    fn new(fd: i32, offset: u64, len: usize) -> io::Result<Self> {
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, access, shared, fd, offset as libc::off_t)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(|at| Self { at, len }).ok_or_else(io::Error::last_os_error)
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel's offsets lie in the mapping, which lives as
        // long as `self`, and are aligned.
        unsafe { self.at.add(offset as usize).cast().as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: our mapping; nobody has a reference any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// An io_uring of this machine.
pub struct Kernel {
    params: uapi::io_uring_params,
    rings: Option<Map>,
    sqes: Option<Map>,
    array: bool,
    fd: i32,
    _apart: Option<Apart>,
}

/// One of io_uring's system calls: what it answers, or a negative errno.
pub fn call(number: libc::c_long, args: [usize; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: io_uring's calls check what they are given; memory that they
    // write is the caller's.
    let n = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if n >= 0 { n as i32 } else { -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

impl Kernel {
    /// The number that names the ring.
    pub fn number(&self) -> i32 {
        self.fd
    }

    /// Writes the application's word of `IORING_CQ_*`.
    pub fn set_cq_flags(&mut self, flags: u32) {
        // Relaxed: the kernel looks within its own calls.
        self.rings().word(self.params.cq_off.flags).store(flags, Ordering::Relaxed);
    }

    fn rings(&self) -> &Map {
        self.rings.as_ref().expect("mapped until the drop")
    }

    /// Writes the entry that is the `nth` behind the tail.
    ///
    /// # Safety
    /// There is room for it.
    unsafe fn put(&self, nth: u32, sqe: &RawSqe, index: Option<u32>) {
        // Relaxed: only we write it.
        let tail = self.rings().word(self.params.sq_off.tail).load(Ordering::Relaxed);
        let place = tail.wrapping_add(nth) & (self.params.sq_entries - 1);
        let Some(sqes) = &self.sqes else { return };
        // SAFETY: inside the mapping; the kernel does not read it before the
        // tail says so.
        unsafe { sqes.at.cast::<RawSqe>().add(place as usize).write(*sqe) };
        if self.array {
            let entry = self.rings().word(self.params.sq_off.array + 4 * place);
            entry.store(index.unwrap_or(place), Ordering::Relaxed);
        }
    }

    /// Publishes `count` entries.
    fn advance(&self, count: u32) {
        let word = self.rings().word(self.params.sq_off.tail);
        // Release: pairs with the kernel's acquire of the tail.
        word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
    }

    fn register(&self, opcode: uapi::io_uring_register_op, arg: usize, nr: usize) -> i32 {
        call(libc::SYS_io_uring_register, [self.fd as usize, opcode as usize, arg, nr, 0, 0])
    }

    fn sparse(&self, opcode: uapi::io_uring_register_op, count: u32) -> i32 {
        let arg = uapi::io_uring_rsrc_register {
            nr: count,
            flags: uapi::IORING_RSRC_REGISTER_SPARSE,
            resv2: 0,
            data: 0,
            tags: 0,
        };
        self.register(opcode, &raw const arg as usize, size_of_val(&arg))
    }
}

impl Target for Kernel {
    const NAME: &'static str = "kernel";

    fn setup(setup: &Setup) -> Result<Self, i32> {
        // SAFETY: plain numbers.
        let mut params: uapi::io_uring_params = unsafe { std::mem::zeroed() };
        let on = |yes: bool, flag: u32| if yes { flag } else { 0 };
        params.flags = on(setup.cq_entries.is_some(), uapi::IORING_SETUP_CQSIZE)
            | on(!setup.array, uapi::IORING_SETUP_NO_SQARRAY)
            | on(setup.submit_all, uapi::IORING_SETUP_SUBMIT_ALL)
            | on(setup.clamp, uapi::IORING_SETUP_CLAMP)
            | on(setup.disabled, uapi::IORING_SETUP_R_DISABLED)
            | on(setup.mode == Mode::SqPoll, uapi::IORING_SETUP_SQPOLL);
        params.cq_entries = setup.cq_entries.unwrap_or(0);
        params.sq_thread_idle = IDLE_MS;
        let apart = (setup.mode == Mode::SqPoll).then(Apart::new).flatten();
        if let Some(apart) = &apart {
            params.flags |= uapi::IORING_SETUP_SQ_AFF;
            params.sq_thread_cpu = apart.other;
        }
        let args = [setup.entries as usize, &raw mut params as usize, 0, 0, 0, 0];
        let fd = call(libc::SYS_io_uring_setup, args);
        if fd < 0 {
            return Err(-fd);
        }
        let mut ring =
            Self { params, rings: None, sqes: None, array: setup.array, fd, _apart: apart };
        let cqes = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let array = params.sq_off.array as usize + params.sq_entries as usize * size_of::<u32>();
        let errno = |e: io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        let rings = Map::new(fd, uapi::IORING_OFF_SQ_RING.into(), cqes.max(array));
        ring.rings = Some(rings.map_err(errno)?);
        let bytes = params.sq_entries as usize * size_of::<RawSqe>();
        let sqes = Map::new(fd, uapi::IORING_OFF_SQES.into(), bytes);
        ring.sqes = Some(sqes.map_err(errno)?);
        Ok(ring)
    }

    fn sizes(&self) -> Sizes {
        Sizes { sq: self.params.sq_entries, cq: self.params.cq_entries }
    }

    unsafe fn push(&mut self, sqe: &RawSqe, index: Option<u32>) -> bool {
        if self.pending() == self.params.sq_entries {
            return false;
        }
        // SAFETY: there is room, and the caller's promise.
        unsafe { self.put(0, sqe, index) };
        self.advance(1);
        true
    }

    unsafe fn push_all(&mut self, sqes: &[RawSqe]) -> bool {
        if (self.params.sq_entries - self.pending()) < sqes.len() as u32 {
            return false;
        }
        for (nth, sqe) in (0..).zip(sqes) {
            // SAFETY: as above.
            unsafe { self.put(nth, sqe, None) };
        }
        self.advance(sqes.len() as u32);
        true
    }

    fn enter(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        timeout_ns: Option<u64>,
    ) -> i32 {
        let head = [self.fd as usize, to_submit as usize, min_complete as usize];
        let Some(ns) = timeout_ns else {
            let [fd, submit, complete] = head;
            return call(libc::SYS_io_uring_enter, [fd, submit, complete, flags as usize, 0, 0]);
        };
        let time = [ns / 1_000_000_000, ns % 1_000_000_000];
        let arg = uapi::io_uring_getevents_arg {
            sigmask: 0,
            sigmask_sz: 8,
            min_wait_usec: 0,
            ts: &raw const time as u64,
        };
        let flags = (flags | uapi::IORING_ENTER_EXT_ARG) as usize;
        let [fd, submit, complete] = head;
        let tail = [flags, &raw const arg as usize, size_of_val(&arg)];
        call(libc::SYS_io_uring_enter, [fd, submit, complete, tail[0], tail[1], tail[2]])
    }

    fn reap(&mut self, most: usize, into: &mut Vec<Cqe>) {
        let count = most.min(self.ready());
        let word = self.rings().word(self.params.cq_off.head);
        let mut head = word.load(Ordering::Relaxed);
        for _ in 0..count {
            let place = head & (self.params.cq_entries - 1);
            // SAFETY: inside the mapping, written before the tail moved.
            let cqe = unsafe {
                let first = self.rings().at.add(self.params.cq_off.cqes as usize);
                first.cast::<Cqe>().add(place as usize).read()
            };
            into.push(cqe);
            head = head.wrapping_add(1);
        }
        // Release: pairs with the kernel's read of the head.
        word.store(head, Ordering::Release);
    }

    fn ready(&mut self) -> usize {
        let head = self.rings().word(self.params.cq_off.head).load(Ordering::Relaxed);
        // Acquire: pairs with the kernel's release of the tail.
        let tail = self.rings().word(self.params.cq_off.tail).load(Ordering::Acquire);
        tail.wrapping_sub(head) as usize
    }

    fn pending(&mut self) -> u32 {
        let tail = self.rings().word(self.params.sq_off.tail).load(Ordering::Relaxed);
        // Acquire: pairs with the kernel's release of the head.
        tail.wrapping_sub(self.rings().word(self.params.sq_off.head).load(Ordering::Acquire))
    }

    fn sq_flags(&mut self) -> u32 {
        // Pairs with the kernel's barrier between NEED_WAKEUP and its last
        // look at the tail.
        fence(Ordering::SeqCst);
        self.rings().word(self.params.sq_off.flags).load(Ordering::Relaxed)
    }

    fn dropped(&mut self) -> u32 {
        self.rings().word(self.params.sq_off.dropped).load(Ordering::Relaxed)
    }

    fn overflow(&mut self) -> u32 {
        self.rings().word(self.params.cq_off.overflow).load(Ordering::Relaxed)
    }

    fn files(&mut self, fds: &[i32]) -> i32 {
        let opcode = uapi::io_uring_register_op::IORING_REGISTER_FILES;
        self.register(opcode, fds.as_ptr() as usize, fds.len())
    }

    fn files_sparse(&mut self, count: u32) -> i32 {
        self.sparse(uapi::io_uring_register_op::IORING_REGISTER_FILES2, count)
    }

    fn files_update(&mut self, offset: u32, fds: &[i32]) -> i32 {
        let arg = uapi::io_uring_files_update { offset, resv: 0, fds: fds.as_ptr() as u64 };
        let opcode = uapi::io_uring_register_op::IORING_REGISTER_FILES_UPDATE;
        self.register(opcode, &raw const arg as usize, fds.len())
    }

    fn files_end(&mut self) -> i32 {
        self.register(uapi::io_uring_register_op::IORING_UNREGISTER_FILES, 0, 0)
    }

    unsafe fn buffers(&mut self, buffers: &[RawBuf]) -> i32 {
        let opcode = uapi::io_uring_register_op::IORING_REGISTER_BUFFERS;
        self.register(opcode, buffers.as_ptr() as usize, buffers.len())
    }

    fn buffers_sparse(&mut self, count: u32) -> i32 {
        self.sparse(uapi::io_uring_register_op::IORING_REGISTER_BUFFERS2, count)
    }

    unsafe fn buffers_update(&mut self, offset: u32, buffers: &[RawBuf]) -> i32 {
        let arg = uapi::io_uring_rsrc_update2 {
            offset,
            resv: 0,
            data: buffers.as_ptr() as u64,
            tags: 0,
            nr: buffers.len() as u32,
            resv2: 0,
        };
        let opcode = uapi::io_uring_register_op::IORING_REGISTER_BUFFERS_UPDATE;
        self.register(opcode, &raw const arg as usize, size_of_val(&arg))
    }

    fn buffers_end(&mut self) -> i32 {
        self.register(uapi::io_uring_register_op::IORING_UNREGISTER_BUFFERS, 0, 0)
    }

    unsafe fn buf_ring(&mut self, base: u64, entries: u16, group: u16) -> i32 {
        // SAFETY: plain numbers.
        let mut arg: uapi::io_uring_buf_reg = unsafe { std::mem::zeroed() };
        (arg.ring_addr, arg.ring_entries, arg.bgid) = (base, entries.into(), group);
        let opcode = uapi::io_uring_register_op::IORING_REGISTER_PBUF_RING;
        self.register(opcode, &raw const arg as usize, 1)
    }

    fn dump(&mut self) -> String {
        format!(
            "SQ {} pending, CQ {} ready, flags {:#x}, dropped {}, overflow {}",
            self.pending(),
            self.ready(),
            self.sq_flags(),
            self.dropped(),
            self.overflow()
        )
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // The mappings keep the ring alive: they go first.
        self.rings = None;
        self.sqes = None;
        // SAFETY: ours, used no more.
        unsafe { libc::close(self.fd) };
    }
}
