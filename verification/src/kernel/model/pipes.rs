//! Pipes: who waits, for whom, and until when.

use super::super::check::{self, Desc, Kind};
use super::super::program::{Slot, Sqe};
use super::{ALL, Claim, Fact, Model, Race, Thing, claim};

impl Model {
    pub(super) fn unblock(&mut self, sqe: usize) {
        let now = self.now();
        self.elsewhere = true;
        // A push that unblocks a request of its own step does so now, too.
        self.plan.facts[sqe].blocked = Some(now);
        for claim in &mut self.busy {
            if claim.blocked == Some(sqe) {
                claim.blocked = None;
            }
        }
    }

    pub(super) fn unblock_reader(&mut self, p: usize) {
        if let Some((sqe, len)) = self.pipes[p].reader.take() {
            self.pipes[p].avail -= len.min(self.pipes[p].avail);
            // It reads when it gets there: more may not be added before.
            self.busy.push(claim(Thing::PipeW(p), ALL, true));
            self.unblock(sqe);
        }
    }

    pub(super) fn unblock_writer(&mut self, p: usize) {
        if let Some((sqe, len)) = self.pipes[p].writer.take() {
            self.pipes[p].avail += len.min(self.room(p));
            self.busy.push(claim(Thing::PipeR(p), ALL, true));
            self.unblock(sqe);
        }
    }

    pub(super) fn feed(&mut self, slot: Slot, bytes: u64) -> Result<(), Race> {
        let Some(Desc { kind: Kind::PipeW(p), .. }) = self.slots[slot as usize] else {
            return Err(Race("feeding what is no pipe"));
        };
        self.free(&claim(Thing::PipeW(p), ALL, true))?;
        if !self.readable(p) {
            return Err(Race("feeding a pipe that nobody reads"));
        }
        let waits = self.pipes[p].reader.is_some();
        if bytes > self.room(p) || bytes > 4096 || (p == 2 && self.pipes[p].avail > 0) {
            return Err(Race("feeding a pipe without room"));
        }
        if !waits {
            self.free(&claim(Thing::PipeR(p), ALL, true))?;
        }
        self.pipes[p].avail += bytes;
        if bytes > 0 {
            self.unblock_reader(p);
        }
        Ok(())
    }

    pub(super) fn readable(&self, p: usize) -> bool {
        self.pipes[p].reader.is_some() || self.open(Kind::PipeR(p))
    }

    pub(super) fn empty(&mut self, slot: Slot) -> Result<(), Race> {
        let Some(Desc { kind: Kind::PipeR(p), .. }) = self.slots[slot as usize] else {
            return Err(Race("emptying what is no pipe"));
        };
        self.free(&claim(Thing::PipeR(p), ALL, true))?;
        if self.pipes[p].writer.is_none() {
            self.free(&claim(Thing::PipeW(p), ALL, true))?;
        }
        self.pipes[p].avail = 0;
        self.unblock_writer(p);
        Ok(())
    }

    pub(super) fn read_pipe(
        &mut self,
        sqe: &Sqe,
        p: usize,
        later: bool,
        fact: &mut Fact,
        claims: &mut Vec<Claim>,
    ) -> Result<bool, Race> {
        let want = check::want(sqe);
        self.free(&claim(Thing::PipeR(p), ALL, true))?;
        self.pipes[p].read_used = true;
        if want == 0 {
            return Ok(true);
        }
        let avail = self.pipes[p].avail;
        if !check::memory_ok(sqe) && !check::memory_all_bad(sqe) {
            return Err(Race("a part of a buffer is bad, and what of it a pipe fills"));
        }
        if self.pipes[p].writer.is_some() || (p == 2 && avail > want) {
            return Err(Race("reading a one-page pipe in part"));
        }
        claims.push(claim(Thing::PipeR(p), ALL, true));
        if avail == 0 && sqe.op_flags & check::NOWAIT == 0 {
            if self.open(Kind::PipeW(p)) {
                self.block(fact, claims)?;
                self.pipes[p].reader = Some((self.plan.facts.len(), taken(sqe, want)));
            }
            // Without a writer: the end, if no reference lingers.
            return Ok(false);
        }
        self.pipes[p].avail -= taken(sqe, want).min(avail);
        if later {
            claims.push(claim(Thing::PipeW(p), ALL, true));
        }
        Ok(avail > 0 || sqe.op_flags & check::NOWAIT != 0)
    }

    pub(super) fn write_pipe(
        &mut self,
        sqe: &Sqe,
        p: usize,
        later: bool,
        fact: &mut Fact,
        claims: &mut Vec<Claim>,
    ) -> Result<bool, Race> {
        let want = check::want(sqe);
        self.free(&claim(Thing::PipeW(p), ALL, true))?;
        if want == 0 {
            return Ok(true);
        }
        if !self.readable(p) {
            return match self.pipes[p].read_used {
                true => Err(Race("whether a reader's reference lingers")),
                false => Ok(false),
            };
        }
        if !check::memory_ok(sqe) {
            return Err(Race("a bad address and a pipe's room"));
        }
        claims.push(claim(Thing::PipeW(p), ALL, true));
        if p == 2 && self.pipes[p].avail == 4096 && self.pipes[p].reader.is_none() {
            if sqe.op_flags & check::NOWAIT != 0 {
                return Ok(true);
            }
            self.block(fact, claims)?;
            self.pipes[p].writer = Some((self.plan.facts.len(), want));
            return Ok(false);
        }
        if want > self.room(p) && p != 2 || p == 2 && self.pipes[p].avail > 0 {
            return Err(Race("a pipe that is nearly full"));
        }
        if self.pipes[p].reader.is_none() && later {
            claims.push(claim(Thing::PipeR(p), ALL, true));
        }
        self.pipes[p].avail += want.min(self.room(p));
        let alone = self.pipes[p].reader.is_none();
        self.unblock_reader(p);
        // With a reader who waits, they meet when they will.
        Ok(alone && want <= 4096)
    }

    pub(super) fn block(&mut self, fact: &mut Fact, claims: &mut [Claim]) -> Result<(), Race> {
        if self.setup.pool.is_some_and(|pool| self.waiting() as u32 >= pool) {
            return Err(Race("more waits than a small pool has requests"));
        }
        fact.blocked = Some(usize::MAX);
        let sqe = self.plan.facts.len();
        for claim in claims {
            claim.blocked = Some(sqe);
        }
        Ok(())
    }
}

/// Bytes that leave a pipe: none if the memory is bad.
fn taken(sqe: &Sqe, want: u64) -> u64 {
    if check::memory_ok(sqe) { want } else { 0 }
}
