//! Rows *async punt* and *file lifetime*: files that wait for somebody else.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use annulus_linux::{Ring, opcode, squeue, types};
use common::*;

#[test]
fn a_read_waits_for_the_pipe_without_a_worker() {
    for flags in [0, libc::O_NONBLOCK] {
        for sqe_flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            for off in [0, u64::MAX] {
                each(4, |ring| {
                    let (from, to) = pipe(flags);
                    let mut buffer = [0u8; 16];
                    let read = opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 16)
                        .offset(off)
                        .build()
                        .flags(sqe_flags)
                        .user_data(7);
                    push(ring, &[read]);
                    let told = ring.submit().unwrap();
                    all_submitted(ring, told, 1);
                    nothing_comes(ring);
                    put(&to, b"hello");
                    let cqe = reap(ring, 1)[0];
                    assert_eq!((cqe.user_data(), cqe.result()), (7, 5));
                    assert_eq!(buffer[..5], *b"hello");
                });
            }
        }
    }
}

#[test]
fn nowait_is_answered() {
    each(4, |ring| {
        let (from, _to) = pipe(0);
        let mut byte = 0u8;
        let read = opcode::Read::new(fd(&from), &mut byte, 1).rw_flags(libc::RWF_NOWAIT).build();
        assert_eq!(one(ring, &read), -libc::EAGAIN);
    });
}

#[test]
fn a_short_result_of_a_stream_is_final() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        put(&to, b"abc");
        let mut buffer = [0u8; 16];
        let read = opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 16).build();
        assert_eq!(one(ring, &read), 3);
        drop(to);
        assert_eq!(one(ring, &read), 0);
    });
}

#[test]
fn a_full_pipe_is_written_when_there_is_room() {
    each(4, |ring| {
        let (mut from, to) = {
            let (from, to) = pipe(0);
            (File::from(from), to)
        };
        // SAFETY: no memory is passed.
        let size = unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        let bytes = vec![5u8; size as usize];
        put(&to, &bytes);
        let write = opcode::Write::new(fd(&to), b"more".as_ptr(), 4).build();
        push(ring, &[write]);
        ring.submit().unwrap();
        nothing_comes(ring);
        let mut back = vec![0; size as usize];
        from.read_exact(&mut back).unwrap();
        assert_eq!(reap(ring, 1)[0].result(), 4);
        // A pipe without a reader.
        drop(from);
        assert_eq!(one(ring, &write), -libc::EPIPE);
    });
}

#[test]
fn eventfd_socket_and_inotify() {
    each(4, |ring| {
        let mut buffer = [0u64; 512];
        let p = buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the number is ours.
        let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        push(ring, &[opcode::Read::new(fd(&event), p, 8).build()]);
        ring.submit().unwrap();
        nothing_comes(ring);
        put(&event, &3u64.to_ne_bytes());
        assert_eq!(reap(ring, 1)[0].result(), 8);
        assert_eq!(buffer[0], 3);

        let (mut a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        push(ring, &[opcode::Read::new(fd(&b), p, 4096).build()]);
        ring.submit().unwrap();
        nothing_comes(ring);
        a.write_all(b"ping").unwrap();
        assert_eq!(reap(ring, 1)[0].result(), 4);

        // Cannot be tried without blocking (no FMODE_NOWAIT).
        // SAFETY: the number is ours.
        let watch = unsafe { OwnedFd::from_raw_fd(libc::inotify_init1(libc::IN_CLOEXEC)) };
        let dir = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(dir.path().to_str().unwrap()).unwrap();
        // SAFETY: a string.
        unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
        push(ring, &[opcode::Read::new(fd(&watch), p, 4096).build()]);
        ring.submit().unwrap();
        nothing_comes(ring);
        File::create(dir.path().join("x")).unwrap();
        assert!(reap(ring, 1)[0].result() > 0);
    });
}

#[test]
fn closing_or_reusing_the_number_redirects_nothing() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        let number = from.as_raw_fd();
        let mut buffer = [0u8; 16];
        push(ring, &[opcode::Read::new(types::Fd(number), buffer.as_mut_ptr(), 16).build()]);
        ring.submit().unwrap();
        nothing_comes(ring);
        // The number becomes a file that would answer at once.
        let mut decoy = tempfile::tempfile().unwrap();
        decoy.write_all(b"wrong wrong wrong").unwrap();
        // SAFETY: both are open; `from` now owns the decoy's duplicate.
        assert_eq!(unsafe { libc::dup3(decoy.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
        nothing_comes(ring);
        put(&to, b"right");
        assert_eq!(reap(ring, 1)[0].result(), 5);
        assert_eq!(buffer[..5], *b"right");
        drop(from);
    });
}

#[test]
fn a_closed_number_may_be_reused_by_the_next_request() {
    each(8, |ring| {
        let mut buffers = [[0u8; 16]; 3];
        let mut writers = Vec::new();
        let mut number = -1;
        for (i, buffer) in buffers.iter_mut().enumerate() {
            let (from, to) = pipe(0);
            let entry = opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 16).build();
            push(ring, &[entry.user_data(i as u64)]);
            ring.submit().unwrap();
            // Under SQPOLL the SQE is taken when it has left the queue.
            while !ring.submission().is_empty() {
                std::thread::yield_now();
                ring.submission().sync();
            }
            number = from.into_raw_fd();
            // SAFETY: ours, and not used again.
            unsafe { libc::close(number) };
            writers.push(to);
        }
        assert!(number >= 0);
        for (i, to) in writers.iter().enumerate().rev() {
            put(to, &[i as u8; 3]);
            let cqe = reap(ring, 1)[0];
            assert_eq!((cqe.user_data(), cqe.result()), (i as u64, 3));
            assert_eq!(buffers[i][..3], [i as u8; 3]);
        }
    });
}

