//! What happens outside the ring: descriptors, registrations.

use super::super::check::{self, Kind};
use super::super::program::{Buf, Fd, Mem, Slot, Step};
use super::{ALL, Model, Race, Thing, claim};

impl Model {
    pub(super) fn change(&mut self, step: &Step) -> Result<(), Race> {
        match step {
            Step::Feed(slot, bytes) => return self.feed(*slot, u64::from(*bytes)),
            Step::Empty(slot) => return self.empty(*slot),
            Step::Seek(..) => {}
            _ if self.unheld => return Err(Race("whether a worker has looked its file up")),
            _ => {}
        }
        match step {
            Step::Seek(slot, _) => {
                self.free(&claim(Thing::Number(*slot), ALL, false))?;
                let Some(desc) = self.slots[*slot as usize] else { return Ok(()) };
                self.free(&claim(Thing::Position(desc.origin), ALL, true))?;
            }
            Step::Copy(from, to) => {
                if from == to {
                    return Err(Race("dup3 of a number to itself"));
                }
                self.goes(*to)?;
                if let Some(desc) = self.slots[*from as usize] {
                    self.slots[*to as usize] = Some(desc);
                }
            }
            Step::Close(slot) => {
                self.goes(*slot)?;
                self.slots[*slot as usize] = None;
            }
            Step::Files(fds) => {
                let all: Vec<_> = fds.iter().map(|fd| self.desc(*fd)).collect();
                let good = fds.iter().zip(&all).all(|(fd, d)| d.is_some() || *fd == Fd::Raw(-1));
                if self.files.is_none() && !fds.is_empty() && good {
                    self.files = Some(all);
                    self.hint = 0;
                }
            }
            Step::FilesSparse(n) if self.files.is_none() && *n > 0 => {
                self.files = Some(vec![None; *n as usize]);
                self.hint = 0;
            }
            Step::FilesUpdate(off, fds) => self.update_files(*off as usize, fds),
            Step::FilesEnd => self.files = None,
            Step::Buffers(bufs)
                if self.buffers.is_none()
                    && !bufs.is_empty()
                    && bufs.iter().all(check::buffer_ok) =>
            {
                self.buffers = Some(bufs.iter().map(entry).collect());
            }
            Step::BuffersSparse(n) if self.buffers.is_none() && *n > 0 => {
                self.buffers = Some(vec![None; *n as usize]);
            }
            Step::BuffersUpdate(off, bufs) => {
                if let Some(table) = &mut self.buffers {
                    let fits = *off as usize + bufs.len() <= table.len();
                    for (i, buf) in bufs.iter().enumerate() {
                        if !fits || !check::buffer_ok(buf) {
                            break;
                        }
                        table[*off as usize + i] = entry(buf);
                    }
                }
            }
            Step::BuffersEnd => self.buffers = None,
            _ => {}
        }
        self.hang_up();
        Ok(())
    }

    pub(super) fn update_files(&mut self, off: usize, fds: &[Fd]) {
        let all: Vec<_> = fds.iter().map(|fd| self.desc(*fd)).collect();
        let Some(table) = &mut self.files else { return };
        if off + fds.len() > table.len() {
            return;
        }
        for (i, (fd, desc)) in fds.iter().zip(all).enumerate() {
            if *fd == Fd::Raw(-2) {
                continue;
            }
            if table[off + i].is_some() {
                self.hint = off + i;
            }
            table[off + i] = desc;
            if desc.is_some() {
                self.hint = off + i + 1;
            }
            if desc.is_none() && *fd != Fd::Raw(-1) {
                return;
            }
        }
    }

    /// Whether somebody (besides requests) has a descriptor of this kind.
    pub(super) fn open(&self, kind: Kind) -> bool {
        let mut all = self.slots.iter().chain(self.files.iter().flatten());
        all.any(|desc| desc.is_some_and(|desc| desc.kind == kind))
    }

    /// A slot's descriptor goes. If it is a pipe's, no request that has just
    /// been let on may be at it still: it might find the other end gone.
    fn goes(&self, slot: Slot) -> Result<(), Race> {
        let Some(Kind::PipeR(p) | Kind::PipeW(p)) = self.slots[slot as usize].map(|d| d.kind)
        else {
            return Ok(());
        };
        let at = [Thing::PipeR(p), Thing::PipeW(p)];
        match self.busy.iter().any(|claim| claim.blocked.is_none() && at.contains(&claim.thing)) {
            true => Err(Race("a pipe's end goes while a request is at it")),
            false => Ok(()),
        }
    }

    /// Whoever waits on a pipe whose other end has gone waits no more.
    pub(super) fn hang_up(&mut self) {
        for p in 0..self.pipes.len() {
            if self.pipes[p].writer.is_none() && !self.open(Kind::PipeW(p)) {
                self.unblock_reader(p);
            }
            if self.pipes[p].reader.is_none() && !self.open(Kind::PipeR(p)) {
                self.unblock_writer(p);
            }
        }
    }
}

fn entry(buf: &Buf) -> Option<(u32, u64)> {
    match buf.at {
        Mem::Arena(at) => Some((at, buf.len)),
        _ => None,
    }
}
