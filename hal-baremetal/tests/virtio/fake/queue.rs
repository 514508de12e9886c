//! The device's side of a virtqueue, in both layouts.

use super::bit;
use super::device::Device;

/// No piece of memory is longer.
const LONGEST: u32 = 1 << 24;

/// How a used entry is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Another number.
    Id(u32),
    /// A longer length.
    Length(u32),
    /// The index is further than it is (split).
    Index(u16),
    /// No status is written.
    NoStatus,
    /// The entry comes twice.
    Twice,
}

/// A piece of memory of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub device: u64,
    pub len: u32,
    pub writes: bool,
}

/// A request that the device has.
#[derive(Clone, Debug)]
pub struct Chain {
    pub queue: usize,
    pub id: u16,
    /// Where its first descriptor is: packed, with the wrap counter.
    first: (u16, bool),
    /// Descriptors in the queue.
    pub count: u16,
    pub pieces: Vec<Piece>,
    /// Its table and the entries of that, if it has one.
    table: Option<(u64, u16)>,
    /// It never ends.
    pub lost: bool,
}

/// A queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    pub ready: bool,
    pub size: u16,
    pub parts: [u64; 3],
    pub vector: u16,
    /// It was notified, and has not gone to sleep since.
    pub awake: bool,
    /// What the last notification said.
    pub said: Option<u16>,
    /// Split: free-running. Packed: positions with their wrap counters.
    pub next: u16,
    pub used: u16,
    pub next_at: (u16, bool),
    pub used_at: (u16, bool),
}

fn plus(at: (u16, bool), count: u16, size: u16) -> (u16, bool) {
    let sum = at.0 + count;
    if sum >= size { (sum - size, !at.1) } else { (sum, at.1) }
}

