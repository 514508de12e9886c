//! Row *sequential merge*, and the order of writes.

use super::*;
use proptest::prelude::*;

fn file(bucket: u32) -> Inode {
    Inode { hash: bucket << 26, run: 1000 }
}

fn write(file: Inode, off: i64, len: usize) -> Span {
    Span { file, write: true, bytes: Some((off, len)) }
}

fn read(file: Inode, off: i64, len: usize) -> Span {
    Span { file, write: false, bytes: Some((off, len)) }
}

fn queue(index: u32) -> Option<Next> {
    Some(Next { index, in_run: false })
}

fn run(index: u32) -> Option<Next> {
    Some(Next { index, in_run: true })
}

#[test]
fn writes_of_a_file_come_one_at_a_time_in_order() {
    let order = Order::new(8);
    let (a, b) = (file(1), file(2));
    assert!(order.enter(write(a, 0, 10), 5));
    assert!(!order.enter(write(a, 100, 10), 3));
    assert!(!order.enter(write(a, 50, 10), 7));
    assert!(order.enter(write(b, 0, 10), 0), "another file does not wait");
    assert!(order.enter(read(a, 0, 10), 1), "nor does a read");
    assert_eq!(order.leave(5), queue(3));
    assert!(!order.enter(write(a, 0, 10), 5));
    assert_eq!(order.leave(3), queue(7));
    assert_eq!(order.leave(7), queue(5));
    assert_eq!([5, 0, 1].map(|index| order.leave(index)), [None; 3]);
    assert!(order.enter(write(a, 0, 10), 1), "free again");
    assert_eq!(order.merged(), 0);
}

#[test]
fn sequential_reads_run_in_one_worker() {
    let order = Order::new(8);
    let (a, b) = (file(1), Inode { hash: (1 << 26) + 1, run: 1000 });
    assert!(order.enter(read(a, 0, 100), 0));
    assert!(!order.enter(read(a, 100, 50), 1));
    assert!(!order.enter(read(a, 150, 10), 2));
    assert_eq!(order.leave(0), run(1));
    // It goes on as long as one of it has not ended.
    assert!(!order.enter(read(a, 160, 10), 0));
    assert_eq!(order.leave(1), run(2));
    assert_eq!(order.leave(2), run(0));
    assert_eq!(order.leave(0), None);
    assert!(order.enter(read(a, 170, 10), 1), "all of it has ended");
    // Elsewhere in the file, or in another one of the bucket: a new run, and
    // both may be in workers.
    assert!(order.enter(read(a, 1000, 10), 2));
    assert!(order.enter(read(b, 1010, 10), 3));
    assert!(!order.enter(read(b, 1020, 10), 4));
    assert_eq!([1, 2].map(|index| order.leave(index)), [None; 2]);
    assert_eq!(order.leave(3), run(4));
    assert_eq!(order.leave(4), None);
    assert_eq!(order.merged(), 4);
}

#[test]
fn a_run_is_bounded() {
    let order = Order::new(8);
    let a = file(1);
    assert!(order.enter(read(a, 0, 600), 0));
    assert!(!order.enter(read(a, 600, 400), 1), "just as many as there may be");
    assert!(order.enter(read(a, 1000, 600), 2), "another worker's");
    assert!(!order.enter(read(a, 1600, 100), 3));
    assert_eq!(order.leave(0), run(1));
    assert_eq!(order.leave(1), None);
    assert_eq!(order.leave(2), run(3));
    // A write waits in any case, and goes to the end of the queue.
    assert!(order.enter(write(a, 0, 600), 4));
    assert!(!order.enter(write(a, 600, 600), 5));
    assert!(!order.enter(write(a, 1200, 300), 6));
    assert_eq!(order.leave(4), queue(5));
    assert_eq!(order.leave(5), run(6));
    // One request that is longer than a run has none behind it.
    assert!(order.enter(read(file(7), 0, 5000), 0));
    assert!(order.enter(read(file(7), 5000, 1), 1));
}

#[test]
fn without_a_bound_nothing_is_merged() {
    let order = Order::new(8);
    let a = Inode { hash: 0, run: 0 };
    assert!(order.enter(read(a, 0, 10), 0));
    assert!(order.enter(read(a, 10, 10), 1));
    assert!(order.enter(write(a, 0, 10), 2));
    assert!(!order.enter(write(a, 10, 10), 3), "the order of writes is not a matter of merging");
    assert_eq!(order.leave(2), queue(3));
}

