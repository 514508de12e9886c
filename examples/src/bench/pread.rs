//! Plain system calls: one pread(2) or pwrite(2) an operation, one at a time.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::engine::{Engine, Load};
use super::pace::Pace;
use super::work::{Io, Work};
use crate::error::{Failure, failed};

/// One system call an operation.
pub struct Pread {
    /// What the empty reads of a bench without a file go to.
    null: File,
}

impl Pread {
    /// Ready to call.
    ///
    /// # Errors
    /// /dev/null cannot be opened.
    pub fn new() -> Result<Self, Failure> {
        let null =
            File::open("/dev/null").map_err(|error| failed!("cannot open /dev/null: {error}"))?;
        Ok(Self { null })
    }
}

impl Engine for Pread {
    fn name(&self) -> &'static str {
        "pread"
    }

    fn mode(&self) -> &'static str {
        "inline"
    }

    fn shape(&self, _depth: u32, _batch: u32) -> (u32, u32) {
        (1, 1)
    }

    fn run(&mut self, load: &mut Load<'_>, pace: &mut Pace) -> Result<u64, Failure> {
        let (mut ops, mut over) = (0, false);
        if let Some(work) = &mut load.work {
            while !over && let Some((slot, io)) = work.start() {
                let timed = timed(pace, slot);
                let result = call(work, slot, io);
                over = timed && pace.completed(slot);
                work.done(slot, result);
                ops += 1;
            }
            return Ok(ops);
        }
        let null = self.null.as_raw_fd();
        while !over {
            let timed = timed(pace, 0);
            // SAFETY: no byte is read, so no memory is touched.
            let returned = unsafe { libc::pread(null, std::ptr::null_mut(), 0, 0) };
            over = timed && pace.completed(0);
            load.nop_errors += u64::from(returned != 0);
            ops += 1;
        }
        Ok(ops)
    }
}

/// Whether the operation that is about to start is timed; then its start is noted.
#[inline(always)]
fn timed(pace: &mut Pace, slot: usize) -> bool {
    let due = pace.due_in();
    let next = if due == 0 { pace.begin(slot) } else { due };
    pace.set_due_in(next - 1);
    due == 0
}

/// Carries one operation out; the result is as a completion carries it: bytes or a negative errno.
#[inline(always)]
fn call(work: &Work, slot: usize, io: Io) -> i32 {
    let (buffer, len, offset) =
        (work.buffers.slot(slot), work.buffers.block(), io.offset as libc::off_t);
    let returned = if io.write {
        // SAFETY: the slot's buffer is `len` bytes long and initialised, and nobody else uses it.
        unsafe { libc::pwrite(work.fd, buffer.cast(), len, offset) }
    } else {
        // SAFETY: as above.
        unsafe { libc::pread(work.fd, buffer.cast(), len, offset) }
    };
    if returned >= 0 {
        return returned as i32;
    }
    -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
