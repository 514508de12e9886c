//! Row *enter*: waits with a time and a least time end alike, and with the same
//! answer, on this machine's io_uring and on Annulus.

mod both;

use std::time::{Duration, Instant};

use annulus::uapi::{
    IORING_ENTER_ABS_TIMER as ABS, IORING_ENTER_EXT_ARG as EXT_ARG,
    IORING_ENTER_GETEVENTS as GETEVENTS, IORING_ENTER_NO_IOWAIT as NO_IOWAIT, IORING_FEAT_EXT_ARG,
    IORING_FEAT_MIN_TIMEOUT, IORING_FEAT_NO_IOWAIT,
};
use annulus_linux::{opcode, squeue, types};
use both::{Arg, Ring, Seen, fd, feed, pipe, same};

const FOR_EVER: Duration = Duration::from_secs(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn nop(user_data: u64) -> squeue::Entry {
    opcode::Nop::new().build().user_data(user_data)
}

/// What a wait answers, what has come, and whether it took at least so many
/// milliseconds, and not for ever.
fn wait(
    ring: &mut dyn Ring,
    want: u32,
    flags: u32,
    (time, least, takes): (Option<Duration>, Duration, u64),
) -> (i32, Vec<Seen>, bool) {
    let began = Instant::now();
    let arg = Arg { time: time.map(Into::into), min_wait: least.as_micros() as u32 };
    let done = ring.enter(0, want, GETEVENTS | EXT_ARG | flags, Some(arg));
    let took = began.elapsed();
    (done, ring.reap(), took >= ms(takes) && took < FOR_EVER)
}

/// Submits reads of a pipe that is fed by another thread, after each of these
/// times.
fn later<T>(ring: &mut dyn Ring, times: &[u64], body: impl FnOnce(&mut dyn Ring) -> T) -> T {
    let (from, to) = pipe();
    // What is not waited for may come later.
    let bytes = vec![0; times.len()].leak();
    for (n, byte) in bytes.iter_mut().enumerate() {
        let read = opcode::Read::new(fd(&from), byte, 1).offset(u64::MAX).build();
        assert_eq!(ring.run(&[read.user_data(100 + n as u64)], 0), []);
    }
    // Under SQPOLL they are taken in their own time.
    std::thread::sleep(ms(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            for &time in times {
                std::thread::sleep(ms(time).saturating_sub(began.elapsed()));
                feed(&to);
            }
        });
        body(ring)
    })
}

#[test]
fn without_a_completion_a_wait_ends_by_its_time() {
    same(|ring| {
        let mut all = Vec::new();
        for times in [
            (Some(ms(50)), ms(0), 50),
            (None, ms(50), 50),
            (Some(ms(50)), ms(100), 100),
            (Some(ms(100)), ms(50), 100),
            (Some(ms(0)), ms(0), 0),
            (Some(ms(0)), ms(50), 50),
        ] {
            all.push(wait(ring, 1, 0, times));
            all.push(wait(ring, 2, NO_IOWAIT, times));
        }
        all.push(wait(ring, 0, 0, (None, FOR_EVER, 0)));
        assert!(all.iter().all(|wait| wait.2), "{all:?}");
        all
    });
}

#[test]
fn a_wait_ends_at_its_least_time_if_anything_has_come() {
    same(|ring| {
        let mut all = Vec::new();
        for times in [
            (None, ms(50), 50),
            (Some(FOR_EVER), ms(50), 50),
            (Some(FOR_EVER), ms(100), 100),
            (Some(ms(50)), ms(0), 50),
            (Some(ms(50)), ms(100), 100),
            (Some(ms(100)), ms(50), 50),
        ] {
            ring.start(&[nop(1), nop(2)], 2);
            all.push(wait(ring, 3, 0, times));
        }
        assert!(all.iter().all(|wait| wait.2), "{all:?}");
        all
    });
}

#[test]
fn as_many_as_were_asked_for_end_a_wait_at_once() {
    same(|ring| {
        let mut all = Vec::new();
        for want in [1, 2] {
            ring.start(&[nop(1), nop(2)], 2);
            all.push(wait(ring, want, 0, (Some(FOR_EVER), FOR_EVER, 0)));
        }
        let last = later(ring, &[10, 60], |ring| wait(ring, 2, 0, (None, FOR_EVER, 0)));
        all.push(last);
        assert!(all.iter().all(|wait| wait.2), "{all:?}");
        all
    });
}

