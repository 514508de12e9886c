//! Queues, from the device's end.

use super::device::Device;

pub struct Submissions {
    pub base: u64,
    pub entries: u32,
    pub cqid: u16,
    pub head: u32,
    pub tail: u32,
    /// It looks at the shadow doorbell by itself, until it finds nothing.
    pub looking: bool,
}

pub struct Completions {
    pub base: u64,
    pub entries: u32,
    pub head: u32,
    pub tail: u32,
    pub phase: u32,
    pub vector: Option<u16>,
}

impl Submissions {
    pub fn new(base: u64, entries: u32, cqid: u16) -> Self {
        Self { base, entries, cqid, head: 0, tail: 0, looking: false }
    }
}

impl Completions {
    pub fn new(base: u64, entries: u32, vector: Option<u16>) -> Self {
        Self { base, entries, head: 0, tail: 0, phase: 1, vector }
    }

    pub fn is_full(&self) -> bool {
        (self.tail + 1) % self.entries == self.head
    }

    /// Entries that the driver has not given back.
    fn used(&self) -> u32 {
        (self.tail + self.entries - self.head) % self.entries
    }
}

impl Device {
    /// Where the shadow doorbell and the event index of a queue are.
    fn shadow_of(&self, qid: u16, completion: bool) -> Option<(u64, u64)> {
        let (doorbells, events) = self.shadow.filter(|_| qid != 0)?;
        let at = (2 * u64::from(qid) + u64::from(completion)) * (4 << self.setup.dstrd);
        Some((doorbells + at, events + at))
    }

    pub fn ring_doorbell(&mut self, qid: u16, completion: bool, value: u32) {
        if qid != 0 {
            self.doorbells += 1;
        }
        if completion {
            let Some(cq) = self.cqs.get_mut(&qid) else {
                return self.blame_doorbell(format!("completion queue {qid} is not there"));
            };
            let taken = (value + cq.entries - cq.head) % cq.entries;
            if value >= cq.entries || taken > cq.used() {
                let used = cq.used();
                return self.blame(format!("{taken} of {used} entries of queue {qid} given back"));
            }
            cq.head = value;
        } else {
            let Some(sq) = self.sqs.get_mut(&qid) else {
                return self.blame_doorbell(format!("submission queue {qid} is not there"));
            };
            if value >= sq.entries {
                return self.blame(format!("a tail of {value} on queue {qid}"));
            }
            let more = (value + sq.entries - sq.tail) % sq.entries;
            let queued = (sq.tail + sq.entries - sq.head) % sq.entries;
            (sq.tail, sq.looking) = (value, true);
            if queued + more >= sq.entries {
                self.blame(format!("queue {qid} was filled beyond its room"));
            }
        }
    }

    /// Whether a queue has commands that it knows of.
    pub fn awake(&mut self, qid: u16) -> bool {
        let shadow = self.shadow_of(qid, false);
        let Some(sq) = self.sqs.get_mut(&qid) else { return false };
        let Some((doorbell, event)) = shadow.filter(|_| sq.looking) else {
            return sq.head != sq.tail;
        };
        let tail = self.memory.read32(doorbell).unwrap_or(sq.tail);
        if tail >= sq.entries {
            self.blame(format!("a shadow tail of {tail} on queue {qid}"));
            return false;
        }
        sq.tail = tail;
        if sq.head == tail {
            // It asks to be told of the next; nobody can slip in between, for
            // the driver does not run.
            sq.looking = false;
            self.memory.write32(event, tail);
            return false;
        }
        true
    }

    pub fn take_entry(&mut self, qid: u16) -> Option<[u32; 16]> {
        let sq = self.sqs.get_mut(&qid)?;
        let mut entry = [0; 64];
        let at = sq.base + u64::from(sq.head) * 64;
        sq.head = (sq.head + 1) % sq.entries;
        self.memory.read(at, &mut entry).then(|| {
            let dwords = entry.as_chunks::<4>().0;
            std::array::from_fn(|at| u32::from_le_bytes(dwords[at]))
        })
    }

    /// Posts a completion of a command. What has no room is lost, which only
    /// happens to those that nobody asked for.
    pub fn post(&mut self, sqid: u16, cid: u16, dword0: u32, status: u16) {
        let Some(sq) = self.sqs.get(&sqid) else { return };
        let (cqid, head) = (sq.cqid, sq.head);
        self.put(cqid, dword0, head | u32::from(sqid) << 16, cid, status);
    }

    /// Posts anything.
    pub fn post_raw(&mut self, cqid: u16, dword0: u32, dword2: u32, cid: u16, status: u16) {
        self.made_up.insert((cqid, cid));
        self.put(cqid, dword0, dword2, cid, status);
    }

    fn put(&mut self, cqid: u16, dword0: u32, dword2: u32, cid: u16, status: u16) {
        // Whether it has done it or not: it says so, and is done with it.
        self.work.retain(|work| cqid == 0 || work.sqid != cqid || work.cid != cid);
        self.refresh_head(cqid);
        let Some(cq) = self.cqs.get_mut(&cqid) else { return };
        if cq.is_full() && !self.lies.wild {
            return;
        }
        let at = cq.base + u64::from(cq.tail) * 16;
        let dword3 = u32::from(cid) | cq.phase << 16 | u32::from(status) << 17;
        cq.tail += 1;
        if cq.tail == cq.entries {
            (cq.tail, cq.phase) = (0, cq.phase ^ 1);
        }
        self.interrupt |= cqid != 0 && cq.vector.is_some();
        for (word, value) in [(0, dword0), (1, 0), (2, dword2), (3, dword3)] {
            self.memory.write32(at + word * 4, value);
        }
        self.refresh_head(cqid);
    }

    /// Writes an entry where the next one will be, with the phase tag of an
    /// old one.
    pub fn post_old(&mut self, cqid: u16, cid: u16) {
        let Some(cq) = self.cqs.get(&cqid) else { return };
        let (at, phase) = (cq.base + u64::from(cq.tail) * 16, cq.phase ^ 1);
        self.memory.write32(at + 12, u32::from(cid) | phase << 16);
    }

    /// Writes a word anywhere in a completion queue's memory.
    pub fn scribble(&mut self, cqid: u16, word: usize, value: u32) {
        let Some(cq) = self.cqs.get(&cqid) else { return };
        let at = cq.base + (word % (cq.entries as usize * 4)) as u64 * 4;
        self.lies.scribbled = true;
        self.memory.write32(at, value);
    }

    /// Full: it looks at the shadow doorbell, and asks to be told.
    fn refresh_head(&mut self, cqid: u16) {
        let shadow = self.shadow_of(cqid, true);
        let (Some(cq), Some((doorbell, event))) = (self.cqs.get_mut(&cqid), shadow) else {
            return;
        };
        if cq.is_full() {
            let head = self.memory.read32(doorbell).unwrap_or(cq.head);
            if head < cq.entries {
                cq.head = head;
            }
            self.memory.write32(event, head);
        }
    }
}
