//! Programs of the second family, for people.

use std::fmt;

use annulus::uapi::{self, IORING_ASYNC_CANCEL_FD, IORING_ASYNC_CANCEL_OP};

use super::program::{Program, Sqe, What};

fn bits(f: &mut fmt::Formatter<'_>, flags: u32, names: &[(u32, &str)]) -> fmt::Result {
    for &(bit, name) in names {
        if flags & bit != 0 {
            write!(f, " {name}")?;
        }
    }
    Ok(())
}

const TIMEOUT_FLAGS: [(u32, &str); 7] = [
    (uapi::IORING_TIMEOUT_ABS, "ABS"),
    (uapi::IORING_TIMEOUT_UPDATE, "UPDATE"),
    (uapi::IORING_TIMEOUT_BOOTTIME, "BOOTTIME"),
    (uapi::IORING_TIMEOUT_REALTIME, "REALTIME"),
    (uapi::IORING_LINK_TIMEOUT_UPDATE, "LINK_TIMEOUT_UPDATE"),
    (uapi::IORING_TIMEOUT_ETIME_SUCCESS, "ETIME_SUCCESS"),
    (uapi::IORING_TIMEOUT_MULTISHOT, "MULTISHOT"),
];

const CANCEL_FLAGS: [(u32, &str); 6] = [
    (uapi::IORING_ASYNC_CANCEL_ALL, "ALL"),
    (IORING_ASYNC_CANCEL_FD, "FD"),
    (uapi::IORING_ASYNC_CANCEL_ANY, "ANY"),
    (uapi::IORING_ASYNC_CANCEL_FD_FIXED, "FD_FIXED"),
    (uapi::IORING_ASYNC_CANCEL_USERDATA, "USERDATA"),
    (IORING_ASYNC_CANCEL_OP, "OP"),
];

const SQE_FLAGS: [(u32, &str); 5] = [
    (uapi::IOSQE_IO_LINK as u32, "LINK"),
    (uapi::IOSQE_IO_HARDLINK as u32, "HARDLINK"),
    (uapi::IOSQE_IO_DRAIN as u32, "DRAIN"),
    (uapi::IOSQE_CQE_SKIP_SUCCESS as u32, "SKIP"),
    (uapi::IOSQE_ASYNC as u32, "ASYNC"),
];

impl fmt::Display for Sqe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}: ", self.user_data)?;
        match self.what {
            What::Nop(0) => write!(f, "NOP")?,
            What::Nop(res) => write!(f, "NOP answering {res}")?,
            What::Read { file, off, len } => {
                write!(f, "READ {file:?} {len} at {}", off as i64)?;
            }
            What::Readv { file, off, len } => {
                write!(f, "READV {file:?} twice {len} at {}", off as i64)?;
            }
            What::Provide { group, first, count } => {
                write!(f, "PROVIDE_BUFFERS {count} from {first} to group {group}")?;
            }
            What::Withdraw { group, count } => {
                write!(f, "REMOVE_BUFFERS {count} of group {group}")?;
            }
            What::Write { file } => write!(f, "WRITE {file:?}")?,
            What::Poll { file } => write!(f, "POLL_ADD {file:?}")?,
            What::PollRemove { target } => write!(f, "POLL_REMOVE {target}")?,
            What::Timeout { time, count, flags } => {
                write!(f, "TIMEOUT {time:?} count {count}")?;
                bits(f, flags, &TIMEOUT_FLAGS)?;
            }
            What::LinkTimeout { time, flags } => {
                write!(f, "LINK_TIMEOUT {time:?}")?;
                bits(f, flags, &TIMEOUT_FLAGS)?;
            }
            What::TimeoutRemove { target, time, flags } => {
                write!(f, "TIMEOUT_REMOVE {target}")?;
                if self.what.time().is_some() {
                    write!(f, " to {time:?}")?;
                }
                bits(f, flags, &TIMEOUT_FLAGS)?;
            }
            What::Cancel { target, file, op, flags } => {
                write!(f, "ASYNC_CANCEL {target}")?;
                bits(f, flags, &CANCEL_FLAGS)?;
                if flags & IORING_ASYNC_CANCEL_FD != 0 {
                    write!(f, " file {file:?}")?;
                }
                if flags & IORING_ASYNC_CANCEL_OP != 0 {
                    write!(f, " op {}", uapi::opcode_name(op).unwrap_or("?"))?;
                }
            }
            What::Files { of, op } => {
                write!(
                    f,
                    "{} of chain {of}: {op:?}",
                    uapi::opcode_name(op.opcode()).unwrap_or("?")
                )?;
            }
        }
        bits(f, self.flags.into(), &SQE_FLAGS)?;
        if let Some(group) = self.select {
            write!(f, " into group {group}")?;
        }
        match self.spoil {
            Some(spoil) => write!(f, " (bad {spoil:?})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.submit_all { ", SUBMIT_ALL" } else { "" };
        write!(f, "ring: {}{all}", self.mode.name())?;
        for (yes, what) in [
            (self.few, "few entries"),
            (self.tight, "few requests"),
            (self.registered, "files"),
            (self.table, "table"),
        ] {
            f.write_str(if yes { ", " } else { "" })?;
            f.write_str(if yes { what } else { "" })?;
        }
        writeln!(f)?;
        for (i, round) in self.rounds.iter().enumerate() {
            writeln!(f, "round {i}")?;
            for act in &round.pipes {
                writeln!(f, "        {act:?}")?;
            }
            for sqe in &round.sqes {
                writeln!(f, "  {sqe}")?;
            }
            if round.leave != 0 {
                writeln!(f, "        without the last {}", round.leave)?;
            }
            if round.unread {
                writeln!(f, "        what comes is left in the CQ")?;
            }
        }
        Ok(())
    }
}