#[test]
fn what_is_no_transfer_has_its_turn_and_is_never_merged() {
    let order = Order::new(8);
    let a = file(1);
    let allocate = Span { file: a, write: true, bytes: None };
    assert!(order.enter(allocate, 0));
    assert!(!order.enter(allocate, 1));
    assert!(!order.enter(write(a, 0, 10), 2));
    assert!(!order.enter(allocate, 3));
    assert_eq!(order.leave(0), queue(1));
    assert_eq!(order.leave(1), queue(2));
    assert_eq!(order.leave(2), queue(3));
}

#[test]
fn requests_at_the_current_position_follow_each_other() {
    let order = Order::new(8);
    let a = file(0);
    assert!(order.enter(read(a, -1, 10), 0));
    assert!(!order.enter(read(a, -1, 10), 1));
    assert!(order.enter(read(a, 9, 10), 2), "-1 and ten more are no offset");
    assert_eq!(order.leave(0), run(1));
}

#[test]
fn what_waits_can_be_taken_away() {
    let order = Order::new(8);
    let (a, b) = (file(0), file(63));
    for index in 0..3u8 {
        let at = i64::from(index) * 10;
        order.enter(write(a, at, 10), index.into());
        order.enter(read(b, at, 10), usize::from(index) + 3);
    }
    assert!(order.take(1) && !order.take(1), "once");
    assert!(!order.take(0), "it has had its turn");
    assert!(order.take(5), "the last of a run");
    // The one before it is the last now.
    assert!(!order.enter(read(b, 30, 10), 5));
    assert_eq!(order.leave(3), run(4));
    assert_eq!(order.leave(4), run(5));
    assert_eq!(order.leave(0), run(2));
    assert!(!order.enter(write(a, 0, 10), 0));
    assert!(!order.enter(write(a, 0, 10), 1));
    let mut taken: Vec<_> = std::iter::from_fn(|| order.take_waiting()).collect();
    taken.sort_unstable();
    assert_eq!(taken, [0, 1]);
    assert_eq!((order.leave(2), order.leave(5)), (None, None));
}

#[test]
fn every_inode_has_a_bucket() {
    let buckets: std::collections::HashSet<_> =
        (0..1000).map(|inode| Inode::new(0xfd00, inode, 0).bucket()).collect();
    assert_eq!(buckets.len(), BUCKETS, "neighbours are spread");
}

proptest! {
    /// Whatever enters, leaves and is taken away: everybody has a turn or is
    /// taken away, once, and writes of a file one at a time, in order.
    #[test]
    fn nobody_is_forgotten(
        steps in prop::collection::vec((0u8..4, 0usize..12, 0i64..4, any::<bool>()), 1..200)
    ) {
        let order = Order::new(12);
        // Slots in use: whether it has its turn, and when it entered.
        let mut slots = [None::<(Span, bool, usize)>; 12];
        let give = |slots: &mut [Option<(Span, bool, usize)>; 12], next: Option<Next>| {
            if let Some(next) = next {
                let (.., turn, _) = slots[next.index as usize].as_mut().expect("it entered");
                assert!(!std::mem::replace(turn, true), "one turn");
            }
        };
        for (at, (what, index, off, is_write)) in steps.into_iter().enumerate() {
            match (what, slots[index]) {
                (0 | 1, None) => {
                    let a = file((index % 3) as u32);
                    let span = Span { file: a, write: is_write, bytes: Some((off * 10, 10)) };
                    let turn = order.enter(span, index);
                    slots[index] = Some((span, turn, at));
                }
                (2, Some((_, true, _))) => {
                    slots[index] = None;
                    give(&mut slots, order.leave(index as u32));
                }
                (3, Some((_, turn, _))) => {
                    prop_assert_eq!(order.take(index as u32), !turn);
                    if !turn {
                        slots[index] = None;
                    }
                }
                _ => {}
            }
            let writes = slots.iter().flatten().filter(|(span, ..)| span.write);
            for (span, _, entered) in writes.clone().filter(|(_, turn, _)| *turn) {
                let first = writes.clone().filter(|(other, ..)| other.file == span.file);
                prop_assert_eq!(first.map(|slot| slot.2).min(), Some(*entered));
            }
        }
        while let Some(index) = slots.iter().position(|slot| slot.is_some_and(|slot| slot.1)) {
            slots[index] = None;
            give(&mut slots, order.leave(index as u32));
        }
        prop_assert!(slots.iter().all(Option::is_none), "{:?}", slots);
    }
}
