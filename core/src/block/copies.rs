//! Data that lie where the device does not reach.

use super::NONE;
use super::bounce::Bounce;
use super::medium::Transfer;
use super::vectors::{self, FreeVectors, Vectors};
use crate::errno::Errno;
use crate::hal::device::{Coherent, Dma};
use crate::hal::{Kept, Request, Start};
use crate::uapi;

/// Where the data of a request are.
#[derive(Clone, Copy, Debug)]
pub enum Source<B> {
    /// There are none.
    None,
    /// In a registered buffer.
    Mapped(B),
    /// In memory that the device does not reach, in one piece.
    Copied,
    /// The same, in pieces: this block of vectors.
    Vectors(u16),
}

impl<B> Source<B> {
    /// Whether the data go through a chunk of the bounce memory.
    pub const fn is_copied(&self) -> bool {
        matches!(self, Self::Copied | Self::Vectors(_))
    }
}

/// What a ring has for such data: a fixed number of bounce buffers (chunks),
/// each for one part of a request at a time, and room for `iovec` arrays.
#[derive(Debug)]
pub struct Copies<'m> {
    bounce: Bounce,
    vectors: &'m mut [Vectors],
    free: FreeVectors,
}

impl<'m> Copies<'m> {
    /// `count` chunks of `bytes`, a multiple of a page, at most 256 of them;
    /// `vectors`: room for the READVs and WRITEVs in flight.
    ///
    /// # Errors
    /// Those of [`Dma::alloc`].
    pub fn new(
        dma: &impl Dma,
        count: usize,
        bytes: usize,
        vectors: &'m mut [Vectors],
    ) -> Result<Self, Errno> {
        let bounce = Bounce::new(dma, count, bytes)?;
        let free = FreeVectors::new(vectors);
        Ok(Self { bounce, vectors, free })
    }

    /// Bytes of a chunk; 0 if there are none.
    #[inline]
    pub fn chunk(&self) -> usize {
        self.bounce.chunk()
    }

    /// A free chunk.
    #[inline]
    pub fn take(&mut self) -> Option<u16> {
        self.bounce.take()
    }

    /// Where the device finds a chunk.
    ///
    /// # Panics
    /// If no chunk has this number.
    #[inline]
    pub fn device(&self, chunk: u16) -> u64 {
        self.bounce.at(chunk).1
    }

    /// What a driver does for [`Backend::keep`](crate::hal::Backend::keep): of a
    /// READV or WRITEV the `len` vectors at `addr` are copied into a block, which
    /// the request has as `kept` until it starts or is
    /// [forgotten](Self::forget).
    ///
    /// # Errors
    /// What the request is refused with, `ENOMEM` while others have all blocks.
    ///
    /// # Safety
    /// There are as many vectors.
    pub unsafe fn keep(
        &mut self,
        kept: &mut u16,
        opcode: u8,
        addr: u64,
        len: u32,
    ) -> Result<Kept, Errno> {
        match opcode {
            uapi::IORING_OP_READ | uapi::IORING_OP_WRITE => return Ok(Kept { addr, bytes: len }),
            uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV => {}
            _ => return Err(Errno::EINVAL),
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { vectors::bytes(addr, len) }?;
        let index = self.free.take(self.vectors).ok_or(Errno::ENOMEM)?;
        // SAFETY: as above.
        self.vectors[usize::from(index)].fill(unsafe { vectors::segments(addr, len) });
        *kept = index;
        Ok(Kept { addr, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) })
    }

    /// Takes back what a request has kept, if it has not started.
    pub fn forget(&mut self, kept: &mut u16) {
        let index = core::mem::replace(kept, NONE);
        if index != NONE {
            self.free.put(self.vectors, index);
        }
    }

    /// The bytes of a read or write, of vectors those that it has `kept`, if it
    /// has.
    ///
    /// # Errors
    /// What it is refused with.
    ///
    /// # Safety
    /// A vectored request's array of `iovec`s is valid, unless it was kept.
    pub unsafe fn bytes<F, M>(&self, kept: u16, request: &Request<F, M>) -> Result<u64, Start> {
        match request.opcode {
            uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV => {}
            _ => return Ok(request.len.into()),
        }
        match self.vectors.get(usize::from(kept)) {
            Some(vectors) => Ok(vectors.bytes()),
            // SAFETY: the caller's promise.
            None => unsafe { vectors::bytes(request.addr, request.len) }
                .map_err(|errno| Start::Refused(errno.to_result())),
        }
    }

