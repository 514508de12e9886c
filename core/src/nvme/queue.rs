//! A queue pair's memory and doorbells (Base sections 3.3, 4.1.4).

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::regs::DOORBELLS;
use super::spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, WORDS};
use crate::hal::device::{Coherent, Mmio, barrier};

/// Shadow doorbells and event indices (Base section 5.8, annex B.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct Shadow {
    pub doorbell: NonNull<u32>,
    pub event: NonNull<u32>,
}

// SAFETY: words that a device shares, which belong to no thread; whoever has
// the doorbell is the only one here to touch them.
unsafe impl Send for Shadow {}

/// A doorbell register, with its shadow if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doorbell {
    register: usize,
    shadow: Option<Shadow>,
    value: u32,
}

impl Doorbell {
    /// Of queue `qid`, which the device does not have yet; `completion`: the
    /// completion queue's.
    pub fn new(qid: u16, completion: bool, stride: usize, shadow: Option<Shadow>) -> Self {
        if let Some(shadow) = shadow {
            // What the last queue of this number left there.
            // SAFETY: in the shadow pages, which live as long as the
            // controller.
            unsafe {
                shadow.doorbell.write_volatile(0);
                shadow.event.write_volatile(0);
            }
        }
        let number = 2 * usize::from(qid) + usize::from(completion);
        Self { register: DOORBELLS + number * stride, shadow, value: 0 }
    }

    /// Tells the device `value`. The entries before it have been written.
    /// Answers whether the register was written.
    #[inline(always)]
    pub fn ring(&mut self, registers: &impl Mmio, value: u32) -> bool {
        // The device that sees the doorbell sees the entries.
        barrier::write();
        let old = core::mem::replace(&mut self.value, value);
        match self.shadow {
            None => {
                registers.write32(self.register, value);
                true
            }
            Some(shadow) => self.ring_shadow(registers, shadow, old, value),
        }
    }

    fn ring_shadow(&self, registers: &impl Mmio, shadow: Shadow, old: u32, value: u32) -> bool {
        // SAFETY: in the shadow pages, which live as long as the controller;
        // volatile, for the device reads the one and writes the other.
        let event = unsafe {
            shadow.doorbell.write_volatile(value.to_le());
            // Between our word and the device's: one of us sees the other.
            barrier::full();
            u32::from_le(shadow.event.read_volatile())
        };
        // The device asks to be told when the doorbell passes `event`
        // (16-bit arithmetic, as in virtio).
        let passed =
            (value.wrapping_sub(event).wrapping_sub(1) as u16) < (value.wrapping_sub(old) as u16);
        if passed {
            registers.write32(self.register, value);
        }
        passed
    }
}

/// A submission queue's memory: a ring of commands that only we write.
#[derive(Debug)]
pub(super) struct Submissions {
    memory: Coherent,
    entries: u32,
    /// Free-running.
    tail: u32,
    pub doorbell: Doorbell,
    rung: u32,
}

impl Submissions {
    /// `entries` in zeroed memory of their own.
    pub fn new(memory: Coherent, entries: u32, doorbell: Doorbell) -> Self {
        assert!(entries as usize * COMMAND_BYTES <= memory.len && entries >= 2);
        assert!(entries.is_power_of_two(), "so that the tail wraps by a mask");
        Self { memory, entries, tail: 0, doorbell, rung: 0 }
    }

    pub fn device(&self) -> u64 {
        self.memory.device
    }

    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Its next places, to be filled with the position in a register;
    /// [`filled`](Self::filled) says how far. No more than `room`, and up to the
    /// end of the memory. The caller knows that the device does not have these.
    #[inline(always)]
    pub fn places(&mut self, room: u32) -> Places<'_> {
        let first = self.tail & (self.entries - 1);
        let count = room.min(self.entries - first);
        // SAFETY: the tail, masked, is below `entries`, which fit the memory
        // (`new`); it is never more than `first` entries behind their end.
        let next = unsafe { self.memory.ptr.cast::<Entry>().add(first as usize) };
        // SAFETY: as above.
        let end = unsafe { next.add(count as usize) };
        Places { next, end, queue: PhantomData }
    }

    /// This many places were filled.
    #[inline(always)]
    pub fn filled(&mut self, count: u32) {
        self.tail = self.tail.wrapping_add(count);
    }

    /// Writes a command. The caller knows that there is room: fewer than
    /// `entries` - 1 are outstanding.
    #[inline(always)]
    pub fn push(&mut self, command: &Command, cid: u16) {
        if let Some(place) = self.places(1).take() {
            place.fill(command.words(cid));
            self.filled(1);
        }
    }

    /// Rings the doorbell if anything was pushed since. Answers whether the
    /// register was written.
    #[inline(always)]
    pub fn kick(&mut self, registers: &impl Mmio) -> bool {
        if self.tail == self.rung {
            return false;
        }
        self.rung = self.tail;
        self.doorbell.ring(registers, self.tail & (self.entries - 1))
    }

    /// As after its creation. The device does not use it.
    pub fn reset(&mut self, doorbell: Doorbell) {
        (self.tail, self.rung, self.doorbell) = (0, 0, doorbell);
    }

    /// The memory, to be freed.
    pub fn memory(&self) -> Coherent {
        Coherent { ..self.memory }
    }
}

