//! The return list and the life of a slot, without an engine.

use annulus::model::ReturnLane;
use annulus::sync::{AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;

/// Two completers and the engine. One completer's completions keep their
/// order, and a token that both bring counts once.
pub fn return_list() {
    let lane = Arc::new(ReturnLane::new(3));
    let [a, b, c] = [0, 1, 2].map(|slot| lane.arm(slot));
    let first = {
        let lane = lane.clone();
        thread::spawn(move || {
            lane.complete(a, 10).expect("nobody else has it");
            lane.complete(b, 11).is_ok()
        })
    };
    let second = {
        let lane = lane.clone();
        thread::spawn(move || {
            lane.complete(c, 12).expect("nobody else has it");
            lane.complete(b, 13).is_ok()
        })
    };
    let mut came = Vec::new();
    while came.len() < 3 {
        if !lane.take(|slot, result| came.push((slot, result.expect("no READY was posted")))) {
            thread::yield_now();
        }
    }
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert!(first != second, "one of two notices for one request counts");
    let b_came = if first { (1, 11) } else { (1, 13) };
    let place = |entry| came.iter().position(|&e| e == entry).expect("every completion comes home");
    assert!(place(if first { (0, 10) } else { (2, 12) }) < place(b_came), "in order");
    place((0, 10));
    place((2, 12));
    assert!(!lane.take(|_, _| ()), "and once only");
    lane.complete(a, 14).expect_err("stale");
}

/// READY, READY, FINAL for one slot, each as soon as the lane takes it: the
/// engine has read a notice before the next is written over it.
pub fn notices() {
    let lane = Arc::new(ReturnLane::new(1));
    let token = lane.arm(0);
    let completer = {
        let lane = lane.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                while lane.ready(token).is_err() {
                    thread::yield_now();
                }
            }
            while lane.complete(token, 7).is_err() {
                thread::yield_now();
            }
            lane.ready(token).expect_err("after FINAL nothing comes");
        })
    };
    let mut came = Vec::new();
    while came.last() != Some(&Some(7)) {
        if !lane.take(|_, result| came.push(result)) {
            thread::yield_now();
        }
    }
    assert_eq!(came, [None, None, Some(7)]);
    completer.join().unwrap();
}

/// Acting on a READY notice brings the next notice at once, from another
/// thread and only once: the lane must be open for it by then.
pub fn notice_at_once() {
    let lane = Arc::new(ReturnLane::new(1));
    let token = lane.arm(0);
    let armed = Arc::new(AtomicU32::new(0));
    let device = {
        let (lane, armed) = (lane.clone(), armed.clone());
        thread::spawn(move || {
            lane.ready(token).expect("the first");
            while armed.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            lane.complete(token, 7).expect("the engine has asked for it");
        })
    };
    let mut end = false;
    while !end {
        let any = lane.take(|_, result| match result {
            None => armed.store(1, Ordering::Release),
            Some(result) => {
                assert_eq!(result, 7);
                end = true;
            }
        });
        if !any {
            thread::yield_now();
        }
    }
    device.join().unwrap();
}

/// A slot used twice; the first request's token comes back late, twice. The
/// second request ends by its own completion and by nothing else.
pub fn stale_tokens() {
    let lane = Arc::new(ReturnLane::new(1));
    let first = lane.arm(0);
    let late = {
        let lane = lane.clone();
        thread::spawn(move || lane.complete(first, 1).is_ok())
    };
    let honest = lane.complete(first, 2).is_ok();
    let mut came = Vec::new();
    while came.is_empty() {
        if !lane.take(|_, result| came.push(result)) {
            thread::yield_now();
        }
    }
    let second = lane.arm(0);
    lane.complete(second, 3).expect("its own token");
    lane.take(|_, result| came.push(result));
    let late = late.join().unwrap();
    assert!(honest != late, "one of two notices for one request counts");
    assert_eq!(came, [Some(if honest { 2 } else { 1 }), Some(3)]);
}
