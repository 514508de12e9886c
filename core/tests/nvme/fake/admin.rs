//! Admin commands, with the checks of the specification.

use super::Aborts;
use super::device::{Device, Work};
use super::queues::{Completions, Submissions};

const DELETE_SQ: u8 = 0x00;
const CREATE_SQ: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_CQ: u8 = 0x04;
const CREATE_CQ: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const ASYNC_EVENT_REQUEST: u8 = 0x0c;
const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;

const INVALID_FIELD: u16 = 0x02;
const INVALID_NAMESPACE: u16 = 0x0b;
const SEQUENCE_ERROR: u16 = 0x0c;
const PRP_OFFSET: u16 = 0x13;
const CQ_INVALID: u16 = 0x100;
const QUEUE_ID_INVALID: u16 = 0x101;
const QUEUE_SIZE_INVALID: u16 = 0x102;
const ABORT_LIMIT: u16 = 0x103;
const EVENT_LIMIT: u16 = 0x105;
const VECTOR_INVALID: u16 = 0x108;
const LOG_PAGE_INVALID: u16 = 0x109;
const DELETION_INVALID: u16 = 0x10c;

/// Interrupt vectors there are.
const VECTORS: u16 = 8;

type Answer = Result<u32, u16>;

impl Device {
    /// What is checked when it is fetched.
    pub fn look_admin(&mut self, work: &mut Work) -> Option<u16> {
        let same = self.work.iter().filter(|w| w.sqid == 0 && w.opcode() == work.opcode()).count();
        if work.dwords[0] >> 14 & 3 != 0 {
            self.fault("an admin command with SGLs");
        }
        match work.opcode() {
            ABORT if same > usize::from(self.setup.acl) => Some(ABORT_LIMIT),
            ASYNC_EVENT_REQUEST if same > usize::from(self.setup.aerl) => Some(EVENT_LIMIT),
            IDENTIFY => self.walk(work, 4096).err(),
            GET_LOG_PAGE => self.walk(work, (work.dwords[10] as usize >> 16) * 4 + 4).err(),
            _ => None,
        }
    }

    /// The answer: dword 0 and status. `None`: not yet.
    pub fn do_admin(&mut self, work: &Work) -> Option<(u32, u16)> {
        let answer = match work.opcode() {
            IDENTIFY => self.identify(work),
            SET_FEATURES => self.set_features(work),
            CREATE_CQ => self.create_cq(work),
            CREATE_SQ => self.create_sq(work),
            DELETE_SQ => self.delete_sq(work),
            DELETE_CQ => self.delete_cq(work),
            GET_LOG_PAGE => self.get_log_page(work),
            DOORBELL_BUFFER_CONFIG => self.configure_doorbells(work),
            ABORT => {
                self.aborts += 1;
                if self.lies.aborts == Aborts::Lost {
                    // It stays outstanding, for ever.
                    let fate = super::Fate::Lost;
                    self.work.push(Work { fate, ..work.clone() });
                    return None;
                }
                let done = self.abort(work.dwords[10] as u16, (work.dwords[10] >> 16) as u16);
                Ok(u32::from(!done))
            }
            _ => Err(0x01),
        };
        Some(match answer {
            Ok(dword0) => (dword0, 0),
            Err(status) => (0, status),
        })
    }

    fn hand_over(&mut self, work: &Work, data: &[u8]) -> Answer {
        let mut done = 0;
        for (at, len) in &work.data {
            let end = (done + len).min(data.len());
            self.memory.write(*at, &data[done..end]);
            done = end;
        }
        Ok(0)
    }

    fn identify(&mut self, work: &Work) -> Answer {
        let mut data = [0; 4096];
        let (cns, nsid) = (work.dwords[10] & 0xff, work.nsid());
        let count = self.namespaces.len() as u32;
        match cns {
            0 => {
                if nsid == 0 || nsid > count {
                    return Err(INVALID_NAMESPACE);
                }
                let namespace = &self.namespaces[nsid as usize - 1];
                for at in [0, 8, 16] {
                    data[at..at + 8].copy_from_slice(&namespace.blocks.to_le_bytes());
                }
                data[33] = namespace.dealloc;
                data[99] = u8::from(namespace.read_only);
                data[130] = namespace.shift;
            }
            1 => {
                let s = &self.setup;
                data[4..24].fill(b' ');
                data[4..4 + s.serial.len()].copy_from_slice(s.serial.as_bytes());
                data[24..72].fill(b' ');
                data[24..28].copy_from_slice(b"fake");
                data[77] = s.mdts;
                data[82] = 2;
                data[257] = u8::from(s.doorbell_buffer);
                (data[258], data[259]) = (s.acl, s.aerl);
                (data[512], data[513]) = (0x66, 0x44);
                data[516..520].copy_from_slice(&count.to_le_bytes());
                data[520] = u8::from(s.dsm) << 2 | u8::from(s.write_zeroes) << 3;
                data[525] = u8::from(s.vwc);
                data[536] = s.sgls;
            }
            2 => {
                for (place, id) in data.as_chunks_mut::<4>().0.iter_mut().zip(nsid + 1..=count) {
                    *place = id.to_le_bytes();
                }
            }
            _ => return Err(INVALID_FIELD),
        }
        if let Some(change) = self.setup.identify {
            change(cns, &mut data);
        }
        self.hand_over(work, &data)
    }

