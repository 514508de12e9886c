//! Row *ops*: what is done with whole files and their names.

mod common;

use std::ffi::{CString, c_char};
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{DestinationSlot, Fd, Fixed};
use annulus_linux::{Ring, opcode};
use common::*;

const HERE: Fd = Fd(libc::AT_FDCWD);

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn open(path: *const c_char, flags: i32) -> opcode::OpenAt {
    opcode::OpenAt::new(HERE, path).flags(flags).mode(0o640)
}

/// A descriptor that was a result.
fn take(result: i32) -> File {
    assert!(result >= 0, "{result}");
    // SAFETY: opened for us.
    File::from(unsafe { OwnedFd::from_raw_fd(result) })
}

#[test]
fn row_ops_files_are_opened_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (made, missing) = (c_path(&dir.path().join("made")), c_path(&dir.path().join("missing")));
    each(8, |ring| {
        for flags in [Flags::empty(), Flags::ASYNC] {
            let create = open(made.as_ptr(), libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC);
            let mut file = take(one(ring, &create.build().flags(flags)));
            file.write_all(b"content").unwrap();
            let mode = file.metadata().unwrap().mode();
            assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
            let exclusive = open(made.as_ptr(), libc::O_CREAT | libc::O_EXCL);
            assert_eq!(one(ring, &exclusive.build().flags(flags)), -libc::EEXIST);
            let opened = one(ring, &open(made.as_ptr(), 0).build().flags(flags));
            // Not left as the try has it.
            // SAFETY: no memory is passed.
            let status = unsafe { libc::fcntl(opened, libc::F_GETFL) };
            assert_eq!(status & libc::O_NONBLOCK, 0);
            let close = opcode::Close::new(Fd(opened)).build().flags(flags);
            assert_eq!(one(ring, &close), 0);
            assert_eq!(one(ring, &open(missing.as_ptr(), 0).build().flags(flags)), -libc::ENOENT);
        }
        assert_eq!(one(ring, &opcode::Close::new(Fd(-1)).build()), -libc::EBADF);
        assert_eq!(one(ring, &opcode::Close::new(Fd(i32::MAX)).build()), -libc::EBADF);
    });
}

#[test]
fn row_ops_paths_are_read_when_they_are_submitted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"x").unwrap();
    // Long enough for a block, and as long as can be.
    let mut long = dir.path().as_os_str().as_bytes().to_vec();
    while long.len() < 4095 - "/file".len() {
        long.extend_from_slice(b"/.");
    }
    long.truncate(4095 - "/file".len());
    if long.ends_with(b"/") {
        long.pop();
        long.insert(0, b'/');
    }
    long.extend_from_slice(b"/file");
    let mut ring = Ring::new(4).unwrap();
    let mut room = [0u8; 256];
    for path in [c_path(&dir.path().join("file")), CString::new(long).unwrap()] {
        let mut bytes = path.into_bytes_with_nul();
        let at = bytes.as_ptr().cast();
        let status = opcode::Statx::new(HERE, at, room.as_mut_ptr().cast()).mask(libc::STATX_SIZE);
        push(&mut ring, &[open(at, 0).build().flags(Flags::ASYNC), status.build()]);
        ring.submit().unwrap();
        // The path is the application's again.
        bytes.fill(b'y');
        for cqe in reap(&mut ring, 2) {
            assert!(cqe.result() >= 0, "{}", cqe.result());
            if cqe.result() > 0 {
                drop(take(cqe.result()));
            }
        }
    }
    let bad: [(*const c_char, i32); 4] = [
        (std::ptr::null(), libc::EFAULT),
        (std::ptr::without_provenance(8), libc::EFAULT),
        (c"".as_ptr(), libc::ENOENT),
        (c"n".as_ptr(), libc::ENOENT),
    ];
    for (path, errno) in bad {
        assert_eq!(one(&mut ring, &open(path, 0).build()), -errno);
        let status = opcode::Statx::new(HERE, path, room.as_mut_ptr().cast()).build();
        assert_eq!(one(&mut ring, &status), -errno);
    }
    let endless = CString::new(vec![b'x'; 5000]).unwrap();
    assert_eq!(one(&mut ring, &open(endless.as_ptr(), 0).build()), -libc::ENAMETOOLONG);
}

#[test]
fn row_ops_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![7; 1234]).unwrap();
    let (name, file) = (c_path(&path), File::open(&path).unwrap());
    each(4, |ring| {
        // SAFETY: plain numbers.
        let mut status: libc::statx = unsafe { std::mem::zeroed() };
        let to = (&raw mut status).cast();
        let ask = |dir, path| opcode::Statx::new(dir, path, to).mask(libc::STATX_BASIC_STATS);
        assert_eq!(one(ring, &ask(HERE, name.as_ptr()).build()), 0);
        assert_eq!((status.stx_size, status.stx_ino), (1234, file.metadata().unwrap().ino()));
        status.stx_size = 0;
        let empty = ask(fd(&file), c"".as_ptr());
        assert_eq!(one(ring, &empty.flags(libc::AT_EMPTY_PATH).build()), 0);
        assert_eq!(status.stx_size, 1234);
        assert_eq!(one(ring, &empty.build()), -libc::ENOENT);
        assert_eq!(one(ring, &ask(Fd(-1), c"x".as_ptr()).build()), -libc::EBADF);
        let nowhere = opcode::Statx::new(HERE, name.as_ptr(), std::ptr::without_provenance_mut(8));
        assert_eq!(one(ring, &nowhere.build()), -libc::EFAULT);
    });
}

