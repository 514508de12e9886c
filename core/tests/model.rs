//! The models' own workbench, as a downstream crate uses it: what
//! `annulus::model` promises, and that what breaks a promise is found.
#![cfg(loom)]

use annulus::errno::Errno;
use annulus::model::atomic::AtomicU32;
use annulus::model::loom::thread;
use annulus::model::{Builder, File, Model, Ring};
use annulus::sync::Ordering;
use annulus::types::Fd;
use annulus::{opcode, squeue};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

fn read(file: &File, to: &mut [u8], off: u64) -> squeue::Entry {
    let (fd, len) = (Fd(file.as_raw_fd()), to.len() as u32);
    opcode::Read::new(fd, to.as_mut_ptr(), len).offset(off).build().user_data(off)
}

fn write(file: &File, from: &[u8], off: u64) -> squeue::Entry {
    let (fd, len) = (Fd(file.as_raw_fd()), from.len() as u32);
    opcode::Write::new(fd, from.as_ptr(), len).offset(off).build().user_data(off)
}

fn push(ring: &mut Ring, entries: &[squeue::Entry]) {
    // SAFETY: what each test does with the memory is what it is about.
    unsafe { ring.submission().push_multiple(entries) }.expect("room");
}

fn reap(ring: &mut Ring) -> Vec<(u64, i32)> {
    ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect()
}

/// What each execution of a model has seen.
#[derive(Clone, Default)]
struct Seen<T>(Arc<Mutex<BTreeSet<T>>>);

impl<T: Ord + Clone> Seen<T> {
    fn add(&self, what: T) {
        self.0.lock().unwrap().insert(what);
    }

    fn all(&self) -> BTreeSet<T> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn requests_complete_in_every_order() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("three reads").preemptions(0).check(move || {
        let file = File::new(b"abc");
        let mut ring = Ring::new(4).unwrap();
        let mut to = [[0]; 3];
        let entries: Vec<_> = to.iter_mut().zip(0..).map(|(to, at)| read(&file, to, at)).collect();
        push(&mut ring, &entries);
        ring.submit_and_wait(3).unwrap();
        let done = reap(&mut ring);
        assert!(done.iter().all(|&(_, result)| result == 1));
        assert_eq!(to, [*b"a", *b"b", *b"c"]);
        add.add(done.iter().map(|&(user_data, _)| user_data).collect::<Vec<_>>());
    });
    assert_eq!(seen.all().len(), 6, "{:?}", seen.all());
}

/// A read and a write of the same place, in flight together, meet in both
/// orders; and chained they do not.
#[test]
fn only_a_link_orders_two_requests() {
    for linked in [false, true] {
        let seen = Seen::default();
        let add = seen.clone();
        Model::new("write and read").check(move || {
            let file = File::new(b"old");
            let mut ring = Ring::new(2).unwrap();
            let mut to = *b"...";
            let flags = if linked { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
            let first = write(&file, b"new", 0).flags(flags);
            push(&mut ring, &[first, read(&file, &mut to, 0)]);
            ring.submit_and_wait(2).unwrap();
            assert_eq!(reap(&mut ring).len(), 2);
            add.add(to);
        });
        let expected: &[[u8; 3]] = if linked { &[*b"new"] } else { &[*b"new", *b"old"] };
        assert_eq!(seen.all(), expected.iter().copied().collect());
    }
}

#[test]
fn what_is_synced_survives() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("write and sync").check(move || {
        let file = File::new(b"");
        let mut ring = Ring::new(2).unwrap();
        let sync = opcode::Fsync::new(Fd(file.as_raw_fd())).build();
        push(&mut ring, &[write(&file, b"new", 0), sync]);
        ring.submit_and_wait(2).unwrap();
        assert_eq!(file.bytes(), b"new");
        add.add(file.synced());
    });
    assert_eq!(seen.all(), BTreeSet::from([b"".to_vec(), b"new".to_vec()]));
}

#[test]
fn requests_fail_in_some_executions() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("failing").failing(Errno::EIO, 1).check(move || {
        let file = File::new(b"abc");
        let mut ring = Ring::new(2).unwrap();
        let mut to = [[0]; 2];
        let entries: Vec<_> = to.iter_mut().zip(0..).map(|(to, at)| read(&file, to, at)).collect();
        push(&mut ring, &entries);
        ring.submit_and_wait(2).unwrap();
        let mut done = reap(&mut ring);
        done.sort_unstable();
        add.add(done.iter().map(|&(_, result)| result).collect::<Vec<_>>());
    });
    let eio = Errno::EIO.to_result();
    assert_eq!(seen.all(), BTreeSet::from([vec![1, 1], vec![eio, 1], vec![1, eio]]));
}

