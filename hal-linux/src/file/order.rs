//! Punted requests of one file that follow each other in one worker.
//!
//! *Writes* are hashed by inode, as in io-wq: of one file one at a time is in
//! a worker, in the order in which they were punted. Writes at the current
//! position or in append mode come out in the order that programs expect, and
//! workers do not queue up at the inode's lock.
//!
//! *Sequential* requests, each beginning where the one before ends, are also
//! merged into a *run* (the seed's change of 2019): the worker that has done
//! one does the next, without a way through the queue. Writes, and reads whose
//! data is not there: the first of a run has the pages of the others brought
//! in by read-ahead, and more workers would only wait for the same device. A
//! run ends after eight times the file's read-ahead; then a read goes to
//! another worker, and a write to the end of the queue.
//!
//! ```text
//!            its turn ─────────────▶ the pool's queue ──▶ a worker ─┐
//!  punted ──┤                              ▲                  ▲     │ leave
//!            behind others ─▶ chain ───────┴── in its run ────┴─────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many as io-wq has; files that share one are merely not parallel.
const BUCKETS: usize = 64;

const NIL: u32 = u32::MAX;
/// An offset that no request has.
const NEVER: i64 = i64::MIN;

/// A file, as far as its order is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Of device and inode. Two files that share one are merged at worst,
    /// which changes no result.
    hash: u32,
    /// The most bytes of a run; 0: no runs.
    run: u32,
}

impl Inode {
    /// A file, and the most bytes of its runs.
    pub fn new(device: u64, inode: u64, run: u32) -> Self {
        // Fibonacci hashing: inodes of one directory are neighbours.
        let mixed = (inode ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { hash: (mixed >> 32) as u32, run }
    }

    fn bucket(self) -> usize {
        (self.hash >> 26) as usize
    }
}

/// A request that is put in order.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub file: Inode,
    /// What is not a read takes turns.
    pub write: bool,
    /// Where it begins (-1: at the current position), and its bytes. None for
    /// what is never merged.
    pub bytes: Option<(i64, usize)>,
}

/// Whose turn it is when a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub index: u32,
    /// It belongs to the run: the same worker does it, now.
    pub in_run: bool,
}

/// The end of a bucket's chain of writes, or of its last run of reads.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// The last job; none if all of them have ended.
    slot: u32,
    file: u32,
    /// Where the next would have to begin.
    end: i64,
    /// Bytes of its run.
    bytes: u64,
}

/// A slot's place.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    bucket: u8,
    write: bool,
    /// Behind another, and not handed out yet.
    waits: bool,
    in_run: bool,
}

#[derive(Debug)]
struct Chains {
    /// Of reads and of writes.
    last: [[Last; BUCKETS]; 2],
    links: Box<[Link]>,
    /// Jobs that wait, in all chains.
    waiting: u32,
    /// Jobs that were handed out within a run.
    merged: u64,
}

/// The chains of jobs that wait for one of their own file.
#[derive(Debug)]
pub struct Order {
    chains: Mutex<Chains>,
}

impl Chains {
    fn last(&mut self, link: Link) -> &mut Last {
        &mut self.last[usize::from(link.write)][usize::from(link.bucket)]
    }

    /// Takes a waiting job out of its chain.
    fn unlink(&mut self, index: u32) {
        let link = self.links[index as usize];
        // Whom it waits for is still there: it has not left.
        self.links[link.before as usize].after = link.after;
        if link.after != NIL {
            self.links[link.after as usize].before = link.before;
        } else if self.last(link).slot == index {
            self.last(link).slot = link.before;
        }
        self.links[index as usize].waits = false;
        self.waiting -= 1;
    }
}

impl Order {
    /// Room for the jobs of `slots` requests.
    pub fn new(slots: usize) -> Self {
        let link =
            Link { before: NIL, after: NIL, bucket: 0, write: false, waits: false, in_run: false };
        Self {
            chains: Mutex::new(Chains {
                last: [[Last { slot: NIL, file: 0, end: 0, bytes: 0 }; BUCKETS]; 2],
                links: vec![link; slots].into_boxed_slice(),
                waiting: 0,
                merged: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Chains> {
        // Nothing panics inside.
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it is the job's turn; otherwise it waits here until
    /// [`leave`](Self::leave) hands it out. It leaves in any case.
    pub fn enter(&self, span: Span, index: usize) -> bool {
        let Span { file, write, bytes } = span;
        let (off, len) = bytes.map_or((NEVER, 0), |(off, len)| (off, len as u64));
        let chains = &mut *self.lock();
        let bucket = file.bucket();
        let last = &mut chains.last[usize::from(write)][bucket];
        let before = last.slot;
        let after = bytes.is_some() && last.end == off;
        let sequential = before != NIL && last.file == file.hash && after;
        let in_run = sequential && last.bytes + len <= u64::from(file.run);
        let behind = in_run || (write && before != NIL);
        *last = Last {
            slot: index as u32,
            file: file.hash,
            end: if off < 0 { off } else { off.saturating_add(len as i64) },
            bytes: if in_run { last.bytes + len } else { len },
        };
        if behind {
            chains.links[before as usize].after = index as u32;
            chains.waiting += 1;
        }
        chains.links[index] =
            Link { before, after: NIL, bucket: bucket as u8, write, waits: behind, in_run };
        !behind
    }

    /// A job that has entered, and had its turn, has ended: whose turn it is
    /// now.
    pub fn leave(&self, index: u32) -> Option<Next> {
        let chains = &mut *self.lock();
        let link = chains.links[index as usize];
        if link.after == NIL {
            let last = chains.last(link);
            if last.slot == index {
                last.slot = NIL;
            }
            return None;
        }
        let next = &mut chains.links[link.after as usize];
        next.waits = false;
        chains.waiting -= 1;
        chains.merged += u64::from(next.in_run);
        Some(Next { index: link.after, in_run: next.in_run })
    }

    /// Takes a job away, to be cancelled, if it waits here. It has left then.
    pub fn take(&self, index: u32) -> bool {
        let chains = &mut *self.lock();
        let waits = chains.links[index as usize].waits;
        if waits {
            chains.unlink(index);
        }
        waits
    }

    /// Takes a job that waits, of any file, as [`take`](Self::take) does.
    pub fn take_waiting(&self) -> Option<u32> {
        let chains = &mut *self.lock();
        if chains.waiting == 0 {
            return None;
        }
        let index = chains.links.iter().position(|link| link.waits)? as u32;
        chains.unlink(index);
        Some(index)
    }

    /// Jobs that followed another in its worker.
    pub fn merged(&self) -> u64 {
        self.lock().merged
    }
}

#[cfg(test)]
mod tests;
