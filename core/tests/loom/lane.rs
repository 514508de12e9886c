//! The return list and the life of a slot, without an engine.

use annulus::model::ReturnLane;
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
