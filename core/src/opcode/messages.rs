//! Messages to other rings.

use super::Entry;
use crate::types::{DestinationSlot, Fd, Fixed};
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

builder! {
    /// Gives another ring of the same place a registered file of this one, for its table. Its own result, and that of the
    /// completion that the other ring gets, is 0, or the place if any was good. Errors: `-EBADF` if there is no such file
    /// here; `-EBADFD` if the target is no ring, or one that is not enabled; `-ENXIO` if that has no table, `-ENFILE` if
    /// any place was good and none is empty; `-EOVERFLOW` if it has no room for more messages (the file has not gone over
    /// then); `-EMFILE` if no descriptor is left for the file on its way; `-EINVAL` for a place beyond its table, for this
    /// ring itself, and if one of the two is a ring on a device.
    MsgRingSendFd = IORING_OP_MSG_RING
}

impl MsgRingSendFd {
    /// The file in this ring's place `fixed_slot_src` goes to the other ring's `dest_slot_index`; the completion that tells
    /// of it has this user data.
    #[inline]
    pub fn new(
        ring_fd: Fd,
        fixed_slot_src: Fixed,
        dest_slot_index: DestinationSlot,
        user_data: u64,
    ) -> MsgRingSendFd {
        let entry = Entry {
            opcode: MsgRingSendFd::CODE,
            addr: uapi::IORING_MSG_SEND_FD.into(),
            addr3: fixed_slot_src.0.into(),
            splice_fd_in: dest_slot_index.file_index() as i32,
            off: user_data,
            ..Entry::default()
        };
        MsgRingSendFd(entry.file(ring_fd))
    }

    /// `IORING_MSG_RING_*`; none unless set. With `IORING_MSG_RING_CQE_SKIP` the other ring is told nothing.
    #[inline]
    pub const fn opcode_flags(mut self, opcode_flags: u32) -> MsgRingSendFd {
        self.0.op_flags = opcode_flags;
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

    #[test]
    fn a_file_goes_from_place_to_place() {
        let plain = Entry { opcode: 40, fd: 5, addr: 1, off: 9, ..Entry::default() };
        let to = DestinationSlot::try_from_slot_target(6).unwrap();
        let built = MsgRingSendFd::new(Fd(5), Fixed(3), to, 9).build();
        assert_eq!(built, Entry { addr3: 3, splice_fd_in: 7, ..plain });
        let any = MsgRingSendFd::new(Fd(5), Fixed(0), DestinationSlot::auto_target(), 9);
        assert_eq!(any.opcode_flags(1).build(), Entry { splice_fd_in: -1, op_flags: 1, ..plain });
    }
}
