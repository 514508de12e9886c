//! Rows *ops* and *async punt* over regular files.

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use annulus_linux::{Ring, opcode, squeue, types};
use common::*;

const END: u64 = u64::MAX;

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn read_at_the_end_and_beyond() {
    let bytes = pattern(5000);
    each(4, |ring| {
        let file = file_of(&bytes);
        let mut buffer = vec![0; 8192];
        let mut read = |off: u64, len: u32| {
            let read = opcode::Read::new(fd(&file), buffer.as_mut_ptr(), len).offset(off).build();
            let n = one(ring, &read);
            (n, buffer[..n.max(0) as usize].to_vec())
        };
        assert_eq!(read(0, 5000), (5000, bytes.clone()));
        assert_eq!(read(0, 8192), (5000, bytes.clone()));
        assert_eq!(read(4990, 100), (10, bytes[4990..].to_vec()));
        assert_eq!(read(5000, 100).0, 0);
        assert_eq!(read(1 << 40, 100).0, 0);
        assert_eq!(read(0, 0).0, 0);
        assert_eq!(read(i64::MAX as u64, 100).0, -libc::EINVAL);
        assert_eq!(read((-5i64) as u64, 100).0, -libc::EINVAL);
    });
}

#[test]
fn write_read_back_and_sync() {
    each(8, |ring| {
        let file = file_of(b"");
        let bytes = pattern(10_000);
        let write = opcode::Write::new(fd(&file), bytes.as_ptr(), 10_000).offset(3).build();
        assert_eq!(one(ring, &write), 10_000);
        assert_eq!(content(&file)[3..], bytes);
        let sync = opcode::Fsync::new(fd(&file)).build();
        assert_eq!(one(ring, &sync), 0);
        let data = opcode::Fsync::new(fd(&file)).flags(types::FsyncFlags::DATASYNC).build();
        assert_eq!(one(ring, &data), 0);
    });
}

#[test]
fn the_current_position_moves() {
    each(4, |ring| {
        let bytes = pattern(100);
        let mut file = file_of(&bytes);
        let mut buffer = [0; 30];
        let read = opcode::Read::new(fd(&file), buffer.as_mut_ptr(), 30).offset(END).build();
        assert_eq!(one(ring, &read), 30);
        assert_eq!(file.stream_position().unwrap(), 30);
        assert_eq!(one(ring, &read), 30);
        assert_eq!(buffer, bytes[30..60]);
        let write = opcode::Write::new(fd(&file), b"xyz".as_ptr(), 3).offset(END).build();
        assert_eq!(one(ring, &write), 3);
        assert_eq!(file.stream_position().unwrap(), 63);
        assert_eq!(content(&file)[60..63], *b"xyz");
        // Short, because the file ends.
        file.seek(SeekFrom::Start(90)).unwrap();
        assert_eq!(one(ring, &read), 10);
    });
}

#[test]
fn appending_ignores_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    each(4, |ring| {
        let path = dir.path().join("log");
        std::fs::write(&path, "one ").unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let write = opcode::Write::new(fd(&file), b"two".as_ptr(), 3).offset(0).build();
        assert_eq!(one(ring, &write), 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
    });
}

#[test]
fn writes_that_wait_for_workers_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    each(64, |ring| {
        let path = dir.path().join("order");
        std::fs::write(&path, "").unwrap();
        let log = OpenOptions::new().append(true).open(&path).unwrap();
        let at = File::options().write(true).open(&path).unwrap();
        let lines: Vec<_> = (0..64).map(|i| format!("{i:03}\n")).collect();
        let line = |i: usize, file: &File, off| {
            opcode::Write::new(fd(file), lines[i].as_ptr(), 4).offset(off).build()
        };
        let appends: Vec<_> = (0..64).map(|i| line(i, &log, 0)).collect();
        run(ring, &appends);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines.concat());
        // At the current position, over what is there, backwards, straight
        // to workers.
        let moving: Vec<_> =
            (0..64).map(|i| line(63 - i, &at, END).flags(squeue::Flags::ASYNC)).collect();
        run(ring, &moving);
        let backwards: Vec<_> = lines.iter().rev().cloned().collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), backwards.concat());
    });
}

