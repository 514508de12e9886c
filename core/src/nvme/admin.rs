//! The admin queue: one command at a time that is waited for, and behind it
//! aborts and event requests that are not.

use super::log::Errors;
use super::memory::alloc_all;
use super::queue::{Doorbell, Reaped, Submissions};
use super::spec::{self, Command, Completion, admin, event, log_page};
use super::{Error, Platform, RecentError, Status, regs};
use crate::hal::device::{Coherent, PAGE};

/// Entries of the admin queues: one waited for, some aborts and events.
pub(super) const ENTRIES: u32 = 32;
/// Outstanding aborts and event requests that there is room for.
const MOST_ABORTS: u32 = 8;
const MOST_EVENTS: u32 = 4;

/// Kinds of command identifiers.
const KIND: u16 = 0xc000;
const WAITED: u16 = 0x0000;
const ABORT: u16 = 0x4000;
const EVENT: u16 = 0x8000;

/// Queue identifiers in use: 1 to 255 can be.
#[derive(Debug, Default)]
pub(super) struct Ids([u32; 8]);

impl Ids {
    /// Takes the lowest free number from 1 to `most`.
    pub fn take(&mut self, most: u16) -> Option<u16> {
        let id =
            (1..=most.min(255)).find(|&id| self.0[usize::from(id / 32)] >> (id % 32) & 1 == 0)?;
        self.0[usize::from(id / 32)] |= 1 << (id % 32);
        Some(id)
    }

    pub fn put(&mut self, id: u16) {
        self.0[usize::from(id / 32)] &= !(1 << (id % 32));
    }
}

/// Takes the lowest number that is free.
fn give_bit(used: &mut u32) -> u16 {
    let number = used.trailing_ones();
    *used |= 1 << number;
    number as u16
}

/// Gives a command's number back. False if it is not in use.
fn take_bit(used: &mut u32, cid: u16) -> bool {
    let bit = 1u32.checked_shl(u32::from(cid & !KIND)).unwrap_or(0);
    let taken = *used & bit != 0;
    *used &= !bit;
    taken
}

/// The admin queue pair, and what is kept with it under its lock.
#[derive(Debug)]
pub(super) struct Admin {
    pub sq: Submissions,
    pub cq: Reaped,
    /// For what identify and the logs answer.
    pub data: Coherent,
    number: u16,
    /// The answer of the command that is waited for.
    answer: Option<Completion>,
    /// Outstanding, one bit an identifier: which one ends first is the
    /// controller's choice, and only that one's may be used again.
    aborts: u32,
    pub abort_limit: u32,
    events: u32,
    pub event_limit: u32,
    /// Events seen, by type: error, health, notice, others.
    pub event_counts: [u32; 4],
    /// Log pages that events have named and nobody has read since, one bit a
    /// page.
    pub pages: u32,
    /// Notices that a namespace has changed.
    pub changes: u32,
    pub ids: Ids,
    pub pairs: u16,
    /// The device could neither be stopped nor cut off: it may use, for ever,
    /// whatever memory it knows of.
    pub restless: bool,
    pub errors: Errors,
    /// Completions that nobody waited for.
    pub stale: u32,
}

impl Admin {
    pub fn new(platform: &impl Platform, stride: usize) -> Result<Self, Error> {
        let [sq, cq, data] = alloc_all(platform, [PAGE; 3]).map_err(Error::Memory)?;
        Ok(Self {
            sq: Submissions::new(sq, ENTRIES, Doorbell::new(0, false, stride, None)),
            cq: Reaped::new(cq, ENTRIES, ENTRIES - 1, Doorbell::new(0, true, stride, None)),
            data,
            number: 0,
            answer: None,
            aborts: 0,
            abort_limit: 1,
            events: 0,
            event_limit: 0,
            event_counts: [0; 4],
            pages: 0,
            changes: 0,
            ids: Ids::default(),
            pairs: 0,
            restless: false,
            errors: Errors::new(),
            stale: 0,
        })
    }

    /// As for a controller that was just reset.
    pub fn reset(&mut self, stride: usize) {
        self.sq.reset(Doorbell::new(0, false, stride, None));
        self.cq.reset(Doorbell::new(0, true, stride, None));
        (self.aborts, self.events, self.answer) = (0, 0, None);
    }

    /// Sends a command and waits for its answer, for at most `limit` ns.
    ///
    /// # Errors
    /// [`Error::Command`] with the controller's status; [`Error::Timeout`] or
    /// [`Error::Gone`], after which the controller must be reset, since the
    /// command may still end.
    pub fn run(
        &mut self,
        platform: &impl Platform,
        what: &'static str,
        command: &Command,
        limit: u64,
    ) -> Result<u32, Error> {
        self.number = (self.number + 1) & !KIND;
        let cid = WAITED | self.number;
        self.answer = None;
        self.sq.push(command, cid);
        self.sq.kick(platform);
        let deadline = platform.now().saturating_add(limit);
        loop {
            self.poll(platform);
            if let Some(answer) = self.answer.take() {
                let status = answer.status();
                return match status.is_success() {
                    true => Ok(answer.dword0),
                    false => {
                        self.note(cid, command, status);
                        Err(Error::Command { what, status })
                    }
                };
            }
            if regs::is_gone(platform) {
                return Err(Error::Gone);
            }
            if platform.now() >= deadline {
                // Its answer must not be taken for that of the next.
                self.number = (self.number + 1) & !KIND;
                return Err(Error::Timeout {
                    what: "answer an admin command",
                    ms: limit / 1_000_000,
                });
            }
            platform.relax();
        }
    }

