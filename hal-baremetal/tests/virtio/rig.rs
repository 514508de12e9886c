//! Disks on the fake, and requests to them without an engine: what is asked
//! for is answered once.

#[path = "../../../core/tests/nvme/lent.rs"]
mod lent;

use crate::fake::{Device, Fake, Plug, Setup};
use annulus::errno::Errno;
use annulus::hal::{Backend, Request, Start, Target, Token};
use annulus::types::Iovec;
use annulus::uapi;
use annulus_baremetal::virtio::{
    Completions, Disk, DiskBackend, DiskFile, Error, Options, QueueOptions, Tracker, Transport,
    Vectors,
};
use std::alloc::Layout;
use std::any::Any;
use std::sync::{Arc, MutexGuard};

/// Memory for data, on a page, whose provenance is exposed.
pub struct Chunk {
    at: *mut u8,
    len: usize,
}

impl Chunk {
    pub fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, 4096).unwrap();
        // SAFETY: not of size 0.
        let at = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!at.is_null(), "memory for the test");
        at.expose_provenance();
        Self { at, len }
    }

    pub fn addr(&self) -> usize {
        self.at.addr()
    }

    pub fn pointer(&self) -> *mut u8 {
        self.at
    }

    pub fn put(&self, skip: usize, bytes: &[u8]) {
        assert!(skip + bytes.len() <= self.len);
        // SAFETY: inside, and no request is in flight here.
        unsafe { self.at.add(skip).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub fn get(&self, skip: usize, len: usize) -> Vec<u8> {
        assert!(skip + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: as above.
        unsafe { self.at.add(skip).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let layout = Layout::from_size_align(self.len, 4096).unwrap();
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.at, layout) }
    }
}

pub type Shared<T, const SYNC: bool> = Arc<Disk<Plug<SYNC>, T>>;
pub type OnDisk<T, const SYNC: bool> = DiskBackend<'static, Plug<SYNC>, T, Shared<T, SYNC>>;
type Buffer<const SYNC: bool> = <Plug<SYNC> as annulus::hal::device::Dma>::Buffer;

/// A request without its memory.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub opcode: u8,
    pub addr: u64,
    pub len: u32,
    pub off: u64,
    pub flags: u32,
    pub registered: bool,
}

impl Ask {
    pub fn new(opcode: u8, addr: usize, len: usize, off: u64) -> Self {
        let registered = matches!(opcode, uapi::IORING_OP_READ_FIXED | uapi::IORING_OP_WRITE_FIXED);
        Self { opcode, addr: addr as u64, len: len as u32, off, flags: 0, registered }
    }

    pub fn flush() -> Self {
        Self::new(uapi::IORING_OP_FSYNC, 0, 0, 0)
    }

    pub fn allocate(mode: i32, off: u64, bytes: u64) -> Self {
        let mut ask = Self::new(uapi::IORING_OP_FALLOCATE, 0, 0, off);
        (ask.len, ask.addr) = (mode as u32, bytes);
        ask
    }
}

/// One ring's backend, with a registered buffer.
pub struct Side<T: Transport, const SYNC: bool = false> {
    /// In a box: what a function takes by value has its references protected until
    /// it returns, and `end` gives the memory behind them back before.
    pub backend: Option<Box<OnDisk<T, SYNC>>>,
    pub fake: Arc<Fake>,
    pub buffer: Chunk,
    mapped: Buffer<SYNC>,
    /// In flight: which slots.
    pub asked: Vec<bool>,
    generation: u32,
    /// What has ended: slot and result.
    pub ended: Vec<(usize, i32)>,
    /// Freed when the backend has ended.
    _lent: [Box<dyn Any>; 2],
}

/// Bytes of the registered buffer.
pub const REGISTERED: usize = if cfg!(any(miri, fuzzing)) { 64 << 10 } else { 256 << 10 };

pub fn polled() -> QueueOptions {
    QueueOptions {
        depth: 16,
        completions: Completions::Polled,
        segments: 6,
        max_transfer: 64 << 10,
        bounce_buffers: 4,
        bounce_bytes: 8192,
    }
}

pub fn quick() -> Options {
    Options { timeout_ms: 200, ..Options::default() }
}

pub fn disk<T: Transport, const SYNC: bool>(
    fake: &Arc<Fake>,
    transport: T,
    options: Options,
) -> Result<Shared<T, SYNC>, Error> {
    Ok(Arc::new(Disk::new(Plug(fake.clone()), transport, options)?))
}

