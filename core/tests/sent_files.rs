//! Registered files that rings send each other (MSG_RING).
#![cfg(not(loom))]

mod common;

use annulus::config::Config;
use annulus::engine::{EnterFlags, SentFile};
use annulus::errno::Errno;
use annulus::opcode::{MsgRingSendFd, Read};
use annulus::register::Call;
use annulus::squeue::Entry;
use annulus::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use annulus::uapi::{IORING_FILE_INDEX_ALLOC, IORING_MSG_RING_CQE_SKIP};
use common::*;

const ANY: DestinationSlot = DestinationSlot::auto_target();

/// A ring with one file, and one with places for three, and for as many messages.
fn pair(messages: u32) -> (Rig, Rig) {
    let (mut one, mut other) =
        (rig(Config::new(4).files(1)), rig(Config::new(4).files(3).messages(messages)));
    one.host.rings.lock().unwrap().push(other.parts.remote.inbox());
    call(&mut one, Call::RegisterFiles(&[AT_ONCE])).unwrap();
    call(&mut other, Call::RegisterFilesSparse(3)).unwrap();
    (one, other)
}

fn call(rig: &mut Rig, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(call) }
}

fn submit(rig: &mut Rig, entry: Entry) -> Vec<(u64, i32)> {
    rig.push(&[entry]);
    assert_eq!(rig.parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    rig.reap()
}

fn send(to: DestinationSlot) -> MsgRingSendFd {
    MsgRingSendFd::new(Fd(RINGS), Fixed(0), to, 77)
}

fn at(place: u32) -> DestinationSlot {
    DestinationSlot::try_from_slot_target(place).unwrap()
}

fn read(place: u32) -> Entry {
    Read::new(Fixed(place), std::ptr::null_mut(), 7).build().user_data(1)
}

/// Files that a ring's backend has open.
fn open(rig: &Rig) -> usize {
    rig.log.lock().unwrap().open.len()
}

#[test]
fn row_messages_files_are_there_as_soon_as_their_sender_knows() {
    let (mut one, mut other) = pair(4);
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, 0)]);
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, 1)]);
    // In the batch that uses it, and before its own CQE has been asked for.
    assert_eq!(submit(&mut other, read(1)), [(77, 0), (77, 1), (1, 7)]);
    assert_eq!(submit(&mut other, read(2)), [(1, Errno::EBADF.to_result())]);
    let quiet = send(at(2)).opcode_flags(IORING_MSG_RING_CQE_SKIP).build();
    assert_eq!(submit(&mut one, quiet), [(0, 0)]);
    assert!(other.parts.sq.queue().taskrun());
    assert_eq!(submit(&mut other, read(2)), [(1, 7)]);
    assert_eq!((open(&one), open(&other)), (1, 3));
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, Errno::ENFILE.to_result())]);
    assert_eq!((open(&one), open(&other)), (1, 3));
}

#[test]
fn row_messages_files_are_closed_by_whoever_replaces_them() {
    let (mut one, mut other) = pair(8);
    for _ in 0..2 {
        assert_eq!(submit(&mut one, send(at(0)).build()), [(0, 0)]);
    }
    assert_eq!(one.log.lock().unwrap().closed.len(), 1, "nobody has seen the first one");
    // One that has come, by an update, by nothing, and by the end of the table.
    submit(&mut one, send(at(1)).build());
    submit(&mut one, send(at(2)).build());
    assert_eq!(call(&mut other, Call::UpdateFiles { offset: 1, fds: &[LATER, -1] }), Ok(2));
    assert_eq!(other.log.lock().unwrap().closed.len(), 2);
    assert_eq!(open(&other), 2, "the first place's, and the update's");
    submit(&mut one, send(ANY).build());
    assert_eq!(call(&mut other, Call::UnregisterFiles), Ok(0));
    assert_eq!(open(&other), 0);
    assert_eq!(call(&mut other, Call::RegisterFilesSparse(3)), Ok(0));
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, 0)]);
    other.parts.engine.shutdown();
    assert_eq!(open(&other), 0);
    for place in [ANY, at(1), at(9)] {
        assert_eq!(submit(&mut one, send(place).build()), [(0, Errno::EBADFD.to_result())]);
    }
    assert_eq!(open(&one), 1);
}

