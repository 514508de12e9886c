//! Requests that change the table of registered files: FILES_UPDATE, and
//! OPENAT and CLOSE with a place of the table.
#![cfg(not(loom))]

mod common;

use annulus::config::Config;
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::opcode::{Close, FilesUpdate, OpenAt};
use annulus::register::Call;
use annulus::squeue::Entry;
use annulus::types::{DestinationSlot, Fd, Fixed};
use common::{AT_ONCE, LATER, Rig, rig};

/// A ring with a table of so many empty places.
fn with_table(places: u32) -> Rig {
    let mut rig = rig(Config::new(8).files(8));
    call(&mut rig, Call::RegisterFilesSparse(places)).unwrap();
    rig
}

fn call(rig: &mut Rig, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(call) }
}

/// Submits entries, whose user data say their order, and answers their results.
fn results(rig: &mut Rig, entries: &[Entry]) -> Vec<i32> {
    let entries: Vec<_> = (0..).zip(entries).map(|(i, entry)| entry.user_data(i)).collect();
    rig.push(&entries);
    rig.parts.engine.enter(entries.len() as u32, 0, EnterFlags::empty(), None).unwrap();
    let mut all = rig.reap();
    all.sort_unstable();
    all.into_iter().map(|(_, result)| result).collect()
}

fn update(fds: &[i32], offset: i32) -> Entry {
    FilesUpdate::new(fds.as_ptr(), fds.len() as u32).offset(offset).build()
}

/// OPENAT whose file number is `opens`, from a directory that answers at once
/// or later.
fn open(dir: i32, opens: i32, slot: DestinationSlot) -> Entry {
    OpenAt::new(Fd(dir), std::ptr::null()).mode(opens as u32).file_index(Some(slot)).build()
}

fn at(place: u32) -> DestinationSlot {
    DestinationSlot::try_from_slot_target(place).unwrap()
}

/// What a place has: the file number.
fn place(rig: &mut Rig, place: u32) -> Option<i32> {
    let read = annulus::opcode::Read::new(Fixed(place), std::ptr::null_mut(), 7).build();
    match results(rig, &[read])[..] {
        [7] => Some(AT_ONCE),
        [] => {
            let number = rig.log.lock().unwrap().pending[0].1.target;
            let annulus::hal::Target::Registered(file) = number else { panic!("{number:?}") };
            rig.complete_first(7);
            rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
            assert_eq!(rig.reap().len(), 1);
            Some((file & 0xffff) as i32)
        }
        ref refused => {
            assert_eq!(refused, [Errno::EBADF.to_result()]);
            None
        }
    }
}

#[test]
fn row_registered_files_are_updated_in_order_with_other_requests() {
    let mut rig = with_table(4);
    let fds = [AT_ONCE, -1, 501];
    let read = annulus::opcode::Read::new(Fixed(1), std::ptr::null_mut(), 9).build();
    assert_eq!(results(&mut rig, &[read, update(&fds, 1), read]), [-9, 3, 9]);
    assert_eq!([0, 1, 2, 3].map(|i| place(&mut rig, i)), [None, Some(AT_ONCE), None, Some(501)]);
    // -2 leaves a place; a bad number empties it, and ends the update.
    let fds = [-2, 502, 3, 503];
    assert_eq!(results(&mut rig, &[update(&fds, 0)]), [2]);
    assert_eq!([0, 1, 2, 3].map(|i| place(&mut rig, i)), [None, Some(502), None, Some(501)]);
    assert_eq!(results(&mut rig, &[update(&fds[2..], 3)]), [Errno::EINVAL.to_result()]);
    assert_eq!(results(&mut rig, &[update(&fds[2..3], 3)]), [Errno::EBADF.to_result()]);
    assert_eq!(place(&mut rig, 3), None);
    assert_eq!(results(&mut rig, &[update(&[], 0)]), [Errno::EINVAL.to_result()]);
    call(&mut rig, Call::UnregisterFiles).unwrap();
    assert_eq!(results(&mut rig, &[update(&fds, 0)]), [Errno::ENXIO.to_result()]);
    assert!(rig.log.lock().unwrap().open.is_empty());
}

#[test]
fn row_registered_files_find_empty_places_as_the_kernel() {
    let mut rig = with_table(4);
    const ALLOC: i32 = -1;
    let mut fds = [501, 502];
    let entry = FilesUpdate::new(fds.as_mut_ptr(), 2).offset(ALLOC).build();
    assert_eq!(results(&mut rig, &[entry]), [2]);
    assert_eq!(fds, [0, 1]);
    // From the place emptied last on, and then from the start.
    assert_eq!(results(&mut rig, &[Close::new(Fixed(0)).build()]), [0]);
    assert_eq!(results(&mut rig, &[update(&[503], 3)]), [1]);
    let auto = DestinationSlot::auto_target();
    let opens = [open(AT_ONCE, 504, auto), open(AT_ONCE, 505, auto), open(AT_ONCE, 506, auto)];
    assert_eq!(results(&mut rig, &opens), [0, 2, Errno::ENFILE.to_result()]);
    assert_eq!(place(&mut rig, 2), Some(505));
    let mut fds = [507, 3];
    let entry = FilesUpdate::new(fds.as_mut_ptr(), 2).offset(ALLOC).build();
    assert_eq!(results(&mut rig, &[entry]), [Errno::ENFILE.to_result()]);
    assert_eq!(rig.log.lock().unwrap().open.len(), 4, "what found no place is closed");
    assert_eq!(results(&mut rig, &[Close::new(Fixed(1)).build(), entry]), [0, 1]);
    assert_eq!(fds, [1, 3], "up to the first that fails");
}

