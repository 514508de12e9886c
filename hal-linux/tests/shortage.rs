//! Row *workers*: a first worker that cannot be made. Alone in its process,
//! and one test: a thread that ended leaves its stack for the next.

mod common;

use std::time::{Duration, Instant};

use annulus_linux::{Ring, opcode};
use common::*;

/// Runs `f` while the process gets no memory for a thread's stack.
fn without_room_for_threads<R>(f: impl FnOnce() -> R) -> R {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    // SAFETY: no memory is passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let now = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * page;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) }, 0);
    let low = libc::rlimit { rlim_cur: now + (160 << 10), ..limit };
    // SAFETY: reads one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &low) }, 0);
    let result = f();
    // SAFETY: reads one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    result
}

#[test]
fn a_shortage_of_threads_passes_or_cancels() {
    let file = tempfile::tempfile().unwrap();
    let sync = opcode::Fsync::new(fd(&file)).build();
    let mut ring = Ring::new(8).unwrap();

    // It does not pass: cancelled, not left hanging.
    push(&mut ring, &[sync, sync]);
    let begun = Instant::now();
    let results = without_room_for_threads(|| {
        ring.submit().unwrap();
        // The submitter is not held up, and what needs no worker goes on.
        assert!(begun.elapsed() < Duration::from_millis(500));
        push(&mut ring, &[opcode::Nop::new().build()]);
        ring.submit().unwrap();
        reap(&mut ring, 3).iter().map(|cqe| cqe.result()).collect::<Vec<_>>()
    });
    assert_eq!(results, [0, -libc::ECANCELED, -libc::ECANCELED]);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());

    // It passes, while the application waits or does something else.
    push(&mut ring, &[sync]);
    without_room_for_threads(|| ring.submit().unwrap());
    assert_eq!(threads("annulus-wrk"), 0);
    assert_eq!(reap(&mut ring, 1)[0].result(), 0);
    assert_eq!(threads("annulus-wrk"), 1);
}
