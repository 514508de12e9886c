//! Compares every builder's entry, byte for byte, with the one that the `io-uring` crate builds.

use annulus::types::{DestinationSlot, Fd, Fixed, FsyncFlags, Iovec};
use annulus::{cqe, opcode, sqe};
use io_uring::{cqueue, opcode as reference, squeue, types as reference_types};
use proptest::prelude::*;

/// The bytes of an entry.
fn bytes<T>(entry: &T) -> [u8; 64] {
    assert_eq!(size_of::<T>(), 64);
    // SAFETY: both crates' entries are 64 bytes without padding, and initialised in whole by their builders.
    unsafe { std::mem::transmute_copy(entry) }
}

/// Builds the same entry by both crates, for a descriptor and for a registered file, and compares the bytes.
macro_rules! same {
    ($fd:ident, |$ours:ident, $theirs:ident| $build_ours:expr, $build_theirs:expr) => {
        let ($ours, $theirs) = (Fd($fd), reference_types::Fd($fd));
        prop_assert_eq!(bytes(&$build_ours.build()), bytes(&$build_theirs.build()));
        let ($ours, $theirs) = (Fixed($fd as u32), reference_types::Fixed($fd as u32));
        prop_assert_eq!(bytes(&$build_ours.build()), bytes(&$build_theirs.build()));
    };
}

/// A read or write with every setter.
macro_rules! read_write {
    ($name:ident($pointer:expr, $reference:expr $(, $index:expr)?) $fd:ident $len:ident $off:ident $prio:ident $rw:ident) => {
        same!(
            $fd,
            |ours, theirs| opcode::$name::new(ours, $pointer, $len $(, $index)?)
                .offset($off)
                .ioprio($prio)
                .rw_flags($rw),
            reference::$name::new(theirs, $reference, $len $(, $index)?)
                .offset($off)
                .ioprio($prio)
                .rw_flags($rw)
        );
        // And without any, for the defaults.
        same!(
            $fd,
            |ours, theirs| opcode::$name::new(ours, $pointer, $len $(, $index)?),
            reference::$name::new(theirs, $reference, $len $(, $index)?)
        );
        prop_assert_eq!(opcode::$name::CODE, reference::$name::CODE);
    };
}

