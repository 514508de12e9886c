//! From an empty kernel to a verified read: the code of `docs/embedding.md`.
#![no_std]

use core::fmt;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;

use annulus::config::{Config, ConfigError, Footprint};
use annulus::engine::{EnterFlags, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::device::Span;
use annulus::register::Call;
use annulus::types::{Fd, Iovec};
use annulus::{opcode, squeue};
use annulus_baremetal::virtio::{self, DiskBackend, MmioTransport, Tracker};
use annulus_baremetal::{Arena, Machine, Platform, Window};

/// What this kernel knows of its machine.
pub struct Kernel {
    /// Nanoseconds since power-on.
    pub clock: fn() -> u64,
    /// Memory that is mapped one to one, and that devices reach.
    pub memory: Range<usize>,
    /// Device registers, mapped one to one as device memory.
    pub devices: Range<u64>,
    /// Pages that are for devices alone.
    pub pages: Arena<'static>,
}

// SAFETY: `memory` and `devices` are what their comments say, for ever, and
// have nothing in common; an arena's pages are its own.
unsafe impl Platform for Kernel {
    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn device_address(&self, addr: usize) -> Option<Span> {
        let len = self.memory.end.checked_sub(addr)?;
        self.memory.contains(&addr).then_some(Span { device: addr as u64, len })
    }

    fn alloc(&self, pages: usize) -> Option<NonNull<u8>> {
        self.pages.alloc(pages)
    }

    unsafe fn free(&self, memory: NonNull<u8>, pages: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.pages.free(memory, pages) }
    }

    fn registers(&self, physical: u64, len: usize) -> Option<NonNull<u8>> {
        let end = physical.checked_add(len as u64)?;
        let ours = self.devices.contains(&physical) && end <= self.devices.end;
        ours.then(|| NonNull::new(physical as usize as *mut u8)).flatten()
    }
}

const REQUESTS: u32 = 8;

/// A ring of 8 entries with 8 requests and one registered buffer.
pub const CONFIG: Config = Config::new(8).requests(REQUESTS).buffers(1).held(false);

/// What the driver keeps of a request: one each, and one for the reserve.
const TRACKERS: usize = REQUESTS as usize + 1;

type Host<'k> = Machine<&'k Kernel>;
type Disk<'k> = virtio::Disk<Host<'k>, MmioTransport<Window>>;
type Backend<'d, 'k> = DiskBackend<'d, Host<'k>, MmioTransport<Window>, &'d Disk<'k>>;
type Buffer = annulus_baremetal::Mapped;

/// Bytes of the ring and its engine.
pub const RING: usize = Footprint::of::<Backend<'_, '_>, Host<'_>>(&CONFIG).total();

/// All that is needed besides the pages: the ring, the driver's records of its
/// requests, the driver, and what holds them together.
pub const FOOTPRINT: usize = RING
    + size_of::<[Tracker<Buffer>; TRACKERS]>()
    + size_of::<Disk<'_>>()
    + size_of::<Parts<'_, Backend<'_, '_>, Host<'_>>>();

const _: () = assert!(cfg!(not(target_pointer_width = "64")) || RING <= 3 << 10);
const _: () = assert!(cfg!(not(target_pointer_width = "64")) || FOOTPRINT <= 9 << 10);

/// Memory for the ring, on a cache line.
#[repr(align(64))]
struct RingBytes([MaybeUninit<u8>; RING]);

/// Looks for a disk at these places of virtio-mmio.
pub fn find<'k>(
    machine: Host<'k>,
    places: impl IntoIterator<Item = u64>,
) -> Result<Disk<'k>, Error> {
    let options = virtio::Options { queue_size: 8, ..Default::default() };
    let mut why = Error::NoDisk;
    for place in places {
        let registers = machine.window(place, 0x200).ok_or(Error::Unmapped(place))?;
        let disk = MmioTransport::new(registers)
            .and_then(|transport| virtio::Disk::new(machine, transport, options));
        match disk {
            Ok(disk) => return Ok(disk),
            Err(virtio::Error::NoDevice { .. }) => {}
            Err(error) => why = Error::Disk(error),
        }
    }
    Err(why)
}

