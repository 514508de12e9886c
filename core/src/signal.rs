//! Readiness where there is no kernel to ask: device events and notifications
//! that POLL_ADD waits for.
//!
//! A [`Signal`] is a word of events that hold now, and the waits that want to
//! hear of them. Anybody raises events (an interrupt handler, another core, a
//! driver): three steps, no lock, nothing that waits. A [`SignalBackend`] makes
//! files of some signals, for a ring that waits for them.
//!
//! ```text
//!   raise: events ── full fence ── look for waits ── READY for each
//!   arm:   wait ──── full fence ── look for events ── READY for itself
//! ```
//!
//! So whichever comes second sees the other. A wake-up for a wait that has
//! ended meanwhile carries an old token, and is refused. Whoever raises may
//! raise again before the first time was looked at: the events are gathered in
//! the word, and a resume sees all of them ([`Completer::ready`]).
//!
//! Events hold until they are [lowered](Signal::lower), as those of a file do
//! until it is read: a wait that comes later is ready at once.

use core::ops::Deref;

use crate::engine::Completer;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Cancel, Host, Request, Start, Target, Token};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::uapi::{EPOLLONESHOT, IORING_FEAT_POLL_32BITS, IORING_OP_POLL_ADD};

/// No wait: tokens have two bits that are never set.
const NOBODY: u32 = u32::MAX;

/// Something to wait for, by up to `WAITS` requests at a time.
#[derive(Debug)]
pub struct Signal<const WAITS: usize> {
    /// What holds now, as in a poll mask.
    events: AtomicU32,
    /// The token of each wait.
    waits: [AtomicU32; WAITS],
}

impl<const WAITS: usize> Signal<WAITS> {
    /// One for which nothing holds.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self { events: AtomicU32::new(0), waits: [const { AtomicU32::new(NOBODY) }; WAITS] }
    }

    /// One for which nothing holds.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        let nobody = |_| AtomicU32::new(NOBODY);
        Self { events: AtomicU32::new(0), waits: core::array::from_fn(nobody) }
    }

    /// These events (`EPOLL*`) hold from now on, and whoever waits is woken, by
    /// the completer of the ring that has this signal. What was written before
    /// is visible to who sees the CQE.
    pub fn raise<H: Host>(&self, events: u32, completer: &Completer<'_, H>) {
        // Release: pairs with the Acquire in `events`.
        let release = fault::order(Fault::SignalRaiseRelaxed, Ordering::Release);
        self.events.fetch_or(events, release);
        // Pairs with the fence in `SignalBackend::arm`.
        if !fault::on(Fault::SignalRaiseNoFence) {
            fence(Ordering::SeqCst);
        }
        for wait in &self.waits {
            // Relaxed: a number, that is compared where it is used.
            match wait.load(Ordering::Relaxed) {
                NOBODY => {}
                // Stale: it has ended, or has a notice that will do.
                raw => drop(completer.ready(Token::from_raw(raw))),
            }
        }
    }

    /// These events do not hold any more.
    pub fn lower(&self, events: u32) {
        // Relaxed: nothing is told by it.
        self.events.fetch_and(!events, Ordering::Relaxed);
    }

    /// What holds now.
    #[must_use]
    pub fn events(&self) -> u32 {
        // Acquire: pairs with the Release in `raise`.
        self.events.load(fault::order(Fault::SignalEventsRelaxed, Ordering::Acquire))
    }
}

impl<const WAITS: usize> Default for Signal<WAITS> {
    fn default() -> Self {
        Self::new()
    }
}

/// The engine's part of a wait.
#[derive(Clone, Copy, Debug)]
struct Wait {
    token: Token,
    /// As in [`Request::op_flags`].
    events: u32,
    cancelled: bool,
}

/// A backend whose files are signals: the number of a file is its place among
/// them, and POLL_ADD all that can be done with it.
pub struct SignalBackend<'m, S, H, const WAITS: usize, const SIGNALS: usize> {
    signals: S,
    waits: [[Option<Wait>; WAITS]; SIGNALS],
    completer: Completer<'m, H>,
}