#[test]
fn row_ops_ranges() {
    each(8, |ring| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        ring.submitter().register_files(&[fd(&file).0]).unwrap();
        let len = || file.metadata().unwrap().len();
        let all = |entry: Entry, errno: i32, ring: &mut Ring| {
            for flags in [Flags::empty(), Flags::ASYNC] {
                assert_eq!(one(ring, &entry.flags(flags)), -errno, "{entry:?}");
            }
        };
        let grow = opcode::Fallocate::new(fd(&file), 5000).offset(10_000);
        all(grow.mode(libc::FALLOC_FL_KEEP_SIZE).build(), 0, ring);
        assert_eq!(len(), 10_000);
        all(opcode::Fallocate::new(Fixed(0), 5000).offset(10_000).build(), 0, ring);
        assert_eq!(len(), 15_000);
        all(opcode::Fallocate::new(fd(&file), 0).build(), libc::EINVAL, ring);
        all(grow.mode(1 << 30).build(), libc::EOPNOTSUPP, ring);
        for advice in [
            libc::POSIX_FADV_NORMAL,
            libc::POSIX_FADV_SEQUENTIAL,
            libc::POSIX_FADV_WILLNEED,
            libc::POSIX_FADV_DONTNEED,
        ] {
            all(opcode::Fadvise::new(Fixed(0), 5000, advice).offset(9).build(), 0, ring);
            all(opcode::Fadvise::new(fd(&file), 1 << 40, advice).build(), 0, ring);
            all(opcode::Fadvise::new(fd(&file), -1, advice).build(), libc::EINVAL, ring);
            all(opcode::Fadvise::new(Fd(-1), 0, advice).build(), libc::EBADF, ring);
        }
        all(opcode::Fadvise::new(fd(&file), 0, 77).build(), libc::EINVAL, ring);
        let write_out = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        all(opcode::SyncFileRange::new(Fixed(0), 5000).flags(write_out).build(), 0, ring);
        let unknown = opcode::SyncFileRange::new(fd(&file), 5000).flags(1 << 20);
        all(unknown.build(), libc::EINVAL, ring);
        let (end, _other) = pipe(0);
        all(opcode::SyncFileRange::new(fd(&end), 0).build(), libc::ESPIPE, ring);
        all(opcode::Fadvise::new(fd(&end), 0, 0).build(), libc::ESPIPE, ring);
        all(opcode::Fallocate::new(fd(&end), 10).build(), libc::EBADF, ring);
    });
}

#[test]
fn row_registered_files_are_opened_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"content").unwrap();
    let name = c_path(&path);
    each(8, |ring| {
        ring.submitter().register_files_sparse(2).unwrap();
        let auto = Some(DestinationSlot::auto_target());
        let first = Some(DestinationSlot::try_from_slot_target(0).unwrap());
        for flags in [Flags::empty(), Flags::ASYNC] {
            let open = |slot| open(name.as_ptr(), 0).file_index(slot).build().flags(flags);
            assert_eq!(one(ring, &open(auto)), 0);
            assert_eq!(one(ring, &open(auto)), 1);
            assert_eq!(one(ring, &open(auto)), -libc::ENFILE);
            assert_eq!(one(ring, &open(first)), 0, "over the one that is there");
            let mut buffer = [0; 7];
            let read = opcode::Read::new(Fixed(0), buffer.as_mut_ptr(), 7).build();
            assert_eq!(one(ring, &read), 7);
            assert_eq!(&buffer, b"content");
            // The one emptied last is the first to be filled.
            for place in [1, 0] {
                let close = opcode::Close::new(Fixed(place)).build().flags(flags);
                assert_eq!(one(ring, &close), 0);
                assert_eq!(one(ring, &close), -libc::EBADF);
            }
            let (cloexec, third) =
                (libc::O_CLOEXEC, Some(DestinationSlot::try_from_slot_target(2).unwrap()));
            let open = opcode::OpenAt::new(HERE, name.as_ptr());
            let refused = open.file_index(first).flags(cloexec).build();
            assert_eq!(one(ring, &refused.flags(flags)), -libc::EINVAL);
            let beyond = open.file_index(third).build();
            assert_eq!(one(ring, &beyond.flags(flags)), -libc::EINVAL);
        }
        // By number, with the places told.
        let file = File::open(&path).unwrap();
        let mut fds = [fd(&file).0, -7];
        let fill = opcode::FilesUpdate::new(fds.as_mut_ptr(), 2).offset(-1).build();
        assert_eq!(one(ring, &fill), 1);
        assert_eq!(fds, [0, -7]);
        let nothing = opcode::FilesUpdate::new(std::ptr::without_provenance(8), 1).build();
        assert_eq!(one(ring, &nothing), -libc::EFAULT);
        assert_eq!(one(ring, &nothing.flags(Flags::FIXED_FILE)), -libc::EINVAL);
    });
}
