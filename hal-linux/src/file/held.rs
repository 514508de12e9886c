//! Files held for requests that outlive their submission.
//!
//! The kernel takes a reference to a request's file when it takes the SQE. We
//! cannot, so the reference is a duplicate descriptor, which the application
//! neither knows nor closes.
//!
//! A request that ends within `start` needs none: until then the SQE counts
//! as not consumed, and whoever closes its file that early has a race under
//! the kernel, too. What goes on after `start` works on the duplicate, so
//! closing the number, or opening another file under it, redirects nothing.
//!
//! One duplicate a batch a file: requests of one batch share it by a count.
//! Sharing between batches would be wrong, the number may mean another file
//! by then; within a batch it may not, since no SQE of the batch has been
//! reported as consumed and no CQE of it has been shown.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::ahead::Ahead;
use super::kind::Kind;
use crate::sys;

/// Files that one batch can name before it duplicates one twice.
const CACHED: usize = 16;

/// Duplicates and how many requests each serves. Shared with the workers.
#[derive(Debug)]
pub struct Held {
    entries: Box<[Entry]>,
}

#[derive(Debug, Default)]
struct Entry {
    fd: AtomicI32,
    /// 0: free, for the engine to use.
    refs: AtomicU32,
}

impl Held {
    /// Room for the files of `slots` requests and of one batch.
    pub fn new(slots: usize) -> Self {
        Self { entries: (0..slots + CACHED + 1).map(|_| Entry::default()).collect() }
    }

    fn retain(&self, index: u32) {
        // Relaxed: the engine holds a reference already, the batch's.
        self.entries[index as usize].refs.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one reference back; the last one closes the file.
    pub fn release(&self, index: u32) {
        let entry = &self.entries[index as usize];
        // Relaxed: written before our reference was made, and not again
        // before it is gone.
        let fd = entry.fd.load(Ordering::Relaxed);
        // AcqRel: pairs with itself. Every user's calls on the descriptor
        // come before the last user's close.
        if entry.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            sys::close(fd);
        }
    }
}

/// A file that is held for the batch.
#[derive(Clone, Copy, Debug)]
pub struct HeldFile {
    /// The descriptor, ours.
    pub fd: RawFd,
    pub kind: Kind,
    entry: u32,
    /// A write could not be tried without blocking: the next need not try.
    blocking_writes: bool,
}

/// The files that the current batch holds. The engine's alone.
#[derive(Debug)]
pub struct Batch {
    cached: [Option<(RawFd, HeldFile)>; CACHED],
    /// Whether anything is cached: the one word that a batch without punts
    /// looks at.
    used: bool,
    /// Where the search for a free entry goes on.
    cursor: usize,
    /// The file number asked about last, and whether it was opened with
    /// `O_DIRECT`.
    direct: Option<(RawFd, bool)>,
    /// What the devices of files read ahead.
    pub ahead: Ahead,
}

impl Batch {
    pub fn new(ahead: Ahead) -> Self {
        Self { cached: [None; CACHED], used: false, cursor: 0, direct: None, ahead }
    }

    /// Holds the file that number `fd` means now.
    ///
    /// # Errors
    /// A negative errno: `-EBADF`, or `-EMFILE` and its like.
    pub fn hold(&mut self, held: &Held, number: RawFd) -> Result<HeldFile, i32> {
        let place = number as usize % CACHED;
        if let Some((cached, file)) = self.cached[place] {
            if cached == number {
                return Ok(file);
            }
            held.release(file.entry);
            self.cached[place] = None;
        }
        let fd = sys::duplicate(number)?;
        let kind = match Kind::of(fd, &mut self.ahead) {
            Ok(kind) => kind,
            Err(e) => {
                sys::close(fd);
                return Err(e);
            }
        };
        let file = HeldFile { fd, kind, entry: self.claim(held, fd), blocking_writes: false };
        self.cached[place] = Some((number, file));
        self.used = true;
        Ok(file)
    }

    /// Whether a write to file number `number` in this batch has shown that
    /// the file takes none without blocking.
    #[inline]
    pub fn blocks_writes(&self, number: RawFd) -> bool {
        self.used
            && self.cached[number as usize % CACHED]
                .is_some_and(|(cached, file)| cached == number && file.blocking_writes)
    }

    /// Remembers it.
    pub fn note_blocking_writes(&mut self, number: RawFd) {
        if let Some((cached, file)) = &mut self.cached[number as usize % CACHED] {
            file.blocking_writes = *cached == number;
        }
    }

    /// Whether file number `number` goes past the page cache. Asked once a
    /// batch, for a run of requests on one file.
    #[inline]
    pub fn is_direct(&mut self, number: RawFd) -> bool {
        match self.direct {
            Some((known, direct)) if known == number => direct,
            _ => {
                let direct = sys::status_flags(number) & libc::O_DIRECT != 0;
                self.direct = Some((number, direct));
                direct
            }
        }
    }

