//! What the process has: descriptors, threads, memory.

use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// Bytes that resident memory may grow after the warm-up: stacks that were used
/// deeper, pages of the allocator's.
pub const RESIDENT: u64 = 16 << 20;
/// Bytes that may be allocated more than after the warm-up.
pub const ALLOCATED: u64 = 64 << 10;

/// How long what has ended may still be counted, on a machine that is busy.
const WHILE: Duration = Duration::from_secs(5);

/// What the process has at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes of resident memory.
    pub resident: u64,
    /// Bytes that the allocator has given out, where it says so.
    pub allocated: u64,
}

fn count(dir: &str) -> io::Result<u64> {
    Ok(fs::read_dir(dir)?.count() as u64)
}

/// The allocator's count; 0 where it has none.
fn allocated() -> u64 {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no memory is passed.
        let info = unsafe { libc::mallinfo2() };
        (info.uordblks + info.hblkhd) as u64
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

impl Holding {
    /// As it is now.
    ///
    /// # Errors
    /// Of /proc.
    pub fn now() -> io::Result<Self> {
        // What the allocator keeps for later is no leak.
        #[cfg(target_env = "gnu")]
        // SAFETY: no memory is passed.
        unsafe {
            libc::malloc_trim(0);
        }
        let statm = fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        // SAFETY: no memory is passed.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        Ok(Self {
            descriptors: count("/proc/self/fd")?,
            threads: count("/proc/self/task")?,
            resident: pages * page,
            allocated: allocated(),
        })
    }

    /// As it is now or, if `most` says that this is more than may be, in a while:
    /// a thread that has been joined is counted until the kernel is done with it.
    ///
    /// # Errors
    /// Of /proc.
    pub fn settled(mut most: impl FnMut(Self) -> Self) -> io::Result<(Self, Vec<String>)> {
        let begun = Instant::now();
        loop {
            let now = Self::now()?;
            let leaked = most(now).leaked(now);
            if leaked.is_empty() || begun.elapsed() > WHILE {
                return Ok((now, leaked));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The larger of each.
    pub fn most(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            resident: self.resident.max(other.resident),
            allocated: self.allocated.max(other.allocated),
        }
    }

    /// What is more now than it was, and more than may be.
    pub fn leaked(self, now: Self) -> Vec<String> {
        let compared = [
            ("descriptors", self.descriptors, now.descriptors, 0),
            ("threads", self.threads, now.threads, 0),
            ("bytes of resident memory", self.resident, now.resident, RESIDENT),
            ("allocated bytes", self.allocated, now.allocated, ALLOCATED),
        ];
        let grown = compared.into_iter().filter(|(_, was, is, may)| is.saturating_sub(*was) > *may);
        grown.map(|(what, was, is, _)| format!("{what}: {was} have become {is}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_and_memory_are_seen() {
        let before = Holding { descriptors: 5, threads: 2, resident: 1 << 20, allocated: 1 << 10 };
        assert!(before.leaked(before).is_empty());
        let tolerated = Holding { resident: 9 << 20, allocated: 60 << 10, ..before };
        assert!(before.leaked(tolerated).is_empty());
        for (now, what) in [
            (Holding { descriptors: 6, ..before }, "descriptors: 5 have become 6"),
            (Holding { threads: 3, ..before }, "threads: 2 have become 3"),
            (Holding { resident: 18 << 20, ..before }, "bytes of resident"),
            (Holding { allocated: 70 << 10, ..before }, "allocated bytes"),
        ] {
            let leaked = before.leaked(now);
            assert!(leaked.len() == 1 && leaked[0].starts_with(what), "{leaked:?}");
        }
    }

    #[test]
    fn the_process_is_counted() {
        let holding = Holding::now().unwrap();
        assert!(holding.descriptors >= 3 && holding.threads >= 1 && holding.resident > 1 << 20);
        let kept = vec![1u8; 3 << 20];
        let more = Holding::now().unwrap();
        if more.allocated > 0 {
            assert!(more.allocated > holding.allocated + (2 << 20), "{holding:?} {more:?}");
        }
        drop(kept);
    }
}