/// The device's own idea of when an index passes an event: step by step.
fn passes(event: u16, old: u16, new: u16) -> bool {
    let mut at = old;
    while at != new {
        if at == event {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

impl Device {
    fn packed(&self) -> bool {
        self.regs.accepted & bit::PACKED != 0
    }

    fn events(&self) -> bool {
        self.regs.accepted & bit::EVENT_IDX != 0
    }

    fn get<const N: usize>(&mut self, device: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(device, &mut bytes);
        bytes
    }

    fn get16(&mut self, device: u64) -> u16 {
        u16::from_le_bytes(self.get(device))
    }

    fn put16(&mut self, device: u64, value: u16) {
        self.memory.write(device, &value.to_le_bytes());
    }

    pub fn set_up(&mut self, f: impl FnOnce(&mut Queue)) {
        let queue = usize::from(self.regs.queue);
        let early = self.regs.status & 12 == 8;
        match self.queues.get_mut(queue).filter(|queue| !queue.ready && early) {
            Some(queue) => f(queue),
            None => self.fault(&format!("queue {queue} is configured, and must not be now")),
        }
    }

    pub fn enable(&mut self, value: u32) {
        let (packed, limit) = (self.packed(), self.setup.queue_size);
        let mut wrong = value != 1;
        self.set_up(|queue| {
            wrong |= queue.size == 0 || queue.size > limit;
            wrong |= !packed && !queue.size.is_power_of_two();
            wrong |= queue.parts[0] % 16 != 0 || queue.parts[2] % 4 != 0;
            wrong |= queue.parts[1] % if packed { 4 } else { 2 } != 0;
            queue.ready = true;
            (queue.next_at, queue.used_at) = ((0, true), (0, true));
        });
        if wrong {
            self.fault("a queue of the wrong size, or off its grid");
        }
    }

    /// Descriptors from `table` on, to the one without NEXT, or `count`.
    fn table(&mut self, table: u64, first: u16, count: Option<u16>, size: u16) -> Vec<Piece> {
        let linked = !self.packed();
        let mut pieces = Vec::new();
        let mut at = first;
        loop {
            let bytes: [u8; 16] = self.get(table + 16 * u64::from(at));
            let device = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let (flags, next) = if linked { (half(12), half(14)) } else { (half(14), at + 1) };
            if flags & 4 != 0 || len == 0 || len > LONGEST || pieces.len() >= usize::from(size) {
                self.fault("a chain that is longer than its queue, empty, or a table in a table");
                return pieces;
            }
            pieces.push(Piece { device, len, writes: flags & 2 != 0 });
            let more = if linked { flags & 1 != 0 } else { at + 1 < count.unwrap_or(0) };
            if !more {
                break;
            }
            at = next;
            if at >= count.unwrap_or(size) {
                self.fault("a descriptor outside of its table");
                return pieces;
            }
        }
        if count.is_some_and(|count| usize::from(count) != pieces.len()) {
            self.fault("a table that is longer than its chain");
        }
        pieces
    }

    /// What is in a chain's descriptors now.
    fn pieces(&mut self, chain: &mut Chain) -> Vec<Piece> {
        let queue = self.queues[chain.queue].clone();
        let indirect = |bytes: &[u8; 16], flags: u16| {
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            (flags & 4 != 0).then(|| (u64::from_le_bytes(bytes[..8].try_into().unwrap()), len))
        };
        let half = |bytes: &[u8; 16], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut pieces = Vec::new();
        for step in 0..chain.count {
            let at = if self.packed() { plus(chain.first, step, queue.size).0 } else { chain.id };
            let bytes: [u8; 16] = self.get(queue.parts[0] + 16 * u64::from(at));
            let flags = half(&bytes, if self.packed() { 14 } else { 12 });
            if let Some((table, len)) = indirect(&bytes, flags) {
                if len % 16 != 0 || self.regs.accepted & bit::INDIRECT == 0 {
                    self.fault("an indirect table of half a descriptor, or at all");
                }
                let count = (len / 16) as u16;
                chain.table = Some((table, count));
                return self.table(table, 0, Some(count), queue.size);
            }
            if !self.packed() {
                return self.table(queue.parts[0], at, None, queue.size);
            }
            let device = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            if len > LONGEST {
                self.fault("a piece that is longer than anything");
                return pieces;
            }
            pieces.push(Piece { device, len, writes: flags & 2 != 0 });
        }
        pieces
    }

    /// The next chain that was made available.
    fn fetch(&mut self, index: usize) -> Option<Chain> {
        let queue = self.queues[index].clone();
        let first = queue.next_at;
        let mut chain = Chain {
            queue: index,
            id: 0,
            first,
            count: 1,
            pieces: Vec::new(),
            table: None,
            lost: false,
        };
        if self.packed() {
            let mut at = queue.next_at;
            let mut count = 0;
            loop {
                let bytes: [u8; 16] = self.get(queue.parts[0] + 16 * u64::from(at.0));
                let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                let flags = half(14);
                let (available, used) = (flags & 1 << 7 != 0, flags & 1 << 15 != 0);
                if available != at.1 || used == at.1 {
                    if count != 0 {
                        self.fault("a chain was made available before it was whole");
                    }
                    return None;
                }
                (count, chain.id) = (count + 1, half(12));
                at = plus(at, 1, queue.size);
                if flags & 1 == 0 || count >= queue.size {
                    break;
                }
            }
            chain.count = count;
            self.queues[index].next_at = at;
        } else {
            let published = self.get16(queue.parts[1] + 2);
            let new = published.wrapping_sub(queue.next);
            if new == 0 {
                return None;
            }
            if new > queue.size {
                self.fault(&format!("{new} entries in a queue of {}", queue.size));
                return None;
            }
            let at = u64::from(queue.next & (queue.size - 1));
            chain.id = self.get16(queue.parts[1] + 4 + 2 * at);
            self.queues[index].next = queue.next.wrapping_add(1);
        }
        if chain.id >= queue.size || self.work.iter().any(|w| w.queue == index && w.id == chain.id)
        {
            self.fault(&format!("id {} is in flight, or too large", chain.id));
            return None;
        }
        chain.pieces = self.pieces(&mut chain);
        let first = chain.pieces.iter().position(|piece| piece.writes);
        let split = first.unwrap_or(chain.pieces.len());
        if chain.pieces[split..].iter().any(|piece| !piece.writes) {
            self.fault("what the device reads comes after what it writes");
        }
        Some(chain)
    }

    /// Takes everything that is available in the queues that it was notified
    /// of, says when it wants to hear of more, and looks again.
    pub fn look(&mut self) {
        if self.gone || self.lies.deaf || self.regs.status & 4 == 0 || self.regs.resetting.is_some()
        {
            return;
        }
        for index in 0..self.queues.len() {
            if !(self.queues[index].ready && self.queues[index].awake) {
                continue;
            }
            self.wish(index, false);
            loop {
                while let Some(chain) = self.fetch(index) {
                    self.work.push(chain);
                }
                let queue = &self.queues[index];
                let (next, at) = (queue.next, queue.next_at);
                let position = match self.packed() {
                    true => at.0 | u16::from(at.1) << 15,
                    false => next,
                };
                if self.queues[index].said.take().is_some_and(|said| said != position) {
                    self.fault("a notification that says another position");
                }
                self.wish(index, true);
                match self.fetch(index) {
                    Some(chain) => self.work.push(chain),
                    None => break,
                }
            }
            self.queues[index].awake = false;
        }
    }

    /// Whether it wants to be notified.
    fn wish(&mut self, index: usize, wants: bool) {
        let queue = self.queues[index].clone();
        match (self.packed(), self.events()) {
            (false, true) if wants => {
                let event = queue.parts[2] + 4 + 8 * u64::from(queue.size);
                self.put16(event, queue.next);
            }
            (false, true) => {}
            (false, false) => self.put16(queue.parts[2], u16::from(!wants)),
            (true, true) if wants => {
                let at = queue.next_at.0 | u16::from(queue.next_at.1) << 15;
                self.put16(queue.parts[2], at);
                self.put16(queue.parts[2] + 2, 2);
            }
            (true, _) => self.put16(queue.parts[2] + 2, u16::from(!wants)),
        }
    }

    /// Writes half a word anywhere where it may: the used ring and the event
    /// behind it (split); the descriptors and its events (packed).
    pub fn scribble(&mut self, queue: usize, at: usize, value: u16) {
        let Some(queue) = self.queues.get(queue).filter(|queue| queue.ready).cloned() else {
            return;
        };
        let size = usize::from(queue.size);
        let at = match self.packed() {
            true if at % 8 == 7 => queue.parts[2] + (at / 8 % 2 * 2) as u64,
            true => queue.parts[0] + (at % (size * 8) * 2) as u64,
            false => queue.parts[2] + (at % (3 + size * 4) * 2) as u64,
        };
        self.scribbled = true;
        self.put16(at, value);
    }

    /// Hands a chain back, of which it has written so much.
    pub fn push_used(&mut self, chain: &Chain, len: u32, lie: Option<Lie>) {
        let size = self.queues[chain.queue].size;
        let now = match chain.table {
            Some((table, count)) => self.table(table, 0, Some(count), size),
            None if self.packed() => {
                // Used entries have been written over them, perhaps.
                chain.pieces.clone()
            }
            None => self.pieces(&mut chain.clone()),
        };
        if now != chain.pieces {
            self.fault("descriptors were changed while the device had them");
        }
        let index = chain.queue;
        let (mut id, mut len) = (u32::from(chain.id), len);
        match lie {
            Some(Lie::Id(other)) => id = other,
            Some(Lie::Length(other)) => len = other,
            _ => {}
        }
        let times = if lie == Some(Lie::Twice) { 2 } else { 1 };
        for _ in 0..times {
            let queue = self.queues[index].clone();
            if self.packed() {
                let (at, wrap) = queue.used_at;
                let entry = queue.parts[0] + 16 * u64::from(at);
                self.memory.write(entry + 8, &len.to_le_bytes());
                self.put16(entry + 12, id as u16);
                self.put16(entry + 14, if wrap { 1 << 7 | 1 << 15 } else { 0 });
                self.queues[index].used_at = plus(queue.used_at, chain.count, queue.size);
            } else {
                let at = u64::from(queue.used & (queue.size - 1));
                let entry = queue.parts[2] + 4 + 8 * at;
                self.memory.write(entry, &id.to_le_bytes());
                self.memory.write(entry + 4, &len.to_le_bytes());
                let ahead = match lie {
                    Some(Lie::Index(ahead)) => ahead,
                    _ => 1,
                };
                let new = queue.used.wrapping_add(ahead);
                self.put16(queue.parts[2] + 2, new);
                self.queues[index].used = new;
            }
            self.tell(index, &queue, chain.count);
        }
    }

    /// An interrupt, if the driver wants one.
    fn tell(&mut self, index: usize, old: &Queue, count: u16) {
        let wanted = match (self.packed(), self.events()) {
            (false, true) => {
                let event = self.get16(old.parts[1] + 4 + 2 * u64::from(old.size));
                passes(event, old.used, self.queues[index].used)
            }
            (false, false) => self.get16(old.parts[1]) & 1 == 0,
            (true, _) => match self.get16(old.parts[1] + 2) {
                0 => true,
                2 if self.events() => {
                    let event = self.get16(old.parts[1]);
                    let event = (event & 0x7fff, event >> 15 != 0);
                    (0..count).any(|step| plus(old.used_at, step, old.size) == event)
                }
                1 => false,
                other => {
                    self.fault(&format!("event flags {other}"));
                    false
                }
            },
        };
        if wanted {
            self.regs.interrupt |= 1;
            self.interrupts += 1;
        }
    }
}
