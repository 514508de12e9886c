//! Identify data (Base section 5.17.2, NVM section 4.1.5), checked.

use super::Error;
use crate::fault::{self, Fault};
use crate::hal::device::PAGE;

/// Bytes of identify data.
pub const BYTES: usize = 4096;

fn u16_at(data: &[u8; BYTES], at: usize) -> u16 {
    u16::from_le_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

fn u64_at(data: &[u8; BYTES], at: usize) -> u64 {
    u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32
}

/// Text of `N` bytes, padded with spaces.
fn text<const N: usize>(data: &[u8; BYTES], at: usize) -> Text<N> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    Text(bytes)
}

/// ASCII as a controller gives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> core::fmt::Display for Text<N> {
    /// Without padding; what is not printable is a dot.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        let used = self.0.iter().rposition(|&b| b != b' ' && b != 0).map_or(0, |last| last + 1);
        self.0[..used].iter().try_for_each(|&b| {
            f.write_char(if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '.' })
        })
    }
}

impl<const N: usize> core::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A controller, as it describes itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ControllerInfo {
    /// PCI vendor id.
    pub vendor: u16,
    /// Serial number.
    pub serial: Text<20>,
    /// Model number.
    pub model: Text<40>,
    /// Firmware revision.
    pub firmware: Text<8>,
    /// The specification it follows: major, minor, tertiary.
    pub version: (u16, u8, u8),
    /// The largest transfer of one command in bytes; `None` for no limit.
    pub max_transfer: Option<u64>,
    /// The highest namespace id.
    pub namespaces: u32,
    /// Abort commands that may be outstanding.
    pub aborts: u32,
    /// Asynchronous event requests that may be outstanding.
    pub async_events: u32,
    /// A volatile write cache is there: FSYNC sends a flush.
    pub write_cache: bool,
    /// Write Zeroes is there.
    pub write_zeroes: bool,
    /// Dataset Management is there.
    pub dataset_management: bool,
    /// Shadow doorbells (Doorbell Buffer Config) are there.
    pub shadow_doorbells: bool,
    /// SGLs can be used for data, at any byte or at any dword.
    pub sgl: Option<SglAlignment>,
}

/// What an SGL's addresses and lengths must be multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SglAlignment {
    /// Nothing.
    Byte,
    /// Four bytes.
    Dword,
}

impl ControllerInfo {
    /// Whether what a driver relies on is the same after a reset.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let relied_on = |info: &Self| {
            let has = (info.write_cache, info.write_zeroes, info.dataset_management);
            (info.serial, info.model, info.namespaces, info.max_transfer, info.sgl, has)
        };
        relied_on(self) == relied_on(other)
    }

    /// Of identify controller data; `version` is the register.
    pub(super) fn parse(data: &[u8; BYTES], version: u32) -> Result<Self, Error> {
        let wrong = |why| Err(Error::Identify { why });
        // SQES and CQES: required size in the low, largest in the high half.
        let (sqes, cqes) = (data[512], data[513]);
        if !(sqes & 0xf..=sqes >> 4).contains(&6) {
            return wrong("submission queue entries of 64 bytes are not supported");
        }
        if !(cqes & 0xf..=cqes >> 4).contains(&4) {
            return wrong("completion queue entries of 16 bytes are not supported");
        }
        let namespaces = u32_at(data, 516);
        if namespaces == 0 {
            return wrong("there are no namespaces (NN is 0)");
        }
        let mdts = data[77];
        if mdts > 40 {
            return wrong("the largest transfer (MDTS) is beyond a terabyte");
        }
        let oncs = u16_at(data, 520);
        let sgls = u32_at(data, 536);
        Ok(Self {
            vendor: u16_at(data, 0),
            serial: text(data, 4),
            model: text(data, 24),
            firmware: text(data, 64),
            version: ((version >> 16) as u16, (version >> 8) as u8, version as u8),
            // In units of the smallest memory page, which has been seen to
            // be 4 KiB.
            max_transfer: (mdts != 0).then(|| 4096 << mdts),
            namespaces,
            aborts: u32::from(data[258]) + 1,
            async_events: u32::from(data[259]) + 1,
            write_cache: data[525] & 1 != 0,
            write_zeroes: oncs & 1 << 3 != 0,
            dataset_management: oncs & 1 << 2 != 0,
            shadow_doorbells: u16_at(data, 256) & 1 << 8 != 0,
            sgl: match sgls & 3 {
                1 => Some(SglAlignment::Byte),
                2 => Some(SglAlignment::Dword),
                _ => None,
            },
        })
    }
}

/// A namespace: what a request needs to know of it. Also what a registered
/// file is on an NVMe ring; a copy, so a namespace that changes its size must
/// be registered anew. One that is named by its number is looked up again when
/// the controller tells of a change (Base section 5.2, within a tenth of a
/// second of I/O), and after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Its number, from 1.
    pub id: u32,
    /// log2 of the logical block's bytes.
    pub block_shift: u8,
    /// It cannot be written (`NSATTR`).
    pub read_only: bool,
    /// Write Zeroes may deallocate (`DLFEAT` bit 3).
    pub zeroes_deallocate: bool,
    /// Bytes.
    pub bytes: u64,
    /// What begins before this block lies inside, if it is no longer than a page.
    pub(super) short_end: u64,
}

impl NamespaceInfo {
    /// Bytes of a logical block.
    pub fn block(&self) -> u32 {
        1 << self.block_shift
    }

    /// Of identify namespace data.
    pub(super) fn parse(data: &[u8; BYTES], id: u32, count: u32) -> Result<Self, Error> {
        let blocks = u64_at(data, 0);
        if blocks == 0 {
            // All zero: not an active namespace.
            return Err(Error::NoNamespace { nsid: id, count });
        }
        if u64_at(data, 8) > blocks {
            return Err(Error::Identify { why: "a namespace's capacity is above its size" });
        }
        // FLBAS: bits 3:0, and 6:5 above them where there are more than 16.
        let (nlbaf, flbas) = (data[25], data[26]);
        let high = if nlbaf >= 16 { (flbas >> 5 & 3) << 4 } else { 0 };
        let format = usize::from(flbas & 0xf | high);
        if format > usize::from(nlbaf) || format >= 64 {
            return Err(Error::Identify {
                why: "a namespace is in an LBA format it does not have",
            });
        }
        let lbaf = u32_at(data, 128 + 4 * format);
        let refuse = |why| Err(Error::Format { nsid: id, why });
        if lbaf & 0xffff != 0 {
            return refuse("its blocks carry metadata");
        }
        if data[29] & 7 != 0 {
            return refuse("it has end-to-end protection");
        }
        let block_shift = (lbaf >> 16) as u8;
        if !(9..=12).contains(&block_shift) && !fault::on(Fault::BlockShiftUnchecked) {
            return refuse("its blocks are not of 512 to 4096 bytes");
        }
        if blocks > u64::MAX >> 1 >> block_shift {
            return Err(Error::Identify { why: "a namespace has more bytes than can be counted" });
        }
        Ok(Self {
            id,
            block_shift,
            read_only: data[99] & 1 != 0,
            zeroes_deallocate: data[33] & 1 << 3 != 0,
            bytes: blocks << block_shift,
            short_end: (blocks + 1).saturating_sub((PAGE >> block_shift) as u64),
        })
    }
}
