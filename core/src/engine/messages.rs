//! Messages from ring to ring: MSG_RING, and the ring that gets them.
//!
//! A message is a CQE, or that of a registered file that is sent along
//! ([`crate::sent`]). Who sends it finds the other ring by its place
//! ([`Host::reach`]), puts the message on that ring's lane
//! ([`crate::messages`]) and is done; the other engine posts it, in the order in
//! which messages were accepted, and after whatever waits for room in the CQ.

use super::submit::Issue;
use super::{Engine, Shared};
use crate::config::Mode;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host, Target};
use crate::messages::Taken;
use crate::request::Record;
use crate::sent::Arrived;
use crate::sqe::Sqe;
use crate::sync::Ordering;
use crate::uapi::{
    IORING_MSG_DATA, IORING_MSG_RING_CQE_SKIP, IORING_MSG_RING_FLAGS_PASS, IORING_MSG_SEND_FD,
    IORING_OP_MSG_RING, IORING_SQ_CQ_OVERFLOW,
};

/// A ring, as others of its place send it messages. From any thread; see
/// [`Remote::inbox`](super::Remote::inbox).
#[derive(Clone, Copy)]
pub struct Inbox<'m>(&'m dyn Receive);

/// What can be sent a message.
pub(super) trait Receive: Send + Sync {
    fn enabled(&self) -> Result<(), Errno>;
    fn receive(&self, message: Cqe) -> Result<(), Errno>;
    fn receive_file(&self, file: &SentFile) -> Result<Arrived, Errno>;
}

/// A file for the table of another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentFile {
    /// Its number, not negative, which the backend of that ring
    /// [adopts](Backend::adopt).
    pub number: i32,
    /// The place for it, plus one, or `IORING_FILE_INDEX_ALLOC` for any.
    pub file_index: u32,
    /// Of the CQE that says it has come, if there shall be one.
    pub user_data: Option<u64>,
}

impl<'m> Inbox<'m> {
    pub(super) fn new(ring: &'m dyn Receive) -> Self {
        Self(ring)
    }

    /// Has the ring post `message`. Once accepted it is posted, after those
    /// accepted before, as soon as there is room in the CQ; whoever waits for
    /// completions of the ring is woken by it.
    ///
    /// # Errors
    /// `EOVERFLOW` if as many messages wait as the ring has room for
    /// ([`Config::messages`](crate::config::Config::messages)); `EBADFD` if it
    /// has ended, or has been set up disabled and not enabled yet.
    pub fn send(&self, message: Cqe) -> Result<(), Errno> {
        self.0.receive(message)
    }

    /// Gives the ring a file: at once as far as anyone can tell who has the
    /// answer or has seen the CQE. The answer is the CQE's result, 0 or the
    /// place if any was good; and the number of a file that had been sent there
    /// before and is the caller's again, to be closed.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), whether or not there shall be a CQE;
    /// `EINVAL` if the ring takes no files ([`Backend::SENDS_FILES`]) or for a
    /// place beyond its table; `ENXIO` if it has no table, but `ENFILE` for any
    /// place, as if none is empty; `EBADF` for a negative number. The number is
    /// still the caller's then.
    pub fn send_file(&self, file: &SentFile) -> Result<(i32, Option<i32>), Errno> {
        self.0.receive_file(file).map(|arrived| (arrived.result, arrived.left))
    }

    /// Whether this is the inbox of that ring.
    fn is<H>(&self, ring: &Shared<'_, H>) -> bool {
        core::ptr::addr_eq(self.0, ring)
    }
}

impl core::fmt::Debug for Inbox<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl<H: Host + Send + Sync> Receive for Shared<'_, H> {
    fn enabled(&self) -> Result<(), Errno> {
        // Relaxed: who has enabled it has had the call's answer.
        let disabled = self.disabled.load(Ordering::Relaxed) != 0;
        if disabled { Err(Errno::EBADFD) } else { Ok(()) }
    }

    fn receive(&self, message: Cqe) -> Result<(), Errno> {
        self.enabled()?;
        if self.messages.send(Some(message))? {
            self.tell_of_message();
        }
        Ok(())
    }

    fn receive_file(&self, file: &SentFile) -> Result<Arrived, Errno> {
        self.enabled()?;
        let sent = self.sent.send(file.number, file.file_index, |res| {
            self.messages.send(file.user_data.map(|user_data| Cqe { user_data, res, flags: 0 }))
        });
        // At its end the table goes as well.
        let ended = |errno| if self.messages.ended() { Errno::EBADFD } else { errno };
        let arrived = sent.map_err(ended)?;
        if arrived.first {
            self.tell_of_message();
        }
        // Whoever told of a message before may not have come to that yet, and
        // the application may look as soon as the sender knows.
        if self.mode == Mode::Inline && !fault::on(Fault::SentFileNotShown) {
            self.show_taskrun();
        }
        Ok(arrived)
    }
}

