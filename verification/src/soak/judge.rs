//! Whether a group that has ended came to what it must.

use std::os::unix::fs::FileExt;

use annulus_linux::cqueue;

use super::block::{BLOCK, describe, fill, is};
use super::disk::{LONGEST, Run};
use super::draw::{CUT, MESSAGE, PIECE, PIPE, SMALL};
use super::group::{Group, What};
use super::lane::{BUFFER, Lane, MARK, Next};

const CANCELED: i32 = -libc::ECANCELED;

impl Lane<'_> {
    /// Judges it, and gives back what it had.
    pub fn judge(&mut self, mut group: Box<Group>) {
        let judged = self.verdict(&group);
        self.tally.operations += group.parts.len() as u64;
        if let Err(why) = judged {
            let why = format!("{}: {why}; {:?} {:?}", self.plan, group.what, group.results());
            self.tally.wrong(why);
        }
        match group.what {
            What::Read { disk, run }
            | What::ReadNow { disk, run }
            | What::Select { disk, run }
            | What::ReadClosed { disk, run }
            | What::Write { disk, run, .. }
            | What::Chain { disk, run, .. }
            | What::OpenRead { disk, run }
            | What::Punch { disk, run } => self.disks[disk].release(run),
            What::Pipe { pipe, .. } => self.free_pipes.push(pipe),
            What::ReadCut { .. } => self.cut_busy = false,
            What::Fill { .. } => self.small_busy = false,
            What::Ends { .. } | What::Open | What::Provide | What::Aim => {}
        }
        self.free_places.extend(group.place.take());
        self.free_buffers.append(&mut group.buffers);
    }

    /// Whether a request may have been ended before it began.
    fn may_be_canceled(&self, group: &Group) -> bool {
        group.aimed || self.plan.workerless
    }

    fn canceled(&mut self, group: &Group) {
        self.tally.fault(match group.aimed {
            true => "a read or write is cancelled (ECANCELED)",
            false => "no worker can be made (ECANCELED)",
        });
    }

    fn verdict(&mut self, group: &Group) -> Result<(), String> {
        let result = group.result(0);
        let Some(wrong) = self.judged(group, result)? else { return Ok(()) };
        Err(format!("it ended with {wrong}"))
    }

    /// What is wrong with the data, or which result is wrong.
    fn judged(&mut self, group: &Group, result: i32) -> Result<Option<i32>, String> {
        match group.what {
            What::Ends { wanted, fault } => {
                for (part, wanted) in (0..group.parts.len()).zip(wanted) {
                    if !wanted.contains(&group.result(part)) {
                        return Ok(Some(group.result(part)));
                    }
                }
                if wanted[0][1] == CANCELED && result == CANCELED && fault.is_none() {
                    self.canceled(group);
                }
                fault.into_iter().for_each(|fault| self.tally.fault(fault));
            }
            What::Read { disk, run } => match result {
                CANCELED if self.may_be_canceled(group) => self.canceled(group),
                n if n == run.bytes() as i32 => self.check_read(group, 0, disk, run)?,
                other => return Ok(Some(other)),
            },
            What::ReadNow { disk, run } => self.judge_now(group, disk, run, result)?,
            What::Select { disk, run } => return self.judge_select(group, disk, run),
            What::ReadClosed { disk, run } => match result {
                n if n == run.bytes() as i32 => {
                    self.check_read(group, 0, disk, run)?;
                    self.tally.fault("a file is closed while it is read");
                }
                other => return Ok(Some(other)),
            },
            What::ReadCut { write } => return self.judge_cut(group, write, result),
            What::Write { disk, run, write } => match result {
                CANCELED if self.may_be_canceled(group) => {
                    self.disks[disk].wrote(run, write, false);
                    self.look(group, disk, run)?;
                    self.canceled(group);
                }
                n if n == run.bytes() as i32 => {
                    self.disks[disk].wrote(run, write, true);
                    self.tally.written += run.bytes() as u64;
                }
                other => return Ok(Some(other)),
            },
            What::Chain { disk, run, write } => {
                let (bytes, last) = (run.bytes() as i32, group.parts.len() - 1);
                self.disks[disk].wrote(run, write, result == bytes);
                let wrong =
                    [(0, bytes), (last, bytes), (last.min(1), if last == 2 { 0 } else { bytes })];
                if let Some((part, _)) = wrong.iter().find(|(part, n)| group.result(*part) != *n) {
                    return Ok(Some(group.result(*part)));
                }
                self.tally.written += run.bytes() as u64;
                self.check_read(group, 1, disk, run)?;
            }
            What::OpenRead { disk, run } => {
                let wanted = [0, run.bytes() as i32, 0];
                if group.results() != wanted {
                    return Err("its chain did not end as it must".into());
                }
                self.check_read(group, 0, disk, run)?;
            }
            What::Open => match result {
                fd @ 0.. => self.next.push_back(Next::Close(fd)),
                other => return Ok(Some(other)),
            },
            What::Punch { disk, run } => match result {
                0 => self.disks[disk].wrote(run, 0, true),
                other => return Ok(Some(other)),
            },
            What::Pipe { pipe, write } => {
                let wanted = [libc::POLLIN.into(), MESSAGE as i32, MESSAGE as i32];
                let polls = group.parts.len() == 3;
                if group.results() != wanted[usize::from(!polls)..] {
                    return Err("the message did not come as it must".into());
                }
                let number = self.plan.number | PIPE;
                let bytes = &self.bytes(group.buffers[0])[..MESSAGE];
                if !is(bytes, number, pipe as u64, write) {
                    return Err(describe(bytes, number, pipe as u64));
                }
                self.tally.read += MESSAGE as u64;
                self.tally.written += MESSAGE as u64;
            }
            What::Fill { write } => return self.judge_fill(write, result),
            What::Provide => match result {
                0 => self.selectable += 1,
                other => return Ok(Some(other)),
            },
            What::Aim => match -result {
                0 | libc::ENOENT | libc::EALREADY => {}
                _ => return Ok(Some(result)),
            },
        }
        Ok(None)
    }

    /// Checks what was read to a buffer of the group, and that nothing was beyond.
    fn check_read(&mut self, group: &Group, n: usize, disk: usize, run: Run) -> Result<(), String> {
        let at = group.buffers[n] * BUFFER;
        let bytes = &self.memory.all()[at..at + BUFFER];
        let (before, rest) = bytes.split_at(group.skip);
        let (data, after) = rest.split_at(run.bytes());
        if let Some(byte) = before.iter().chain(after).find(|&&byte| byte != MARK) {
            return Err(format!("{byte:#x} was written beside what was asked for"));
        }
        self.disks[disk].check(run, data)?;
        self.tally.read += run.bytes() as u64;
        Ok(())
    }

    /// Reads blocks by a system call, to the memory that they were written from:
    /// what has been cancelled was done or not, block by block.
    fn look(&mut self, group: &Group, disk: usize, run: Run) -> Result<(), String> {
        let at = group.buffers[0] * BUFFER + group.skip;
        let bytes = &mut self.memory.all()[at..at + run.bytes()];
        let disk = &mut self.disks[disk];
        disk.file.read_exact_at(bytes, run.offset()).map_err(|e| format!("reading back: {e}"))?;
        disk.check(run, bytes)
    }

    /// As much as could be had at once, or why that is nothing.
    fn judge_now(
        &mut self,
        group: &Group,
        disk: usize,
        run: Run,
        result: i32,
    ) -> Result<(), String> {
        match result {
            1.. => {
                let count = result as usize / BLOCK;
                if result as usize > run.bytes() {
                    return Err("more than was asked for".into());
                }
                let at = group.buffers[0] * BUFFER + group.skip;
                let data = &self.memory.all()[at..at + count * BLOCK];
                self.disks[disk].check(Run { count, ..run }, data)?;
                self.tally.read += (count * BLOCK) as u64;
                Ok(())
            }
            n if [-libc::EAGAIN, -libc::EOPNOTSUPP].contains(&n) => {
                self.tally.fault("a read that may not wait would have to (EAGAIN)");
                Ok(())
            }
            _ => Err("that is no answer to who does not want to wait".into()),
        }
    }

    fn judge_select(
        &mut self,
        group: &Group,
        disk: usize,
        run: Run,
    ) -> Result<Option<i32>, String> {
        let (result, flags) = group.parts[0].answer.unwrap_or_default();
        let Some(id) = cqueue::buffer_select(flags) else { return Ok(Some(result)) };
        if usize::from(id) >= super::lane::PROVIDED {
            return Err(format!("there is no buffer {id}"));
        }
        self.next.push_back(Next::Provide(id));
        if result != run.bytes() as i32 {
            return Ok(Some(result));
        }
        let at = usize::from(id) * BUFFER;
        self.disks[disk].check(run, &self.provided.all()[at..at + run.bytes()])?;
        self.tally.read += run.bytes() as u64;
        Ok(None)
    }

    /// A read of a file that became shorter: what came is what was there, or
    /// nothing where the file had ended.
    fn judge_cut(&mut self, group: &Group, write: u32, result: i32) -> Result<Option<i32>, String> {
        let whole = LONGEST * BLOCK;
        let Some(len) = usize::try_from(result).ok().filter(|&len| len <= whole) else {
            return Ok(Some(result));
        };
        let mut wanted = vec![0; whole];
        for (place, block) in wanted.chunks_exact_mut(BLOCK).enumerate() {
            fill(block, self.plan.number | CUT, place as u64, write);
        }
        let there = self.bytes(group.buffers[0]);
        let (data, after) = there.split_at(len);
        let odd = data.iter().zip(&wanted).position(|(&is, &must)| is != must && is != 0);
        if let Some(at) = odd {
            return Err(format!("byte {at} is neither what was written nor nothing"));
        }
        // What lies behind a short end may have been copied, and not counted.
        if let Some(byte) = after[whole - len..].iter().find(|&&byte| byte != MARK) {
            return Err(format!("{byte:#x} was written beside what was asked for"));
        }
        self.tally.read += len as u64;
        self.tally.fault("a file becomes shorter while it is read");
        Ok(None)
    }

    /// A write to a file system that gets full: whole, short, or refused; what was
    /// taken is there.
    fn judge_fill(&mut self, write: u32, result: i32) -> Result<Option<i32>, String> {
        let Some(file) = &self.small else { return Ok(Some(result)) };
        let failed = |e: std::io::Error| format!("the small file: {e}");
        let Some(len) = usize::try_from(result).ok().filter(|&len| len <= PIECE) else {
            if result != -libc::ENOSPC {
                return Ok(Some(result));
            }
            file.set_len(0).map_err(failed)?;
            self.small_len = 0;
            self.tally.fault("a file system is full (ENOSPC)");
            return Ok(None);
        };
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, self.small_len).map_err(failed)?;
        let number = self.plan.number | SMALL;
        for (place, block) in bytes.chunks_exact(BLOCK).enumerate() {
            if !is(block, number, place as u64, write) {
                return Err(describe(block, number, place as u64));
            }
        }
        self.tally.written += len as u64;
        self.small_len += len as u64;
        if len < PIECE {
            file.set_len(0).map_err(failed)?;
            self.small_len = 0;
            self.tally.fault("a file system is full in the midst of a write (short)");
        }
        Ok(None)
    }
}
