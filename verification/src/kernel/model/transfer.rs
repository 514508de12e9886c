//! Reads and writes: what they touch, and whether they end at submission.

use super::super::check::{self, Desc, Kind};
use super::super::program::{Data, Mem, Sqe, op};
use super::{ALL, Claim, Fact, Model, Race, Thing, claim};

impl Model {
    pub(super) fn fails(&self, sqe: &Sqe, desc: Desc) -> bool {
        if op::fixed(sqe.op) {
            let table = self.buffers.as_deref().unwrap_or(&[]);
            let place = table.get(usize::from(sqe.buf_index)).copied().flatten();
            if !check::in_buffer(sqe, place) {
                return true;
            }
        }
        check::fails(sqe, desc)
    }

    /// A read or write that gets as far as its file.
    pub(super) fn transfer(
        &mut self,
        sqe: &Sqe,
        desc: Desc,
        later: bool,
        fact: &mut Fact,
    ) -> Result<(), Race> {
        let write = op::writes(sqe.op);
        let mut claims = memory(sqe);
        let sync = match desc.kind {
            Kind::Null => {
                claims.clear();
                true
            }
            // After a page it may stop to let others run.
            Kind::Zero if !write && fact.want > 4096 => return Err(Race("how much of zero")),
            Kind::Zero => true,
            Kind::Full | Kind::Dir => false,
            // An O_DIRECT read that ends later does not move the position.
            Kind::Inode(_) if desc.direct && sqe.off == u64::MAX => {
                return Err(Race("the position of direct I/O"));
            }
            // The row "position" in docs/differences.md.
            Kind::Inode(_) if !check::memory_ok(sqe) && sqe.off == u64::MAX => {
                return Err(Race("the position after a part of a transfer"));
            }
            Kind::Inode(i) => self.file(sqe, desc, i, &mut claims),
            Kind::PipeR(p) => self.read_pipe(sqe, p, later, fact, &mut claims)?,
            Kind::PipeW(p) => self.write_pipe(sqe, p, later, fact, &mut claims)?,
        };
        if write && desc.kind == Kind::Zero {
            claims.clear();
        }
        fact.sync = sync && !later && fact.blocked.is_none();
        if later && fact.blocked.is_some() {
            self.late.push(self.plan.facts.len());
        }
        for claim in &claims {
            self.free(claim)?;
        }
        if !fact.sync {
            self.busy.extend(claims);
        }
        Ok(())
    }

    /// A regular file; whether the answer comes at once.
    pub(super) fn file(
        &mut self,
        sqe: &Sqe,
        desc: Desc,
        i: usize,
        claims: &mut Vec<Claim>,
    ) -> bool {
        let want = check::want(sqe);
        let inode = &mut self.inodes[i];
        let current = sqe.off == u64::MAX;
        let whole = current || desc.direct || i == 2 || inode.vague;
        let end = sqe.off.saturating_add(want);
        if !op::writes(sqe.op) {
            let range = if whole { ALL } else { (sqe.off, end) };
            claims.push(claim(Thing::Inode(i), range, false));
        } else {
            let append = check::appends(sqe, desc);
            if !check::memory_ok(sqe) || (!append && !current && end > 1 << 43) {
                // It fails, or is short where a part of its memory is good:
                // how much it changes is the kernel's affair.
                claims.push(claim(Thing::Inode(i), ALL, true));
                inode.holey = true;
                return false;
            }
            let range = match (whole || append, end > inode.size) {
                (true, _) => ALL,
                (false, true) => (sqe.off.min(inode.size), u64::MAX),
                (false, false) => (sqe.off, end),
            };
            claims.push(claim(Thing::Inode(i), range, true));
            if append || current {
                // From the position or the end: it may be anywhere.
                inode.size += want;
                inode.holey |= current;
                inode.vague |= current;
            } else if end > inode.size && want > 0 {
                inode.holey |= sqe.off > inode.size;
                inode.size = end;
            }
        }
        if current {
            claims.push(claim(Thing::Position(desc.origin), ALL, true));
        }
        !op::writes(sqe.op) && !whole && !self.inodes[i].holey && check::memory_ok(sqe)
    }
}

/// What a request does with the arena.
fn memory(sqe: &Sqe) -> Vec<Claim> {
    let one = |at: Mem, len: u64| match at {
        Mem::Arena(at) => {
            let range = (u64::from(at), u64::from(at) + len);
            Some(claim(Thing::Memory, range, op::reads(sqe.op)))
        }
        _ => None,
    };
    match &sqe.data {
        Data::Flat(at) => one(*at, u64::from(sqe.len)).into_iter().collect(),
        Data::Vector(list) => {
            list.iter().take(sqe.len as usize).filter_map(|&(at, len)| one(at, len)).collect()
        }
        Data::Path(_) | Data::Fds { .. } => Vec::new(),
    }
}
