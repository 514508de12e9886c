//! A place and a backend for tests: real threads, memory instead of a disk,
//! and completions that come when the test says so.
#![allow(dead_code)] // each test file uses its own part

use annulus::config::Config;
use annulus::engine::{Completer, Inbox, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Clock, Host, OtherClock, Park, Parked, Request, Start, Target, Token};
use annulus::squeue::Entry;
use annulus::sync::{AtomicU32, Ordering};
use annulus::uapi::*;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a backend says whose files and buffers are nothing but their numbers.
#[allow(unused_macros)] // as above
macro_rules! no_handles {
    () => {
        type File = ();
        type Buffer = ();

        fn open(&mut self, _: i32) -> Result<(), annulus::errno::Errno> {
            Ok(())
        }

        fn close(&mut self, (): ()) {}

        unsafe fn map(&mut self, _: usize, _: usize) -> Result<(), annulus::errno::Errno> {
            Ok(())
        }

        fn unmap(&mut self, (): ()) {}
    };
}
#[allow(unused_imports)] // as above
pub(crate) use no_handles;

/// A futex of std parts, and a bell that counts.
pub struct TestHost {
    start: Instant,
    lock: Mutex<()>,
    changed: Condvar,
    pub bells: AtomicU64,
    /// What the wall clock and the one that runs on in suspend are ahead of
    /// `now`; 0: there is none.
    pub ahead: [AtomicU64; 2],
    /// The registered eventfd, 0 for none, and how often it was rung.
    pub eventfd: AtomicU64,
    pub rung: AtomicU64,
    /// Rings that can be sent messages, from number [`RINGS`] on.
    pub rings: Mutex<Vec<Inbox<'static>>>,
}

impl TestHost {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            bells: AtomicU64::new(0),
            ahead: [AtomicU64::new(0), AtomicU64::new(0)],
            eventfd: AtomicU64::new(0),
            rung: AtomicU64::new(0),
            rings: Mutex::default(),
        })
    }
}

/// The host as the ring owns it.
#[derive(Clone)]
pub struct Place(pub Arc<TestHost>);

impl Clock for Place {
    fn now(&self) -> u64 {
        self.0.start.elapsed().as_nanos() as u64
    }

    fn time(&self, clock: OtherClock) -> Option<u64> {
        let ahead = self.0.ahead[clock as usize].load(Ordering::Relaxed);
        (ahead != 0).then(|| self.now() + ahead)
    }
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        let guard = self.0.lock.lock().unwrap();
        if word.load(Ordering::Relaxed) != expected {
            return Parked::Woken;
        }
        match deadline {
            None => {
                drop(self.0.changed.wait(guard).unwrap());
                Parked::Woken
            }
            Some(deadline) => {
                let left = deadline.saturating_sub(self.now());
                if left == 0 {
                    return Parked::TimedOut;
                }
                drop(self.0.changed.wait_timeout(guard, Duration::from_nanos(left)).unwrap());
                if self.now() >= deadline { Parked::TimedOut } else { Parked::Woken }
            }
        }
    }

    fn unpark(&self, _: &AtomicU32) {
        drop(self.0.lock.lock().unwrap());
        self.0.changed.notify_all();
    }
}

impl Host for Place {
    fn cqes_posted(&self) {
        self.0.bells.fetch_add(1, Ordering::Relaxed);
    }

    fn bind_eventfd(&self, fd: i32) -> Result<(), Errno> {
        let fd = u64::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.0.eventfd.store(fd, Ordering::Relaxed);
        Ok(())
    }

    fn unbind_eventfd(&self) {
        assert_ne!(self.0.eventfd.swap(0, Ordering::Relaxed), 0);
    }

    fn ring_eventfd(&self) {
        assert_ne!(self.0.eventfd.load(Ordering::Relaxed), 0);
        self.0.rung.fetch_add(1, Ordering::Relaxed);
    }

