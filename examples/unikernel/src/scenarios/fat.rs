//! A file system on a ring: `embedded-sdmmc` on a volume that the host has
//! made, and looks at afterwards.

use core::cell::RefCell;

use annulus::errno::Errno;
use annulus::opcode;
use annulus::squeue::Entry;
use annulus::types::{Fd, Iovec};
use annulus_unikernel::fat::{NoCalendar, Volumes, work};
use annulus_unikernel::script::Line;
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};

use super::Outcome;
use crate::disks::{OnDisk, Scratch, Storage, Way, on_disk};
use crate::memory::Region;
use crate::ring::{App, Setup};
use crate::text;
use crate::text::Text;

/// What a request moves at most.
const BUFFER: usize = 64 * Block::LEN;

/// A disk as the file system sees it: blocks, read and written through a ring
/// by way of a registered buffer.
struct RingDisk<'d, 'a, 'm> {
    /// The file system asks by `&self`.
    inner: RefCell<Inner<'d, 'a, 'm>>,
    blocks: u32,
}

struct Inner<'d, 'a, 'm> {
    app: &'d mut App<'a, 'm>,
    fd: Fd,
    buffer: &'d mut [u8],
    requests: u32,
}

/// A request that was not carried out.
#[derive(Debug, thiserror::Error)]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put it on")]
enum Trouble {
    #[error("{what} {len} bytes at {at}: {errno:?}")]
    Failed { what: &'static str, at: u64, len: usize, errno: Errno },
    #[error("{what} {len} bytes at {at}: only {done}")]
    Short { what: &'static str, at: u64, len: usize, done: i32 },
    #[error("{0}")]
    Ring(Text),
}

impl Inner<'_, '_, '_> {
    /// Carries out a request that moves `len` bytes.
    fn carry(
        &mut self,
        what: &'static str,
        at: u64,
        len: usize,
        make: impl FnOnce(Fd, *mut u8) -> Entry,
    ) -> Result<(), Trouble> {
        self.requests += 1;
        let entry = make(self.fd, self.buffer.as_mut_ptr());
        // SAFETY: the buffer outlives the ring (`on_ring`).
        match unsafe { self.app.one(entry) }.map_err(Trouble::Ring)? {
            done if done == len as i32 => Ok(()),
            done @ 0.. => Err(Trouble::Short { what, at, len, done }),
            errno => Err(Trouble::Failed { what, at, len, errno: Errno::from_raw(-errno) }),
        }
    }
}

impl BlockDevice for RingDisk<'_, '_, '_> {
    type Error = Trouble;

    fn read(&self, blocks: &mut [Block], first: BlockIdx) -> Result<(), Trouble> {
        let mut inner = self.inner.borrow_mut();
        let mut at = first.into_bytes();
        for some in blocks.chunks_mut(BUFFER / Block::LEN) {
            let len = some.len() * Block::LEN;
            inner.carry("reading", at, len, |fd, to| {
                opcode::ReadFixed::new(fd, to, len as u32, 0).offset(at).build()
            })?;
            for (block, bytes) in some.iter_mut().zip(inner.buffer.chunks_exact(Block::LEN)) {
                block.contents.copy_from_slice(bytes);
            }
            at += len as u64;
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], first: BlockIdx) -> Result<(), Trouble> {
        let mut inner = self.inner.borrow_mut();
        let mut at = first.into_bytes();
        for some in blocks.chunks(BUFFER / Block::LEN) {
            for (block, bytes) in some.iter().zip(inner.buffer.chunks_exact_mut(Block::LEN)) {
                bytes.copy_from_slice(&block.contents);
            }
            let len = some.len() * Block::LEN;
            inner.carry("writing", at, len, |fd, from| {
                opcode::WriteFixed::new(fd, from, len as u32, 0).offset(at).build()
            })?;
            at += len as u64;
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Trouble> {
        Ok(BlockCount(self.blocks))
    }
}

/// The host's volume is read and changed, through a ring driven as `mode=` and
/// `completions=` say.
pub fn fat(line: &Line<'_>) -> Outcome {
    struct Fat;
    impl OnDisk for Fat {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            const DEPTH: u32 = 8;
            let info = disk.info();
            if info.block as usize != Block::LEN {
                return Err(text!("blocks of {} bytes, and the crate knows of 512", info.block));
            }
            let sqpoll = line.word("mode") == Some("sqpoll");
            let way = Way::of(line)?;
            let mut scratch = Scratch::new()?;
            let mut buffer = Region::new(BUFFER)?;
            let setup = Setup::new(DEPTH).sqpoll(sqpoll);
            let done = setup.run(
                |backend| S::line(backend, 0),
                || disk.backend(0, DEPTH, way, &mut scratch),
                // SAFETY: the buffer outlives the ring.
                |app| unsafe { on_ring(app, info.fd, info.bytes, &mut buffer) },
                |_| (),
            );
            done.map(|(said, ())| said)
        }
    }
    on_disk(&Fat, line)
}

/// Works on the volume of a disk of `bytes`, and makes it last (FSYNC).
///
/// # Safety
/// The buffer outlives the ring.
unsafe fn on_ring(
    app: &mut App<'_, '_>,
    fd: Fd,
    bytes: u64,
    buffer: &mut Region,
) -> Result<Text, Text> {
    let iovec = Iovec { base: buffer.as_mut_ptr().cast(), len: BUFFER };
    // SAFETY: the caller's promise.
    unsafe { app.register_buffers(&[iovec])? };
    let blocks = u32::try_from(bytes / Block::LEN as u64).unwrap_or(u32::MAX);
    let inner = Inner { app, fd, buffer: &mut buffer[..BUFFER], requests: 0 };
    let disk = RingDisk { inner: RefCell::new(inner), blocks };
    let volumes = Volumes::new_with_limits(disk, NoCalendar, 1);
    let tally = work(&volumes).map_err(|why| text!("{why}"))?;
    let (disk, _) = volumes.free();
    let mut inner = disk.inner.into_inner();
    let flushed = inner.carry("flushing", 0, 0, |fd, _| opcode::Fsync::new(fd).build());
    flushed.map_err(|why| text!("{why}"))?;
    let requests = inner.requests;
    Ok(text!("{} bytes read, {} written, {requests} requests", tally.read, tally.written))
}
