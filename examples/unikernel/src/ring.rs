//! A ring as a scenario has it, whoever drives it.

use annulus::config::{Config, Footprint, Mode};
use annulus::engine::{Completer, Engine, EnterFlags, Memory, Parts, Remote, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Clock as _, Host};
use annulus::register::Call;
use annulus::ring::{CompletionQueue, CqHalf, SqHalf};
use annulus::squeue::Entry;
use annulus::types::Iovec;
use annulus_baremetal::irq::Line;

use crate::memory::Region;
use crate::place::MACHINE;
use crate::text::Text;
use crate::{second, text};

/// What a scenario waits for a completion at most.
const PATIENCE: u64 = 60_000_000_000;

/// Who drives a ring, as its engine or from afar.
trait Drive {
    fn enter(&mut self, to_submit: u32, want: u32, deadline: u64) -> Result<u32, Errno>;

    /// # Safety
    /// As [`Engine::call`].
    unsafe fn call(&mut self, call: Call<'_>) -> Result<u32, Errno>;
}

struct Inline<'e, 'm, B: Backend, H: Host>(&'e mut Engine<'m, B, H>);

impl<B: Backend, H: Host> Drive for Inline<'_, '_, B, H> {
    fn enter(&mut self, to_submit: u32, want: u32, deadline: u64) -> Result<u32, Errno> {
        self.0.enter(to_submit, want, EnterFlags::GETEVENTS, Some(deadline))
    }

    unsafe fn call(&mut self, call: Call<'_>) -> Result<u32, Errno> {
        // SAFETY: the caller's promise.
        unsafe { self.0.call(call) }
    }
}

impl<H: Host> Drive for Remote<'_, H> {
    fn enter(&mut self, to_submit: u32, want: u32, deadline: u64) -> Result<u32, Errno> {
        let flags = EnterFlags::GETEVENTS | wake_up(self);
        Remote::enter(self, to_submit, want, flags, Some(deadline))
    }

    unsafe fn call(&mut self, call: Call<'_>) -> Result<u32, Errno> {
        // SAFETY: the caller's promise; core 0 does not drive it.
        unsafe { Remote::call(self, call) }
    }
}

/// What wakes the second core, if it sleeps.
fn wake_up<H: Host>(remote: &Remote<'_, H>) -> EnterFlags {
    if remote.need_wakeup() { EnterFlags::SQ_WAKEUP } else { EnterFlags::empty() }
}

/// The application's side of a ring.
pub struct App<'a, 'm> {
    sq: &'a mut SqHalf<'m>,
    cq: &'a mut CqHalf<'m>,
    drive: &'a mut dyn Drive,
}

impl<'m> App<'_, 'm> {
    /// Puts an entry into the SQ.
    ///
    /// # Safety
    /// What it names stays valid until its CQE has come, or until the ring
    /// has ended.
    pub unsafe fn push(&mut self, entry: &Entry) -> Result<(), Text> {
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.sq.queue().push(entry) };
        pushed.map_err(|_| text!("the SQ is full below its depth"))
    }

    /// Submits what was pushed and waits for so many CQEs. False if the ring
    /// wants completions to be reaped first.
    pub fn submit_and_wait(&mut self, want: u32) -> Result<bool, Text> {
        let deadline = MACHINE.now() + PATIENCE;
        match self.drive.enter(self.sq.ready(), want, deadline) {
            Ok(_) => Ok(true),
            Err(Errno::EBUSY) => Ok(false),
            Err(Errno::ETIME) => Err(text!("no completion in {} s", PATIENCE / 1_000_000_000)),
            Err(errno) => Err(text!("entering the ring: {errno:?}")),
        }
    }

    /// What has completed.
    pub fn completions(&mut self) -> CompletionQueue<'_, 'm> {
        self.cq.queue()
    }

    /// Carries one request out: its result.
    ///
    /// # Safety
    /// What it names stays valid until the ring has ended.
    pub unsafe fn one(&mut self, entry: Entry) -> Result<i32, Text> {
        const MARK: u64 = 0x006f_6e65_u64;
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry.user_data(MARK))? };
        loop {
            self.submit_and_wait(1)?;
            if let Some(cqe) = self.completions().next() {
                return match cqe.user_data() {
                    MARK => Ok(cqe.result()),
                    other => Err(text!("a completion of {other:#x}, which is not in flight")),
                };
            }
        }
    }

    /// Registers buffers.
    ///
    /// # Safety
    /// They stay valid until the ring has ended.
    pub unsafe fn register_buffers(&mut self, buffers: &[Iovec]) -> Result<(), Text> {
        // SAFETY: the caller's promise.
        let done = unsafe { self.drive.call(Call::RegisterBuffers(buffers)) };
        done.map(|_| ()).map_err(|e| text!("registering {} buffers: {e:?}", buffers.len()))
    }
}

