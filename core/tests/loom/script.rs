//! Rings with a backend that does what a model's script says.

use annulus::config::{Config, Footprint};
use annulus::engine::{Completer, Engine, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Request, Start, Token};
use annulus::model::{Arena, Place};
use annulus::register::Call;
use annulus::ring::{CqHalf, PushError, SqHalf};
use annulus::sqe::Sqe;
use annulus::sync::{AtomicU32, Ordering, UnsafeCell};
use annulus::types::Iovec;
use annulus::uapi::{IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_READ_FIXED, IOSQE_FIXED_FILE};
use loom::thread::JoinHandle;
use std::cell::RefCell;
use std::rc::Rc;

/// What a model does when the engine starts a request.
type Starter = Box<dyn FnMut(Hands, Token, &Request<(), ()>) -> Start>;

/// A way for completions, for threads of the model.
pub type Hands = Completer<'static, Place>;

/// A backend as a script.
pub struct Script {
    pub hands: Hands,
    pub start: Starter,
    /// What to do with a request whose READY notice was taken.
    pub resume: Box<dyn FnMut(Token) -> Start>,
    /// Requests whose end only `poll` finds.
    pub polled: Vec<(Token, i32)>,
    /// Requests that wait for readiness, and may be cancelled.
    pub waiting: Vec<Token>,
    /// Those that were, and have not come home.
    pub cancelled: Vec<Token>,
    /// Multishot requests that ended for want of room.
    pub ends: u32,
    /// Files given back.
    pub closed: u32,
    /// Whether the engine has come to its end.
    pub ended: bool,
    /// A device with an interrupt.
    pub device: Option<Rc<Device>>,
}

/// A device that completes one request at a time, and the pending bit of its
/// interrupt.
#[derive(Debug)]
pub struct Device {
    pending: AtomicU32,
    done: UnsafeCell<Option<(Token, i32)>>,
}

impl Device {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { pending: AtomicU32::new(0), done: UnsafeCell::new(None) })
    }

    /// The device is done, and its interrupt handler runs: it sets the bit
    /// and wakes, nothing else.
    pub fn interrupt(&self, hands: Hands, token: Token, result: i32) {
        // SAFETY: the engine looks when it has seen the bit.
        self.done.with_mut(|done| unsafe { *done = Some((token, result)) });
        // Release: pairs with the swap in `take`.
        self.pending.store(1, Ordering::Release);
        hands.wake();
    }

    fn take(&self) -> Option<(Token, i32)> {
        // Acquire: pairs with the store in `interrupt`.
        if self.pending.swap(0, Ordering::Acquire) == 0 {
            return None;
        }
        // SAFETY: the bit was set.
        self.done.with_mut(|done| unsafe { (*done).take() })
    }
}

impl Backend for Script {
    type File = ();
    type Buffer = ();

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, _: i32) -> Result<(), Errno> {
        Ok(())
    }

    fn close(&mut self, _: ()) {
        self.closed += 1;
    }

    const SENDS_FILES: bool = true;

    fn adopt(&mut self, _: i32) -> Result<(), Errno> {
        Ok(())
    }

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<(), Errno> {
        Ok(())
    }

    fn unmap(&mut self, _: ()) {}

    unsafe fn start(&mut self, token: Token, request: &Request<(), ()>) -> Start {
        assert!(!self.ended, "nothing is started after the end");
        if request.op_flags == POLLED {
            self.polled.push((token, request.len as i32));
            return Start::Pending;
        }
        if request.opcode == IORING_OP_POLL_ADD {
            self.waiting.push(token);
        }
        (self.start)(self.hands, token, request)
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        let cancelled = self.cancelled.contains(&token);
        let start = match cancelled {
            true => Start::Done(Errno::ECANCELED.to_result()),
            false => (self.resume)(token),
        };
        if let Start::Done(_) = start {
            self.forget(token);
        }
        start
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        self.cancelled.push(token);
        // One that is on its way already will do.
        let _ = self.hands.ready(token);
        Cancel::Ended
    }

    fn end(&mut self, token: Token) {
        self.ends += 1;
        self.forget(token);
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        let by_device = self.device.as_ref().and_then(|device| device.take());
        for (token, result) in self.polled.drain(..).chain(by_device) {
            done(token, result);
        }
    }

    fn cancel_all(&mut self) {
        self.ended = true;
        for token in self.waiting.clone() {
            self.cancel(token);
        }
    }

    fn polling(&self) -> bool {
        // Relaxed: asked again after a full fence before a sleep.
        let pending = |device: &Rc<Device>| device.pending.load(Ordering::Relaxed) != 0;
        !self.polled.is_empty() || self.device.as_ref().is_some_and(pending)
    }
}

impl Script {
    fn forget(&mut self, token: Token) {
        self.waiting.retain(|&waiting| waiting != token);
        self.cancelled.retain(|&cancelled| cancelled != token);
    }
}

/// `op_flags` of a request that only polling finds done.
const POLLED: u32 = 1;

