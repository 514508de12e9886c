//! Controllers and rings on the fake.

#[path = "lent.rs"]
mod lent;

use crate::fake::{Device, Fake, Plug, Rng, Setup};
use crate::ring::{Chunk, REGISTERED};
use annulus::config::{Config, Footprint};
use annulus::engine::{Memory, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Clock, Host, Park, Parked};
use annulus::nvme::{
    Completions, Controller, Error, NvmeBackend, Options, QueueOptions, Tracker, Vectors,
};
use annulus::register::Call;
use annulus::sync::{AtomicU32, Ordering};
use annulus::types::Iovec;
use annulus::uapi;
use lent::Lent;
use std::any::Any;
use std::ptr::NonNull;
use std::sync::{Arc, MutexGuard};

/// The machine that a ring runs on: its sleeper lets the device work, or lets
/// the time pass that it asked for.
pub struct Place(Arc<Fake>);

impl Clock for Place {
    fn now(&self) -> u64 {
        Plug::<false>(self.0.clone()).now()
    }
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        if word.load(Ordering::Relaxed) != expected {
            return Parked::Woken;
        }
        let now = self.now();
        let mut device = self.0.device();
        while device.auto && !device.interrupt && device.step() {}
        if std::mem::take(&mut device.interrupt) {
            return Parked::Woken;
        }
        let deadline = deadline.expect("it sleeps, and nothing will wake it");
        device.now = now.max(deadline);
        device.clockwork();
        Parked::TimedOut
    }

    fn unpark(&self, _: &AtomicU32) {}
}

impl Host for Place {}

pub type Ctl<const SYNC: bool> = Arc<Controller<Plug<SYNC>>>;
pub type Backend<const SYNC: bool> = NvmeBackend<'static, Plug<SYNC>, Ctl<SYNC>>;

/// A fake and a controller on it.
pub struct Rig<const SYNC: bool = false> {
    pub fake: Arc<Fake>,
    pub controller: Option<Ctl<SYNC>>,
}

/// A long wait, where nothing but time shall pass.
pub const LONG: u64 = if cfg!(miri) { 400_000_000 } else { 20_000_000 };

pub fn seldom() -> QueueOptions {
    QueueOptions {
        depth: 15,
        completions: Completions::Interrupt(0),
        bounce_buffers: 4,
        bounce_bytes: 8192,
        max_transfer: 1 << 20,
    }
}

pub fn polled() -> QueueOptions {
    QueueOptions { completions: Completions::Polled, ..seldom() }
}

pub fn quick() -> Options {
    Options { pairs: 4, timeout_ms: 200, shadow_doorbells: false, sgl: true }
}

impl<const SYNC: bool> Rig<SYNC> {
    pub fn with(seed: u64, setup: Setup, options: Options) -> Self {
        Self::try_with(Fake::new(seed, setup), options).unwrap()
    }

    pub fn try_with(fake: Arc<Fake>, options: Options) -> Result<Self, Error> {
        let controller = Some(Arc::new(Controller::new(Plug(fake.clone()), options)?));
        Ok(Self { fake, controller })
    }

    pub fn controller(&self) -> &Ctl<SYNC> {
        self.controller.as_ref().unwrap()
    }

    pub fn device(&self) -> MutexGuard<'_, Device> {
        self.fake.device()
    }

    pub fn ring(&self, options: &QueueOptions) -> Ring<SYNC> {
        self.try_ring(options, 32).unwrap()
    }

    pub fn try_ring(&self, options: &QueueOptions, requests: u32) -> Result<Ring<SYNC>, Error> {
        let polled = options.completions == Completions::Polled;
        let config = Config::new(64).requests(requests).files(4).buffers(2).submit_all(true);
        let config = config.iopoll(polled).provided(4, 1);
        let trackers = Lent::new((0..=requests).map(|_| Tracker::new()));
        let vectors = Lent::new((0..4).map(|_| Vectors::new()));
        // SAFETY: lent once, to a ring that ends before it gives them back.
        let lent = unsafe { (trackers.lend(), vectors.lend()) };
        let backend: Backend<SYNC> =
            NvmeBackend::new(self.controller().clone(), options, lent.0, lent.1)?;
        let need = Footprint::of::<Backend<SYNC>, &Place>(&config);
        let chunks = [need.engine(), need.rings].map(|bytes| (Chunk::new(bytes, 64), bytes));
        let [engine, rings] = chunks.each_ref().map(|(chunk, bytes)| {
            // SAFETY: the ring's alone, until it ends.
            unsafe { Memory::from_raw(NonNull::new(chunk.at(0)).unwrap(), *bytes) }
        });
        let host = Lent::new([Place(self.fake.clone())]);
        // SAFETY: as above.
        let place = &unsafe { host.lend() }[0];
        let mut parts = build(&config, engine, RingMemory::At(rings), place, |_| backend).unwrap();
        let registered = Chunk::new(REGISTERED, 4096);
        registered.addr();
        let iovec = Iovec { base: registered.at(0).cast(), len: REGISTERED };
        // SAFETY: the chunk outlives the ring.
        unsafe { parts.engine.call(Call::RegisterBuffers(&[iovec])) }.unwrap();
        let lent: [Box<dyn Any>; 4] =
            [Box::new(trackers), Box::new(vectors), Box::new(chunks), Box::new(host)];
        Ok(Ring::new(self.fake.clone(), parts, registered, lent, polled))
    }

    /// Ends the controller, and looks that all is well.
    pub fn end(mut self) {
        self.fake.patience();
        self.controller = None;
        self.fake.check();
    }
}

/// Bytes that say where they belong: noise, and in each piece its number.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    const PIECE: usize = 512;
    let mut rng = Rng::new(seed);
    let mut noise = Vec::with_capacity(PIECE);
    while noise.len() < PIECE {
        noise.extend_from_slice(&rng.next().to_le_bytes());
    }
    let mut data = Vec::with_capacity(len + PIECE);
    while data.len() < len {
        let number = (data.len() / PIECE) as u32;
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&noise[4..]);
    }
    data.truncate(len);
    data
}

pub fn errno(errno: Errno) -> i32 {
    errno.to_result()
}

pub use crate::ring::{How, On, Ring};
pub use uapi::{
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_NO_HIDE_STALE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
};
