//! Row *provided buffers*: reads that pick one, whatever becomes of them.

mod common;

use annulus::config::Config;
use annulus::cqueue::buffer_select;
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::opcode;
use annulus::squeue::{Entry, Flags};
use common::*;

const GROUP: u16 = 7;
const LEN: u32 = 64;
/// Where the first buffer is; nobody looks there.
const FIRST: u64 = 0x1000;

fn pick(fd: i32, len: u32, user_data: u64) -> Entry {
    let entry = opcode::Read::new(annulus::types::Fd(fd), std::ptr::null_mut(), len);
    entry.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT).user_data(user_data)
}

fn provide(id: u16) -> Entry {
    let at = std::ptr::without_provenance_mut((FIRST + u64::from(id) * u64::from(LEN)) as usize);
    opcode::ProvideBuffers::new(at, LEN as i32, 1, GROUP, id).build()
}

fn config(requests: u32) -> Config {
    Config::new(8).requests(requests).provided(4, 1)
}

/// User data, result, and the buffer of what is in the CQ.
fn reap(rig: &mut Rig) -> Vec<(u64, i32, Option<u16>)> {
    let queue = rig.parts.cq.queue();
    queue.map(|cqe| (cqe.user_data(), cqe.result(), buffer_select(cqe.flags()))).collect()
}

fn submit(rig: &mut Rig, entries: &[Entry]) -> Result<u32, Errno> {
    rig.push(entries);
    rig.parts.engine.enter(rig.parts.sq.ready(), 0, EnterFlags::GETEVENTS, None)
}

#[test]
fn row_provided_buffers_a_read_that_ends_at_once_tells_of_its_own() {
    let mut rig = rig(config(8));
    submit(&mut rig, &[provide(1), provide(2), provide(3)]).unwrap();
    reap(&mut rig);
    // What is asked for, all of it, and no more than there is.
    let reads = [pick(AT_ONCE, 10, 1), pick(AT_ONCE, 0, 2), pick(AT_ONCE, LEN + 1, 3)];
    assert_eq!(submit(&mut rig, &reads), Ok(3));
    let whole = LEN as i32;
    assert_eq!(reap(&mut rig), [(1, 10, Some(1)), (2, whole, Some(2)), (3, whole, Some(3))]);
    submit(&mut rig, &[pick(AT_ONCE, 1, 4)]).unwrap();
    assert_eq!(reap(&mut rig), [(4, Errno::ENOBUFS.to_result(), None)]);
}

#[test]
fn row_provided_buffers_a_readv_is_found_by_its_own_opcode() {
    use annulus::types::CancelBuilder;
    use annulus::uapi::{IORING_OP_READ, IORING_OP_READV};

    let mut rig = rig(config(8));
    let iovec = [std::ptr::null::<u8>().addr(), 8];
    let entry = opcode::Readv::new(annulus::types::Fd(LATER), iovec.as_ptr().cast(), 1);
    let entry = entry.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT).user_data(1);
    submit(&mut rig, &[provide(1), entry]).unwrap();
    reap(&mut rig);
    for (op, found) in [(IORING_OP_READ, Errno::ENOENT), (IORING_OP_READV, Errno::EALREADY)] {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::op(op)).build().user_data(2);
        submit(&mut rig, &[cancel]).unwrap();
        assert_eq!(reap(&mut rig), [(2, found.to_result(), None)], "{op}");
    }
    rig.complete_first(8);
    submit(&mut rig, &[]).unwrap();
    assert_eq!(reap(&mut rig), [(1, 8, Some(1))]);
}

#[test]
fn row_provided_buffers_a_read_under_way_has_its_own() {
    let mut rig = rig(config(8));
    submit(&mut rig, &[provide(1), provide(2)]).unwrap();
    reap(&mut rig);
    submit(&mut rig, &[pick(LATER, 10, 1), pick(LATER, 0, 2), pick(LATER, 5, 3)]).unwrap();
    assert_eq!(reap(&mut rig), [(3, Errno::ENOBUFS.to_result(), None)]);
    let asked: Vec<_> =
        rig.log.lock().unwrap().pending.iter().map(|(_, r)| (r.addr, r.len)).collect();
    assert_eq!(asked, [(FIRST + u64::from(LEN), 10), (FIRST + 2 * u64::from(LEN), LEN)]);
    rig.complete_first(9);
    rig.complete_first(Errno::EIO.to_result());
    submit(&mut rig, &[]).unwrap();
    assert_eq!(reap(&mut rig), [(1, 9, Some(1)), (2, Errno::EIO.to_result(), Some(2))]);
}

#[test]
fn row_provided_buffers_go_back_without_room_and_without_a_file() {
    let mut rig = rig(config(8));
    submit(&mut rig, &[provide(1)]).unwrap();
    reap(&mut rig);
    // No such file: the buffer is there still.
    submit(&mut rig, &[pick(1, 10, 1)]).unwrap();
    // No room: the entry waits, and the buffer with it.
    submit(&mut rig, &[read(LATER, 1, 2)]).unwrap();
    rig.log.lock().unwrap().no_room = 1;
    rig.push(&[pick(AT_ONCE, 10, 3)]);
    let taken = rig.parts.engine.enter(1, 0, EnterFlags::empty(), None);
    assert_eq!(taken, Err(Errno::EBUSY));
    // The record that it had is anybody's, and no held one.
    rig.complete_first(1);
    assert_eq!(submit(&mut rig, &[read(AT_ONCE, 5, 4)]), Ok(2));
    let mut seen = reap(&mut rig);
    seen.sort_unstable();
    let gone = Errno::EBADF.to_result();
    assert_eq!(seen, [(1, gone, None), (2, 1, None), (3, 10, Some(1)), (4, 5, None)]);
    // Without anything in flight there will be no room: an error, and it is used up
    // by nobody.
    submit(&mut rig, &[provide(2)]).unwrap();
    reap(&mut rig);
    rig.log.lock().unwrap().no_room = 1;
    submit(&mut rig, &[pick(AT_ONCE, 10, 5)]).unwrap();
    let told = reap(&mut rig);
    assert_eq!(told.iter().map(|cqe| (cqe.0, cqe.1)).collect::<Vec<_>>(), [(5, -12)]);
}

#[test]
fn row_provided_buffers_in_the_reserve_and_in_a_full_cq() {
    let mut rig = rig(Config::new(2).cq_entries(2).requests(1).provided(4, 1));
    submit(&mut rig, &[provide(1)]).unwrap();
    submit(&mut rig, &[provide(2)]).unwrap();
    reap(&mut rig);
    // The pool's only record is in use: the reserve has the read.
    submit(&mut rig, &[read(LATER, 1, 1)]).unwrap();
    submit(&mut rig, &[pick(AT_ONCE, 10, 2)]).unwrap();
    assert_eq!(reap(&mut rig), [(2, 10, Some(1))]);
    rig.complete_first(1);
    submit(&mut rig, &[]).unwrap();
    assert_eq!(reap(&mut rig), [(1, 1, None)]);
    // A CQE that waits for room keeps what it tells.
    for user_data in [3, 4] {
        submit(&mut rig, &[nop(user_data)]).unwrap();
    }
    submit(&mut rig, &[pick(AT_ONCE, 10, 5)]).unwrap();
    assert_eq!(reap(&mut rig), [(3, 0, None), (4, 0, None)]);
    submit(&mut rig, &[]).unwrap();
    assert_eq!(reap(&mut rig), [(5, 10, Some(2))]);
}
