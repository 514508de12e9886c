//! Rows *enter* and *SQPOLL*, and the served ring, as an application sees
//! them.

mod common;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use annulus_linux::{Error, Policy, Probe, Ring, opcode, squeue, types};
use common::*;

fn readable(fd: BorrowedFd<'_>, ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: room for one.
    unsafe { libc::poll(&mut poll, 1, ms) == 1 }
}

fn reset(fd: BorrowedFd<'_>) {
    let mut count = 0u64;
    // SAFETY: room for eight bytes.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

#[test]
fn sizes_by_the_kernels_rules() {
    let size = |entries: u32, cq: Option<u32>, clamp: bool| {
        let mut builder = Ring::builder();
        if let Some(cq) = cq {
            builder.setup_cqsize(cq);
        }
        if clamp {
            builder.setup_clamp();
        }
        builder
            .requests(8)
            .build(entries)
            .map(|ring| (ring.params().sq_entries(), ring.params().cq_entries()))
    };
    assert_eq!(size(5, None, false).unwrap(), (8, 16));
    assert_eq!(size(4, Some(9), false).unwrap(), (4, 16));
    assert_eq!(size(32_768, None, false).unwrap(), (32_768, 65_536));
    assert_eq!(size(40_000, None, true).unwrap(), (32_768, 65_536));
    assert_eq!(size(4, Some(1_000_000), true).unwrap(), (4, 65_536));
    assert!(matches!(size(0, None, true), Err(Error::NoEntries)));
    assert!(matches!(size(32_769, None, false), Err(Error::TooManyEntries { given: 32_769 })));
    assert!(matches!(size(4, Some(0), true), Err(Error::NoCqEntries)));
    assert!(matches!(size(4, Some(65_537), false), Err(Error::TooManyCqEntries { .. })));
    assert!(matches!(size(8, Some(3), false), Err(Error::CqSmallerThanSq { sq: 8, cq: 4 })));
    let error: std::io::Error = size(0, None, false).unwrap_err().into();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "a ring needs at least one SQ entry; ask for 1 to 32768");
}

#[test]
fn choices_that_do_not_go_together() {
    let error = Ring::builder().setup_sqpoll_cpu(0).build(4).unwrap_err();
    assert!(matches!(error, Error::AffinityWithoutSqpoll), "{error}");
    assert_eq!(error.errno(), libc::EINVAL);
    let error = Ring::builder().setup_sqpoll(0).setup_served().build(4).unwrap_err();
    assert!(matches!(error, Error::TwoModes), "{error}");
    for cpu in [1023, 100_000] {
        let error = Ring::builder().setup_sqpoll(0).setup_sqpoll_cpu(cpu).build(4).unwrap_err();
        assert!(matches!(error, Error::Cpu { cpu: c } if c == cpu), "{error}");
    }
    let error = Ring::builder().requests(0).build(4).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
}

#[test]
fn the_probe_tells_what_is_built() {
    each(4, |ring| {
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).unwrap();
        for code in [opcode::Nop::CODE, opcode::Read::CODE, opcode::Fsync::CODE] {
            assert!(probe.is_supported(code));
        }
        assert!(!probe.is_supported(annulus::uapi::IORING_OP_SENDMSG));
        assert!(ring.params().is_feature_nodrop() && ring.params().is_feature_fast_poll());
        assert!(!ring.dump().to_string().is_empty());
        assert_eq!(ring.stats().sqes, 0);
    });
}

#[test]
fn a_polled_ring_needs_no_call_while_awake() {
    let mut ring = Ring::builder().setup_sqpoll(200).setup_sqpoll_cpu(0).build(8).unwrap();
    push(&mut ring, &[opcode::Nop::new().build().user_data(1)]);
    let begun = Instant::now();
    // The thread may not have run yet; while it is awake, pushing is enough.
    while ring.completion().next().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", ring.dump());
        if ring.submission().need_wakeup() {
            ring.submit().unwrap();
        }
    }
    // It falls asleep, says so, and is woken.
    while !ring.submission().need_wakeup() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", ring.dump());
        std::thread::sleep(Duration::from_millis(10));
    }
    push(&mut ring, &[opcode::Nop::new().build().user_data(2)]);
    // It may have looked once more before it slept.
    let told = ring.submit_and_wait(1).unwrap();
    all_submitted(&ring, told, 1);
    assert_eq!(ring.completion().next().unwrap().user_data(), 2);
    assert!(ring.stats().sleeps >= 1);
}

#[test]
fn a_polled_ring_waits_for_sq_room() {
    let mut ring = Ring::builder().setup_sqpoll(1000).build(4).unwrap();
    for i in 0..1000u64 {
        let entry = opcode::Nop::new().build().user_data(i);
        // SAFETY: a NOP names nothing.
        while unsafe { ring.submission().push(&entry) }.is_err() {
            ring.submit().unwrap();
            ring.submitter().squeue_wait().unwrap();
        }
        ring.submit().unwrap();
        while let Some(cqe) = ring.completion().next() {
            assert_eq!(cqe.result(), 0);
        }
    }
}