    /// How the data of a request will be copied, and the address that
    /// [`fill`](Self::fill) and [`empty`](Self::empty) are told for its first
    /// part: where the memory is, or 0 in that of the vectors, those that it has
    /// `kept`, if it has.
    ///
    /// # Errors
    /// What the request ends with, or [`Start::NoRoom`] while other requests
    /// have all the room for vectors.
    ///
    /// # Safety
    /// `transfer` is what [`Medium::transfer`](super::Medium::transfer) has
    /// made of the request; a vectored one's array of `iovec`s is valid, unless
    /// it was kept.
    pub unsafe fn plan<F, M, B>(
        &mut self,
        kept: &mut u16,
        request: &Request<F, M>,
        transfer: &Transfer,
    ) -> Result<(Source<B>, usize), Start> {
        if self.chunk() == 0 {
            return Err(Start::Done(Errno::EFAULT.to_result()));
        }
        if !transfer.vectored {
            return Ok((Source::Copied, transfer.addr));
        }
        if *kept != NONE {
            return Ok((Source::Vectors(core::mem::replace(kept, NONE)), 0));
        }
        let Some(index) = self.free.take(self.vectors) else {
            return Err(if self.vectors.is_empty() {
                Start::Done(Errno::ENOMEM.to_result())
            } else {
                Start::NoRoom
            });
        };
        // SAFETY: the caller's promise.
        let segments = unsafe { vectors::segments(request.addr, request.len) };
        self.vectors[usize::from(index)].fill(segments);
        Ok((Source::Vectors(index), 0))
    }

    /// Copies the `len` bytes of a part into its chunk, for a device that reads
    /// them.
    ///
    /// `addr` is that of the part in memory in one piece; with vectors it is
    /// how many of their bytes the parts before it have used.
    ///
    /// # Panics
    /// If no chunk has this number.
    ///
    /// # Safety
    /// The request's memory is valid, the chunk is this request's and the
    /// device does not use it, and `len` is no more than [`chunk`](Self::chunk).
    pub unsafe fn fill<B>(&self, chunk: u16, source: &Source<B>, addr: usize, len: usize) {
        let (at, _) = self.bounce.at(chunk);
        self.pieces(source, addr, len, |skip, addr, len| {
            let from = core::ptr::with_exposed_provenance::<u8>(addr);
            // SAFETY: the caller's promise.
            unsafe { core::ptr::copy_nonoverlapping(from, at.add(skip), len) };
        });
    }

    /// Copies the `len` bytes of a part out of its chunk, when the device has
    /// written them.
    ///
    /// # Panics
    /// As [`fill`](Self::fill).
    ///
    /// # Safety
    /// As for [`fill`](Self::fill).
    pub unsafe fn empty<B>(&self, chunk: u16, source: &Source<B>, addr: usize, len: usize) {
        let (at, _) = self.bounce.at(chunk);
        self.pieces(source, addr, len, |skip, addr, len| {
            let to = core::ptr::with_exposed_provenance_mut::<u8>(addr);
            // SAFETY: as above.
            unsafe { core::ptr::copy_nonoverlapping(at.add(skip), to, len) };
        });
    }

    /// Calls `f` for each piece of the memory of a part: where it lies in the
    /// chunk, its address, its length.
    fn pieces<B>(
        &self,
        source: &Source<B>,
        addr: usize,
        len: usize,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        debug_assert!(len <= self.chunk());
        let mut piece = 0;
        match source {
            Source::Vectors(block) => {
                self.vectors[usize::from(*block)].pieces(addr, len, |addr, len| {
                    f(piece, addr, len);
                    piece += len;
                });
            }
            _ => f(0, addr, len),
        }
    }

    /// Takes back what a request has, if it has anything, and leaves nothing.
    pub fn give_back<B>(&mut self, chunk: &mut u16, source: &mut Source<B>) {
        let chunk = core::mem::replace(chunk, NONE);
        if chunk != NONE {
            self.bounce.put(chunk);
        }
        if let Source::Vectors(block) = core::mem::replace(source, Source::None) {
            self.free.put(self.vectors, block);
        }
    }

    /// The chunks' memory, for when the driver ends: the device must not use it
    /// any more when it is freed. There are no chunks then.
    pub fn take_memory(&mut self) -> Option<Coherent> {
        self.bounce.take_memory()
    }
}
