//! Buffers that follow each other in memory, over a backend whose buffers
//! share mappings.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Footprint};
use annulus::engine::{Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Request, Start, Token};
use annulus::register::Call;
use annulus::types::Iovec;
use common::{Place, TestHost, memory};
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
/// No memory.
const HOLE: usize = 0x90_0000;

#[derive(Debug, Default)]
struct Log {
    /// What is mapped, and what it was covered by when it was: a buffer.
    live: Vec<(usize, usize)>,
    /// Mappings that were made because nothing covered them.
    made: Vec<(usize, usize)>,
}

struct Sharing(Arc<Mutex<Log>>);

impl Backend for Sharing {
    type File = ();
    type Buffer = (usize, usize);

    const SHARES_MAPPINGS: bool = true;

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, _: i32) -> Result<(), Errno> {
        Ok(())
    }

    fn close(&mut self, (): ()) {}

    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<(usize, usize), Errno> {
        if (addr..addr + len).contains(&HOLE) {
            return Err(Errno::EFAULT);
        }
        let mut log = self.0.lock().unwrap();
        if !log.live.iter().any(|&(at, size)| at <= addr && addr + len <= at + size) {
            log.made.push((addr, len));
        }
        log.live.push((addr, len));
        Ok((addr, len))
    }

    fn unmap(&mut self, buffer: (usize, usize)) {
        let live = &mut self.0.lock().unwrap().live;
        live.swap_remove(live.iter().position(|&at| at == buffer).expect("it is mapped"));
    }

    unsafe fn start(&mut self, _: Token, _: &Request<(), (usize, usize)>) -> Start {
        Start::Done(0)
    }
}

fn rig() -> (Parts<'static, Sharing, Place>, Arc<Mutex<Log>>) {
    let config = Config::new(4).buffers(64);
    let log = Arc::new(Mutex::new(Log::default()));
    let need = Footprint::of::<Sharing, Place>(&config).total();
    let host = Place(TestHost::new());
    let backend = Sharing(log.clone());
    (build(&config, memory(need), RingMemory::Inside, host, |_| backend).unwrap(), log)
}

fn iovecs(list: &[(usize, usize)]) -> Vec<Iovec> {
    list.iter().map(|&(at, len)| Iovec::new(std::ptr::without_provenance_mut(at), len)).collect()
}

fn call(parts: &mut Parts<'static, Sharing, Place>, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: the backend touches no memory.
    unsafe { parts.engine.call(call) }
}

/// Pages that follow each other from an address on.
fn pages(at: usize, count: usize) -> Vec<(usize, usize)> {
    (0..count).map(|n| (at + n * PAGE, PAGE)).collect()
}

#[test]
fn row_registered_buffers_neighbours_take_one_mapping() {
    let (mut parts, log) = rig();
    let list = [pages(0x10_0000, 30), pages(0x20_0000, 1), pages(0x30_0000, 3)].concat();
    call(&mut parts, Call::RegisterBuffers(&iovecs(&list))).unwrap();
    let made = [(0x10_0000, 30 * PAGE), (0x20_0000, PAGE), (0x30_0000, 3 * PAGE)];
    assert_eq!(log.lock().unwrap().made, made);
    // The wholes are let go of: what is mapped is what was registered.
    let mut live = log.lock().unwrap().live.clone();
    live.sort_unstable();
    assert_eq!(live, list);
    // So for an update.
    let more = iovecs(&pages(0x40_0000, 8));
    let update = Call::UpdateBuffers { offset: 2, buffers: &more };
    assert_eq!(call(&mut parts, update), Ok(8));
    assert_eq!(log.lock().unwrap().made[3..], [(0x40_0000, 8 * PAGE)]);
    assert_eq!(log.lock().unwrap().live.len(), list.len());
    call(&mut parts, Call::UnregisterBuffers).unwrap();
    assert!(log.lock().unwrap().live.is_empty());
}

#[test]
fn row_registered_buffers_a_bad_neighbour_fails_alone() {
    let (mut parts, log) = rig();
    let list = pages(HOLE - 4 * PAGE, 8);
    let error = call(&mut parts, Call::RegisterBuffers(&iovecs(&list)));
    assert_eq!(error, Err(Errno::EFAULT));
    assert!(log.lock().unwrap().live.is_empty());
    call(&mut parts, Call::RegisterBuffersSparse(8)).unwrap();
    let update = Call::UpdateBuffers { offset: 0, buffers: &iovecs(&list) };
    assert_eq!(call(&mut parts, update), Ok(4), "up to the bad one");
    assert_eq!(log.lock().unwrap().live.len(), 4);
    // Places left empty, and the end of the addresses, are no neighbours.
    let odd = iovecs(&[(0, 0), (0, 0), (usize::MAX - 10, 5), (usize::MAX - 5, 100)]);
    let update = Call::UpdateBuffers { offset: 0, buffers: &odd };
    assert_eq!(call(&mut parts, update), Ok(3));
}
