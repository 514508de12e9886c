//! Row *ops*: CLOSE of what is not the application's. Alone in its process,
//! and one test: it closes every number that there is.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use annulus_linux::squeue::Flags;
use annulus_linux::types::{Fd, Fixed};
use annulus_linux::{Ring, opcode};
use common::*;

/// A ring that has one of everything: a registered file, an eventfd, a poller
/// with a request that waits on a duplicate, a worker.
fn ring(file: &File, waits: &impl std::os::fd::AsRawFd, into: *mut u8) -> Ring {
    let mut ring = Ring::builder().eventfd(true).build(8).unwrap();
    ring.submitter().register_files(&[fd(file).0]).unwrap();
    push(&mut ring, &[opcode::Read::new(fd(waits), into, 1).build().user_data(1)]);
    assert_eq!(one_of(&mut ring, opcode::Fsync::new(fd(file)).build()), 0);
    ring
}

fn one_of(ring: &mut Ring, entry: annulus_linux::squeue::Entry) -> i32 {
    push(ring, &[entry]);
    ring.submit().unwrap();
    reap(ring, 1)[0].result()
}

#[test]
fn row_ops_nothing_of_a_ring_is_closed_by_a_ring() {
    let before = descriptors();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"content", 0).unwrap();
    let (end, other) = pipe(0);
    let mine = [fd(&file).0, fd(&end).0, fd(&other).0];
    let mut buffers = [[0u8; 1]; 2];
    let [first, second] = &mut buffers;
    let mut rings = [ring(&file, &end, first.as_mut_ptr()), ring(&file, &end, second.as_mut_ptr())];
    let theirs: Vec<_> = descriptors()
        .into_iter()
        .filter(|fd| !before.contains(fd) && !mine.contains(fd))
        // The listing has one of its own, which is gone again.
        // SAFETY: no memory is passed.
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
        .collect();
    // Each: the registered file, the eventfd, the epoll set and its other end,
    // its eventfd, the duplicate that waits.
    assert!(theirs.len() >= 12, "{theirs:?}");
    for ring in &mut rings {
        for &fd in &theirs {
            for flags in [Flags::empty(), Flags::ASYNC] {
                let close = opcode::Close::new(Fd(fd)).build().flags(flags);
                assert_eq!(one_of(ring, close), -libc::EBADF, "{fd}");
            }
        }
    }
    // All of it still works.
    put(&other, b"ab");
    for ring in &mut rings {
        assert_eq!(reap(ring, 1)[0].result(), 1);
        let mut buffer = [0; 7];
        let read = opcode::Read::new(Fixed(0), buffer.as_mut_ptr(), 7).build();
        assert_eq!(one_of(ring, read), 7);
        assert_eq!(&buffer, b"content");
    }
    drop(rings);
    // A number that was ours may be closed when it is somebody else's.
    let mut ring = Ring::new(4).unwrap();
    // SAFETY: no memory is passed.
    let copies: Vec<_> = theirs.iter().map(|_| unsafe { libc::dup(fd(&file).0) }).collect();
    assert!(copies.iter().any(|copy| theirs.contains(copy)));
    for copy in copies {
        assert_eq!(one(&mut ring, &opcode::Close::new(Fd(copy)).build()), 0);
    }
    // What is in the cache, and what has nothing to flush, needs no worker.
    assert_eq!(threads("annulus-wrk"), 0);
    let path = opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/proc/self".as_ptr());
    let root = opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/".as_ptr()).build();
    let opened = one(&mut ring, &root);
    assert!(opened >= 0);
    assert_eq!(one(&mut ring, &opcode::Close::new(Fd(opened)).build()), 0);
    assert_eq!(threads("annulus-wrk"), 0);
    // What has to be made is a worker's.
    let link = one(&mut ring, &path.flags(libc::O_CREAT).build());
    assert_eq!(link, -libc::EISDIR);
    assert_eq!(threads("annulus-wrk"), 1);
}
