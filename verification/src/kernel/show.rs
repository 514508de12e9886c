//! Programs in words that a reader can follow.

use std::fmt;

use super::program::{ASYNC, Buf, Data, FIXED_FILE, Fd, Mem, Program, Sqe, Step, op};

impl fmt::Display for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mem::Arena(at) => write!(f, "arena+{at}"),
            Mem::Unmapped => f.write_str("unmapped"),
            Mem::Null => f.write_str("null"),
            Mem::Kernel => f.write_str("kernel-half"),
            Mem::Bytes(n) => write!(f, "{n} bytes"),
        }
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fd::Slot(slot) => write!(f, "{slot:?}"),
            Fd::Raw(n) => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at, self.len)
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
    }
    f.write_str("]")
}

impl fmt::Display for Sqe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match op::name(self.op) {
            "unknown" => write!(f, "opcode {}", self.op)?,
            name => f.write_str(name)?,
        }
        if self.op != op::NOP {
            let fixed = if self.flags & FIXED_FILE != 0 { "registered " } else { "" };
            write!(f, " {fixed}{}", self.fd)?;
            write!(f, " off {}", self.off as i64)?;
        }
        match &self.data {
            Data::Flat(Mem::Null) if self.len == 0 => {}
            Data::Flat(at) => write!(f, " [{at}, {}]", self.len)?,
            Data::Vector(iovecs) => {
                write!(f, " {} of (", self.len)?;
                for (at, len) in iovecs {
                    write!(f, "[{at}, {}]", *len as i64)?;
                }
                f.write_str(")")?;
            }
            Data::Path(name) => write!(f, " {name:?} {:#o}", self.len)?,
            Data::Fds { list: fds, edge } => {
                write!(f, " {} of ", self.len)?;
                list(f, fds)?;
                f.write_str(if *edge { " at the edge" } else { "" })?;
            }
        }
        if let Some(to) = self.second {
            write!(f, " to {to}")?;
        }
        if op::fixed(self.op) || self.buf_index != 0 {
            write!(f, " buf_index {}", self.buf_index)?;
        }
        let rest = self.flags & !FIXED_FILE;
        if rest == ASYNC {
            f.write_str(" ASYNC")?;
        } else if rest != 0 {
            write!(f, " flags {rest:#x}")?;
        }
        for (name, value) in [
            ("ioprio", u64::from(self.ioprio)),
            ("op_flags", u64::from(self.op_flags)),
            ("personality", u64::from(self.personality)),
            ("splice_fd_in", self.splice_fd_in as u64),
            ("pad2", self.pad2),
        ] {
            if value != 0 {
                write!(f, " {name} {value:#x}")?;
            }
        }
        match self.bad_index {
            Some(index) => write!(f, ", but the array says {index}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Push(_) => f.write_str("push"),
            Step::Enter { to_submit, min_complete, flags } => {
                write!(
                    f,
                    "enter(to_submit {to_submit}, min_complete {min_complete}, flags {flags:#x})"
                )
            }
            Step::Interrupt => f.write_str("wait for one more, and be interrupted"),
            Step::Reap(most) => write!(f, "reap up to {most}"),
            Step::Drain => f.write_str("submit until the SQ is empty"),
            Step::Settle { peek: false } => f.write_str("settle"),
            Step::Settle { peek: true } => f.write_str("settle, looking at the CQ only"),
            Step::Feed(slot, bytes) => write!(f, "write {bytes} bytes to {slot:?}"),
            Step::Empty(slot) => write!(f, "empty {slot:?}"),
            Step::Copy(from, to) => write!(f, "dup2({from:?}, {to:?})"),
            Step::Close(slot) => write!(f, "close({slot:?})"),
            Step::Seek(slot, to) => write!(f, "lseek({slot:?}, {to})"),
            Step::Files(fds) => {
                f.write_str("register files ")?;
                list(f, fds)
            }
            Step::FilesSparse(n) => write!(f, "register {n} empty file slots"),
            Step::FilesUpdate(off, fds) => {
                write!(f, "update files from {off}: ")?;
                list(f, fds)
            }
            Step::FilesEnd => f.write_str("unregister files"),
            Step::Buffers(bufs) => {
                f.write_str("register buffers ")?;
                list(f, bufs)
            }
            Step::BuffersSparse(n) => write!(f, "register {n} empty buffer slots"),
            Step::BuffersUpdate(off, bufs) => {
                write!(f, "update buffers from {off}: ")?;
                list(f, bufs)
            }
            Step::BuffersEnd => f.write_str("unregister buffers"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.setup;
        write!(f, "ring: {}, {} SQ entries", s.mode.name(), s.entries)?;
        if let Some(cq) = s.cq_entries {
            write!(f, ", {cq} CQ entries")?;
        }
        for (yes, what) in [
            (!s.array, ", NO_SQARRAY"),
            (s.submit_all, ", SUBMIT_ALL"),
            (s.clamp, ", CLAMP"),
            (s.uapi_layout, ", uapi layout"),
        ] {
            f.write_str(if yes { what } else { "" })?;
        }
        match s.pool {
            Some(n) => writeln!(f, ", {n} requests")?,
            None => writeln!(f)?,
        }
        let mut n = 0;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "{i:3}  {step}")?;
            if let Step::Push(sqes) = step {
                for sqe in sqes {
                    writeln!(f, "       #{n} {sqe}")?;
                    n += 1;
                }
            }
        }
        Ok(())
    }
}