#[test]
fn row_registered_files_are_opened_into_their_place() {
    let mut rig = with_table(2);
    assert_eq!(results(&mut rig, &[open(AT_ONCE, 501, at(1))]), [0]);
    assert_eq!(place(&mut rig, 1), Some(501));
    // Later, over a file that a request in flight still uses.
    let read = annulus::opcode::Read::new(Fixed(1), std::ptr::null_mut(), 5).build();
    assert_eq!(results(&mut rig, &[read, open(LATER, 0, at(1))]), []);
    let reading = rig.log.lock().unwrap().pending.remove(0).0;
    rig.complete_first(502);
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(1, 0)]);
    assert_eq!(rig.log.lock().unwrap().open.len(), 2);
    rig.completer.complete(reading, 5).unwrap();
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(0, 5)]);
    assert_eq!(rig.log.lock().unwrap().open.len(), 1, "the old one goes with its last request");
    assert_eq!(place(&mut rig, 1), Some(502));
    // At once, over a file that a request of a higher record still uses.
    let first = annulus::opcode::Read::new(Fd(LATER), std::ptr::null_mut(), 1).build();
    assert_eq!(results(&mut rig, &[first, read]), []);
    rig.complete_first(1);
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(0, 1)]);
    assert_eq!(results(&mut rig, &[open(AT_ONCE, 502, at(1))]), [0]);
    assert_eq!(rig.log.lock().unwrap().open.len(), 2, "the read has it");
    rig.complete_first(5);
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(1, 5)]);
    assert_eq!(rig.log.lock().unwrap().open.len(), 1);
    // What fails leaves the place as it was.
    assert_eq!(results(&mut rig, &[open(AT_ONCE, -2, at(1))]), [Errno::ENOENT.to_result()]);
    assert_eq!(results(&mut rig, &[open(AT_ONCE, 3, at(1))]), [Errno::EBADF.to_result()]);
    assert_eq!(results(&mut rig, &[open(AT_ONCE, 503, at(2))]), [Errno::EINVAL.to_result()]);
    assert_eq!(place(&mut rig, 1), Some(502));
    call(&mut rig, Call::UnregisterFiles).unwrap();
    let auto = DestinationSlot::auto_target();
    let opens = [open(AT_ONCE, 503, at(0)), open(AT_ONCE, 503, auto)];
    assert_eq!(results(&mut rig, &opens), [Errno::ENXIO, Errno::ENFILE].map(Errno::to_result));
    assert!(rig.log.lock().unwrap().open.is_empty());
    // A table that goes while a file is being opened for it.
    call(&mut rig, Call::RegisterFilesSparse(1)).unwrap();
    assert_eq!(results(&mut rig, &[open(LATER, 0, at(0))]), []);
    call(&mut rig, Call::UnregisterFiles).unwrap();
    rig.complete_first(504);
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(0, Errno::ENXIO.to_result())]);
    assert!(rig.log.lock().unwrap().open.is_empty());
}

#[test]
fn row_registered_files_are_closed_by_their_place() {
    let mut rig = with_table(2);
    assert_eq!(results(&mut rig, &[update(&[501], 1)]), [1]);
    let read = annulus::opcode::Read::new(Fixed(1), std::ptr::null_mut(), 5).build();
    assert_eq!(results(&mut rig, &[read, Close::new(Fixed(1)).build()]), [0]);
    assert_eq!(place(&mut rig, 1), None);
    assert_eq!(rig.log.lock().unwrap().open.len(), 1, "the read has it");
    rig.complete_first(5);
    rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(rig.reap(), [(0, 5)]);
    assert!(rig.log.lock().unwrap().open.is_empty());
    let closes = [0, 1, 2, u32::MAX - 1].map(|place| Close::new(Fixed(place)).build());
    let (bad, beyond) = (Errno::EBADF.to_result(), Errno::EINVAL.to_result());
    let answers: Vec<_> =
        closes.iter().map(|close| results(&mut rig, std::slice::from_ref(close))[0]).collect();
    assert_eq!(answers, [bad, bad, beyond, beyond]);
    call(&mut rig, Call::UnregisterFiles).unwrap();
    assert_eq!(results(&mut rig, &closes[..1]), [Errno::ENXIO.to_result()]);
}

#[test]
fn row_ops_with_fields_that_mean_nothing_are_refused() {
    let mut rig = with_table(2);
    let fds = [501];
    let (invalid, bad) = (Errno::EINVAL.to_result(), Errno::EBADF.to_result());
    let close = Close::new(Fd(AT_ONCE)).build();
    let opening = OpenAt::new(Fd(AT_ONCE), std::ptr::null()).build();
    let fixed = annulus::sqe::Flags::FIXED_FILE;
    for (entry, answer) in [
        (update(&fds, 0).flags(fixed), invalid),
        (Entry { op_flags: 1, ..update(&fds, 0) }, invalid),
        (Entry { splice_fd_in: 1, ..update(&fds, 0) }, invalid),
        (Entry { ioprio: 1, ..update(&fds, 0) }, invalid),
        (close.flags(fixed), bad),
        (Entry { off: 1, ..close }, invalid),
        (Entry { addr: 1, ..close }, invalid),
        (Entry { len: 1, ..close }, invalid),
        (Entry { op_flags: 1, ..close }, invalid),
        (Entry { buf_index: 1, ..close }, invalid),
        (Entry { splice_fd_in: 1, ..close }, invalid),
        (Entry { buf_index: 1, ..opening }, invalid),
        (opening.flags(fixed), bad),
        (Entry { opcode: annulus::uapi::IORING_OP_STATX, ..opening }, invalid),
    ] {
        assert_eq!(results(&mut rig, &[entry]), [answer], "{entry:?}");
    }
}