/// A read that only polling finds done.
pub fn polled(user_data: u64) -> Sqe {
    Sqe { op_flags: POLLED, ..read(user_data) }
}

/// A read that ends with `user_data` for its result.
pub fn read(user_data: u64) -> Sqe {
    Sqe { opcode: IORING_OP_READ, user_data, len: user_data as u32, ..Sqe::default() }
}

/// [`read`] of what [`register`] has registered.
pub fn fixed(user_data: u64) -> Sqe {
    let flags = IOSQE_FIXED_FILE;
    Sqe { opcode: IORING_OP_READ_FIXED, flags, addr: BUFFER as u64, ..read(user_data) }
}

/// Where the registered buffer would be, if there were one.
const BUFFER: usize = 4096;

/// Registers a file and a buffer.
pub fn register(engine: &mut Engine<'static, Script, Place>) {
    let buffer = Iovec { base: std::ptr::without_provenance_mut(BUFFER), len: 64 };
    // SAFETY: nothing is read or written there.
    let answers = unsafe {
        [engine.call(Call::RegisterFiles(&[0])), engine.call(Call::RegisterBuffers(&[buffer]))]
    };
    assert_eq!(answers, [Ok(0), Ok(0)]);
}

/// A NOP.
pub fn nop(user_data: u64) -> Sqe {
    Sqe { user_data, ..Sqe::default() }
}

/// A ring with a scripted backend.
pub struct Rig {
    pub parts: Parts<'static, Script, Place>,
    /// To be dropped when every thread has ended.
    pub arena: Arena,
}

fn make(
    config: Config,
    place: Place,
    start: Starter,
    resume: Box<dyn FnMut(Token) -> Start>,
    device: Option<Rc<Device>>,
) -> Rig {
    let arena = Arena::new(Footprint::of::<Script, Place>(&config).total());
    let script = |hands| Script {
        hands,
        start,
        resume,
        polled: vec![],
        waiting: vec![],
        cancelled: vec![],
        ends: 0,
        closed: 0,
        ended: false,
        device,
    };
    // SAFETY: a model gives it back when every thread has ended.
    let memory = unsafe { arena.memory() };
    let parts = build(&config, memory, RingMemory::Inside, place, script);
    Rig { parts: parts.expect("a good configuration"), arena }
}

fn no_resume(_: Token) -> Start {
    unreachable!("no READY notice in this model")
}

pub fn rig(
    config: Config,
    start: impl FnMut(Hands, Token, &Request<(), ()>) -> Start + 'static,
) -> Rig {
    rig_on(Place::new(), config, start)
}

/// [`rig`], somewhere else.
pub fn rig_on(
    place: Place,
    config: Config,
    start: impl FnMut(Hands, Token, &Request<(), ()>) -> Start + 'static,
) -> Rig {
    make(config, place, Box::new(start), Box::new(no_resume), None)
}

/// [`rig`], for requests that READY notices come for.
pub fn rig_resumed(
    config: Config,
    start: impl FnMut(Hands, Token, &Request<(), ()>) -> Start + 'static,
    resume: impl FnMut(Token) -> Start + 'static,
) -> Rig {
    make(config, Place::new(), Box::new(start), Box::new(resume), None)
}

/// [`rig`], whose requests a device does on a thread of its own.
pub fn rig_device(config: Config, threads: &Threads) -> Rig {
    let (threads, device) = (threads.clone(), Device::new());
    let start = {
        let device = device.clone();
        move |hands: Hands, token: Token, request: &Request<(), ()>| {
            let (device, result) = (device.clone(), request.len as i32);
            threads.spawn(move || device.interrupt(hands, token, result));
            Start::Pending
        }
    };
    make(config, Place::new(), Box::new(start), Box::new(no_resume), Some(device))
}

/// A starter that completes each request on a thread of its own.
pub fn by_threads(
    threads: &Threads,
) -> impl FnMut(Hands, Token, &Request<(), ()>) -> Start + 'static {
    let threads = threads.clone();
    move |hands, token, request| {
        let result = request.len as i32;
        threads.spawn(move || hands.complete(token, result).unwrap());
        Start::Pending
    }
}

/// Pushes what there is room for.
pub fn push(sq: &mut SqHalf<'_>, entry: Sqe) -> Result<(), PushError> {
    // SAFETY: nothing is pointed to.
    unsafe { sq.queue().push(&entry) }
}

/// Every CQE that is there, as (`user_data`, `res`).
pub fn reap(cq: &mut CqHalf<'_>) -> Vec<(u64, i32)> {
    cq.queue().map(|cqe| (cqe.user_data, cqe.res)).collect()
}

/// Threads that a model's script makes, to be joined at its end.
#[derive(Clone, Default)]
pub struct Threads(Rc<RefCell<Vec<JoinHandle<()>>>>);

impl Threads {
    pub fn spawn(&self, work: impl FnOnce() + 'static) {
        let thread = loom::thread::spawn(work);
        self.0.borrow_mut().push(thread);
    }

    pub fn join(&self) {
        let threads = self.0.take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
