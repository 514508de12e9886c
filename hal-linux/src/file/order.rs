//! Punted writes of one file follow each other, as in io-wq.
//!
//! The kernel hashes buffered writes to regular files by inode: of one file
//! one at a time is in a worker, in the order in which they were punted.
//! Writes at the current position or in append mode come out in the order
//! that programs expect, and workers do not queue up at the inode's lock.
//!
//! ```text
//!            enter: idle ───▶ the pool's queue ───▶ a worker
//!  punted ──┤                      ▲                  │ leave
//!            enter: busy ──▶ chain ┴──────────────────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many as io-wq has; files that share one are merely not parallel.
const BUCKETS: usize = 64;

const NIL: u32 = u32::MAX;

/// Which chain a job belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(u8);

impl Bucket {
    /// The bucket of an inode.
    pub fn of(device: u64, inode: u64) -> Self {
        // Fibonacci hashing: inodes of one directory are neighbours.
        let mixed = (inode ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed >> 58) as u8)
    }
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    /// One of it is queued or running.
    busy: bool,
    head: u32,
    tail: u32,
}

#[derive(Debug)]
struct Chains {
    buckets: [Chain; BUCKETS],
    links: Box<[u32]>,
    /// Jobs in all chains.
    waiting: u32,
}

/// The chains of jobs that wait for one of their own file.
#[derive(Debug)]
pub struct Order {
    chains: Mutex<Chains>,
}

impl Chains {
    fn pop(&mut self, bucket: usize) -> Option<u32> {
        let chain = &mut self.buckets[bucket];
        let index = chain.head;
        if index == NIL {
            return None;
        }
        chain.head = self.links[index as usize];
        if chain.head == NIL {
            chain.tail = NIL;
        }
        self.waiting -= 1;
        Some(index)
    }
}

impl Order {
    /// Room for the jobs of `slots` requests.
    pub fn new(slots: usize) -> Self {
        Self {
            chains: Mutex::new(Chains {
                buckets: [Chain { busy: false, head: NIL, tail: NIL }; BUCKETS],
                links: vec![NIL; slots].into_boxed_slice(),
                waiting: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Chains> {
        // Nothing panics inside.
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the job is its file's turn; otherwise it waits here until
    /// [`leave`](Self::leave) hands it out.
    pub fn enter(&self, bucket: Bucket, index: usize) -> bool {
        let mut chains = self.lock();
        let chain = &mut chains.buckets[usize::from(bucket.0)];
        if !chain.busy {
            chain.busy = true;
            return true;
        }
        let last = std::mem::replace(&mut chain.tail, index as u32);
        match last {
            NIL => chain.head = index as u32,
            last => chains.links[last as usize] = index as u32,
        }
        chains.links[index] = NIL;
        chains.waiting += 1;
        false
    }

    /// A job has ended: whose turn it is now.
    pub fn leave(&self, bucket: Bucket) -> Option<u32> {
        let mut chains = self.lock();
        let next = chains.pop(usize::from(bucket.0));
        if next.is_none() {
            chains.buckets[usize::from(bucket.0)].busy = false;
        }
        next
    }

    /// Takes a job that waits, of any file, to be cancelled.
    pub fn take_waiting(&self) -> Option<u32> {
        let mut chains = self.lock();
        if chains.waiting == 0 {
            return None;
        }
        (0..BUCKETS).find_map(|bucket| chains.pop(bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_order() {
        let order = Order::new(8);
        let (a, b) = (Bucket(1), Bucket(2));
        assert!(order.enter(a, 5));
        assert!(!order.enter(a, 3));
        assert!(!order.enter(a, 7));
        assert!(order.enter(b, 0), "another file does not wait");
        assert_eq!(order.leave(a), Some(3));
        assert!(!order.enter(a, 5));
        assert_eq!(order.leave(a), Some(7));
        assert_eq!(order.leave(a), Some(5));
        assert_eq!(order.leave(a), None);
        assert_eq!(order.leave(b), None);
        assert!(order.enter(a, 1), "free again");
    }

    #[test]
    fn what_waits_can_be_taken_away() {
        let order = Order::new(8);
        let (a, b) = (Bucket(0), Bucket(63));
        for index in 0..3 {
            order.enter(a, index);
            order.enter(b, index + 3);
        }
        let mut taken: Vec<_> = std::iter::from_fn(|| order.take_waiting()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 4, 5]);
        assert_eq!((order.leave(a), order.leave(b)), (None, None));
    }

    #[test]
    fn every_inode_has_a_bucket() {
        let buckets: std::collections::HashSet<_> =
            (0..1000).map(|inode| Bucket::of(0xfd00, inode).0).collect();
        assert_eq!(buckets.len(), BUCKETS, "neighbours are spread");
    }
}