/// A write while the ring is driven in each of the three ways.
fn driven(name: &str, set_up: fn(&mut Builder)) {
    Model::new(name).check(move || {
        let file = File::new(b"");
        let mut builder = Ring::builder();
        set_up(&mut builder);
        let mut ring = builder.build(1).unwrap();
        push(&mut ring, &[write(&file, b"new", 0)]);
        ring.submit_and_wait(1).unwrap();
        assert_eq!(reap(&mut ring), [(0, 3)]);
        assert_eq!(file.bytes(), b"new");
    });
}

#[test]
fn inline() {
    driven("inline", |_| {});
}

#[test]
fn polled() {
    driven("polled", |builder| {
        builder.setup_sqpoll(1000);
    });
}

#[test]
fn served() {
    driven("served", |builder| {
        builder.setup_served();
    });
}

#[test]
fn a_dropped_ring_ends_what_it_has() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("drop").check(move || {
        let file = File::new(b"");
        let mut ring = Ring::new(1).unwrap();
        push(&mut ring, &[write(&file, b"new", 0)]);
        ring.submit().unwrap();
        drop(ring);
        add.add(file.bytes());
    });
    assert_eq!(seen.all(), BTreeSet::from([b"".to_vec(), b"new".to_vec()]));
}

#[test]
fn two_threads_have_a_ring_each() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("two rings").preemptions(1).check(move || {
        let file = Arc::new(File::new(b"old"));
        let other = {
            let file = file.clone();
            thread::spawn(move || {
                let mut ring = Ring::new(1).unwrap();
                push(&mut ring, &[write(&file, b"new", 0)]);
                ring.submit_and_wait(1).unwrap();
                assert_eq!(reap(&mut ring), [(0, 3)]);
            })
        };
        let mut ring = Ring::new(1).unwrap();
        let mut to = *b"...";
        push(&mut ring, &[read(&file, &mut to, 0)]);
        ring.submit_and_wait(1).unwrap();
        assert_eq!(reap(&mut ring), [(0, 3)]);
        other.join().unwrap();
        add.add(to);
    });
    assert_eq!(seen.all(), BTreeSet::from([*b"new", *b"old"]));
}

#[test]
#[should_panic(expected = "the memory of WRITE #1 was changed before its CQE came")]
fn memory_of_a_write_that_is_reused_early_is_found() {
    Model::new("reused early").check(|| {
        let file = File::new(b"");
        let mut ring = Ring::new(1).unwrap();
        let mut from = *b"new";
        push(&mut ring, &[write(&file, &from, 0)]);
        ring.submit().unwrap();
        from[0] = b'x';
        ring.submit_and_wait(1).unwrap();
        assert_eq!(from, *b"xew");
    });
}

#[test]
#[should_panic(expected = "read too early")]
fn memory_of_a_read_that_is_read_early_is_found() {
    Model::new("read early").check(|| {
        let file = File::new(b"new");
        let mut ring = Ring::new(1).unwrap();
        let mut to = *b"...";
        push(&mut ring, &[read(&file, &mut to, 0)]);
        ring.submit().unwrap();
        assert!([*b"...", *b"new"].contains(&to), "read too early");
        ring.submit_and_wait(1).unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_for_nothing_is_found() {
    Model::new("waits for ever").check(|| {
        let ring = Ring::new(1).unwrap();
        ring.submit_and_wait(1).unwrap();
    });
}

#[test]
fn numbers_of_no_file_are_refused() {
    Model::new("no file").check(|| {
        let file = File::new(b"");
        let other = file.try_clone().unwrap();
        let closed = read(&file, &mut [0], 0);
        drop(file);
        let mut ring = Ring::new(1).unwrap();
        push(&mut ring, &[closed]);
        ring.submit_and_wait(1).unwrap();
        assert_eq!(reap(&mut ring), [(0, Errno::EBADF.to_result())]);
        push(&mut ring, &[write(&other, b"new", 0)]);
        ring.submit_and_wait(1).unwrap();
        assert_eq!(reap(&mut ring), [(0, 3)]);
    });
}

/// A load and a store are tried in both orders, whatever the storing thread has
/// loaded before: what loom's own atomics do not promise.
#[test]
fn a_load_does_not_hide_a_store() {
    let seen = Seen::default();
    let add = seen.clone();
    Model::new("load, then store").check(move || {
        let word = Arc::new(AtomicU32::new(0));
        let stored = word.clone();
        let other = thread::spawn(move || {
            stored.load(Ordering::Acquire);
            stored.store(1, Ordering::Release);
        });
        add.add(word.load(Ordering::Acquire));
        other.join().unwrap();
    });
    assert_eq!(seen.all(), BTreeSet::from([0, 1]));
}
