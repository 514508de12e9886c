//! Who drives a ring's engine, and where it lives.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use annulus::config::Mode;
use annulus::engine::{EnterFlags, Remote, Until};
use annulus::errno::Errno;
use annulus::register::Call;
use annulus::served::Served;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::memory::Mapping;
use super::{Error, RingBackend};
use crate::host::LinuxHost;
use crate::threads;

pub type Engine<B> = annulus::engine::Engine<'static, B, &'static LinuxHost>;
pub type RemoteRing = Remote<'static, &'static LinuxHost>;
type ServedRing<B> = Served<'static, B, &'static LinuxHost>;

/// What a ring lives in. Dropped after everything that refers to it.
#[derive(Debug)]
pub struct Place {
    pub memory: Mapping,
    /// A box taken apart: it must not look unshared while it is shared.
    host: NonNull<LinuxHost>,
    /// What the backend uses and does not own.
    #[allow(dead_code)] // only dropped
    keep: Box<dyn Any + Send + Sync>,
}

// SAFETY: memory and a host, neither of which belongs to a thread.
unsafe impl Send for Place {}
// SAFETY: as above; `host` is only read.
unsafe impl Sync for Place {}

impl Place {
    pub fn new(host: LinuxHost, memory: Mapping, keep: Box<dyn Any + Send + Sync>) -> Self {
        Self { memory, host: NonNull::from(Box::leak(Box::new(host))), keep }
    }

    /// The host, for the ring.
    ///
    /// # Safety
    /// Not used after the place is dropped.
    pub unsafe fn host(&self) -> &'static LinuxHost {
        // SAFETY: lives until the drop, by the caller's promise long enough.
        unsafe { self.host.as_ref() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: from a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.host.as_ptr()) });
    }
}

/// Who drives the engine.
#[allow(clippy::large_enum_variant)] // one a ring; inline, no pointer to follow
pub enum Driver<B: RingBackend> {
    /// The thread that has the ring.
    Inline(UnsafeCell<Engine<B>>),
    /// A thread of its own.
    SqPoll(JoinHandle<()>),
    /// Whoever has work, and a helper thread.
    Served(Arc<ServedRing<B>>, JoinHandle<()>),
}

impl<B: RingBackend> Driver<B> {
    /// Puts the engine to work.
    ///
    /// # Errors
    /// No thread, or no such CPU. The engine has ended then.
    pub fn start(
        mode: Mode,
        engine: Engine<B>,
        remote: RemoteRing,
        cpu: Option<u32>,
    ) -> Result<Self, Error> {
        let system = |source| Error::System { what: "thread to drive the ring", source };
        match mode {
            Mode::Inline => Ok(Driver::Inline(UnsafeCell::new(engine))),
            Mode::SqPoll { .. } => {
                let affinity = cpu.map(|cpu| one_cpu(cpu).ok_or(Error::Cpu { cpu })).transpose()?;
                let (tell, told) = mpsc::channel();
                let mut engine = engine;
                let thread = threads::spawn("annulus-sq", move || {
                    // None: the calling thread.
                    let bound = affinity.is_none_or(|set| sched_setaffinity(None, &set).is_ok());
                    // The builder waits for it.
                    let _ = tell.send(bound);
                    drop(tell);
                    if bound {
                        engine.poll_loop();
                    }
                })
                .map_err(system)?;
                if told.recv() == Ok(true) {
                    return Ok(Driver::SqPoll(thread));
                }
                // The engine ends with the thread.
                let _ = thread.join();
                Err(Error::Cpu { cpu: cpu.unwrap_or(0) })
            }
            Mode::Served => {
                let served = Arc::new(Served::new(engine, remote));
                let helper = Arc::clone(&served);
                let thread =
                    threads::spawn("annulus-help", move || helper.help()).map_err(system)?;
                Ok(Driver::Served(served, thread))
            }
        }
    }

    /// `io_uring_enter`.
    ///
    /// # Errors
    /// As [`annulus::engine::Engine::enter`] and its like.
    ///
    /// # Safety
    /// Inline: from one thread at a time.
    #[inline]
    pub unsafe fn enter(
        &self,
        remote: &RemoteRing,
        to_submit: u32,
        min_complete: u32,
        flags: EnterFlags,
        until: Until,
    ) -> Result<u32, Errno> {
        match self {
            Driver::Inline(engine) => {
                // SAFETY: one thread, and the engine calls nothing that comes
                // back here.
                let engine = unsafe { &mut *engine.get() };
                engine.enter(to_submit, min_complete, flags, until)
            }
            Driver::SqPoll(_) => remote.enter(to_submit, min_complete, flags, until),
            Driver::Served(served, _) => served.enter(to_submit, min_complete, flags, until),
        }
    }

    /// `io_uring_register`.
    ///
    /// # Errors
    /// The call's.
    ///
    /// # Safety
    /// As for [`enter`](Self::enter), and as the call says.
    pub unsafe fn call(&self, remote: &RemoteRing, call: Call<'_>) -> Result<u32, Errno> {
        // SAFETY: the caller's promises, in each.
        unsafe {
            match self {
                Driver::Inline(engine) => (*engine.get()).call(call),
                Driver::SqPoll(_) => remote.call(call),
                Driver::Served(served, _) => served.call(call),
            }
        }
    }

    /// Ends the engine: cancels what has not begun, waits for what runs, and
    /// for every thread.
    pub fn end(self, remote: &RemoteRing) {
        match self {
            // Its drop does all of it.
            Driver::Inline(engine) => drop(engine),
            Driver::SqPoll(thread) => {
                remote.stop();
                // A panic of the thread has been reported by it.
                let _ = thread.join();
            }
            Driver::Served(served, thread) => {
                remote.stop();
                let _ = thread.join();
                // The last of them: the backend ends its threads here.
                drop(served);
            }
        }
    }
}

/// The set of one CPU; none if no set can name it.
fn one_cpu(cpu: u32) -> Option<CpuSet> {
    if cpu as usize >= CpuSet::MAX_CPU {
        return None;
    }
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    Some(set)
}
