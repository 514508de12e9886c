//! Rings that find completions by polling only, on a backend that carries out
//! whatever it is given.

mod common;

use annulus::config::{Config, ConfigError, Footprint};
use annulus::engine::{EnterFlags, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Request, Start, Token};
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::sqe::Sqe;
use annulus::squeue::Flags;
use annulus::types::Timespec;
use annulus::uapi::*;
use common::{Disk, Place, TestHost, memory, no_handles, nop};

struct Willing {
    polled: bool,
    found: Vec<Token>,
}

impl Backend for Willing {
    no_handles!();

    fn supports(&self, _: u8) -> bool {
        true
    }

    unsafe fn start(&mut self, token: Token, _: &Request<(), ()>) -> Start {
        self.found.push(token);
        Start::Pending
    }

    unsafe fn keep(
        &mut self,
        _: usize,
        _: u8,
        addr: u64,
        bytes: u32,
    ) -> Result<annulus::hal::Kept, Errno> {
        Ok(annulus::hal::Kept { addr, bytes })
    }

    fn iopoll(&self) -> bool {
        self.polled
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        self.found.drain(..).for_each(|token| done(token, 0));
    }

    fn polling(&self) -> bool {
        !self.found.is_empty()
    }
}

type Ring = Parts<'static, Willing, Place>;

fn ring(iopoll: bool) -> Ring {
    let config = Config::new(8).submit_all(true).files(2).buffers(1).provided(4, 1).iopoll(iopoll);
    let need = Footprint::of::<Willing, Place>(&config).total();
    let (host, backend) = (Place(TestHost::new()), Willing { polled: true, found: vec![] });
    let mut ring = build(&config, memory(need), RingMemory::Inside, host, |_| backend).unwrap();
    let buffer = [annulus::types::Iovec::new(std::ptr::without_provenance_mut(4096), 4096)];
    // SAFETY: the backend touches no memory.
    unsafe {
        ring.engine.call(Call::RegisterFilesSparse(2)).unwrap();
        ring.engine.call(Call::RegisterBuffers(&buffer)).unwrap();
    }
    ring
}

/// Results by user data, in their order.
fn run(ring: &mut Ring, entries: &[Sqe]) -> Vec<(u64, i32)> {
    common::push(&mut ring.sq, entries);
    let count = entries.len() as u32;
    let taken = ring.engine.enter(count, count, EnterFlags::GETEVENTS, None);
    assert_eq!(taken, Ok(count));
    ring.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect()
}

static SOON: Timespec = Timespec::new().nsec(1);
static MINUS_ONE: i32 = -1;

/// An entry of this opcode that is refused by no ring that has it.
fn entry(opcode: u8) -> Sqe {
    let soon = (&raw const SOON).expose_provenance() as u64;
    let sqe = Sqe { opcode, user_data: 1, addr: 4096, len: 16, ..Sqe::default() };
    match opcode {
        IORING_OP_TIMEOUT | IORING_OP_LINK_TIMEOUT => Sqe { addr: soon, len: 1, ..sqe },
        IORING_OP_POLL_REMOVE | IORING_OP_TIMEOUT_REMOVE => Sqe { addr: 77, len: 0, ..sqe },
        IORING_OP_POLL_ADD | IORING_OP_CLOSE => Sqe { addr: 0, len: 0, ..sqe },
        IORING_OP_FSYNC | IORING_OP_SYNC_FILE_RANGE => Sqe { addr: 0, ..sqe },
        IORING_OP_FILES_UPDATE => {
            let addr = (&raw const MINUS_ONE).expose_provenance() as u64;
            Sqe { addr, len: 1, ..sqe }
        }
        IORING_OP_PROVIDE_BUFFERS => Sqe { fd: 1, ..sqe },
        IORING_OP_REMOVE_BUFFERS => Sqe { fd: 1, addr: 0, len: 0, ..sqe },
        IORING_OP_ASYNC_CANCEL => Sqe { len: 0, ..sqe },
        _ => sqe,
    }
}

/// The opcodes that a ring refuses, of those that are built.
fn refused(ring: &mut Ring) -> Vec<u8> {
    let built = (0..IORING_OP_LAST).filter(|&opcode| Probe::of(|_| true).is_supported(opcode));
    // Refused by every ring of a place where rings have no names.
    let built = built.filter(|&opcode| opcode != IORING_OP_MSG_RING);
    let refuses = |&opcode: &u8| {
        let entries = match opcode {
            // It is one's of another, which ends first and may fail with it.
            IORING_OP_LINK_TIMEOUT => {
                let guarded = Sqe { flags: IOSQE_IO_LINK, user_data: 0, ..entry(IORING_OP_READ) };
                vec![guarded, entry(opcode)]
            }
            _ => vec![entry(opcode)],
        };
        let seen = run(ring, &entries);
        seen.contains(&(1, Errno::EINVAL.to_result()))
    };
    built.filter(refuses).collect()
}

#[test]
fn row_iopoll_takes_only_what_can_be_polled_for() {
    assert_eq!(refused(&mut ring(false)), [], "all entries are sound");
    let mut ring = ring(true);
    let not = refused(&mut ring);
    let expected = [
        IORING_OP_POLL_ADD,
        IORING_OP_POLL_REMOVE,
        IORING_OP_SYNC_FILE_RANGE,
        IORING_OP_TIMEOUT,
        IORING_OP_TIMEOUT_REMOVE,
        IORING_OP_ASYNC_CANCEL,
        IORING_OP_LINK_TIMEOUT,
        IORING_OP_OPENAT,
        IORING_OP_CLOSE,
        IORING_OP_STATX,
        IORING_OP_FADVISE,
    ];
    assert_eq!(not, expected);
    let mut probe = Probe::new();
    // SAFETY: no memory is registered.
    unsafe { ring.engine.call(Call::Probe(&mut probe)).unwrap() };
    let built = Probe::of(|_| true);
    for opcode in (0..IORING_OP_LAST).filter(|&opcode| opcode != IORING_OP_MSG_RING) {
        let takes = built.is_supported(opcode) && !expected.contains(&opcode);
        assert_eq!(probe.is_supported(opcode), takes, "{opcode}");
    }
}

#[test]
fn row_iopoll_what_is_refused_breaks_its_chain() {
    let mut ring = ring(true);
    let cancelled = Errno::ECANCELED.to_result();
    let chain =
        [nop(7).flags(Flags::IO_LINK), entry(IORING_OP_CLOSE).flags(Flags::IO_LINK), nop(8)];
    let seen = run(&mut ring, &chain);
    assert_eq!(seen, [(7, cancelled), (1, Errno::EINVAL.to_result()), (8, cancelled)]);
}

#[test]
fn row_iopoll_needs_a_backend_that_polls() {
    let config = Config::new(8).iopoll(true);
    assert_ne!(config.setup_flags() & IORING_SETUP_IOPOLL, 0);
    let need = Footprint::of::<Disk<'_>, Place>(&config).total();
    let place = Place(TestHost::new());
    let made = build(&config, memory(need), RingMemory::Inside, place, |completer| {
        Disk::new(Default::default(), completer)
    });
    assert_eq!(made.err(), Some(ConfigError::NotPolled));
}