#[test]
fn vectors_short_and_long() {
    each(4, |ring| {
        for count in [1, 3, 8, 9, 100, 1024] {
            let bytes = pattern(count * 100);
            let file = file_of(b"");
            let iovecs: Vec<_> = bytes
                .chunks(100)
                .map(|chunk| libc::iovec { iov_base: chunk.as_ptr() as *mut _, iov_len: 100 })
                .collect();
            // Buffered writes go to a worker on most file systems.
            let write =
                opcode::Writev::new(fd(&file), iovecs.as_ptr().cast(), count as u32).build();
            assert_eq!(one(ring, &write), bytes.len() as i32, "{count} vectors");
            assert_eq!(content(&file), bytes);
            let mut back = vec![0; bytes.len() + 100];
            let iovecs: Vec<_> = back
                .chunks_mut(100)
                .take(count)
                .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: 100 })
                .collect();
            for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
                let read = opcode::Readv::new(fd(&file), iovecs.as_ptr().cast(), count as u32);
                assert_eq!(one(ring, &read.build().flags(flags)), bytes.len() as i32);
            }
            assert_eq!(back[..bytes.len()], bytes);
        }
    });
}

#[test]
fn vectors_may_go_once_submitted() {
    // IORING_FEAT_SUBMIT_STABLE: only the buffers have to stay.
    let mut ring = Ring::new(4).unwrap();
    assert!(ring.params().is_feature_submit_stable());
    let (from, to) = pipe(0);
    let mut buffer = [0u8; 20];
    let mut iovecs: Vec<_> = buffer
        .chunks_mut(1)
        .map(|byte| libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 })
        .collect();
    let read = opcode::Readv::new(fd(&from), iovecs.as_ptr().cast(), 20).build();
    push(&mut ring, &[read]);
    ring.submit().unwrap();
    iovecs.fill(libc::iovec { iov_base: 16 as *mut _, iov_len: usize::MAX });
    put(&to, &[7; 20]);
    assert_eq!(reap(&mut ring, 1)[0].result(), 20);
    assert_eq!(buffer, [7; 20]);
}

#[test]
fn vectors_of_chains_are_kept_until_they_end() {
    // Long ones take blocks, of which there are few: each must come back.
    const ROUNDS: usize = 20;
    let file = file_of(&pattern(20));
    let link = squeue::Flags::IO_LINK;
    each(8, |ring| {
        for _ in 0..ROUNDS {
            let mut buffer = [0u8; 20];
            let mut iovecs: Vec<_> = buffer
                .chunks_mut(1)
                .map(|byte| libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 })
                .collect();
            let read = opcode::Readv::new(fd(&file), iovecs.as_ptr().cast(), 20).build();
            let read = read.user_data(2);
            let nop = opcode::Nop::new().build().flags(link).user_data(1);
            let failing = opcode::Fsync::new(types::Fd(9999)).build().flags(link).user_data(1);
            let mut results = |entries: &[squeue::Entry]| -> Vec<i32> {
                push(ring, entries);
                ring.submit().unwrap();
                let mut cqes = reap(ring, entries.len());
                cqes.sort_by_key(|cqe| cqe.user_data());
                cqes.iter().map(|cqe| cqe.result()).collect()
            };
            // It ends by itself, with its chain, and with the entry behind it.
            assert_eq!(results(&[nop, read]), [0, 20]);
            assert_eq!(results(&[failing, read]), [-libc::EBADF, -libc::ECANCELED]);
            let refused = opcode::Nop::new().build().flags(squeue::Flags::from_bits_retain(1 << 7));
            let refused = refused.user_data(3);
            let chain = [nop, read.flags(link), refused];
            assert_eq!(results(&chain), [-libc::ECANCELED, -libc::ECANCELED, -libc::EINVAL]);
            iovecs.clear();
            assert_eq!(buffer[..], pattern(20)[..]);
        }
    });
}

#[test]
fn bad_memory_is_efault_and_nothing_worse() {
    let nowhere = 16 as *mut u8;
    let beyond = usize::MAX as *mut u8;
    each(4, |ring| {
        let file = file_of(&pattern(100));
        let bad = types::Fd(9999);
        for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            let mut result = |entry: squeue::Entry| one(ring, &entry.flags(flags));
            for at in [nowhere, beyond] {
                assert_eq!(result(opcode::Read::new(fd(&file), at, 50).build()), -libc::EFAULT);
                assert_eq!(result(opcode::Write::new(fd(&file), at, 50).build()), -libc::EFAULT);
                let array = at as *const _;
                assert_eq!(result(opcode::Readv::new(fd(&file), array, 2).build()), -libc::EFAULT);
                assert_eq!(
                    result(opcode::Writev::new(fd(&file), array, 20).build()),
                    -libc::EFAULT
                );
                // The kernel looks at the array before it looks for the file.
                assert_eq!(result(opcode::Readv::new(bad, array, 2).build()), -libc::EFAULT);
            }
            let inside = libc::iovec { iov_base: nowhere.cast(), iov_len: 50 };
            let array = (&raw const inside).cast();
            assert_eq!(result(opcode::Readv::new(fd(&file), array, 1).build()), -libc::EFAULT);
            assert_eq!(result(opcode::Read::new(bad, beyond, 0).build()), -libc::EFAULT);
            assert_eq!(result(opcode::Read::new(bad, nowhere, 10).build()), -libc::EBADF);
            assert_eq!(result(opcode::Fsync::new(bad).build()), -libc::EBADF);
            assert_eq!(result(opcode::Read::new(types::Fd(-1), nowhere, 1).build()), -libc::EBADF);
            let many = opcode::Readv::new(fd(&file), nowhere as *const _, 1025).build();
            assert_eq!(result(many), -libc::EINVAL);
        }
    });
}