    fn note(&mut self, cid: u16, command: &Command, status: Status) {
        self.errors.note(RecentError {
            queue: 0,
            command: cid,
            opcode: command.opcode,
            nsid: command.nsid,
            block: 0,
            status,
        });
    }

    /// Takes what has come, without waiting.
    pub fn poll(&mut self, platform: &impl Platform) {
        let mut any = false;
        // No more than there can be: a device that writes entries for ever
        // does not keep us here.
        for _ in 0..ENTRIES {
            let Some(completion) = self.cq.next() else { break };
            any = true;
            let cid = completion.cid();
            match cid & KIND {
                WAITED if cid & !KIND == self.number => self.answer = Some(completion),
                ABORT if take_bit(&mut self.aborts, cid) => {}
                EVENT if take_bit(&mut self.events, cid) => {
                    if completion.status().is_success() {
                        self.note_event(completion.dword0);
                    } else {
                        // Not asked for again: it would fail again.
                        self.event_limit = 0;
                    }
                }
                _ => self.stale += 1,
            }
        }
        if any {
            self.cq.release(platform);
        }
    }

    fn note_event(&mut self, told: u32) {
        let kind = told & event::TYPE;
        self.event_counts[kind.min(3) as usize] += 1;
        self.changes += u32::from(kind == event::NOTICE && told & event::INFO == 0);
        // Others have nothing that is read here.
        let page = told >> event::PAGE_SHIFT & 0xff;
        if let log_page::ERROR | log_page::HEALTH | log_page::CHANGED_NAMESPACES = page {
            self.pages |= 1 << page;
        }
    }

    /// Asks for the next events.
    pub fn ask_for_events(&mut self, platform: &impl Platform) {
        while self.events.count_ones() < self.event_limit.min(MOST_EVENTS) {
            let command = Command { opcode: admin::ASYNC_EVENT_REQUEST, ..Command::default() };
            self.sq.push(&command, EVENT | give_bit(&mut self.events));
        }
        self.sq.kick(platform);
    }

    /// Asks for a command to be aborted. False if no more can be asked for
    /// now.
    pub fn abort(&mut self, platform: &impl Platform, queue: u16, cid: u16) -> bool {
        if self.aborts.count_ones() >= self.abort_limit.min(MOST_ABORTS) {
            return false;
        }
        let command = Command {
            opcode: admin::ABORT,
            dword10: u32::from(queue) | u32::from(cid) << 16,
            ..Command::default()
        };
        self.sq.push(&command, ABORT | give_bit(&mut self.aborts));
        self.sq.kick(platform);
        true
    }

    /// Runs a command that answers with a page of data, copied to `to`.
    pub fn read_page(
        &mut self,
        platform: &impl Platform,
        what: &'static str,
        command: Command,
        limit: u64,
        to: &mut [u8; PAGE],
    ) -> Result<(), Error> {
        let command = Command { data1: self.data.device, ..command };
        for word in 0..PAGE / 8 {
            // SAFETY: inside the page. What a device does not write must not
            // be what the last command left.
            unsafe { self.data.ptr.cast::<u64>().add(word).write_volatile(0) };
        }
        self.run(platform, what, &command, limit)?;
        for (at, byte) in to.iter_mut().enumerate() {
            // SAFETY: inside the page. Each byte is read once: the copy is
            // checked, not the device's memory.
            *byte = unsafe { self.data.ptr.add(at).read_volatile() };
        }
        Ok(())
    }

    /// Identify (Base section 5.17).
    pub fn identify(
        &mut self,
        platform: &impl Platform,
        cns: u32,
        nsid: u32,
        limit: u64,
        to: &mut [u8; PAGE],
    ) -> Result<(), Error> {
        let what = match cns {
            spec::cns::CONTROLLER => "identify controller",
            spec::cns::NAMESPACE => "identify namespace",
            _ => "identify active namespaces",
        };
        let command = Command { opcode: admin::IDENTIFY, nsid, dword10: cns, ..Command::default() };
        self.read_page(platform, what, command, limit, to)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_are_given_out_once() {
        let mut ids = Ids::default();
        assert_eq!([ids.take(2), ids.take(2), ids.take(2)], [Some(1), Some(2), None]);
        ids.put(1);
        assert_eq!(ids.take(2), Some(1));
        assert_eq!((3..=255).filter(|&id| ids.take(255) == Some(id)).count(), 253);
        assert_eq!(ids.take(u16::MAX), None);
    }
}