impl<H: Host> Shared<'_, H> {
    /// Tells the engine of the first message on an empty lane.
    fn tell_of_message(&self) {
        if fault::on(Fault::MessageNotTold) {
            return;
        }
        if self.slots.announce() && self.mode == Mode::Inline {
            self.show_taskrun();
            // Nobody posts CQEs while the application is elsewhere.
            self.ring_eventfd();
        }
        if !fault::on(Fault::MessageNoWake) {
            self.wake_engine();
        }
    }
}

/// The checks of a MSG_RING that need nothing but the SQE.
pub(super) fn check(sqe: &Sqe) -> Result<(), Errno> {
    let known = IORING_MSG_RING_CQE_SKIP | IORING_MSG_RING_FLAGS_PASS;
    let wrong = sqe.buf_index != 0 || sqe.op_flags & !known != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The message of an entry, whose fields have the kernel's widths.
fn message(sqe: &Sqe) -> Result<Cqe, Errno> {
    let pass = sqe.op_flags & IORING_MSG_RING_FLAGS_PASS != 0;
    let flags = sqe.splice_fd_in as u32;
    let wrong = sqe.addr as u32 != IORING_MSG_DATA
        || sqe.addr3 as u32 != 0
        || sqe.op_flags & IORING_MSG_RING_CQE_SKIP != 0
        || !pass && flags != 0;
    if wrong {
        return Err(Errno::EINVAL);
    }
    let flags = if fault::on(Fault::MessageFlagsLost) { 0 } else { flags };
    Ok(Cqe { user_data: sqe.off, res: sqe.len as i32, flags })
}

/// Sends the message of an entry to the ring that file number `fd` names.
fn send<H: Host>(host: &H, fd: i32, sqe: &Sqe) -> Result<i32, Errno> {
    // That there is no ring is the better answer.
    host.reach(fd, &mut |ring| ring.send(message(sqe)?).map(|()| 0))
}

/// Sends the message of a MSG_RING without a ring to send it from
/// (`IORING_REGISTER_SEND_MSG_RING`, which Linux takes where no ring is named).
///
/// # Errors
/// `EINVAL` for another operation, `IOSQE_*` flags, fields that mean nothing, and
/// files, as there is no table to send them from; otherwise what the request would end with.
pub fn send_message<H: Host>(host: &H, sqe: &Sqe) -> Result<(), Errno> {
    if sqe.opcode != IORING_OP_MSG_RING || sqe.flags != 0 || sqe.personality != 0 {
        return Err(Errno::EINVAL);
    }
    check(sqe)?;
    if sqe.addr as u32 != IORING_MSG_DATA {
        return Err(Errno::EINVAL);
    }
    send(host, sqe.fd, sqe).map(|_| ())
}

/// The engine's part for the messages that it gets.
#[derive(Debug)]
pub(super) struct Inward {
    /// The outcome that stands for the first letter in the list of CQEs that
    /// wait for room.
    first: u32,
    /// Letters in that list.
    waiting: u32,
}

impl Inward {
    pub fn new(first: u32) -> Self {
        Self { first, waiting: 0 }
    }

    /// The letter that an outcome stands for.
    fn letter(&self, outcome: u32) -> Option<u32> {
        outcome.checked_sub(self.first)
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// MSG_RING.
    #[cold]
    pub(super) fn msg_ring(&mut self, index: u32, sqe: &Sqe) -> Issue {
        if !self.supports(IORING_OP_MSG_RING) {
            return self.fail(index, sqe.user_data, Errno::EINVAL.to_result());
        }
        let sent = self.target(sqe).and_then(|(target, _)| match target {
            Target::Fd(fd) if sqe.addr as u32 == IORING_MSG_SEND_FD => self.send_file(fd, sqe),
            Target::Fd(fd) => send(&self.shared.host, fd, sqe),
            // As in Linux, a ring is nothing that can be registered.
            Target::Registered(_) => Err(Errno::EBADFD),
        });
        // A ring may send to itself: the message comes before the answer.
        if self.shared.messages.any() {
            self.collect();
        }
        self.end(index, sqe.user_data, sent.unwrap_or_else(Errno::to_result))
    }

    /// Sends a registered file to the ring that file number `fd` names.
    fn send_file(&mut self, fd: i32, sqe: &Sqe) -> Result<i32, Errno> {
        let shared = self.shared;
        shared.host.reach(fd, &mut |ring| {
            let own = ring.is(shared) && !fault::on(Fault::SentFileToItself);
            if sqe.len != 0 || own {
                return Err(Errno::EINVAL);
            }
            // Before the file is looked for, as in Linux.
            ring.0.enabled()?;
            // The kernel's number has 32 bits; what is above them is not looked at.
            let file = self.files.get(sqe.addr3 as u32).ok_or(Errno::EBADF)?;
            let number = self.backend.share(file)?;
            let silent =
                sqe.op_flags & IORING_MSG_RING_CQE_SKIP != 0 && !fault::on(Fault::SentFileSpeaks);
            let user_data = (!silent).then_some(sqe.off);
            let sent = ring.send_file(&SentFile {
                number,
                file_index: sqe.splice_fd_in as u32,
                user_data,
            });
            let (answer, left) = match sent {
                Ok((result, left)) => (Ok(result), left),
                Err(errno) => (Err(errno), Some(number)),
            };
            self.drop_sent(left);
            answer
        })
    }

    /// News of the lane has come home: posts what is there.
    #[cold]
    pub(super) fn take_messages(&mut self) {
        let list = self.shared.messages.take();
        self.post_messages(list);
    }

    /// No message is accepted from here on. Those that were are posted.
    pub(super) fn close_messages(&mut self) {
        let list = self.shared.messages.close();
        self.post_messages(list);
    }

    fn post_messages(&mut self, mut list: Taken) {
        // What they tell of is there before they are.
        if !fault::on(Fault::SentFileBehindMessage) {
            self.take_sent();
        }
        let messages = &self.shared.messages;
        while let Some(letter) = messages.next(&mut list) {
            let Some(cqe) = messages.read(letter) else {
                messages.give_back(letter);
                continue;
            };
            if self.overflow.is_empty() && self.cq.push(cqe) {
                messages.give_back(letter);
            } else if !fault::on(Fault::MessageLostWithoutRoom) {
                self.inward.waiting += 1;
                self.queue_for_room(self.inward.first + letter);
            }
        }
    }

    /// Has an outcome, which says what or stands for a letter, wait for room in
    /// the CQ.
    #[cold]
    pub(super) fn queue_for_room(&mut self, outcome: u32) {
        self.stats.overflows += 1;
        if self.overflow.is_empty() && !fault::on(Fault::OverflowNotShown) {
            self.shared.set_flag(IORING_SQ_CQ_OVERFLOW);
        }
        self.overflow.push(self.pool.outcomes, outcome);
    }

    /// The CQE of an outcome that waits for room.
    pub(super) fn waiting_cqe(&self, outcome: u32) -> Cqe {
        if let Some(letter) = self.inward.letter(outcome) {
            // Nothing else waits for room.
            return self.shared.messages.read(letter).unwrap_or_default();
        }
        match self.pool.records.get(outcome as usize) {
            Some(&Record { user_data, .. }) => {
                let outcome = &self.pool.outcomes[outcome as usize];
                Cqe { user_data, res: outcome.res, flags: outcome.cflags }
            }
            None => self.waiting_tag(outcome),
        }
    }

    /// An outcome waits no longer.
    pub(super) fn no_longer_waiting(&mut self, outcome: u32) {
        match self.inward.letter(outcome) {
            Some(letter) => {
                self.inward.waiting -= 1;
                self.shared.messages.give_back(letter);
            }
            None if self.tags.has(outcome) => self.tag_posted(outcome),
            None => self.pool.put(outcome),
        }
    }

    /// CQEs of requests that wait for room.
    pub(super) fn waiting_requests(&self) -> u32 {
        self.overflow.len() - self.tags.waiting - self.inward.waiting
    }
}
