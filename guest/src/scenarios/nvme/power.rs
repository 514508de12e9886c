//! The power-cut workload through the ring.

use annulus_linux::nvme::{NvmeRing, Options};
use annulus_linux::opcode;
use annulus_linux::types::Fd;

use super::{Context, number, open, ring};
use crate::epoch::{BLOCK, Disk, PLAN, write};

struct Namespace {
    ring: NvmeRing,
    fd: Fd,
}

impl Namespace {
    /// Submits what was pushed, and waits until `count` have ended well.
    fn finish(&mut self, count: usize, expected: i32) -> Result<(), String> {
        let mut left = count;
        while left > 0 {
            self.ring.submit_and_wait(1).map_err(|e| e.to_string())?;
            for cqe in self.ring.completion() {
                if cqe.result() != expected {
                    return Err(format!("request {}: {}", cqe.user_data(), cqe.result()));
                }
                left -= 1;
            }
        }
        Ok(())
    }
}

impl Disk for Namespace {
    fn write(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), String> {
        for (block, content) in blocks {
            let entry = opcode::Write::new(self.fd, content.as_ptr(), BLOCK as u32)
                .offset(block * BLOCK as u64)
                .build()
                .user_data(*block);
            // SAFETY: the content stays until all have ended, below.
            unsafe { self.ring.submission().push(&entry) }.map_err(|e| e.to_string())?;
        }
        self.finish(blocks.len(), BLOCK as i32)
    }

    fn flush(&mut self) -> Result<(), String> {
        // SAFETY: it has no memory.
        unsafe { self.ring.submission().push(&opcode::Fsync::new(self.fd).build()) }
            .map_err(|e| e.to_string())?;
        self.finish(1, 0)
    }
}

/// The workload through our driver. Argument: `nsid`.
pub fn power_cut(context: &mut Context) -> Result<String, String> {
    let nvme = open(context, 0, Options::default())?;
    if !nvme.controller().info().write_cache {
        return Err("the controller has no volatile write cache: there is nothing to see".into());
    }
    let fd = Fd(number(context, "nsid", 1)? as i32);
    write(&PLAN, &mut Namespace { ring: ring(&nvme, "adaptive", 64)?, fd })?;
    Ok(format!("{} epochs of {} writes", PLAN.epochs, PLAN.writes))
}