/// Bytes to write, and room to read them back.
const BYTES: usize = 4096;

#[repr(align(4096))]
struct Data([[u8; BYTES]; 2]);

/// Writes the disk's first 4 KiB through a ring, reads them back, compares.
pub fn verified_read(machine: Host<'_>, disk: &Disk<'_>) -> Result<(), Error> {
    let options = virtio::QueueOptions {
        depth: REQUESTS,
        // All memory is registered, so none goes through bounce buffers.
        bounce_buffers: 0,
        ..Default::default()
    };
    let mut trackers = [const { Tracker::new() }; TRACKERS];
    let backend = DiskBackend::new(disk, &options, &mut trackers, &mut [])?;
    let mut data = Data([[0; BYTES]; 2]);
    let iovec = Iovec { base: data.0.as_mut_ptr().cast(), len: 2 * BYTES };
    let [written, read] = &mut data.0;
    for (at, byte) in written.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }

    let mut memory = RingBytes([MaybeUninit::uninit(); RING]);
    let memory = Memory::new(&mut memory.0);
    let mut ring = build(&CONFIG, memory, RingMemory::Inside, machine, |_| backend)?;
    // SAFETY: `data` outlives the ring, and nothing else uses it meanwhile.
    unsafe { ring.engine.call(Call::RegisterBuffers(&[iovec])) }.map_err(Error::Register)?;

    let disk = Fd(0);
    let len = BYTES as u32;
    // SAFETY: each waits for its completion; the memory stays.
    unsafe {
        wait(&mut ring, opcode::WriteFixed::new(disk, written.as_ptr(), len, 0).build())?;
        wait(&mut ring, opcode::Fsync::new(disk).build())?;
        wait(&mut ring, opcode::ReadFixed::new(disk, read.as_mut_ptr(), len, 0).build())?;
    }
    match written.iter().zip(read.iter()).position(|(written, read)| written != read) {
        None => Ok(()),
        Some(at) => Err(Error::Different(at)),
    }
}

/// Submits one request and waits for its end.
///
/// # Safety
/// The memory that the entry names stays until this returns.
unsafe fn wait(
    ring: &mut Parts<'_, Backend<'_, '_>, Host<'_>>,
    entry: squeue::Entry,
) -> Result<u32, Error> {
    // SAFETY: the caller's promise.
    unsafe { ring.sq.queue().push(&entry) }.map_err(|_| Error::Full)?;
    ring.engine.enter(1, 1, EnterFlags::GETEVENTS, None).map_err(Error::Enter)?;
    let result = ring.cq.queue().next().ok_or(Error::Full)?.result();
    u32::try_from(result).map_err(|_| Error::Request(Errno::from_raw(-result)))
}

/// What went wrong, and where.
#[derive(Debug)]
pub enum Error {
    /// At no place is a disk.
    NoDisk,
    /// The place is not in [`Kernel::devices`].
    Unmapped(u64),
    /// The disk, as its driver says.
    Disk(virtio::Error),
    /// The ring's memory.
    Ring(ConfigError),
    /// The buffer's registration.
    Register(Errno),
    /// A queue, which cannot be.
    Full,
    /// The ring.
    Enter(Errno),
    /// A request.
    Request(Errno),
    /// Other bytes were read than written, first at this one.
    Different(usize),
}

impl From<virtio::Error> for Error {
    fn from(error: virtio::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Ring(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("no place has a disk: add a virtio-blk device"),
            Self::Unmapped(place) => write!(f, "no device registers at {place:#x}"),
            Self::Disk(error) => write!(f, "disk: {error}"),
            Self::Ring(error) => write!(f, "ring: {error}"),
            Self::Register(errno) => write!(f, "registering the buffer: {errno}"),
            Self::Full => f.write_str("a queue is full or empty that cannot be"),
            Self::Enter(errno) => write!(f, "driving the ring: {errno}"),
            Self::Request(errno) => write!(f, "request: {errno}"),
            Self::Different(at) => write!(f, "byte {at} was read other than written"),
        }
    }
}
