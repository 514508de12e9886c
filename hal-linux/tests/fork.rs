//! A child does not share a ring with its parent. Alone in its process: a
//! child of a process with other threads may only do so much.

mod common;

use std::time::{Duration, Instant};

use annulus_linux::{Builder, ForkedChild, opcode};
use common::*;

/// Runs `child` in a fork; its answer becomes the exit code.
fn forked(child: impl FnOnce() -> u8) -> u8 {
    // SAFETY: the child runs little, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99);
            // SAFETY: ends the child.
            unsafe { libc::_exit(code.into()) }
        }
        pid => {
            let mut status = 0;
            let begun = Instant::now();
            loop {
                // SAFETY: room for one.
                match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
                    0 if begun.elapsed() > Duration::from_secs(20) => {
                        // SAFETY: our own child.
                        unsafe { libc::kill(pid, libc::SIGKILL) };
                        panic!("the child hangs");
                    }
                    0 => std::thread::sleep(Duration::from_millis(5)),
                    _ => break,
                }
            }
            assert!(libc::WIFEXITED(status), "status {status:#x}");
            libc::WEXITSTATUS(status) as u8
        }
    }
}

fn parent_and_child(mut builder: Builder) {
    let mut ring = builder.build(8).unwrap();
    let (from, to) = pipe(0);
    let mut byte = 0u8;
    push(&mut ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build()]);
    ring.submit().unwrap();
    nothing_comes(&mut ring);
    let mut ring = Some(ring);
    let code = forked(|| {
        let mut inherited = ring.take().unwrap();
        let is_refused =
            |e: std::io::Error| e.get_ref().is_some_and(|e| e.downcast_ref() == Some(&ForkedChild));
        push(&mut inherited, &[opcode::Nop::new().build()]);
        if !is_refused(inherited.submit_and_wait(1).unwrap_err())
            || !is_refused(inherited.submitter().register_files(&[0]).unwrap_err())
        {
            return 1;
        }
        let _ = inherited.dump().to_string();
        // Neither waits for threads that are not here, nor disturbs the
        // parent's.
        drop(inherited);
        // A child's own ring works, with all its threads.
        let mut own = builder.requests(4).build(4).unwrap();
        let file = tempfile::tempfile().unwrap();
        let write = opcode::Write::new(fd(&file), b"x".as_ptr(), 1).build();
        if one(&mut own, &write) != 1 {
            return 2;
        }
        // A grandchild inherits neither.
        forked(|| if own.submit().is_err_and(is_refused) { 0 } else { 3 })
    });
    assert_eq!(code, 0);
    // The parent's goes on as if nothing had been.
    let mut ring = ring.unwrap();
    put(&to, b"y");
    assert_eq!(reap(&mut ring, 1)[0].result(), 1);
    assert_eq!(byte, b'y');
}

#[test]
fn a_child_gets_a_clear_error() {
    for (name, builder) in builders() {
        eprintln!("-- {name}");
        parent_and_child(builder);
    }
    assert!(ForkedChild.to_string().contains("create a new ring after fork"));
}