impl<'m, S, H, const WAITS: usize, const SIGNALS: usize> SignalBackend<'m, S, H, WAITS, SIGNALS>
where
    S: Deref<Target = [Signal<WAITS>; SIGNALS]>,
    H: Host,
{
    /// A backend of these signals, which nobody else waits for.
    pub fn new(signals: S, completer: Completer<'m, H>) -> Self {
        Self { signals, waits: [[None; WAITS]; SIGNALS], completer }
    }

    /// Waits for a signal. The token is known to others from here on.
    fn arm(&mut self, file: usize, token: Token, events: u32) -> Start {
        let Some(place) = self.waits[file].iter().position(Option::is_none) else {
            return Start::NoRoom;
        };
        self.waits[file][place] = Some(Wait { token, events, cancelled: false });
        let signal = &self.signals[file];
        // Relaxed: the fence orders it.
        signal.waits[place].store(token.to_raw(), Ordering::Relaxed);
        // Pairs with the fence in `Signal::raise`: either that sees the wait,
        // or we see its events.
        if !fault::on(Fault::SignalArmNoFence) {
            fence(Ordering::SeqCst);
        }
        if signal.events() & events != 0 && !fault::on(Fault::SignalArmNoRecheck) {
            // Stale: whoever raised has seen us.
            let _ = self.completer.ready(token);
        }
        Start::Pending
    }

    fn find(&self, token: Token) -> Option<(usize, usize)> {
        let is = |wait: &Option<Wait>| wait.is_some_and(|wait| wait.token == token);
        let places = self.waits.iter().map(|waits| waits.iter().position(is));
        places.enumerate().find_map(|(file, place)| Some((file, place?)))
    }

    fn disarm(&mut self, file: usize, place: usize) {
        // Relaxed: who still reads the token has one that is refused.
        self.signals[file].waits[place].store(NOBODY, Ordering::Relaxed);
        self.waits[file][place] = None;
    }

    fn check(&self, fd: i32) -> Result<usize, Errno> {
        usize::try_from(fd).ok().filter(|&file| file < SIGNALS).ok_or(Errno::EBADF)
    }
}

impl<S, H, const WAITS: usize, const SIGNALS: usize> Backend
    for SignalBackend<'_, S, H, WAITS, SIGNALS>
where
    S: Deref<Target = [Signal<WAITS>; SIGNALS]>,
    H: Host,
{
    /// Its place among the signals.
    type File = usize;
    /// Nothing is read or written.
    type Buffer = core::convert::Infallible;

    fn supports(&self, opcode: u8) -> bool {
        opcode == IORING_OP_POLL_ADD
    }

    fn features(&self) -> u32 {
        IORING_FEAT_POLL_32BITS
    }

    fn is_open(&mut self, fd: i32) -> bool {
        self.check(fd).is_ok()
    }

    fn open(&mut self, fd: i32) -> Result<usize, Errno> {
        self.check(fd)
    }

    fn close(&mut self, _: usize) {}

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<Self::Buffer, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn unmap(&mut self, buffer: Self::Buffer) {
        match buffer {}
    }

    unsafe fn start(&mut self, token: Token, request: &Request<usize, Self::Buffer>) -> Start {
        let file = match request.target {
            Target::Registered(file) => file,
            Target::Fd(fd) => match self.check(fd) {
                Ok(file) => file,
                Err(errno) => return Start::Done(errno.to_result()),
            },
        };
        let events = request.op_flags;
        let now = self.signals[file].events() & events;
        if now != 0 && events & EPOLLONESHOT != 0 {
            return Start::Done(now as i32);
        }
        if request.fallback {
            // It may wait for ever, and the reserved slot must not.
            return Start::NoRoom;
        }
        self.arm(file, token, events)
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        let Some((file, place)) = self.find(token) else { return Start::Pending };
        let Some(wait) = self.waits[file][place] else { return Start::Pending };
        if wait.cancelled {
            self.disarm(file, place);
            return Start::Done(Errno::ECANCELED.to_result());
        }
        match (self.signals[file].events() & wait.events, wait.events & EPOLLONESHOT) {
            // For other events, or lowered since.
            (0, _) => Start::Pending,
            (now, 0) => Start::More(now as i32),
            (now, _) => {
                self.disarm(file, place);
                Start::Done(now as i32)
            }
        }
    }

    fn update_poll(&mut self, token: Token, events: Option<u32>) {
        let Some((file, place)) = self.find(token) else { return };
        let Some(wait) = &mut self.waits[file][place] else { return };
        if let Some(events) = events {
            wait.events = wait.events & EPOLLONESHOT | events;
        }
        // What holds now is an event. What is raised from here on finds the
        // wait armed, as it has been all the time.
        if self.signals[file].events() & wait.events != 0 {
            let _ = self.completer.ready(token);
        }
    }

    fn end(&mut self, token: Token) {
        if let Some((file, place)) = self.find(token) {
            self.disarm(file, place);
        }
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        let Some((file, place)) = self.find(token) else { return Cancel::Running };
        if let Some(wait) = &mut self.waits[file][place] {
            wait.cancelled = true;
        }
        // Stale: a notice is on its way already, and will do.
        let _ = self.completer.ready(token);
        Cancel::Ended
    }

    fn cancel_all(&mut self) {
        for file in 0..SIGNALS {
            for place in 0..WAITS {
                if let Some(wait) = self.waits[file][place] {
                    self.cancel(wait.token);
                }
            }
        }
    }
}

impl<S, H, const WAITS: usize, const SIGNALS: usize> core::fmt::Debug
    for SignalBackend<'_, S, H, WAITS, SIGNALS>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SignalBackend").field("waits", &self.waits).finish_non_exhaustive()
    }
}
