//! Whether a ring has come to rest: nobody else works for it, and it has taken
//! what there was.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use annulus::uapi::{self, IORING_ENTER_SQ_WAKEUP, IORING_SQ_NEED_WAKEUP};

use super::target::{RawSqe, Target};
use super::threads::{Others, others};

/// How often whoever polls goes round until it has nothing to do: more often than
/// a chain is long, each request of which may take one.
const TURNS: usize = 16;
/// Looks at an SQ before it is waited for.
const SPIN: u32 = 200;
/// An index that no SQE has.
const NOWHERE: u32 = u32::MAX;

/// Whether nobody works, and what has been left to this thread is all there
/// is to do. With `works` something is a worker's.
///
/// # Errors
/// Of the machine; a polling thread that takes nothing.
pub fn at_rest<T: Target>(ring: &mut T, works: bool) -> io::Result<bool> {
    Ok(match others()? {
        Others::Asleep => true,
        // A worker that Linux cannot make at once is made 5 ms later, and
        // nobody is awake until then but whoever polls.
        Others::Polling if works => false,
        Others::Polling => {
            // A thread of the kernel's polls on for two ticks of its clock, and
            // nothing is heard of it. But an index that names no SQE is taken as
            // one that does, and nothing else comes of it.
            for _ in 0..TURNS {
                // SAFETY: nobody looks at it.
                if !unsafe { ring.push(&RawSqe::new(uapi::IORING_OP_NOP, 0), Some(NOWHERE)) } {
                    return Err(io::Error::other("the SQ is full"));
                }
                taken(ring)?;
            }
            others()? != Others::Awake
        }
        Others::Awake => false,
    })
}

/// Waits until a polling thread has taken all SQEs.
///
/// # Errors
/// It does not.
pub fn taken<T: Target>(ring: &mut T) -> io::Result<()> {
    let start = Instant::now();
    for turn in 0.. {
        let pending = ring.pending();
        if pending == 0 {
            break;
        }
        if ring.sq_flags() & IORING_SQ_NEED_WAKEUP != 0 {
            ring.enter(pending, 0, IORING_ENTER_SQ_WAKEUP, None);
        }
        if start.elapsed() > Duration::from_secs(5) {
            return Err(io::Error::other(format!("the SQ does not empty: {}", ring.dump())));
        }
        // It may need this CPU.
        match turn {
            0..SPIN => std::hint::spin_loop(),
            _ => sleep(Duration::from_micros(50)),
        }
    }
    Ok(())
}
