//! Entries that end by a time or a cancellation, and such as must fail.

use std::os::fd::AsRawFd;

use annulus_linux::opcode;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{CancelBuilder, Fd, Fixed, TimeoutFlags, Timespec};

use super::block::BLOCK;
use super::disk::{BLOCKS, Kind};
use super::draw::{CANCELED, HERE, linked};
use super::group::{Group, Name, What};
use super::lane::{BUFFER, GROUP, Lane, POOL, SLOTS};
use super::place::LIMIT;

impl Lane<'_> {
    /// Waits that end by a time or, from the fifth kind on, by a cancellation.
    pub fn waits(&mut self, group: &mut Group) -> Vec<Entry> {
        let slot = self.next_slot();
        let first = Name { slot, part: 0, serial: group.serial }.user_data();
        let soon = 20_000 + self.rng.below(2_000_000) as u32;
        group.time = Timespec::new().nsec(soon);
        let silent = Fd(self.place.silent.from.as_raw_fd());
        let base = self.nowhere.at(0);
        let read = opcode::Read::new(silent, base, 8).offset(HERE).build();
        let poll = opcode::PollAdd::new(silent, libc::POLLIN as u32).build();
        let kinds = if self.plan.drains { 4 } else { 8 };
        let ((wanted, fault), entries) = match self.rng.below(kinds) {
            0 => {
                let timeout = opcode::Timeout::new(&group.time).build();
                (([[-libc::ETIME; 2], [0; 2], [0; 2]], None), vec![timeout])
            }
            1 => {
                group.time = Timespec::new().nsec(30_000_000);
                let timeout = opcode::Timeout::new(&group.time).count(1).build();
                (([[-libc::ETIME, 0], [0; 2], [0; 2]], None), vec![timeout])
            }
            2 => {
                let guard = opcode::LinkTimeout::new(&group.time).flags(TimeoutFlags::empty());
                let fault = Some("a read takes longer than its LINK_TIMEOUT (ECANCELED, ETIME)");
                let wanted = [[CANCELED; 2], [-libc::ETIME; 2], [0; 2]];
                ((wanted, fault), vec![linked(read), guard.build()])
            }
            3 => {
                group.time = Timespec::new().sec(3600);
                let guard = opcode::LinkTimeout::new(&group.time).build();
                let quick = linked(opcode::Nop::new().build());
                (([[0; 2], [CANCELED; 2], [0; 2]], None), vec![quick, guard])
            }
            4 => {
                group.time = Timespec::new().sec(3600);
                let timeout = opcode::Timeout::new(&group.time).build();
                let remove = opcode::TimeoutRemove::new(first).build();
                let fault = Some("a timeout is removed (ECANCELED)");
                (([[CANCELED; 2], [0; 2], [0; 2]], fault), vec![timeout, remove])
            }
            5 => {
                let cancel = opcode::AsyncCancel::new(first).build();
                let fault = Some("a read of a pipe is cancelled (ECANCELED)");
                (([[CANCELED; 2], [0; 2], [0; 2]], fault), vec![read, cancel])
            }
            6 => {
                let cancel = opcode::PollRemove::new(first).build();
                let fault = Some("a poll is removed (ECANCELED)");
                (([[CANCELED; 2], [0; 2], [0; 2]], fault), vec![poll, cancel])
            }
            _ => {
                let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(first)).build();
                let chain = vec![linked(poll), opcode::Nop::new().build(), cancel];
                let fault = Some("a chain is cancelled (ECANCELED)");
                (([[CANCELED; 2], [CANCELED; 2], [0; 2]], fault), chain)
            }
        };
        group.what = What::Ends { wanted, fault };
        entries
    }

    /// Entries that must fail, and nothing else.
    pub fn fails(&mut self, group: &mut Group) -> Vec<Entry> {
        let base = self.nowhere.at(0);
        let bad = std::ptr::without_provenance_mut::<u8>(16);
        let disk = self.disks.iter().position(|disk| disk.kind != Kind::Direct).unwrap_or(0);
        let fd = Fd(self.disks[disk].fd());
        let write = |fd: i32| opcode::Write::new(Fd(fd), base, 4096).build();
        let none = Fd(1_000_000);
        let (fault, errno, entry): (_, i32, Entry) = match self.rng.below(15) {
            0 => ("a file that is none (EBADF)", libc::EBADF, opcode::Fsync::new(none).build()),
            1 => {
                let empty = Fixed(SLOTS - 1);
                let read = opcode::Read::new(empty, base, 8).build();
                ("an empty place of the table (EBADF)", libc::EBADF, read)
            }
            2 => {
                let read = opcode::Read::new(fd, bad, 4096).build();
                ("memory that is none (EFAULT)", libc::EFAULT, read)
            }
            3 => {
                let array = bad.cast_const().cast();
                let write = opcode::Writev::new(fd, array, 2).build();
                ("a vector that is none (EFAULT)", libc::EFAULT, write)
            }
            4 => {
                let outside = self.memory.at(POOL * BUFFER - 8);
                let read = opcode::ReadFixed::new(fd, outside, 16, POOL as u16 - 1).build();
                ("a range beyond its registered buffer (EFAULT)", libc::EFAULT, read)
            }
            5 => {
                let full = self.place.full.as_raw_fd();
                ("a device that is full (ENOSPC)", libc::ENOSPC, write(full))
            }
            6 => {
                let entry = opcode::Write::new(fd, base, 4096).offset(LIMIT).build();
                ("a file that would be too long (EFBIG)", libc::EFBIG, entry)
            }
            7 => {
                let entry = opcode::Write::new(Fd(self.place.unread.as_raw_fd()), base, 8);
                ("a pipe without a reader (EPIPE)", libc::EPIPE, entry.offset(HERE).build())
            }
            8 => {
                let sealed = self.place.sealed.as_raw_fd();
                ("memory that is sealed (EPERM)", libc::EPERM, write(sealed))
            }
            9 => {
                let directory = Fd(self.place.directory.as_raw_fd());
                let read = opcode::Read::new(directory, base, 8).build();
                ("a directory that is read (EISDIR)", libc::EISDIR, read)
            }
            10 => {
                let path = c"/annulus/soak/none".as_ptr();
                let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path).build();
                ("a path that is none (ENOENT)", libc::ENOENT, open)
            }
            11 => {
                let nop = opcode::Nop::new().build();
                let odd = nop.flags(Flags::from_bits_retain(1 << 7));
                ("a flag that is none (EINVAL)", libc::EINVAL, odd)
            }
            12 => {
                let read = opcode::Read::new(fd, std::ptr::null_mut(), 8).buf_group(GROUP + 1);
                let read = read.build().flags(Flags::BUFFER_SELECT);
                ("a group without buffers (ENOBUFS)", libc::ENOBUFS, read)
            }
            13 => {
                let (last, len) = ((BLOCKS - 1) * BLOCK, 2 * BLOCK as u32);
                let short = opcode::Read::new(fd, base, len).offset(last as u64).build();
                let wanted = [[BLOCK as i32; 2], [CANCELED; 2], [0; 2]];
                let fault = Some("a chain whose first entry ends short (ECANCELED)");
                group.what = What::Ends { wanted, fault };
                return vec![linked(short), opcode::Nop::new().build()];
            }
            _ => {
                let broken = vec![
                    linked(opcode::Read::new(none, base, 8).build()),
                    linked(opcode::Nop::new().build()),
                    opcode::Read::new(fd, base, 8).build(),
                ];
                let wanted = [[-libc::EBADF; 2], [CANCELED; 2], [CANCELED; 2]];
                let fault = Some("a chain whose first entry fails (ECANCELED)");
                group.what = What::Ends { wanted, fault };
                return broken;
            }
        };
        group.what = What::Ends { wanted: [[-errno; 2], [0; 2], [0; 2]], fault: Some(fault) };
        vec![entry]
    }
}
