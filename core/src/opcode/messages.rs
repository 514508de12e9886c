//! Messages to other rings.

use super::Entry;
use crate::types::Fd;
use crate::uapi;

builder! {
    /// Has another ring of the same place post a completion. Its own result is 0, or why there was none: `-EBADFD` if
    /// the file is no ring, or one that is not enabled, `-EOVERFLOW` if it has no room for more messages.
    MsgRingData = IORING_OP_MSG_RING
}

impl MsgRingData {
    /// The other ring gets a completion with this result and user data, and if there are any with these flags.
    #[inline]
    pub fn new(ring_fd: Fd, result: i32, user_data: u64, user_flags: Option<u32>) -> MsgRingData {
        let mut entry = Entry {
            opcode: MsgRingData::CODE,
            addr: uapi::IORING_MSG_DATA.into(),
            len: result as u32,
            off: user_data,
            ..Entry::default()
        };
        if let Some(flags) = user_flags {
            entry.op_flags = uapi::IORING_MSG_RING_FLAGS_PASS;
            entry.splice_fd_in = flags as i32;
        }
        MsgRingData(entry.file(ring_fd))
    }

    /// `IORING_MSG_RING_*`, besides what [`new`](Self::new) has set; none unless set. Data takes no other.
    #[inline]
    pub const fn opcode_flags(mut self, opcode_flags: u32) -> MsgRingData {
        self.0.op_flags |= opcode_flags;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_completion() {
        let plain = Entry { opcode: 40, fd: 5, len: u32::MAX, off: 9, ..Entry::default() };
        assert_eq!(MsgRingData::new(Fd(5), -1, 9, None).build(), plain);
        let flags = MsgRingData::new(Fd(5), -1, 9, Some(1 << 31)).build();
        assert_eq!(flags, Entry { op_flags: 2, splice_fd_in: i32::MIN, ..plain });
        let skip = MsgRingData::new(Fd(5), -1, 9, None).opcode_flags(1).build();
        assert_eq!(skip, Entry { op_flags: 1, ..plain });
    }
}