#[test]
fn row_messages_files_stay_with_their_requests() {
    let (mut one, mut other) = pair(4);
    call(&mut one, Call::UpdateFiles { offset: 0, fds: &[LATER] }).unwrap();
    submit(&mut one, send(at(0)).build());
    assert_eq!(submit(&mut other, read(0)), [(77, 0)], "under way");
    submit(&mut one, send(at(0)).build());
    assert_eq!(submit(&mut other, read(1)), [(77, 0), (1, Errno::EBADF.to_result())]);
    assert_eq!(open(&other), 2, "a request has the first");
    other.complete_first(7);
    other.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!((other.reap(), open(&other)), (vec![(1, 7)], 1));
}

/// A call that names a place means what its caller has sent there.
#[test]
fn row_messages_files_are_there_for_calls() {
    let (mut one, mut other) = pair(4);
    call(&mut other, Call::UpdateFiles { offset: 0, fds: &[LATER] }).unwrap();
    assert_eq!(submit(&mut other, read(0)), [], "under way");
    assert_eq!(submit(&mut one, send(at(0)).build()), [(0, 0)]);
    let what = CancelBuilder::fd(Fixed(0));
    let none = call(&mut other, Call::Cancel { what, timeout: None });
    assert_eq!(none, Err(Errno::ENOENT), "it was another file's");
    assert_eq!(other.log.lock().unwrap().pending.len(), 1);
}

#[test]
fn row_messages_files_that_cannot_be_told_of_do_not_go() {
    let (mut one, mut other) = pair(1);
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, 0)]);
    for _ in 0..2 {
        let full = submit(&mut one, send(ANY).build());
        assert_eq!(full, [(0, Errno::EOVERFLOW.to_result())]);
    }
    assert_eq!(open(&one), 1, "closed again");
    assert_eq!(submit(&mut other, read(1)), [(77, 0), (1, Errno::EBADF.to_result())]);
    assert_eq!(submit(&mut one, send(ANY).build()), [(0, 1)], "not after the one that failed");
}

#[test]
fn row_messages_files_come_by_the_inbox_alone() {
    let (_one, mut other) = pair(2);
    let inbox = other.parts.remote.inbox();
    let file = |number, file_index| SentFile { number, file_index, user_data: None };
    assert_eq!(inbox.send_file(&file(AT_ONCE, IORING_FILE_INDEX_ALLOC)), Ok((0, None)));
    assert_eq!(inbox.send_file(&file(LATER, 1)), Ok((0, Some(AT_ONCE))), "is ours again");
    assert_eq!(inbox.send_file(&file(LATER, 9)), Err(Errno::EINVAL));
    assert_eq!(submit(&mut other, read(0)), []);
    assert_eq!(other.log.lock().unwrap().pending.len(), 1, "of the later one");
}

/// What has no number in this place is told in the target's table only.
#[test]
fn row_messages_files_that_cannot_be_adopted_leave_an_empty_place() {
    let (mut one, mut other) = pair(4);
    let inbox = other.parts.remote.inbox();
    let file = SentFile { number: 3, file_index: IORING_FILE_INDEX_ALLOC, user_data: Some(5) };
    assert_eq!(inbox.send_file(&file), Ok((0, None)));
    assert_eq!(submit(&mut other, read(0)), [(5, 0), (1, Errno::EBADF.to_result())]);
    for place in [1, 2, 0] {
        assert_eq!(submit(&mut one, send(ANY).build()), [(0, place)]);
    }
    assert_eq!(inbox.send_file(&SentFile { number: -2, ..file }), Err(Errno::EBADF));
}
