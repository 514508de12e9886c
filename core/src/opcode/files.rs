//! Builders of what is done with whole files: opening, closing, attributes, allocation, advice.

use core::ffi::c_char;

use super::{Entry, address};
use crate::types::{DestinationSlot, Fd, UseFd, UseTarget, statx};
use crate::uapi;

builder! {
    /// Changes the allocation of a range of a file or device, as `fallocate(2)` does.
    Fallocate = IORING_OP_FALLOCATE
}

impl Fallocate {
    /// `len` bytes of this file, from [`offset`](Self::offset) on.
    #[inline]
    pub fn new(fd: impl UseFd, len: u64) -> Fallocate {
        Fallocate(Entry { opcode: Fallocate::CODE, addr: len, ..Entry::default() }.file(fd))
    }

    /// Where the range starts, in bytes; 0 unless set.
    #[inline]
    pub const fn offset(mut self, offset: u64) -> Fallocate {
        self.0.off = offset;
        self
    }

    /// `FALLOC_FL_*`, in [`uapi`]; 0 unless set.
    #[inline]
    pub const fn mode(mut self, mode: i32) -> Fallocate {
        self.0.len = mode as u32;
        self
    }
}

builder! {
    /// Starts or awaits the write-back of a range of a file, as `sync_file_range(2)` does.
    ///
    /// It promises nothing about metadata, so it does not make data durable: see [`Fsync`](super::Fsync).
    SyncFileRange = IORING_OP_SYNC_FILE_RANGE
}

impl SyncFileRange {
    /// `len` bytes of this file, from [`offset`](Self::offset) on; 0 means to its end.
    #[inline]
    pub fn new(fd: impl UseFd, len: u32) -> SyncFileRange {
        SyncFileRange(Entry { opcode: SyncFileRange::CODE, len, ..Entry::default() }.file(fd))
    }

    /// Where the range starts, in bytes; 0 unless set.
    #[inline]
    pub const fn offset(mut self, offset: u64) -> SyncFileRange {
        self.0.off = offset;
        self
    }

    /// `SYNC_FILE_RANGE_*` of the system; none unless set.
    #[inline]
    pub const fn flags(mut self, flags: u32) -> SyncFileRange {
        self.0.op_flags = flags;
        self
    }
}

builder! {
    /// Announces how a range of a file will be accessed, as `posix_fadvise(2)` does.
    Fadvise = IORING_OP_FADVISE
}

impl Fadvise {
    /// `len` bytes of this file, from [`offset`](Self::offset) on; 0 means to its end. `advice` is one of the system's
    /// `POSIX_FADV_*`.
    #[inline]
    pub fn new(fd: impl UseFd, len: i64, advice: i32) -> Fadvise {
        // What the older of the two fields cannot hold goes into the other.
        let (addr, len) = match u32::try_from(len) {
            Ok(len) => (0, len),
            Err(_) => (len as u64, 0),
        };
        let entry =
            Entry { opcode: Fadvise::CODE, addr, len, op_flags: advice as u32, ..Entry::default() };
        Fadvise(entry.file(fd))
    }

    /// Where the range starts, in bytes; 0 unless set.
    #[inline]
    pub const fn offset(mut self, offset: u64) -> Fadvise {
        self.0.off = offset;
        self
    }
}

builder! {
    /// Opens a file, as `openat(2)` does: as a descriptor, which is the result, or as a registered file.
    OpenAt = IORING_OP_OPENAT
}

impl OpenAt {
    /// The file `pathname`, which is a C string, relative to the directory `dirfd`.
    #[inline]
    pub fn new(dirfd: Fd, pathname: *const c_char) -> OpenAt {
        let entry = Entry { opcode: OpenAt::CODE, addr: address(pathname), ..Entry::default() };
        OpenAt(entry.file(dirfd))
    }

    /// Has the file registered at this place, from which another goes, instead of given a descriptor. The result is then
    /// 0, or the place if the ring chose it.
    #[inline]
    pub const fn file_index(mut self, file_index: Option<DestinationSlot>) -> OpenAt {
        self.0.splice_fd_in = match file_index {
            Some(slot) => slot.file_index() as i32,
            None => 0,
        };
        self
    }

