//! Memory for the device: allocated, or the application's.
//!
//! # Which mappings there are
//!
//! A container of VFIO's takes 65,535 mappings unless the machine's
//! administrator says otherwise, and every one pins its pages. So
//!
//! * what the driver allocates is cut from arenas of 2 MiB or more, each one
//!   mapping, in huge pages where the machine has some;
//! * a registered buffer is mapped in whole pages, and a further buffer in
//!   memory that live buffers of one mapping cover takes no other: whoever
//!   registers a large memory may cut any number of buffers from it, and whoever
//!   registers neighbours together maps the whole run first and lets it go
//!   when its parts are there.
//!
//! A mapping never reaches further than what was registered, though wider
//! windows around a buffer would save mappings too: the IOMMU holds pages, not
//! addresses, and an application may unmap and remap whatever it did not
//! register. A second buffer there would share a window onto pages that are no
//! longer its own, and its data would go astray without a word.

mod arena;
mod shared;

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::hal::device::{Coherent, PAGE};

use self::arena::{Arena, HUGE, Memory};
use self::shared::Shared;
use super::Error;
use super::device::Interface;
use super::iommu::Iommu;
use super::iova::Space;

pub use self::shared::Buffer;

/// A device's memory.
#[derive(Debug)]
pub struct Pool {
    iommu: Iommu,
    /// Huge pages may be used.
    huge: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    space: Space,
    shared: Shared,
    arenas: Vec<Arena>,
    /// Bytes that are mapped.
    pinned: u64,
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// How many mappings the IOMMU holds.
    pub entries: usize,
    /// Bytes in all of them, which are pinned.
    pub bytes: u64,
}

impl Pool {
    /// # Errors
    /// [`Error::Unsupported`], [`Error::System`].
    pub fn new(iommu: Iommu, huge: bool) -> Result<Self, Error> {
        let offer =
            iommu.offer().map_err(|e| Error::system("the IOMMU does not tell what it maps", e))?;
        let page = rustix::param::page_size() as u64;
        if offer.page > page {
            return Err(Error::Unsupported {
                what: format!(
                    "the IOMMU maps pages of {} bytes, the processor's have {page}; use a kernel \
                     with larger pages",
                    offer.page
                ),
            });
        }
        let state = State {
            space: Space::new(&offer.ranges, page),
            shared: Shared::default(),
            arenas: Vec::new(),
            pinned: 0,
        };
        Ok(Self { iommu, huge, state: Mutex::new(state) })
    }