/// An entry of a submission queue.
type Entry = [u64; COMMAND_BYTES / 8];

/// Places of a submission queue, which stays where it is meanwhile.
pub(super) struct Places<'a> {
    next: NonNull<Entry>,
    end: NonNull<Entry>,
    queue: PhantomData<&'a mut Submissions>,
}

impl Places<'_> {
    /// How many are left.
    #[inline(always)]
    pub fn left(&self) -> u32 {
        ((self.end.addr().get() - self.next.addr().get()) / COMMAND_BYTES) as u32
    }

    /// Takes the next, if one is left.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Place<'_>> {
        if self.next == self.end {
            return None;
        }
        let entry = self.next;
        // SAFETY: before the end, so inside the queue's memory or behind its
        // last entry (`Submissions::places`).
        self.next = unsafe { entry.add(1) };
        Some(Place { entry, queue: PhantomData })
    }
}

/// A place of a submission queue.
pub(super) struct Place<'a> {
    entry: NonNull<Entry>,
    queue: PhantomData<&'a mut Submissions>,
}

impl Place<'_> {
    /// Writes a command's [`words`](Command::words).
    #[inline(always)]
    pub fn fill(self, command: [u64; 5]) {
        let entry = self.entry.cast::<u64>();
        for (word, value) in WORDS.into_iter().zip(command) {
            // SAFETY: inside the queue's memory (`Places::take`); 8 words an
            // entry. Volatile, for the device reads it. The other words of the
            // entry have been zero since the start.
            unsafe { entry.add(word).write_volatile(value.to_le()) };
        }
    }
}

/// A completion queue's memory: a ring of entries that the device writes.
#[derive(Debug)]
pub(super) struct Reaped {
    memory: Coherent,
    entries: u32,
    head: u32,
    /// The phase tag of an entry that is new.
    phase: u32,
    pub doorbell: Doorbell,
    /// Entries taken and not given back.
    kept: u32,
    /// As many can be kept while the device has room for all commands.
    spare: u32,
}

/// The phase tag in dword 3.
const PHASE: u32 = 1 << 16;
/// The `turn` of a walk that is over.
const STOPPED: u32 = u32::MAX;

impl Reaped {
    /// `entries` in zeroed memory of their own, for `most` commands at once.
    pub fn new(memory: Coherent, entries: u32, most: u32, doorbell: Doorbell) -> Self {
        assert!(entries as usize * COMPLETION_BYTES <= memory.len && entries >= 2);
        // One place stays empty, so that full and empty differ.
        let spare = (entries - 1).saturating_sub(most);
        Self { memory, entries, head: 0, phase: PHASE, doorbell, kept: 0, spare }
    }

    pub fn device(&self) -> u64 {
        self.memory.device
    }

    pub fn entries(&self) -> u32 {
        self.entries
    }

    fn word(&self, word: usize) -> NonNull<u32> {
        // SAFETY: the head is below `entries`, which fit the memory (`new`);
        // `word` is below 4.
        unsafe { self.memory.ptr.cast::<u32>().add(self.head as usize * 4 + word) }
    }

    /// Whether there is a new entry.
    #[inline(always)]
    pub fn any(&self) -> bool {
        // SAFETY: see `word`. Volatile, for the device writes it.
        u32::from_le(unsafe { self.word(3).read_volatile() }) & PHASE == self.phase
    }

