//! Which ring of this process a descriptor names, for messages between rings.
//!
//! A ring has a descriptor as its name: an empty, sealed file in memory, whose
//! inode nobody else has, so that a duplicate names the ring as well. A table
//! tells which ring that is. Who sends a message reads it, and a ring's end waits
//! until nobody does: what is found there lasts as long as it is looked at.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{PoisonError, RwLock};

use annulus::engine::Inbox;
use annulus::errno::Errno;
use annulus::hal::Host;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::guard::ForkGuard;
use crate::host::LinuxHost;
use crate::own::Own;
use crate::sys;

/// Device and inode.
type Name = (u64, u64);

/// A ring.
#[derive(Debug)]
struct Entry {
    inbox: Inbox<'static>,
    /// Its place, where the engine does not ring the bell while the application
    /// is elsewhere.
    bell: Option<&'static LinuxHost>,
}

/// The rings of one process.
#[derive(Debug)]
struct Table {
    guard: ForkGuard,
    rings: RwLock<BTreeMap<Name, Entry>>,
}

/// The calling process's table. Made by its first ring and never freed; a child
/// makes its own, for a lock of the parent's may be held there for ever.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

fn table() -> Option<&'static Table> {
    // Acquire: pairs with the Release in `make_table`.
    let table = TABLE.load(Ordering::Acquire);
    // SAFETY: null, or a table that was leaked.
    unsafe { table.as_ref() }.filter(|table| !table.guard.forked())
}

fn make_table() -> io::Result<&'static Table> {
    loop {
        if let Some(table) = table() {
            return Ok(table);
        }
        // Relaxed: only compared below.
        let old = TABLE.load(Ordering::Relaxed);
        let new = Box::into_raw(Box::new(Table {
            guard: ForkGuard::new()?,
            rings: RwLock::new(BTreeMap::new()),
        }));
        // Release: pairs with the Acquire in `table`.
        if TABLE.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: just made, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

/// A ring's entry in the table, and its descriptor.
#[derive(Debug)]
pub struct Door {
    table: &'static Table,
    name: Name,
    fd: Own,
}

impl Door {
    /// Lets other rings find `inbox`. `bell`: the ring is driven by its
    /// application, which has to be told of a message.
    ///
    /// # Errors
    /// The system's: no descriptor is left.
    ///
    /// # Safety
    /// The ring lasts until the door is dropped.
    pub unsafe fn open(
        inbox: Inbox<'static>,
        bell: Option<&'static LinuxHost>,
    ) -> io::Result<Self> {
        let table = make_table()?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = Own::from(memfd_create("annulus-ring", flags)?);
        let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        fcntl_add_seals(&fd, seals)?;
        let name = name(fd.as_fd().as_raw_fd()).map_err(|e| io::Error::from_raw_os_error(-e))?;
        let mut rings = table.rings.write().unwrap_or_else(PoisonError::into_inner);
        rings.insert(name, Entry { inbox, bell });
        drop(rings);
        Ok(Self { table, name, fd })
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Waits for those who are about to send something.
        self.table.rings.write().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn name(fd: RawFd) -> Result<Name, i32> {
    let stat = sys::status(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Calls `f` with the ring that a descriptor names.
fn with<R>(fd: RawFd, f: impl FnOnce(&Entry) -> R) -> Result<R, Errno> {
    let name = name(fd).map_err(|e| Errno::from_raw(-e))?;
    let table = table().ok_or(Errno::EBADFD)?;
    let rings = table.rings.read().unwrap_or_else(PoisonError::into_inner);
    rings.get(&name).map(f).ok_or(Errno::EBADFD)
}

/// Has `give` give something to the ring that a descriptor names.
///
/// # Errors
/// As [`Host::reach`].
pub fn reach(
    fd: RawFd,
    give: &mut dyn FnMut(Inbox<'_>) -> Result<i32, Errno>,
) -> Result<i32, Errno> {
    with(fd, |ring| {
        let answer = give(ring.inbox)?;
        if let Some(host) = ring.bell {
            host.cqes_posted();
        }
        Ok(answer)
    })?
}

/// Whether a descriptor names a ring.
pub fn is_ring(fd: RawFd) -> bool {
    with(fd, |_| ()).is_ok()
}
