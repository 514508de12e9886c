//! Commands and completions on the wire, little-endian.

/// Bytes of a submission queue entry (Base section 3.3.3.1).
pub const COMMAND_BYTES: usize = 64;
/// Bytes of a completion queue entry (Base section 3.3.3.2).
pub const COMPLETION_BYTES: usize = 16;

/// Admin opcodes (Base figure 138).
pub mod admin {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    pub const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;
}

/// NVM opcodes (NVM section 3).
pub mod nvm {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Features (Base figure 317).
pub mod feature {
    pub const NUMBER_OF_QUEUES: u32 = 0x07;
    pub const ASYNC_EVENTS: u32 = 0x0b;
}

/// Log pages (Base figure 202).
pub mod log_page {
    pub const ERROR: u32 = 0x01;
    pub const HEALTH: u32 = 0x02;
    pub const CHANGED_NAMESPACES: u32 = 0x04;
}

/// What a completed event request says in dword 0 (Base section 5.2.1).
pub mod event {
    /// Its type: bits 2:0.
    pub const TYPE: u32 = 7;
    pub const NOTICE: u32 = 2;
    /// What of its type: bits 15:8. Of a notice: a namespace has changed.
    pub const INFO: u32 = 0xff << 8;
    /// The log page that tells more: bits 23:16. Until it is read there are no
    /// more events of its type.
    pub const PAGE_SHIFT: u32 = 16;
}

/// What [`admin::IDENTIFY`] is asked for (`CNS`, Base figure 273).
pub mod cns {
    pub const NAMESPACE: u32 = 0x00;
    pub const CONTROLLER: u32 = 0x01;
    pub const ACTIVE_NAMESPACES: u32 = 0x02;
}

/// Command dword 12 of reads, writes and write zeroes: force unit access.
pub const FUA: u32 = 1 << 30;
/// Command dword 12 of write zeroes: deallocate.
pub const DEAC: u32 = 1 << 25;
/// Command dword 0: the data pointer is an SGL (`PSDT` 01b).
pub const PSDT_SGL: u32 = 1 << 14;
/// All namespaces.
pub const ALL_NAMESPACES: u32 = u32::MAX;

/// A command before it gets its identifier. Dwords 2 to 5 and 13 to 15 are
/// zero in every command that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub opcode: u8,
    /// [`PSDT_SGL`] or 0.
    pub psdt: u32,
    pub nsid: u32,
    /// PRP 1, or the first half of an SGL descriptor.
    pub data1: u64,
    /// PRP 2, or the second half.
    pub data2: u64,
    pub dword10: u32,
    pub dword11: u32,
    pub dword12: u32,
}

impl Command {
    /// The 64-bit words of the entry that are not always zero. The identifier
    /// goes into bits 16 to 31 of the first.
    #[inline(always)]
    pub fn words(&self, cid: u16) -> [u64; 5] {
        let dword0 = u32::from(self.opcode) | self.psdt | u32::from(cid) << 16;
        [
            u64::from(dword0) | u64::from(self.nsid) << 32,
            self.data1,
            self.data2,
            u64::from(self.dword10) | u64::from(self.dword11) << 32,
            u64::from(self.dword12),
        ]
    }
}

/// Where in an entry those words go.
pub const WORDS: [usize; 5] = [0, 3, 4, 5, 6];

/// A completion queue entry, copied.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Command specific.
    pub dword0: u32,
    /// Dword 3: command identifier, phase, status.
    pub dword3: u32,
}

impl Completion {
    pub fn cid(self) -> u16 {
        self.dword3 as u16
    }

    pub fn status(self) -> super::Status {
        super::Status::from_field((self.dword3 >> 17) as u16)
    }
}