#[test]
fn after_the_least_time_the_next_completion_is_enough() {
    same(|ring| {
        let times = (Some(FOR_EVER), ms(30), 100);
        // The second is not waited for, and may have come all the same.
        let (done, seen, in_time) = later(ring, &[120, 130], |ring| wait(ring, 3, 0, times));
        (done, seen.first().copied(), in_time)
    });
}

#[test]
fn a_time_can_be_a_point_in_time() {
    same(|ring| {
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let at = now() + ms(60);
        let mut all = vec![wait(ring, 1, ABS, (Some(at), ms(0), 40))];
        all.push(wait(ring, 1, ABS, (Some(at), ms(0), 0)));
        all.push(wait(ring, 1, ABS, (Some(ms(0)), ms(50), 50)));
        all.push(wait(ring, 1, ABS, (None, ms(50), 50)));
        all.push(wait(ring, 1, ABS, (Some(now() + ms(100)), ms(50), 90)));
        assert!(all.iter().all(|wait| wait.2), "{all:?}");
        all
    });
}

#[test]
fn a_timeout_that_ends_ends_a_wait() {
    same(|ring| {
        let (soon, late) = (types::Timespec::from(ms(50)), types::Timespec::from(FOR_EVER));
        let mut all = Vec::new();
        let timeout = |time: &types::Timespec| opcode::Timeout::new(time).build().user_data(7);
        all.push(ring.run(&[timeout(&soon)], 3));
        // By its count, too. It is armed in a batch of its own.
        all.push(ring.run(&[opcode::Timeout::new(&late).count(1).build().user_data(8)], 0));
        all.push(later(ring, &[50], |ring| {
            let mut seen = wait(ring, 4, 0, (Some(FOR_EVER), ms(0), 0)).1;
            seen.sort_unstable();
            seen
        }));
        // One that skips its completion ends the wait of its own.
        let quiet = opcode::Timeout::new(&soon)
            .flags(types::TimeoutFlags::ETIME_SUCCESS)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        all.push(ring.run(&[quiet], 1));
        // One that is ended does not end it.
        all.push(ring.run(&[timeout(&late)], 0));
        let gone = opcode::TimeoutRemove::new(7).build().user_data(9);
        let mut gone = ring.run(&[gone], 2);
        gone.sort_unstable();
        all.push(gone);
        all
    });
}

#[test]
fn arguments_are_looked_at_by_who_waits() {
    same(|ring| {
        let arg = Some(Arg { time: Some(types::Timespec::new()), min_wait: 0 });
        let mut all = Vec::new();
        for unknown in [1 << 8, 1 << 31] {
            all.push((ring.enter(0, 0, unknown, arg), vec![]));
        }
        for (flags, arg) in [
            (EXT_ARG, arg),
            (EXT_ARG, None),
            (GETEVENTS | EXT_ARG, arg),
            (GETEVENTS | EXT_ARG, None),
            (ABS, None),
            (NO_IOWAIT, None),
            (GETEVENTS | EXT_ARG | ABS, arg),
            (GETEVENTS | EXT_ARG | ABS, None),
        ] {
            all.push((ring.enter(0, 1, flags, arg), vec![]));
            ring.push(&[nop(1)]);
            let flags = flags | annulus::uapi::IORING_ENTER_SQ_WAKEUP;
            let done = ring.enter(1, 2, flags, arg);
            ring.start(&[], 1);
            all.push((done, ring.reap()));
        }
        // A signal mask, which is not built, has no other size.
        all.push((ring.enter(0, 1, GETEVENTS, arg), vec![]));
        all
    });
}

#[test]
fn the_promises_are_shown() {
    for builder in [
        annulus_linux::Ring::builder(),
        annulus_linux::Ring::builder().setup_served().clone(),
        annulus_linux::Ring::builder().setup_sqpoll(10).clone(),
    ] {
        let features = builder.build(8).unwrap().params().features();
        let shown = IORING_FEAT_EXT_ARG | IORING_FEAT_MIN_TIMEOUT | IORING_FEAT_NO_IOWAIT;
        assert_eq!(features & shown, shown);
    }
}