    fn set_features(&mut self, work: &Work) -> Answer {
        match work.dwords[10] {
            0x07 => {
                if self.sqs.len() > 1 {
                    return Err(SEQUENCE_ERROR);
                }
                let wanted = work.dwords[11];
                if wanted & 0xffff == 0xffff || wanted >> 16 == 0xffff {
                    return Err(INVALID_FIELD);
                }
                let pairs = |wanted: u32| (wanted + 1).min(u32::from(self.setup.pairs));
                let (sqs, cqs) = (pairs(wanted & 0xffff), pairs(wanted >> 16));
                self.pairs = sqs.min(cqs) as u16;
                Ok((sqs - 1) | (cqs - 1) << 16)
            }
            0x0b => Ok(0),
            _ => Err(INVALID_FIELD),
        }
    }

    /// Queue id, entries and memory of a queue to be created.
    fn queue(&mut self, work: &Work, entry: usize) -> Result<(u16, u32, u64), u16> {
        let (qid, entries) = (work.dwords[10] as u16, (work.dwords[10] >> 16) + 1);
        let (base, more) = work.pointers();
        if qid == 0 || qid > self.pairs {
            return Err(QUEUE_ID_INVALID);
        }
        if entries < 2 || entries > u32::from(self.setup.mqes) + 1 {
            return Err(QUEUE_SIZE_INVALID);
        }
        if base & 0xfff != 0 {
            return Err(PRP_OFFSET);
        }
        if work.dwords[11] & 1 == 0 || more != 0 {
            return Err(INVALID_FIELD);
        }
        // All of it must be there.
        let mut all = vec![0; entries as usize * entry];
        self.memory.read(base, &mut all);
        if all.iter().any(|&byte| byte != 0) && entry == 16 {
            self.fault("a completion queue with old entries");
        }
        Ok((qid, entries, base))
    }

    fn create_cq(&mut self, work: &Work) -> Answer {
        let (qid, entries, base) = self.queue(work, 16)?;
        if self.cqs.contains_key(&qid) {
            return Err(QUEUE_ID_INVALID);
        }
        let vector = (work.dwords[11] >> 16) as u16;
        if vector >= VECTORS {
            return Err(VECTOR_INVALID);
        }
        let vector = (work.dwords[11] & 2 != 0).then_some(vector);
        self.cqs.insert(qid, Completions::new(base, entries, vector));
        Ok(0)
    }

    fn create_sq(&mut self, work: &Work) -> Answer {
        let (qid, entries, base) = self.queue(work, 64)?;
        if self.sqs.contains_key(&qid) {
            return Err(QUEUE_ID_INVALID);
        }
        let cqid = (work.dwords[11] >> 16) as u16;
        if cqid == 0 || !self.cqs.contains_key(&cqid) {
            return Err(CQ_INVALID);
        }
        let mut sq = Submissions::new(base, entries, cqid);
        sq.looking = self.shadow.is_some();
        self.sqs.insert(qid, sq);
        Ok(0)
    }

    fn delete_sq(&mut self, work: &Work) -> Answer {
        let qid = work.dwords[10] as u16;
        if qid == 0 || !self.sqs.contains_key(&qid) {
            return Err(QUEUE_ID_INVALID);
        }
        while let Some(at) = self.work.iter().position(|work| work.sqid == qid) {
            let work = self.work.remove(at);
            self.post(work.sqid, work.cid, 0, 0x08);
        }
        self.sqs.remove(&qid);
        Ok(0)
    }

    fn delete_cq(&mut self, work: &Work) -> Answer {
        let qid = work.dwords[10] as u16;
        if qid == 0 || !self.cqs.contains_key(&qid) {
            return Err(QUEUE_ID_INVALID);
        }
        if self.sqs.values().any(|sq| sq.cqid == qid) {
            return Err(DELETION_INVALID);
        }
        self.cqs.remove(&qid);
        Ok(0)
    }

    fn get_log_page(&mut self, work: &Work) -> Answer {
        let mut data = [0; 4096];
        let (page, retain) = (work.dwords[10] & 0xff, work.dwords[10] >> 15 & 1 != 0);
        match page {
            1 => {
                data[..8].copy_from_slice(&7u64.to_le_bytes());
                data[8..16].copy_from_slice(&[2, 0, 3, 0, 0x05, 0x05, 0, 0]);
                data[16..24].copy_from_slice(&77u64.to_le_bytes());
                data[24] = 1;
            }
            2 => {
                (data[0], data[3], data[4], data[5]) = (1, 90, 10, 4);
                data[1..3].copy_from_slice(&300u16.to_le_bytes());
                data[112] = 9;
            }
            4 => {}
            _ => return Err(LOG_PAGE_INVALID),
        }
        if !retain {
            // Error events are told of by page 1, health by page 2, changed
            // namespaces, which are notices, by page 4.
            self.masked &= !(1 << if page == 4 { 2 } else { page - 1 });
        }
        self.hand_over(work, &data)
    }

    fn configure_doorbells(&mut self, work: &Work) -> Answer {
        let (doorbells, events) = work.pointers();
        if (doorbells | events) & 0xfff != 0 {
            return Err(PRP_OFFSET);
        }
        if !self.setup.doorbell_buffer {
            return Err(0x01);
        }
        self.shadow = Some((doorbells, events));
        Ok(0)
    }

    /// Answers an event request if there is something to tell.
    pub fn tell_events(&mut self) {
        let Some(event) = self.events.iter().position(|event| self.masked >> (event & 7) & 1 == 0)
        else {
            return;
        };
        let asked = |work: &Work| work.sqid == 0 && work.opcode() == 0x0c && work.refused.is_none();
        let Some(at) = self.work.iter().position(asked) else { return };
        let event = self.events.remove(event);
        self.masked |= 1 << (event & 7);
        let work = self.work.remove(at);
        self.post(0, work.cid, event, 0);
    }
}
