//! The workload whose writes the host records and replays up to each cut.
//!
//! Here the kernel's driver carries it out, once as it should and once
//! without the flushes: so the host's checker is itself checked on a driver
//! that is beyond doubt.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::Context;
use super::machine::direct;
use crate::epoch::{BLOCK, Disk, PLAN, write};

/// The kernel's block device.
struct BlockDevice {
    file: File,
    flushes: bool,
}

impl Disk for BlockDevice {
    fn write(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), String> {
        // Direct transfers want their memory aligned.
        let mut memory = vec![0; 2 * BLOCK];
        let at = memory.as_ptr().align_offset(BLOCK);
        for (block, content) in blocks {
            let aligned = &mut memory[at..at + BLOCK];
            aligned.copy_from_slice(content);
            let written = self.file.write_all_at(aligned, block * BLOCK as u64);
            written.map_err(|e| format!("writing block {block}: {e}"))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        if !self.flushes {
            return Ok(());
        }
        self.file.sync_all().map_err(|e| format!("flushing: {e}"))
    }
}

/// The workload through the kernel's driver. Arguments: `nsid=N`, and
/// `flushes=no` to leave the flushes out.
pub fn kernel(context: &mut Context) -> Result<String, String> {
    let nsid = context.arg("nsid").and_then(|n| n.parse().ok()).ok_or("which namespace?")?;
    let file = direct(&context.kernel(0)?.block_device(nsid)?)?;
    let flushes = context.arg("flushes") != Some("no");
    write(&PLAN, &mut BlockDevice { file, flushes })?;
    Ok(format!("{} epochs of {} writes", PLAN.epochs, PLAN.writes))
}
