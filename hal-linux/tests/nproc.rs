//! Row *workers*: threads that the kernel refuses to make (`RLIMIT_NPROC`).
//!
//! One test, alone in its process: the limit counts the threads of a user, and
//! root is exempt from it. So the process becomes a user that nobody else is.

mod common;

use std::time::{Duration, Instant};

use annulus_linux::{Ring, opcode};
use common::*;

/// Becomes a user without threads of its own. False if that is not allowed.
fn become_nobody_else() -> bool {
    // SAFETY: no memory is passed.
    if unsafe { libc::getuid() } != 0 {
        return true;
    }
    let user = 1_900_000_000 + std::process::id() % 100_000;
    // SAFETY: as above; glibc changes all threads of the process.
    unsafe { libc::setgid(user) == 0 && libc::setuid(user) == 0 }
}

/// Lets the user have so many threads at most.
fn set_limit(threads: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max.min(threads);
    // SAFETY: reads one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limit) }, 0);
}

/// Runs `f` while no thread can be made.
fn without_threads<R>(f: impl FnOnce() -> R) -> R {
    set_limit(0);
    let result = f();
    set_limit(u64::MAX);
    result
}

/// Time that this thread has spent on a processor.
fn busy() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

/// A shortage that does not pass: cancelled, not left hanging, and nobody is
/// held up or kept busy meanwhile.
fn refused(ring: &mut Ring, sync: annulus_linux::squeue::Entry) {
    push(ring, &[sync, sync]);
    let begun = Instant::now();
    let results = without_threads(|| {
        ring.submit().unwrap();
        push(ring, &[opcode::Nop::new().build()]);
        ring.submit().unwrap();
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        let before = busy();
        let cqes = reap(ring, 3);
        assert!(busy() - before < Duration::from_millis(500), "it sleeps between the tries");
        cqes.iter().map(|cqe| cqe.result()).collect::<Vec<_>>()
    });
    assert_eq!(results, [0, -libc::ECANCELED, -libc::ECANCELED]);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

/// A shortage that passes.
fn made_later(ring: &mut Ring, sync: annulus_linux::squeue::Entry) {
    push(ring, &[sync]);
    without_threads(|| {
        ring.submit().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(threads("annulus-wrk"), 0);
    });
    assert_eq!(reap(ring, 1)[0].result(), 0);
}

/// Growth that fails is not fatal: the worker that there is does the work.
fn grown_no_further(ring: &mut Ring, sync: annulus_linux::squeue::Entry) {
    without_threads(|| {
        push(ring, &[sync; 8]);
        ring.submit().unwrap();
        assert!(reap(ring, 8).iter().all(|cqe| cqe.result() == 0));
        assert_eq!(threads("annulus-wrk"), 1);
    });
}

#[test]
fn threads_that_the_kernel_refuses() {
    let file = tempfile::tempfile().unwrap();
    let sync = opcode::Fsync::new(fd(&file)).build();
    let refuses = become_nobody_else()
        && without_threads(|| std::thread::Builder::new().spawn(|| ()).is_err());
    if !refuses {
        let what = "this user may make threads beyond RLIMIT_NPROC, and cannot become another";
        return not_run(&format!("{what}, so nothing is shown of refused threads"));
    }
    each(8, |ring| {
        refused(ring, sync);
        made_later(ring, sync);
        grown_no_further(ring, sync);
    });
    // The end comes while a worker is owed.
    for (name, builder) in builders() {
        let mut ring = builder.build(8).unwrap();
        push(&mut ring, &[sync]);
        without_threads(|| {
            ring.submit().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            drop(ring);
            assert!(begun.elapsed() < Duration::from_millis(500), "{name}: {:?}", begun.elapsed());
        });
    }
    assert_eq!(threads("annulus"), 0);
}