proptest! {
    #[test]
    fn reads_and_writes(
        fd: i32, addr: usize, len: u32, off: u64, prio: u16, rw: i32, index: u16,
    ) {
        // Addresses without memory: entries are compared, never run.
        let buf = std::ptr::without_provenance_mut::<u8>(addr);
        let constant = buf.cast_const();
        let (ours, theirs) = (constant.cast::<Iovec>(), constant.cast());
        read_write!(Read(buf, buf) fd len off prio rw);
        read_write!(Write(constant, constant) fd len off prio rw);
        read_write!(Readv(ours, theirs) fd len off prio rw);
        read_write!(Writev(ours, theirs) fd len off prio rw);
        read_write!(ReadFixed(buf, buf, index) fd len off prio rw);
        read_write!(WriteFixed(constant, constant, index) fd len off prio rw);
    }

    #[test]
    fn syncs_and_nops(fd: i32, len: u32, off: u64, data_only: bool) {
        let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
        let reference_flags = reference_types::FsyncFlags::from_bits(flags.bits()).unwrap();
        same!(
            fd,
            |ours, theirs| opcode::Fsync::new(ours).offset(off).len(len).flags(flags),
            reference::Fsync::new(theirs).offset(off).len(len).flags(reference_flags)
        );
        same!(fd, |ours, theirs| opcode::Fsync::new(ours), reference::Fsync::new(theirs));
        prop_assert_eq!(opcode::Fsync::CODE, reference::Fsync::CODE);
        prop_assert_eq!(
            bytes(&opcode::Nop::new().build()),
            bytes(&reference::Nop::new().build())
        );
        prop_assert_eq!(opcode::Nop::CODE, reference::Nop::CODE);
    }

    #[test]
    fn allocations(fd: i32, len: u64, off: u64, mode: i32) {
        same!(
            fd,
            |ours, theirs| opcode::Fallocate::new(ours, len).offset(off).mode(mode),
            reference::Fallocate::new(theirs, len).offset(off).mode(mode)
        );
        same!(
            fd,
            |ours, theirs| opcode::Fallocate::new(ours, len),
            reference::Fallocate::new(theirs, len)
        );
        prop_assert_eq!(opcode::Fallocate::CODE, reference::Fallocate::CODE);
    }

    #[test]
    fn polls(fd: i32, events: u32, multi: bool, user_data: u64) {
        same!(
            fd,
            |ours, theirs| opcode::PollAdd::new(ours, events).multi(multi),
            reference::PollAdd::new(theirs, events).multi(multi)
        );
        same!(
            fd,
            |ours, theirs| opcode::PollAdd::new(ours, events),
            reference::PollAdd::new(theirs, events)
        );
        prop_assert_eq!(
            bytes(&opcode::PollRemove::new(user_data).build()),
            bytes(&reference::PollRemove::new(user_data).build())
        );
        prop_assert_eq!(opcode::PollAdd::CODE, reference::PollAdd::CODE);
        prop_assert_eq!(opcode::PollRemove::CODE, reference::PollRemove::CODE);
    }

    #[test]
    fn ranges(fd: i32, len: u32, off: u64, flags: u32, advice: i32) {
        same!(
            fd,
            |ours, theirs| opcode::SyncFileRange::new(ours, len).offset(off).flags(flags),
            reference::SyncFileRange::new(theirs, len).offset(off).flags(flags)
        );
        same!(
            fd,
            |ours, theirs| opcode::Fadvise::new(ours, len.into(), advice).offset(off),
            reference::Fadvise::new(theirs, len.into(), advice).offset(off)
        );
        prop_assert_eq!(opcode::SyncFileRange::CODE, reference::SyncFileRange::CODE);
        prop_assert_eq!(opcode::Fadvise::CODE, reference::Fadvise::CODE);
    }

    #[test]
    fn paths(fd: i32, path: usize, at: usize, flags: i32, mode: u32, place: u32) {
        let path = std::ptr::without_provenance(path);
        let at = std::ptr::without_provenance_mut::<u8>(at);
        let (ours, theirs) = (Fd(fd), reference_types::Fd(fd));
        let open = opcode::OpenAt::new(ours, path).flags(flags).mode(mode);
        let other = || reference::OpenAt::new(theirs, path).flags(flags).mode(mode);
        prop_assert_eq!(bytes(&open.build()), bytes(&other().build()));
        let slot = DestinationSlot::try_from_slot_target(place);
        let other_slot = reference_types::DestinationSlot::try_from_slot_target(place);
        prop_assert_eq!(slot.is_ok(), other_slot.is_ok());
        let (slot, other_slot) = match (slot, other_slot) {
            (Ok(slot), Ok(other)) => (slot, other),
            _ => (DestinationSlot::auto_target(), reference_types::DestinationSlot::auto_target()),
        };
        prop_assert_eq!(
            bytes(&open.file_index(Some(slot)).build()),
            bytes(&other().file_index(Some(other_slot)).build())
        );
        prop_assert_eq!(
            bytes(&opcode::Statx::new(ours, path, at.cast()).flags(flags).mask(mode).build()),
            bytes(&reference::Statx::new(theirs, path, at.cast()).flags(flags).mask(mode).build())
        );
        prop_assert_eq!(opcode::OpenAt::CODE, reference::OpenAt::CODE);
        prop_assert_eq!(opcode::Statx::CODE, reference::Statx::CODE);
    }

    #[test]
    fn tables(fd: i32, place in 0..u32::MAX, fds: usize, len: u32, offset: i32) {
        prop_assert_eq!(
            bytes(&opcode::Close::new(Fd(fd)).build()),
            bytes(&reference::Close::new(reference_types::Fd(fd)).build())
        );
        prop_assert_eq!(
            bytes(&opcode::Close::new(Fixed(place)).build()),
            bytes(&reference::Close::new(reference_types::Fixed(place)).build())
        );
        let fds = std::ptr::without_provenance(fds);
        prop_assert_eq!(
            bytes(&opcode::FilesUpdate::new(fds, len).offset(offset).build()),
            bytes(&reference::FilesUpdate::new(fds, len).offset(offset).build())
        );
        prop_assert_eq!(opcode::Close::CODE, reference::Close::CODE);
        prop_assert_eq!(opcode::FilesUpdate::CODE, reference::FilesUpdate::CODE);
    }

    #[test]
    fn entry_setters(fd: i32, user_data: u64, first: u8, second: u8, personality: u16, clear: bool) {
        let ours = |bits| sqe::Flags::from_bits_truncate(bits);
        let theirs = |bits| squeue::Flags::from_bits_truncate(bits);
        let mut entry = opcode::Fsync::new(Fixed(fd as u32)).build();
        let mut other = reference::Fsync::new(reference_types::Fixed(fd as u32)).build();
        if clear {
            entry = entry.clear_flags();
            other = other.clear_flags();
        }
        entry = entry.flags(ours(first)).flags(ours(second)).personality(personality).user_data(1);
        other = other.flags(theirs(first)).flags(theirs(second)).personality(personality).user_data(1);
        entry.set_user_data(user_data);
        other.set_user_data(user_data);
        prop_assert_eq!(bytes(&entry), bytes(&other));
        prop_assert_eq!(entry.get_user_data(), other.get_user_data());
        prop_assert_eq!(entry.get_opcode(), other.get_opcode());
    }

    #[test]
    fn completion_flags(flags: u32) {
        prop_assert_eq!(cqe::buffer_select(flags), cqueue::buffer_select(flags));
        prop_assert_eq!(cqe::buffer_more(flags), cqueue::buffer_more(flags));
        prop_assert_eq!(cqe::more(flags), cqueue::more(flags));
        prop_assert_eq!(cqe::sock_nonempty(flags), cqueue::sock_nonempty(flags));
        prop_assert_eq!(cqe::notif(flags), cqueue::notif(flags));
    }
}

#[test]
fn flags_have_the_same_names_and_bits() {
    let ours: Vec<_> =
        sqe::Flags::all().iter_names().map(|(name, flag)| (name, flag.bits())).collect();
    let theirs: Vec<_> =
        squeue::Flags::all().iter_names().map(|(name, flag)| (name, flag.bits())).collect();
    assert_eq!(ours, theirs);
}