    fn sends_messages(&self) -> bool {
        !self.0.rings.lock().unwrap().is_empty()
    }

    fn reach(
        &self,
        fd: i32,
        give: &mut dyn FnMut(Inbox<'_>) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        if fd < AT_ONCE {
            return Err(Errno::EBADF);
        }
        let rings = self.0.rings.lock().unwrap();
        let at = fd.checked_sub(RINGS).ok_or(Errno::EBADFD)?;
        let ring = rings.get(at as usize).ok_or(Errno::EBADFD)?;
        give(*ring)
    }
}

/// What the backend has seen, shared with the test.
#[derive(Default)]
pub struct Log {
    /// Requests left pending, oldest first.
    pub pending: Vec<(Token, Request<u32, usize>)>,
    pub open: Vec<u32>,
    pub closed: Vec<u32>,
    pub mapped: u32,
    pub unmapped: u32,
    pub kicks: u32,
    pub resumed: u32,
    pub next_file: u32,
    /// Answer NoRoom to the next so many starts.
    pub no_room: u32,
}

/// Files are numbers: 100 and up exist. A READ or FSYNC from a `Fd` below
/// 500 ends at once with its length; from 500 on it stays pending.
pub struct Disk<'m> {
    pub log: Arc<Mutex<Log>>,
    completer: Completer<'m, Place>,
}

impl<'m> Disk<'m> {
    pub fn new(log: Arc<Mutex<Log>>, completer: Completer<'m, Place>) -> Self {
        Self { log, completer }
    }
}

pub const AT_ONCE: i32 = 100;
pub const LATER: i32 = 500;
pub const FOR_EVER: i32 = 900;
pub const RINGS: i32 = 700;
/// What files are numbered from that are sent to other rings.
pub const SHARED: i32 = 1 << 16;

impl Backend for Disk<'_> {
    type File = u32;
    type Buffer = usize;

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            IORING_OP_READ
                | IORING_OP_READV
                | IORING_OP_READ_FIXED
                | IORING_OP_FSYNC
                | IORING_OP_OPENAT
                | IORING_OP_CLOSE
        )
    }

    fn open(&mut self, fd: i32) -> Result<u32, Errno> {
        if fd < AT_ONCE {
            return Err(Errno::EBADF);
        }
        let mut log = self.log.lock().unwrap();
        log.next_file += 1;
        let file = fd as u32 | log.next_file << 16;
        log.open.push(file);
        Ok(file)
    }

    fn is_open(&mut self, fd: i32) -> bool {
        fd >= AT_ONCE
    }

    fn close(&mut self, file: u32) {
        let mut log = self.log.lock().unwrap();
        let at = log.open.iter().position(|&open| open == file).expect("closed once");
        log.open.remove(at);
        log.closed.push(file);
    }

    fn adopt(&mut self, opened: i32) -> Result<u32, Errno> {
        if opened < SHARED {
            return self.open(opened);
        }
        // Under way from one ring to another, whose logs are not the same.
        let mut log = self.log.lock().unwrap();
        log.next_file += 1;
        let file = (opened - SHARED) as u32 | log.next_file << 16;
        log.open.push(file);
        Ok(file)
    }

    const SENDS_FILES: bool = true;

    fn share(&mut self, file: u32) -> Result<i32, Errno> {
        Ok(SHARED + (file & 0xffff) as i32)
    }

    unsafe fn map(&mut self, addr: usize, _len: usize) -> Result<usize, Errno> {
        if addr == 0xbad0 {
            return Err(Errno::EFAULT);
        }
        self.log.lock().unwrap().mapped += 1;
        Ok(addr)
    }

    fn unmap(&mut self, _: usize) {
        self.log.lock().unwrap().unmapped += 1;
    }

    unsafe fn start(&mut self, token: Token, request: &Request<u32, usize>) -> Start {
        let mut log = self.log.lock().unwrap();
        if log.no_room > 0 {
            log.no_room -= 1;
            return Start::NoRoom;
        }
        let fd = match request.target {
            Target::Fd(fd) => fd,
            Target::Registered(file) => (file & 0xffff) as i32,
        };
        if fd < AT_ONCE {
            return Start::Done(Errno::EBADF.to_result());
        }
        if fd < LATER {
            return Start::Done(request.len as i32);
        }
        if fd >= FOR_EVER && request.fallback {
            return Start::NoRoom;
        }
        log.pending.push((token, *request));
        Start::Pending
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        let mut log = self.log.lock().unwrap();
        log.resumed += 1;
        // The second notice ends it.
        if log.resumed % 2 == 1 {
            return Start::Pending;
        }
        let at = log.pending.iter().position(|(pending, _)| *pending == token).unwrap();
        Start::Done(log.pending.remove(at).1.len as i32)
    }

    fn kick(&mut self) {
        self.log.lock().unwrap().kicks += 1;
    }

    fn cancel_all(&mut self) {
        let pending = std::mem::take(&mut self.log.lock().unwrap().pending);
        for (token, _) in pending {
            let _ = self.completer.complete(token, Errno::ECANCELED.to_result());
        }
    }
}

