//! Tags of registered files and buffers: when the last use of a resource that
//! has one is over, a CQE with it as `user_data` is posted.
//!
//! A tag has its storage from the moment it is registered until its CQE is in
//! the CQ, so posting never fails: an entry behind the outcomes of requests, to
//! be threaded into the same list of CQEs that wait for room, in their order.

use super::Engine;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host};
use crate::request::{Fifo, Outcome, Table};

/// The storage of tags.
#[derive(Debug)]
pub(crate) struct Tags {
    /// The first entry's index in the outcomes.
    first: u32,
    count: u32,
    free: Fifo,
    /// Those whose resource went with a request whose CQE comes first.
    ended: Fifo,
    /// Those whose CQEs wait for room.
    pub waiting: u32,
}

impl Tags {
    /// The entries behind the first `requests` outcomes.
    pub fn new(requests: u32, outcomes: &mut [Outcome]) -> Self {
        let mut free = Fifo::new();
        for index in requests..outcomes.len() as u32 {
            free.push(outcomes, index);
        }
        Self { first: requests, count: free.len(), free, ended: Fifo::new(), waiting: 0 }
    }

    /// Whether an index of an outcome is an entry's.
    pub fn has(&self, index: u32) -> bool {
        index.wrapping_sub(self.first) < self.count
    }
}

/// The tag in an entry.
fn tag(outcome: &Outcome) -> u64 {
    u64::from(outcome.res as u32) | u64::from(outcome.cflags) << 32
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Whether resources can have tags.
    pub(super) fn tags(&self) -> bool {
        self.tags.count != 0
    }

    /// Takes storage for a tag; [`NONE`] for the tag 0, which is none.
    pub(super) fn take_tag(&mut self, tag: u64) -> Result<u32, Errno> {
        if tag == 0 {
            return Ok(NONE);
        }
        if !self.tags() {
            return Err(Errno::EINVAL);
        }
        let index = self.tags.free.pop(self.pool.outcomes).ok_or(Errno::ENOMEM)?;
        let outcome = &mut self.pool.outcomes[index as usize];
        (outcome.res, outcome.cflags) = (tag as i32, (tag >> 32) as u32);
        Ok(index)
    }

    /// Gives storage back.
    pub(super) fn put_tag(&mut self, index: u32) {
        if index != NONE {
            self.tags.free.push(self.pool.outcomes, index);
        }
    }

    /// The last use of a resource is over.
    pub(super) fn post_tag(&mut self, index: u32) {
        if index == NONE {
            return;
        }
        let user_data = tag(&self.pool.outcomes[index as usize]);
        let lost = fault::on(Fault::TagLost);
        if self.down || lost {
            return self.put_tag(index);
        }
        let first = self.overflow.is_empty() || fault::on(Fault::TagOvertakes);
        if first && self.cq.push(Cqe { user_data, res: 0, flags: 0 }) {
            return self.put_tag(index);
        }
        self.tags.waiting += 1;
        self.queue_for_room(index);
    }

    /// [`post_tag`](Self::post_tag), as soon as the request at hand has its CQE.
    pub(super) fn post_tag_later(&mut self, index: u32) {
        if index != NONE {
            self.tags.ended.push(self.pool.outcomes, index);
        }
    }

    /// Posts the tags that have waited for that.
    pub(super) fn post_ended_tags(&mut self) {
        while let Some(index) = self.tags.ended.pop(self.pool.outcomes) {
            self.post_tag(index);
        }
    }

    /// A table whose registration has failed goes without its tags' CQEs.
    pub(super) fn forget_tags(&mut self, table: Table) {
        if fault::on(Fault::TagsOfFailure) {
            return;
        }
        self.end_tags(table, Self::put_tag);
    }

    /// The tags that a table has left, from the last to the first.
    pub(super) fn end_tags(&mut self, table: Table, mut end: impl FnMut(&mut Self, u32)) {
        let mut before = match table {
            Table::Files => self.files.capacity(),
            Table::Buffers => self.buffers.capacity(),
        };
        while let Some((place, tag)) = match table {
            Table::Files => self.files.tag_before(before),
            Table::Buffers => self.buffers.tag_before(before),
        } {
            end(self, tag);
            before = place;
        }
    }

    /// The CQE of an entry that waits for room.
    pub(super) fn waiting_tag(&self, index: u32) -> Cqe {
        Cqe { user_data: tag(&self.pool.outcomes[index as usize]), res: 0, flags: 0 }
    }

    /// An entry waits no longer.
    pub(super) fn tag_posted(&mut self, index: u32) {
        self.tags.waiting -= 1;
        self.put_tag(index);
    }
}

/// A tag of each resource of a call, if there are any.
pub(super) fn of(tags: &[u64], at: usize) -> u64 {
    tags.get(at).copied().unwrap_or(0)
}

/// Whether a call has as many tags as resources, or none.
pub(super) fn check(tags: &[u64], resources: usize) -> Result<(), Errno> {
    if tags.is_empty() || tags.len() == resources { Ok(()) } else { Err(Errno::EINVAL) }
}