#[test]
fn the_other_end_sees_the_file_closed_with_the_completion() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        let mut buffer = [0u8; 16];
        push(ring, &[opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 16).build()]);
        ring.submit().unwrap();
        nothing_comes(ring);
        drop(from);
        put(&to, b"x");
        assert_eq!(reap(ring, 1)[0].result(), 1);
        let mut to = File::from(to);
        assert_eq!(to.write(b"y").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn two_requests_may_wait_for_one_file() {
    each(8, |ring| {
        let (from, to) = pipe(0);
        ring.submitter().register_files(&[from.as_raw_fd()]).unwrap();
        let mut buffers = [[0u8; 1]; 4];
        let reads: Vec<_> = buffers
            .iter_mut()
            .enumerate()
            .map(|(i, buffer)| match i % 2 {
                0 => opcode::Read::new(types::Fixed(0), buffer.as_mut_ptr(), 1).build(),
                _ => opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 1).build(),
            })
            .collect();
        push(ring, &reads);
        ring.submit().unwrap();
        nothing_comes(ring);
        // The registration may go; the requests keep the file.
        ring.submitter().unregister_files().unwrap();
        put(&to, b"1");
        assert_eq!(reap(ring, 1).len(), 1);
        nothing_comes(ring);
        put(&to, b"234");
        assert!(reap(ring, 3).iter().all(|cqe| cqe.result() == 1));
        let mut bytes = buffers.concat();
        bytes.sort_unstable();
        assert_eq!(bytes, b"1234");
    });
}

#[test]
fn the_reserved_request_never_waits() {
    let mut ring = Ring::builder().requests(1).build(4).unwrap();
    let (from, to) = pipe(0);
    let mut bytes = [0u8; 3];
    let first = bytes.as_mut_ptr();
    let read = |i| opcode::Read::new(fd(&from), first.wrapping_add(i), 1).build();
    push(&mut ring, &[read(0), read(1), read(2)]);
    // The pool's only request waits; what would have to wait in the reserved
    // one stays in the queue.
    assert_eq!(ring.submit().unwrap(), 1);
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    put(&to, b"abc");
    let mut done = 0;
    while done < 3 {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EBUSY)),
        }
        done += ring.completion().count();
    }
    // Who waits is not served before who comes.
    bytes.sort_unstable();
    assert_eq!(bytes, *b"abc");
}

/// One whose CQE is skipped has a record of a held request: it does not wait there
/// either, though it is nothing but a timeout that has the other.
#[test]
fn the_reserved_request_never_waits_for_held_ones() {
    let skip = squeue::Flags::SKIP_SUCCESS;
    for (flags, polls) in [(skip, false), (skip, true), (squeue::Flags::empty(), false)] {
        let mut ring = Ring::builder().requests(1).build(4).unwrap();
        let (from, to) = pipe(0);
        let soon = types::Timespec::new().nsec(100_000_000);
        push(&mut ring, &[opcode::Timeout::new(&soon).build().user_data(1)]);
        assert_eq!(ring.submit().unwrap(), 1);
        let mut byte = [0u8];
        let entry = match polls {
            true => opcode::PollAdd::new(fd(&from), libc::POLLIN as u32).build(),
            false => opcode::Read::new(fd(&from), byte.as_mut_ptr(), 1).build(),
        };
        push(&mut ring, &[entry.flags(flags).user_data(2)]);
        assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBUSY));
        let cqe = reap(&mut ring, 1)[0];
        assert_eq!((cqe.user_data(), cqe.result()), (1, -libc::ETIME));
        assert_eq!(ring.submit().unwrap(), 1);
        nothing_comes(&mut ring);
        put(&to, b"x");
        while ring.stats().in_use != 0 {
            ring.submit_and_wait(0).unwrap();
        }
        assert_eq!(ring.completion().count(), usize::from(flags.is_empty()));
    }
}

#[test]
fn many_vectors_run_out_of_room_and_get_it_back() {
    let mut ring = Ring::new(16).unwrap();
    let pipes: Vec<_> = (0..12).map(|_| pipe(0)).collect();
    let mut buffer = vec![0u8; 12 * 20];
    let iovecs: Vec<_> = buffer
        .chunks_mut(1)
        .map(|byte| libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 })
        .collect();
    let reads: Vec<_> = pipes
        .iter()
        .zip(iovecs.chunks(20))
        .map(|((from, _), part)| opcode::Readv::new(fd(from), part.as_ptr().cast(), 20).build())
        .collect();
    push(&mut ring, &reads);
    // Eight long arrays can wait at once; the others stay in the queue.
    assert_eq!(ring.submit().unwrap(), 8);
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    for (_, to) in &pipes {
        put(to, &[9; 20]);
    }
    let mut cqes = Vec::new();
    while cqes.len() < 12 {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EBUSY)),
        }
        cqes.extend(ring.completion());
    }
    assert!(cqes.iter().all(|cqe| cqe.result() == 20));
    assert_eq!(buffer, [9; 12 * 20]);
}

#[test]
fn the_wrong_end_of_a_pipe_is_told_before_a_wrong_offset() {
    each(4, |ring| {
        let (read, write) = pipe(0);
        let mut buffer = [0; 8];
        for (end, errno) in [(fd(&read), libc::EINVAL), (fd(&write), libc::EBADF)] {
            let entry = opcode::Read::new(end, buffer.as_mut_ptr(), 8).offset(i64::MAX as u64);
            assert_eq!(one(ring, &entry.build()), -errno);
        }
    });
}