#[test]
fn a_failed_preparation_ends_a_batch_and_a_failed_read_does_not() {
    let mut ring = Ring::new(8).unwrap();
    let file = file_of(&pattern(100));
    let mut buffer = [0u8; 10];
    let good = opcode::Read::new(fd(&file), buffer.as_mut_ptr(), 10).build();
    let no_file = opcode::Read::new(types::Fd(9999), buffer.as_mut_ptr(), 10).build();
    let no_array = opcode::Readv::new(fd(&file), 16 as *const _, 1).build();
    push(&mut ring, &[no_file, good, no_array, good]);
    assert_eq!(ring.submit().unwrap(), 3);
    assert_eq!(ring.submit().unwrap(), 1);
    let results: Vec<_> = reap(&mut ring, 4).iter().map(|cqe| cqe.result()).collect();
    assert_eq!(results, [-libc::EBADF, 10, -libc::EFAULT, 10]);
}

#[test]
fn flags_of_a_read_or_write() {
    each(4, |ring| {
        let file = file_of(&pattern(100));
        let mut buffer = [0u8; 16];
        let p = buffer.as_mut_ptr();
        let mut read =
            |flags, len| one(ring, &opcode::Read::new(fd(&file), p, len).rw_flags(flags).build());
        assert_eq!(read(libc::RWF_NOWAIT, 16), 16);
        assert_eq!(read(libc::RWF_HIPRI, 16), -libc::EINVAL);
        assert_eq!(read(0x4000_0000, 16), -libc::EOPNOTSUPP);
        assert_eq!(read(0x4000_0000, 0), -libc::EOPNOTSUPP);
        let write = opcode::Write::new(fd(&file), p, 16).rw_flags(libc::RWF_APPEND).build();
        assert_eq!(one(ring, &write), 16);
        assert_eq!(file.metadata().unwrap().len(), 116);
        let write = opcode::Write::new(fd(&file), p, 16).rw_flags(libc::RWF_DSYNC).build();
        assert_eq!(one(ring, &write), 16);
    });
}

#[test]
fn direct_io_with_aligned_buffers() {
    let dir = tempfile::tempdir_in(".").unwrap();
    each(8, |ring| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(dir.path().join("direct"));
        let Ok(file) = file else { return }; // no O_DIRECT here
        let layout = std::alloc::Layout::from_size_align(16384, 4096).unwrap();
        // SAFETY: a size that is not zero; freed below.
        let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
        // SAFETY: ours.
        unsafe { std::slice::from_raw_parts_mut(buffer, 16384) }.copy_from_slice(&pattern(16384));
        let write = opcode::Write::new(fd(&file), buffer, 16384).offset(4096).build();
        assert_eq!(one(ring, &write), 16384);
        // SAFETY: ours.
        unsafe { buffer.write_bytes(0, 16384) };
        let read = opcode::Read::new(fd(&file), buffer, 16384).offset(4096).build();
        assert_eq!(one(ring, &read), 16384);
        // SAFETY: ours.
        assert_eq!(unsafe { std::slice::from_raw_parts(buffer, 16384) }, pattern(16384));
        // Over the end of the file.
        let read = opcode::Read::new(fd(&file), buffer, 16384).offset(8192).build();
        assert_eq!(one(ring, &read), 12288);
        // Whatever the device wants of alignment, it is the same here.
        let odd = buffer.wrapping_add(1);
        // SAFETY: ours.
        let expected = match unsafe { libc::pread(file.as_raw_fd(), odd.cast(), 4096, 4096) } {
            -1 => -std::io::Error::last_os_error().raw_os_error().unwrap(),
            n => n as i32,
        };
        let read = opcode::Read::new(fd(&file), odd, 4096).offset(4096).build();
        assert_eq!(one(ring, &read), expected);
        // SAFETY: from alloc, with this layout.
        unsafe { std::alloc::dealloc(buffer, layout) };
    });
}