/// A ring, its backend's log and its completer.
pub struct Rig {
    pub parts: Parts<'static, Disk<'static>, Place>,
    pub log: Arc<Mutex<Log>>,
    pub completer: Completer<'static, Place>,
    pub host: Arc<TestHost>,
}

#[repr(align(64))]
struct Line(#[allow(dead_code)] [MaybeUninit<u8>; 64]);

/// Aligned memory that lasts for the test program. Found again by the leak
/// checkers through the ring's own pointers.
pub fn memory(bytes: usize) -> Memory<'static> {
    let lines: &'static mut [Line] =
        Box::leak((0..bytes.div_ceil(64)).map(|_| Line([MaybeUninit::uninit(); 64])).collect());
    let base = std::ptr::NonNull::from(&mut *lines).cast();
    // SAFETY: leaked, so exclusively ours for ever.
    unsafe { Memory::from_raw(base, bytes) }
}

pub fn rig(config: Config) -> Rig {
    let need = annulus::config::Footprint::of::<Disk<'static>, Place>(&config).total();
    let log = Arc::new(Mutex::new(Log::default()));
    let host = TestHost::new();
    let mut completer = None;
    let parts = build(&config, memory(need), RingMemory::Inside, Place(host.clone()), |given| {
        completer = Some(given);
        Disk::new(log.clone(), given)
    })
    .unwrap();
    Rig { parts, log, completer: completer.unwrap(), host }
}

impl Rig {
    /// Pushes entries; panics if the SQ is full.
    pub fn push(&mut self, entries: &[Entry]) {
        push(&mut self.parts.sq, entries);
    }

    /// Everything in the CQ as (user_data, res).
    pub fn reap(&mut self) -> Vec<(u64, i32)> {
        self.parts.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect()
    }

    /// Completes the oldest pending request.
    pub fn complete_first(&mut self, result: i32) -> Token {
        let (token, _) = self.log.lock().unwrap().pending.remove(0);
        self.completer.complete(token, result).unwrap();
        token
    }
}

pub fn push(sq: &mut annulus::ring::SqHalf<'_>, entries: &[Entry]) {
    let mut queue = sq.queue();
    for entry in entries {
        // SAFETY: the test backend touches no memory of the application.
        unsafe { queue.push(entry) }.expect("room in the SQ");
    }
}

pub fn nop(user_data: u64) -> Entry {
    annulus::opcode::Nop::new().build().user_data(user_data)
}

pub fn read(fd: i32, len: u32, user_data: u64) -> Entry {
    annulus::opcode::Read::new(annulus::types::Fd(fd), std::ptr::null_mut(), len)
        .build()
        .user_data(user_data)
}