    /// The new entries, to be gone through with the position in a register;
    /// [`took`](Self::took) says how far.
    #[inline(always)]
    pub fn answers(&self) -> Answers {
        // SAFETY: the head is below `entries`, which fit the memory (`new`).
        let next = unsafe { self.memory.ptr.cast::<Answer>().add(self.head as usize) };
        // SAFETY: as above.
        let end = unsafe { next.add((self.entries - self.head) as usize) };
        Answers { next, end, turn: self.phase ^ PHASE }
    }

    /// Takes the entries that were gone through; answers how many. True if the
    /// walk has come to the end of the memory: there may be more at its start.
    pub fn took(&mut self, answers: &Answers) -> (u32, bool) {
        let taken = self.entries - self.head - answers.left();
        self.head += taken;
        self.kept += taken;
        let wraps = self.head == self.entries;
        if wraps {
            (self.head, self.phase) = (0, self.phase ^ PHASE);
        }
        (taken, wraps)
    }

    #[inline(always)]
    fn step(&mut self) {
        self.head += 1;
        if self.head == self.entries {
            (self.head, self.phase) = (0, self.phase ^ PHASE);
        }
    }

    /// Takes the next new entry. Each word is read once.
    #[inline(always)]
    pub fn next(&mut self) -> Option<Completion> {
        // SAFETY: see `word`. Volatile, for the device writes it.
        let dword3 = u32::from_le(unsafe { self.word(3).read_volatile() });
        if dword3 & PHASE != self.phase {
            return None;
        }
        // Nothing else of the entry, nor of the data, is read before its
        // phase tag.
        barrier::read();
        // SAFETY: as above.
        let dword0 = u32::from_le(unsafe { self.word(0).read_volatile() });
        self.step();
        Some(Completion { dword0, dword3 })
    }

    /// Gives the taken entries back to the device, if it might lack them
    /// otherwise: the register is worth more than one batch. Answers whether it
    /// was written.
    #[inline(always)]
    pub fn release_some(&mut self, registers: &impl Mmio) -> bool {
        self.kept > self.spare && self.release(registers)
    }

    /// Gives the taken entries back to the device. Answers whether the register
    /// was written.
    #[inline(always)]
    pub fn release(&mut self, registers: &impl Mmio) -> bool {
        self.kept = 0;
        self.doorbell.ring(registers, self.head)
    }

    /// Whether entries are kept from the device.
    pub fn keeps(&self) -> bool {
        self.kept != 0
    }

    /// As after its creation. The device does not use it.
    pub fn reset(&mut self, doorbell: Doorbell) {
        (self.head, self.phase, self.kept, self.doorbell) = (0, PHASE, 0, doorbell);
        for word in 0..self.entries as usize * (COMPLETION_BYTES / 8) {
            // SAFETY: inside the memory (`new`).
            unsafe { self.memory.ptr.cast::<u64>().add(word).write_volatile(0) };
        }
    }

    /// The memory, to be freed.
    pub fn memory(&self) -> Coherent {
        Coherent { ..self.memory }
    }
}

/// An entry of a completion queue.
type Answer = [u32; COMPLETION_BYTES / 4];

/// A walk through the new entries of a completion queue, which stays where it
/// is meanwhile, up to the end of its memory.
#[derive(Debug)]
pub(super) struct Answers {
    next: NonNull<Answer>,
    end: NonNull<Answer>,
    /// What makes the phase tag of a new entry one, and that of others zero.
    turn: u32,
}

impl Answers {
    /// The next new entry's dword 3, identifier and status, with the phase tag
    /// set, if there is one.
    #[inline(always)]
    pub fn next(&mut self) -> Option<u32> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: before the end, so inside the queue's memory
        // (`Reaped::answers`), and the queue outlives the walk. Volatile, for
        // the device writes it.
        let dword3 = unsafe { self.next.cast::<u32>().add(3).read_volatile() };
        let answer = u32::from_le(dword3) ^ self.turn;
        if answer & PHASE == 0 {
            return None;
        }
        // No data is read before the phase tag that says that it is there.
        barrier::read();
        // SAFETY: as above: no further than the end.
        self.next = unsafe { self.next.add(1) };
        Some(answer)
    }

    /// Entries from here to the end of the memory.
    fn left(&self) -> u32 {
        ((self.end.addr().get() - self.next.addr().get()) / COMPLETION_BYTES) as u32
    }

    /// There is nothing more to be taken.
    pub fn stop(&mut self) {
        (self.next, self.turn) = (self.end, STOPPED);
    }

    /// Whether it was stopped.
    pub fn stopped(&self) -> bool {
        self.turn == STOPPED
    }
}
