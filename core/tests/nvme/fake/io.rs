//! I/O commands: where their data are, and what they do.

use super::device::{Device, Work};

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;

const INVALID_OPCODE: u16 = 0x01;
const INVALID_FIELD: u16 = 0x02;
const INVALID_NAMESPACE: u16 = 0x0b;
const SGL_LENGTH: u16 = 0x0f;
const SGL_TYPE: u16 = 0x11;
const PRP_OFFSET: u16 = 0x13;
const WRITE_PROTECTED: u16 = 0x20;
const OUT_OF_RANGE: u16 = 0x80;

const FUA: u32 = 1 << 30;
const PAGE: u64 = 4096;

impl Device {
    /// Where the data of a command are, by its PRPs or its SGL descriptor.
    pub fn walk(&mut self, work: &mut Work, len: usize) -> Result<(), u16> {
        let (first, second) = work.pointers();
        work.data.clear();
        work.lists.clear();
        match work.dwords[0] >> 14 & 3 {
            0 => self.walk_prps(work, first, second, len),
            1 => {
                let (bytes, kind) = (second as u32 as usize, second >> 32);
                let unit = if self.setup.sgls == 2 { 3 } else { 0 };
                if self.setup.sgls == 0 || (first | second) & unit != 0 {
                    self.fault("an SGL that this controller cannot take");
                }
                if kind != 0 {
                    return Err(SGL_TYPE);
                }
                if bytes != len {
                    return Err(SGL_LENGTH);
                }
                work.data.push((first, len));
                Ok(())
            }
            _ => Err(INVALID_FIELD),
        }
    }

    fn walk_prps(
        &mut self,
        work: &mut Work,
        first: u64,
        second: u64,
        len: usize,
    ) -> Result<(), u16> {
        if first & 3 != 0 {
            return Err(PRP_OFFSET);
        }
        let piece = ((PAGE - first % PAGE) as usize).min(len);
        work.data.push((first, piece));
        let mut left = len - piece;
        if left == 0 {
            if second != 0 {
                self.fault("PRP 2 is reserved where one page does");
            }
            return Ok(());
        }
        if left <= PAGE as usize {
            work.data.push((second, left));
            return if second.is_multiple_of(PAGE) { Ok(()) } else { Err(PRP_OFFSET) };
        }
        if !second.is_multiple_of(8) {
            return Err(PRP_OFFSET);
        }
        let mut at = second;
        work.lists.push(at & !(PAGE - 1));
        while left > 0 {
            let last_place = at % PAGE == PAGE - 8;
            let Some(entry) = self.memory.read64(at) else { return Err(0x04) };
            if !entry.is_multiple_of(PAGE) {
                return Err(PRP_OFFSET);
            }
            if last_place && left > PAGE as usize {
                at = entry;
                work.lists.push(at);
                continue;
            }
            let piece = left.min(PAGE as usize);
            work.data.push((entry, piece));
            left -= piece;
            at += 8;
        }
        Ok(())
    }

    /// What is checked when it is fetched.
    pub fn look_io(&mut self, work: &mut Work) -> Option<u16> {
        self.check_io(work).err()
    }

    fn check_io(&mut self, work: &mut Work) -> Result<(), u16> {
        let nsid = work.nsid();
        let index = nsid.wrapping_sub(1) as usize;
        let all = nsid == u32::MAX && work.opcode() == FLUSH;
        if index >= self.namespaces.len() && !all {
            return Err(INVALID_NAMESPACE);
        }
        if matches!(work.opcode(), FLUSH) {
            return Ok(());
        }
        let (shift, size, read_only) = {
            let namespace = &self.namespaces[index];
            (namespace.shift, namespace.blocks, namespace.read_only)
        };
        if work.opcode() == DATASET_MANAGEMENT {
            if !self.setup.dsm || work.dwords[10] != 0 || work.dwords[11] != 4 {
                return Err(INVALID_FIELD);
            }
            return self.walk(work, 16);
        }
        if work.block().checked_add(work.blocks()).is_none_or(|end| end > size) {
            return Err(OUT_OF_RANGE);
        }
        if read_only && work.opcode() != READ {
            return Err(WRITE_PROTECTED);
        }
        let bytes = (work.blocks() as usize) << shift;
        match work.opcode() {
            READ | WRITE => {
                if work.dwords[12] & !(FUA | 0xffff) != 0 {
                    self.fault(format!("dword 12 is {:#x}", work.dwords[12]));
                }
                // It may say more than there are bytes.
                let most = 12 + u32::from(self.setup.mdts);
                if most != 12 && most < usize::BITS && bytes > 1 << most {
                    return Err(INVALID_FIELD);
                }
                self.walk(work, bytes)
            }
            WRITE_ZEROES if self.setup.write_zeroes => {
                if work.dwords[0] >> 14 != (u32::from(work.cid) << 2) || work.pointers() != (0, 0) {
                    self.fault("write zeroes with a data pointer");
                }
                Ok(())
            }
            _ => Err(INVALID_OPCODE),
        }
    }

    pub fn do_io(&mut self, work: &Work) -> u16 {
        let nsid = work.nsid();
        if work.opcode() == FLUSH {
            for (id, namespace) in (1..).zip(&mut self.namespaces) {
                if nsid == id || nsid == u32::MAX {
                    namespace.flush();
                }
            }
            return 0;
        }
        // The pointers are still what they were: the driver has not touched
        // lists that the device may read at any time, until it says that it is
        // done. It may have said so before it fetched the command.
        let mut again = work.clone();
        let bytes = work.data.iter().map(|(_, len)| len).sum();
        if !work.data.is_empty()
            && self.honest(work)
            && (self.walk(&mut again, bytes) != Ok(()) || again.data != work.data)
        {
            self.fault(format!("the PRP list of command {:#x} was changed", work.cid));
        }
        let through = work.dwords[12] & FUA != 0 || !self.setup.vwc;
        let index = nsid as usize - 1;
        let shift = self.namespaces[index].shift;
        let mut buffer = vec![0; bytes];
        match work.opcode() {
            READ => {
                self.namespaces[index].read(work.block(), &mut buffer);
                let mut done = 0;
                for (at, len) in &work.data {
                    self.memory.write(*at, &buffer[done..done + len]);
                    done += len;
                }
            }
            WRITE => {
                self.gather(work, &mut buffer);
                self.namespaces[index].write(work.block(), &buffer, through);
            }
            WRITE_ZEROES => {
                let blocks = work.block()..work.block() + work.blocks();
                self.namespaces[index].zero(blocks, through);
            }
            _ => {
                self.gather(work, &mut buffer);
                let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| buffer[at + i]));
                let (attributes, blocks, start) = (word(0) as u32, word(0) >> 32, word(8));
                if attributes != 0 || start + blocks > self.namespaces[index].blocks {
                    return OUT_OF_RANGE;
                }
                self.deallocations.push((nsid, start << shift, blocks << shift));
                self.namespaces[index].deallocate(start..start + blocks);
            }
        }
        0
    }

    fn gather(&mut self, work: &Work, buffer: &mut [u8]) {
        let mut done = 0;
        for (at, len) in &work.data {
            self.memory.read(*at, &mut buffer[done..done + len]);
            done += len;
        }
    }
}