    /// Claims a free entry for `fd`, with the batch's reference.
    fn claim(&mut self, held: &Held, fd: RawFd) -> u32 {
        // There are more entries than requests and cached files together, so
        // one is free; it is nearly always the next.
        loop {
            self.cursor = (self.cursor + 1) % held.entries.len();
            let entry = &held.entries[self.cursor];
            // Acquire: pairs with the AcqRel of the last release, which has
            // read `fd`.
            if entry.refs.load(Ordering::Acquire) == 0 {
                // Relaxed, both: the entry is ours; a request's reference
                // reaches its worker through the pool's lock.
                entry.fd.store(fd, Ordering::Relaxed);
                entry.refs.store(1, Ordering::Relaxed);
                return self.cursor as u32;
            }
        }
    }

    /// A reference of a request's own to a file of this batch.
    pub fn share(&self, held: &Held, file: &HeldFile) -> u32 {
        held.retain(file.entry);
        file.entry
    }

    /// A descriptor of a request's own for file number `number`: the batch's,
    /// if nobody else uses it, otherwise another duplicate.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub fn own(&mut self, held: &Held, number: RawFd) -> Result<RawFd, i32> {
        let file = self.hold(held, number)?;
        let entry = &held.entries[file.entry as usize];
        // Acquire: pairs with the AcqRel of a release: its user is done.
        if entry.refs.load(Ordering::Acquire) != 1 {
            return sys::duplicate(file.fd);
        }
        self.cached[number as usize % CACHED] = None;
        // Relaxed: the batch's was the only reference, and only the engine
        // makes them.
        entry.refs.store(0, Ordering::Relaxed);
        Ok(file.fd)
    }

    /// The batch is over: gives its references back.
    #[inline]
    pub fn end(&mut self, held: &Held) {
        self.direct = None;
        if self.used {
            self.release_all(held);
        }
    }

    #[cold]
    fn release_all(&mut self, held: &Held) {
        for place in &mut self.cached {
            if let Some((_, file)) = place.take() {
                held.release(file.entry);
            }
        }
        self.used = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn open(fd: RawFd) -> bool {
        sys::status(fd).is_ok()
    }

    #[test]
    fn one_duplicate_a_batch_until_the_last_user() {
        let (held, mut batch) = (Held::new(4), Batch::new(Ahead::new(true)));
        let file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        let first = batch.hold(&held, number).unwrap();
        let again = batch.hold(&held, number).unwrap();
        assert_eq!((first.fd, first.entry), (again.fd, again.entry));
        let users = [batch.share(&held, &first), batch.share(&held, &again)];
        batch.end(&held);
        assert!(open(first.fd));
        held.release(users[0]);
        assert!(open(first.fd));
        // The next batch does not trust the number.
        let next = batch.hold(&held, number).unwrap();
        assert_ne!(next.fd, first.fd);
        held.release(users[1]);
        assert!(!open(first.fd));
        batch.end(&held);
        assert!(!open(next.fd));
    }

    #[test]
    fn a_stream_gets_a_descriptor_of_its_own() {
        let (held, mut batch) = (Held::new(4), Batch::new(Ahead::new(true)));
        let (reader, _writer) = std::io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let shared = batch.hold(&held, number).unwrap();
        assert!(shared.kind.is_stream() && shared.fd > 2);
        // Nobody else uses the batch's: no second duplicate.
        assert_eq!(batch.own(&held, number), Ok(shared.fd));
        batch.end(&held);
        assert!(open(shared.fd));
        // Somebody does.
        let shared = batch.hold(&held, number).unwrap();
        let user = batch.share(&held, &shared);
        let own = batch.own(&held, number).unwrap();
        assert_ne!(own, shared.fd);
        batch.end(&held);
        held.release(user);
        assert!(!open(shared.fd) && open(own));
    }

    #[test]
    fn more_files_than_places() {
        let (held, mut batch) = (Held::new(100), Batch::new(Ahead::new(true)));
        let files: Vec<_> = (0..100).map(|_| tempfile::tempfile().unwrap()).collect();
        let users: Vec<_> = files
            .iter()
            .map(|file| {
                let file = batch.hold(&held, file.as_raw_fd()).unwrap();
                (file.fd, batch.share(&held, &file))
            })
            .collect();
        assert_eq!(batch.hold(&held, -1).unwrap_err(), -libc::EBADF);
        batch.end(&held);
        for (fd, user) in users {
            assert!(open(fd));
            held.release(user);
            assert!(!open(fd));
        }
    }
}