    /// By which interface it maps.
    pub fn interface(&self) -> Interface {
        match self.iommu {
            Iommu::Type1 { .. } => Interface::Group,
            Iommu::Iommufd { .. } => Interface::Cdev,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the bookkeeping is whole before the next call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mapped(&self) -> Mapped {
        let state = self.state();
        Mapped { entries: state.entries(), bytes: state.pinned }
    }

    /// As [`Dma::alloc`](annulus::hal::device::Dma::alloc).
    pub fn alloc(&self, len: usize) -> Result<Coherent, Error> {
        let no_room = Error::AddressSpace { len };
        let Some(len) = len.max(1).checked_next_multiple_of(PAGE) else { return Err(no_room) };
        let mut state = self.state();
        let piece = match state.arenas.iter_mut().find_map(|arena| arena.take(len)) {
            Some(piece) => piece,
            None => {
                let mut arena = self.arena(&mut state, len)?;
                let piece = arena.take(len).ok_or(no_room)?;
                state.arenas.push(arena);
                piece
            }
        };
        Ok(Coherent { ptr: piece.0, device: piece.1, len })
    }

    /// A new arena with room for `len` bytes.
    fn arena(&self, state: &mut State, len: usize) -> Result<Arena, Error> {
        let exact = len.checked_next_multiple_of(rustix::param::page_size());
        let whole = len.checked_next_multiple_of(HUGE);
        let (Some(exact), Some(whole)) = (exact, whole) else {
            return Err(Error::AddressSpace { len });
        };
        // Huge pages; ordinary ones; and if a limit forbids so many, just the
        // ones that are needed.
        let mut last = None;
        for (len, huge) in [(whole, true), (whole, false), (exact, false)] {
            if huge && !self.huge {
                continue;
            }
            let memory = match Memory::new(len, huge) {
                Ok(memory) => memory,
                Err(e) => {
                    let what = format!("no memory for the device ({len} bytes)");
                    last = Some(Error::system(what, e));
                    continue;
                }
            };
            let pages = memory.addr()..memory.addr() + len;
            // SAFETY: our own memory, which stays as long as the mapping.
            match unsafe { self.pin(state, &pages) } {
                Ok(iova) => return Ok(Arena::new(memory, iova)),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or(Error::AddressSpace { len }))
    }

    /// As [`Dma::free`](annulus::hal::device::Dma::free).
    ///
    /// # Errors
    /// `ioctl(2)`'s, if the device may still reach the memory.
    pub fn free(&self, memory: &Coherent) -> io::Result<()> {
        let addr = memory.ptr.as_ptr().addr();
        let mut state = self.state();
        let Some(at) = state.arenas.iter().position(|arena| arena.contains(addr)) else {
            debug_assert!(false, "memory of another device");
            return Ok(());
        };
        state.arenas[at].give(addr, memory.len);
        // One is kept: a driver that starts anew needs it again.
        if !state.arenas[at].is_unused() || state.arenas.len() == 1 {
            return Ok(());
        }
        let arena = state.arenas.swap_remove(at);
        self.unpin(&mut state, arena.iova, arena.len())
    }

    /// As [`Dma::map`](annulus::hal::device::Dma::map).
    ///
    /// # Safety
    /// As there.
    pub unsafe fn map(&self, addr: usize, len: usize) -> Result<Buffer, Error> {
        let page = rustix::param::page_size();
        let fault = Error::Fault { addr, len };
        let end = addr.checked_add(len).and_then(|end| end.checked_next_multiple_of(page));
        let Some(end) = end.filter(|_| len != 0) else { return Err(fault) };
        let pages = addr & !(page - 1)..end;
        let mut state = self.state();
        if let Some(buffer) = state.shared.share(&pages) {
            return Ok(buffer);
        }
        // SAFETY: the caller's promise; a page belongs to the process whole.
        let iova = unsafe { self.pin(&mut state, &pages) }.map_err(|e| match e {
            // As it was asked for, not rounded.
            Error::Fault { .. } => fault,
            other => other,
        })?;
        Ok(state.shared.insert(&pages, iova))
    }

    /// As [`Dma::unmap`](annulus::hal::device::Dma::unmap).
    ///
    /// # Errors
    /// `ioctl(2)`'s, if the device may still reach the memory.
    pub fn unmap(&self, buffer: &Buffer) -> io::Result<()> {
        let mut state = self.state();
        match state.shared.release(buffer) {
            Some((iova, len)) => self.unpin(&mut state, iova, len),
            None => Ok(()),
        }
    }

    /// Ends every mapping.
    pub fn clear(&mut self) {
        let mut state = self.state();
        for (iova, len) in state.shared.drain() {
            // The address space is closed next, which ends what stays.
            let _ = self.unpin(&mut state, iova, len);
        }
        for arena in std::mem::take(&mut state.arenas) {
            let _ = self.unpin(&mut state, arena.iova, arena.len());
        }
    }

    /// Maps whole pages at an address that is free.
    ///
    /// # Safety
    /// As [`Iommu::map`].
    unsafe fn pin(&self, state: &mut State, pages: &Range<usize>) -> Result<u64, Error> {
        let len = pages.len();
        let at = state.space.take(len as u64, pages.start as u64);
        let iova = at.ok_or(Error::AddressSpace { len })?;
        // SAFETY: the caller's promise.
        match unsafe { self.iommu.map(pages.start, iova, len) } {
            Ok(()) => {
                state.pinned += len as u64;
                Ok(iova)
            }
            Err(e) => {
                state.space.give(iova, len as u64);
                Err(state.explain(pages, e))
            }
        }
    }

    /// Ends a mapping. If that fails its address is never used again.
    fn unpin(&self, state: &mut State, iova: u64, len: usize) -> io::Result<()> {
        self.iommu.unmap(iova, len)?;
        state.space.give(iova, len as u64);
        state.pinned -= len as u64;
        Ok(())
    }
}

impl State {
    fn entries(&self) -> usize {
        self.shared.len() + self.arenas.len()
    }

    /// Why memory could not be mapped.
    fn explain(&self, pages: &Range<usize>, source: io::Error) -> Error {
        let needed = pages.len() as u64;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        match (source.raw_os_error(), limit) {
            (Some(libc::ENOMEM | libc::EPERM), Some(limit)) => {
                Error::MemoryLimit { needed, pinned: self.pinned, limit }
            }
            (Some(libc::ENOSPC), _) => Error::Entries { entries: self.entries() },
            (Some(libc::EFAULT), _) => Error::Fault { addr: pages.start, len: pages.len() },
            _ => Error::system(format!("cannot map {needed} bytes for the device"), source),
        }
    }
}