#[test]
fn errors_keep_their_meaning() {
    let dir = tempfile::tempdir().unwrap();
    each(4, |ring| {
        let mut buffer = [1u8; 64];
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let write = opcode::Write::new(fd(&full), buffer.as_ptr(), 64).build();
        assert_eq!(one(ring, &write), -libc::ENOSPC);
        let path = dir.path().join("modes");
        std::fs::write(&path, "x").unwrap();
        let (reader, writer) =
            (File::open(&path).unwrap(), OpenOptions::new().write(true).open(&path).unwrap());
        let write = opcode::Write::new(fd(&reader), buffer.as_ptr(), 64).build();
        assert_eq!(one(ring, &write), -libc::EBADF);
        let read = opcode::Read::new(fd(&writer), buffer.as_mut_ptr(), 64).build();
        assert_eq!(one(ring, &read), -libc::EBADF);
        let here = File::open(dir.path()).unwrap();
        let read = opcode::Read::new(fd(&here), buffer.as_mut_ptr(), 64).build();
        assert_eq!(one(ring, &read), -libc::EISDIR);
        assert_eq!(one(ring, &opcode::Fsync::new(fd(&here)).build()), 0);
        let (from, _to) = pipe(0);
        assert_eq!(one(ring, &opcode::Fsync::new(fd(&from)).build()), -libc::EINVAL);
        let zero = File::open("/dev/zero").unwrap();
        let read = opcode::Read::new(fd(&zero), buffer.as_mut_ptr(), 64).build();
        assert_eq!(one(ring, &read), 64);
        assert_eq!(buffer, [0; 64]);
    });
}

#[test]
fn a_transfer_half_in_bad_memory_answers_the_good_half() {
    let page = 4096;
    // SAFETY: two fresh pages, the second out of reach (not unmapped: another
    // test's thread would get it).
    let base = unsafe {
        let base = libc::mmap(
            std::ptr::null_mut(),
            2 * page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(base, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(base.byte_add(page), page, libc::PROT_NONE), 0);
        base.cast::<u8>()
    };
    each(4, |ring| {
        let file = file_of(&pattern(2 * page));
        let read = opcode::Read::new(fd(&file), base, 2 * page as u32).build();
        assert_eq!(one(ring, &read), page as i32);
        let out = file_of(b"");
        let write = opcode::Write::new(fd(&out), base, 2 * page as u32).build();
        assert_eq!(one(ring, &write), page as i32);
        assert_eq!(content(&out), pattern(2 * page)[..page]);
    });
    // SAFETY: the mapping.
    unsafe { libc::munmap(base.cast(), 2 * page) };
}

#[test]
fn registered_files_and_buffers() {
    each(8, |ring| {
        let mut buffers = [vec![0u8; 8192], pattern(8192)];
        let iovecs = buffers
            .each_mut()
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() });
        // SAFETY: unregistered below, before they go.
        unsafe { ring.submitter().register_buffers(&iovecs).unwrap() };
        let number = {
            let file = file_of(b"");
            ring.submitter().register_files(&[-1, file.as_raw_fd()]).unwrap();
            file.as_raw_fd()
        };
        // The number is free again; the registration is not.
        let _other = file_of(b"other");
        let at = types::Fixed(1);
        let write = opcode::WriteFixed::new(at, buffers[1].as_ptr(), 8192, 1).offset(10).build();
        assert_eq!(one(ring, &write), 8192, "the file was number {number}");
        assert_eq!(one(ring, &opcode::Fsync::new(at).build()), 0);
        let first = buffers[0].as_mut_ptr();
        for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            let part = first.wrapping_add(100);
            let read = opcode::ReadFixed::new(at, part, 1000, 0).offset(10).build().flags(flags);
            assert_eq!(one(ring, &read), 1000);
            assert_eq!(buffers[0][100..1100], pattern(8192)[..1000]);
        }
        let outside = opcode::ReadFixed::new(at, first, 8193, 0).build();
        assert_eq!(one(ring, &outside), -libc::EFAULT);
        let empty = opcode::ReadFixed::new(types::Fixed(0), first, 10, 0).build();
        assert_eq!(one(ring, &empty), -libc::EBADF);
        ring.submitter().unregister_files().unwrap();
        ring.submitter().unregister_buffers().unwrap();
        let gone = ring.submitter().unregister_buffers().unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENXIO));
        let bad = [libc::iovec { iov_base: 16 as *mut _, iov_len: 4096 }];
        // SAFETY: refused.
        let error = unsafe { ring.submitter().register_buffers(&bad) }.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    });
}