    /// `O_*` of the system; 0, which is read only, unless set. A registered file takes no `O_CLOEXEC`.
    #[inline]
    pub const fn flags(mut self, flags: i32) -> OpenAt {
        self.0.op_flags = flags as u32;
        self
    }

    /// The permissions of a file that is made; 0 unless set.
    #[inline]
    pub const fn mode(mut self, mode: u32) -> OpenAt {
        self.0.len = mode;
        self
    }
}

builder! {
    /// Closes a descriptor, as `close(2)` does, or takes a file out of the registered ones.
    Close = IORING_OP_CLOSE
}

impl Close {
    /// [`Fd`] is a descriptor, [`Fixed`](crate::types::Fixed) a place of the registered files.
    #[inline]
    pub fn new(fd: impl UseTarget) -> Close {
        let (fd, file_index) = fd.into_target();
        let entry = Entry { opcode: Close::CODE, ..Entry::default() }.file(Fd(fd));
        Close(Entry { splice_fd_in: file_index as i32, ..entry })
    }
}

builder! {
    /// Changes the table of registered files, in order with the other entries.
    FilesUpdate = IORING_OP_FILES_UPDATE
}

impl FilesUpdate {
    /// Replaces places by the `len` descriptors at `fds`: -1 empties one, -2 leaves it as it is. The result is how many
    /// places were done.
    #[inline]
    pub fn new(fds: *const i32, len: u32) -> FilesUpdate {
        let entry = Entry {
            opcode: FilesUpdate::CODE,
            fd: -1,
            addr: address(fds),
            len,
            ..Entry::default()
        };
        FilesUpdate(entry)
    }

    /// The first place; 0 unless set. -1 (`IORING_FILE_INDEX_ALLOC`) has the ring choose empty places, and write them
    /// over the descriptors.
    #[inline]
    pub const fn offset(mut self, offset: i32) -> FilesUpdate {
        self.0.off = offset as u64;
        self
    }
}

builder! {
    /// Asks for a file's attributes, as `statx(2)` does.
    Statx = IORING_OP_STATX
}

impl Statx {
    /// Of the file `pathname`, which is a C string, relative to the directory `dirfd`; they are written to `statxbuf`.
    #[inline]
    pub fn new(dirfd: Fd, pathname: *const c_char, statxbuf: *mut statx) -> Statx {
        let entry = Entry {
            opcode: Statx::CODE,
            off: address(statxbuf),
            addr: address(pathname),
            ..Entry::default()
        };
        Statx(entry.file(dirfd))
    }

    /// `AT_*` of the system; none unless set.
    #[inline]
    pub const fn flags(mut self, flags: i32) -> Statx {
        self.0.op_flags = flags as u32;
        self
    }

    /// `STATX_*` of the system: which attributes; none unless set.
    #[inline]
    pub const fn mask(mut self, mask: u32) -> Statx {
        self.0.len = mask;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Fixed;

    #[test]
    fn a_length_goes_where_it_fits() {
        let short = Fadvise::new(Fd(3), 7, 4).build();
        assert_eq!((short.addr, short.len, short.op_flags), (0, 7, 4));
        let long = Fadvise::new(Fd(3), 1 << 40, 4).build();
        assert_eq!((long.addr, long.len), (1 << 40, 0));
        // A negative one is the kernel's to refuse.
        assert_eq!(Fadvise::new(Fd(3), -1, 4).build().addr, u64::MAX);
    }

    #[test]
    fn a_place_is_told_from_a_descriptor() {
        let close = Close::new(Fd(5)).build();
        assert_eq!((close.fd, close.splice_fd_in), (5, 0));
        let close = Close::new(Fixed(5)).build();
        assert_eq!((close.fd, close.splice_fd_in, close.flags), (0, 6, 0));
        let open = OpenAt::new(Fd(5), core::ptr::null());
        let place = DestinationSlot::try_from_slot_target(0).unwrap();
        assert_eq!(open.file_index(Some(place)).build().splice_fd_in, 1);
        let chosen = open.file_index(Some(DestinationSlot::auto_target()));
        assert_eq!(chosen.build().splice_fd_in, -1);
        assert_eq!(chosen.file_index(None).build(), open.build());
    }
}