impl<T: Transport, const SYNC: bool> Side<T, SYNC> {
    pub fn new(
        disk: &Shared<T, SYNC>,
        options: &QueueOptions,
        requests: usize,
    ) -> Result<Self, Error> {
        let fake = disk.platform().0.clone();
        let trackers = Lent::new((0..=requests).map(|_| Tracker::new()));
        let vectors = Lent::new((0..2).map(|_| Vectors::new()));
        // SAFETY: lent once, to a backend that ends before it gives them back.
        let lent = unsafe { (trackers.lend(), vectors.lend()) };
        let mut backend = DiskBackend::new(disk.clone(), options, lent.0, lent.1)?;
        let lent: [Box<dyn Any>; 2] = [Box::new(trackers), Box::new(vectors)];
        let buffer = Chunk::new(REGISTERED);
        // SAFETY: unmapped before it is freed.
        let mapped = unsafe { backend.map(buffer.addr(), REGISTERED) }.unwrap();
        let asked = vec![false; requests + 1];
        let (generation, ended) = (0, Vec::new());
        let backend = Some(Box::new(backend));
        Ok(Self { backend, fake, buffer, mapped, asked, generation, ended, _lent: lent })
    }

    pub fn device(&self) -> MutexGuard<'_, Device> {
        self.fake.device()
    }

    pub fn backend(&mut self) -> &mut OnDisk<T, SYNC> {
        self.backend.as_mut().unwrap()
    }

    /// Starts a request in a free slot. The result if it has ended at once.
    pub fn start(&mut self, ask: Ask) -> Result<usize, Start> {
        let slot = self.asked.iter().position(|asked| !asked).expect("a free slot");
        self.generation = (self.generation + 1) % (1 << 14);
        let token = Token::from_raw(slot as u32 | self.generation << 18);
        let file = self.backend().open(0).unwrap();
        let request = Request::<DiskFile, _> {
            opcode: ask.opcode,
            flags: 0,
            fallback: false,
            target: if slot % 2 == 0 { Target::Fd(0) } else { Target::Registered(file) },
            buffer: ask.registered.then_some(self.mapped),
            addr: ask.addr,
            len: ask.len,
            off: ask.off,
            op_flags: ask.flags,
            direct: false,
        };
        // SAFETY: the test keeps the memory until the request has ended.
        match unsafe { self.backend().start(token, &request) } {
            Start::Pending => {
                self.asked[slot] = true;
                Ok(slot)
            }
            other => Err(other),
        }
    }

    /// Starts one for which there is something to do.
    pub fn pending(&mut self, ask: Ask) -> usize {
        self.start(ask).expect("pending")
    }

    pub fn kick(&mut self) {
        self.backend().kick();
    }

    /// Looks for what has ended.
    pub fn poll(&mut self) {
        let Self { backend, asked, ended, .. } = self;
        backend.as_mut().unwrap().poll(|token, result| {
            assert!(std::mem::take(&mut asked[token.index()]), "ended twice, or never began");
            ended.push((token.index(), result));
        });
    }

    /// Sleeps until it is to look again, as an engine does, and looks.
    pub fn wait(&mut self) {
        let deadline = self.backend().deadline();
        let mut device = self.device();
        device.now = device.now.max(deadline.unwrap_or(0));
        drop(device);
        self.poll();
    }

    pub fn busy(&self) -> bool {
        self.asked.contains(&true)
    }

    /// Until nothing is in flight.
    pub fn finish(&mut self) {
        let mut rounds = 0;
        while self.busy() {
            self.device().run();
            self.poll();
            rounds += 1;
            if rounds % 8 == 0 && self.busy() {
                self.wait();
            }
            if rounds == 10_000 {
                panic!("requests that never end: {:?}, {:?}", self.backend, self.device().faults());
            }
        }
    }

    /// One request, to its end.
    pub fn run(&mut self, ask: Ask) -> i32 {
        match self.start(ask) {
            Err(Start::Done(result) | Start::Refused(result)) => result,
            Err(other) => panic!("{other:?}"),
            Ok(slot) => {
                self.kick();
                self.finish();
                let at = self.ended.iter().rposition(|(ended, _)| *ended == slot).unwrap();
                self.ended.remove(at).1
            }
        }
    }

    /// Ends the ring.
    pub fn end(mut self) {
        let mapped = self.mapped;
        self.backend().unmap(mapped);
    }
}

impl<T: Transport, const SYNC: bool> Drop for Side<T, SYNC> {
    fn drop(&mut self) {
        // Before the memory that is registered with it.
        self.backend = None;
    }
}

pub fn iovec(addr: usize, len: usize) -> Iovec {
    Iovec { base: std::ptr::with_exposed_provenance_mut(addr), len }
}

pub fn errno(errno: Errno) -> i32 {
    errno.to_result()
}

pub use crate::fake::noise;
pub use lent::Lent;

/// A device of the usual kind.
pub fn fake(setup: Setup) -> Arc<Fake> {
    Fake::new(1, setup)
}
