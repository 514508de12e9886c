//! Controller registers (PCIe section 3.1, Base section 3.1.3).

use crate::hal::device::Mmio;

/// Controller Capabilities, 64 bits.
pub const CAP: usize = 0x00;
/// Version.
pub const VS: usize = 0x08;
/// Controller Configuration.
pub const CC: usize = 0x14;
/// Controller Status.
pub const CSTS: usize = 0x1c;
/// Admin Queue Attributes.
pub const AQA: usize = 0x24;
/// Admin Submission Queue Base Address, 64 bits.
pub const ASQ: usize = 0x28;
/// Admin Completion Queue Base Address, 64 bits.
pub const ACQ: usize = 0x30;
/// The first doorbell.
pub const DOORBELLS: usize = 0x1000;

/// `CC.EN`
pub const CC_EN: u32 = 1;
/// `CC.SHN`: normal shutdown.
pub const CC_SHN_NORMAL: u32 = 1 << 14;
/// `CC.SHN`, both bits.
pub const CC_SHN: u32 = 3 << 14;
/// `CC.IOSQES` 2^6 and `CC.IOCQES` 2^4 bytes, memory page 4 KiB, NVM command
/// set, round robin.
pub const CC_OURS: u32 = 6 << 16 | 4 << 20;

/// `CSTS.RDY`
pub const CSTS_RDY: u32 = 1;
/// `CSTS.CFS`: controller fatal status.
pub const CSTS_CFS: u32 = 1 << 1;
/// `CSTS.SHST`, both bits.
pub const CSTS_SHST: u32 = 3 << 2;
/// `CSTS.SHST`: shutdown processing complete.
pub const CSTS_SHST_DONE: u32 = 2 << 2;

/// A removed device reads as all ones.
pub const GONE: u32 = u32::MAX;

/// The fields of [`CAP`].
#[derive(Clone, Copy, Debug)]
pub struct Cap(pub u64);

impl Cap {
    /// Entries of the largest I/O queue (`MQES`, 0's based).
    pub fn max_queue_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// The longest wait for `CSTS.RDY` in nanoseconds (`TO`, 500 ms units). A
    /// controller that gives 0 gets one unit.
    pub fn timeout_ns(self) -> u64 {
        (self.0 >> 24 & 0xff).max(1) * 500_000_000
    }

    /// Bytes from one doorbell to the next (`DSTRD`).
    pub fn doorbell_stride(self) -> usize {
        4 << (self.0 >> 32 & 0xf)
    }

    /// Whether the NVM command set can be chosen (`CSS` bit 0, or bit 6 for
    /// controllers with several I/O command sets).
    pub fn has_nvm(self) -> bool {
        self.0 >> 37 & (1 | 1 << 6) != 0
    }

    /// What to choose in `CC.CSS`: the NVM command set, or all that there are.
    pub fn command_set(self) -> u32 {
        if self.0 >> 37 & 1 != 0 { 0 } else { 6 << 4 }
    }

    /// log2 of the smallest memory page (`MPSMIN`).
    pub fn page_shift_min(self) -> u32 {
        (self.0 >> 48 & 0xf) as u32 + 12
    }
}

/// The fatal or absent states of [`CSTS`].
pub fn is_gone(registers: &impl Mmio) -> bool {
    registers.read32(CSTS) == GONE
}