/// A ring to be made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Requests in flight.
    pub depth: u32,
    /// Places for registered buffers.
    pub buffers: u32,
    /// Driven by the second core.
    pub sqpoll: bool,
    /// After so many ms without work that core sleeps.
    pub idle_ms: u32,
}

impl Setup {
    /// Of so many requests, driven inline.
    pub fn new(depth: u32) -> Self {
        Self { depth, buffers: depth, sqpoll: false, idle_ms: 20 }
    }

    /// Driven by the second core, if so.
    pub fn sqpoll(mut self, yes: bool) -> Self {
        self.sqpoll = yes;
        self
    }

    fn config(&self) -> Config {
        let mode = match self.sqpoll {
            true => Mode::SqPoll { idle_ms: self.idle_ms },
            false => Mode::Inline,
        };
        let entries = self.depth.next_power_of_two();
        let config = Config::new(entries).requests(self.depth).buffers(self.buffers);
        config.files(1).submit_all(true).mode(mode)
    }

    /// Makes a ring over what `backend` makes, whose device's interrupts come
    /// to the `line` of it; runs `body` with it, ends it, and asks its backend `after`.
    pub fn run<B: Backend + Send, R, S>(
        &self,
        line: impl FnOnce(&B) -> &'static Line,
        backend: impl FnOnce() -> Result<B, Text>,
        body: impl FnOnce(&mut App<'_, '_>) -> Result<R, Text>,
        after: impl FnOnce(&B) -> S,
    ) -> Result<(R, S), Text>
    where
        B::File: Send,
        B::Buffer: Send,
    {
        let config = self.config();
        let own = backend()?;
        let host = MACHINE.with_interrupt(line(&own));
        let need = footprint::<B, _>(&config, &host);
        let mut region = Region::new(need)?;
        let memory = Memory::new(region.uninit());
        let parts = build(&config, memory, RingMemory::Inside, host, |_: Completer<'_, _>| own);
        let Parts { mut engine, mut sq, mut cq, mut remote } =
            parts.map_err(|e| text!("a ring of {} requests: {e}", self.depth))?;
        let (sq, cq) = (&mut sq, &mut cq);
        let result = match self.sqpoll {
            false => {
                let mut drive = Inline(&mut engine);
                body(&mut App { sq, cq, drive: &mut drive })
            }
            true => {
                let stop = remote;
                let here = || {
                    let result = body(&mut App { sq, cq, drive: &mut remote });
                    stop.stop();
                    result
                };
                let done = second::meanwhile(|| engine.poll_loop(), here);
                done.unwrap_or_else(|| Err(text!("the machine has no second core")))
            }
        };
        // What is in flight ends before its memory goes.
        engine.shutdown();
        let said = after(engine.backend());
        result.map(|result| (result, said))
    }
}

fn footprint<B: Backend, H: Host>(config: &Config, _: &H) -> usize {
    Footprint::of::<B, H>(config).total()
}