#[test]
fn the_seed_policy_asks_more_of_a_polled_ring() {
    let ring = Ring::builder().setup_sqpoll(100).policy(Policy::Seed).build(4);
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        assert!(matches!(ring, Err(Error::NotPermitted)));
        return;
    }
    let mut ring = ring.unwrap();
    let mut byte = 0u8;
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let read = opcode::Read::new(fd(&zero), &mut byte, 1).build();
    assert_eq!(one(&mut ring, &read), -libc::EBADF);
    ring.submitter().register_files(&[zero.as_raw_fd()]).unwrap();
    assert_eq!(one(&mut ring, &opcode::Read::new(types::Fixed(0), &mut byte, 1).build()), 1);
    assert!(!ring.params().is_feature_sqpoll_nonfixed());
}

#[test]
fn row_sqpoll_policy_seed_asks_for_a_privilege() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    // Capabilities are a thread's own: this one's end with it.
    let with = |left: CapabilitySet, policy: Policy| {
        let thread = std::thread::spawn(move || {
            let mut sets = capabilities(None).unwrap();
            sets.effective = left & sets.permitted;
            let has = sets.effective == left;
            set_capabilities(None, sets).unwrap();
            (has, Ring::builder().setup_sqpoll(100).policy(policy).build(4).err())
        });
        thread.join().unwrap()
    };
    for left in [CapabilitySet::SYS_NICE, CapabilitySet::SYS_ADMIN] {
        match with(left, Policy::Seed) {
            (true, error) => assert!(error.is_none(), "{left:?}: {error:?}"),
            (false, error) => assert!(matches!(error, Some(Error::NotPermitted))),
        }
    }
    for left in [CapabilitySet::empty(), CapabilitySet::SYS_RAWIO] {
        let (_, error) = with(left, Policy::Seed);
        let error = error.expect("a ring without a privilege");
        assert_eq!(error.errno(), libc::EPERM, "{error}");
        assert!(with(left, Policy::Current).1.is_none());
    }
}

#[test]
fn waits_end_with_the_time_or_a_signal() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: a handler that does nothing, installed with SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
    each(4, |ring| {
        let begun = Instant::now();
        let args = types::SubmitArgs::new().timespec(&Duration::from_millis(30).into());
        let error = ring.submitter().submit_with_args(1, &args).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIME));
        assert!(begun.elapsed() >= Duration::from_millis(30));
        // What was submitted is answered, and the time that was up is not.
        push(ring, &[opcode::Nop::new().build()]);
        assert_eq!(ring.submitter().submit_with_args(2, &args).unwrap(), 1);
        // With a CQE to read, a wait that ends early is no error either.
        reap(ring, 1);

        // SAFETY: no memory is passed.
        let me = unsafe { libc::pthread_self() };
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
                    // SAFETY: the thread waits for us.
                    unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                }
            });
            // Without submitting, for then the count would be the answer.
            let flags = annulus::uapi::IORING_ENTER_GETEVENTS;
            // SAFETY: a NOP was pushed.
            let waited = unsafe { ring.submitter().enter(0, 1, flags, None) };
            stop.send(()).unwrap();
            assert_eq!(waited.unwrap_err().raw_os_error(), Some(libc::EINTR));
        });
    });
}

#[test]
fn a_disabled_ring_says_so_before_a_wait_is_looked_at() {
    for served in [false, true] {
        let mut builder = Ring::builder();
        if served {
            builder.setup_served();
        }
        let ring = builder.setup_r_disabled().build(4).expect("a ring");
        let args = types::SubmitArgs::new();
        for (flags, arg) in [(1, Some(&args)), (1 | 1 << 3, None)] {
            for (to_submit, min_complete) in [(0, 0), (0, 1), (1, 1)] {
                // SAFETY: nothing was pushed.
                let answer = unsafe { ring.submitter().enter(to_submit, min_complete, flags, arg) };
                assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::EBADFD));
            }
        }
    }
}

#[test]
fn enter_checks_its_flags() {
    each(4, |ring| {
        let submitter = ring.submitter();
        let args = types::SubmitArgs::new();
        // Whether it is to wait, and for how long.
        for (flags, arg, errno) in [
            (1 << 30, None, libc::EINVAL),
            (1, Some(&args), libc::EINVAL),
            (1 | 1 << 3, None, libc::EFAULT),
        ] {
            // SAFETY: nothing was pushed.
            let error = unsafe { submitter.enter(0, 0, flags, arg) }.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno));
        }
    });
}

#[test]
fn a_served_ring_rings_its_eventfd_by_itself() {
    let mut ring = Ring::builder().setup_served().eventfd(true).build(8).unwrap();
    let (from, to) = pipe(0);
    let mut byte = 0u8;
    push(&mut ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build()]);
    ring.submit().unwrap();
    assert!(!readable(ring.eventfd().unwrap(), 20));
    put(&to, b"x");
    assert!(readable(ring.eventfd().unwrap(), 5000));
    reset(ring.eventfd().unwrap());
    // No call: the helper has posted it.
    assert_eq!(ring.completion().next().unwrap().result(), 1);
}

#[test]
fn an_inline_ring_rings_its_eventfd_and_fetches_when_looked_at() {
    let mut ring = Ring::builder().eventfd(true).build(8).unwrap();
    let (from, to) = pipe(0);
    let mut byte = 0u8;
    push(&mut ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build()]);
    ring.submit().unwrap();
    assert!(!readable(ring.eventfd().unwrap(), 20));
    put(&to, b"x");
    assert!(readable(ring.eventfd().unwrap(), 5000));
    reset(ring.eventfd().unwrap());
    assert_eq!(ring.completion().next().unwrap().result(), 1);
}

#[test]
fn a_shared_ring_serves_several_threads() {
    assert!(Ring::new(4).unwrap().into_shared().is_err());
    for polled in [false, true] {
        let mut builder = Ring::builder();
        if polled {
            builder.setup_sqpoll(20);
        } else {
            builder.setup_served();
        }
        let ring = builder.build(16).unwrap().into_shared().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let (sq, cq) = (Mutex::new(()), Mutex::new(()));
        let (submitted, sum, reaped) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU32::new(0));
        const EACH: u32 = 500;
        let reap = || {
            let _lock = cq.lock().unwrap();
            // SAFETY: under the lock, the only one.
            for cqe in unsafe { ring.completion_shared() } {
                assert!(cqe.result() >= 0, "{cqe:?}");
                sum.fetch_add(cqe.user_data(), Ordering::Relaxed);
                reaped.fetch_add(1, Ordering::Relaxed);
            }
        };
        let push = |entry: &squeue::Entry| {
            let _lock = sq.lock().unwrap();
            // SAFETY: under the lock, the only one; buffers live until all
            // is reaped.
            unsafe { ring.submission_shared().push(entry) }.is_ok()
        };
        let work = || {
            let mut buffer = [0u8; 512];
            for _ in 0..EACH {
                let n = submitted.fetch_add(1, Ordering::Relaxed);
                let entry = match n % 3 {
                    0 => opcode::Nop::new().build(),
                    1 => opcode::Read::new(fd(&file), buffer.as_mut_ptr(), 512).build(),
                    _ => opcode::Write::new(fd(&file), buffer.as_ptr(), 512).build(),
                };
                while !push(&entry.user_data(n.into())) {
                    match ring.submit() {
                        Err(e) if e.raw_os_error() != Some(libc::EBUSY) => panic!("{e}"),
                        _ => reap(),
                    }
                }
                let _ = ring.submit();
            }
            let args = types::SubmitArgs::new().timespec(&Duration::from_millis(5).into());
            while reaped.load(Ordering::Relaxed) < 4 * EACH {
                let _ = ring.submitter().submit_with_args(1, &args);
                reap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        let n = u64::from(4 * EACH);
        assert_eq!(sum.into_inner(), n * (n - 1) / 2, "each exactly once");
    }
}

#[test]
fn a_cq_that_overflows_loses_nothing() {
    for (name, mut builder) in builders() {
        eprintln!("-- {name}");
        let mut ring = builder.requests(16).build(2).unwrap();
        let mut next = 0;
        let mut pushed = 0u64;
        let mut full = false;
        let begun = Instant::now();
        while next < 300 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", ring.dump());
            // Reap only when nothing more can be had.
            while !full && pushed < 300 {
                let entry = opcode::Nop::new().build().user_data(pushed);
                // SAFETY: a NOP names nothing.
                match unsafe { ring.submission().push(&entry) } {
                    Ok(()) => pushed += 1,
                    Err(_) => full = true,
                }
                if let Err(e) = ring.submit() {
                    assert_eq!(e.raw_os_error(), Some(libc::EBUSY));
                    full = true;
                }
            }
            for cqe in ring.completion() {
                assert_eq!(cqe.user_data(), next, "in order");
                next += 1;
            }
            let _ = ring.submit();
            full = false;
        }
    }
}

#[test]
fn dropping_a_ring_whose_cq_overflows() {
    for (_, mut builder) in builders() {
        let mut ring = builder.requests(64).build(2).unwrap();
        for _ in 0..20 {
            push_if_room(&mut ring);
            let _ = ring.submit();
        }
        let _ = ring.completion().next();
    }
}

fn push_if_room(ring: &mut Ring) {
    // SAFETY: a NOP names nothing.
    let _ = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
}
