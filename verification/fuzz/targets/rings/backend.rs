//! The backend: it does as the bytes say, and looks whether what the engine
//! hands it is what the engine has checked.

use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Request, Start, Target, Token};
use annulus::uapi::*;

use crate::world::{Flight, with};

/// Files and buffers are numbers.
pub struct Files;

impl Backend for Files {
    type File = u32;
    type Buffer = u32;

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            IORING_OP_READ
                | IORING_OP_WRITE
                | IORING_OP_READV
                | IORING_OP_WRITEV
                | IORING_OP_READ_FIXED
                | IORING_OP_WRITE_FIXED
                | IORING_OP_FSYNC
                | IORING_OP_FALLOCATE
                | IORING_OP_POLL_ADD
                | IORING_OP_OPENAT
                | IORING_OP_CLOSE
                | IORING_OP_STATX
        )
    }

    fn is_open(&mut self, fd: i32) -> bool {
        (3..8).contains(&fd)
    }

    fn open(&mut self, fd: i32) -> Result<u32, Errno> {
        if self.is_open(fd) { Ok(with(|world| world.open())) } else { Err(Errno::EBADF) }
    }

    fn adopt(&mut self, opened: i32) -> Result<u32, Errno> {
        self.open(opened)
    }

    fn close(&mut self, file: u32) {
        with(|world| {
            let used = world.flights().any(|flight| flight.file == Some(file));
            assert!(!used, "a file is closed that a request uses");
            let at = world.files.iter().position(|&open| open == file);
            world.files.swap_remove(at.expect("a file is closed that is not open"));
        });
    }

    unsafe fn read_memory(&mut self, addr: usize, to: &mut [u8]) -> Result<(), Errno> {
        // Whatever it is that the application has there.
        if addr.is_multiple_of(2) {
            let bytes = with(|world| world.bytes.clone());
            for word in to.chunks_mut(if to.len() == 16 { 8 } else { 4 }) {
                let number = u64::from(bytes.odd(3) as u16).to_le_bytes();
                word.copy_from_slice(&number[..word.len()]);
            }
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    unsafe fn write_memory(&mut self, addr: usize, _: &[u8]) -> Result<(), Errno> {
        if addr.is_multiple_of(2) { Ok(()) } else { Err(Errno::EFAULT) }
    }

    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<u32, Errno> {
        Ok(with(|world| world.map(addr, len)))
    }

    fn unmap(&mut self, buffer: u32) {
        with(|world| {
            let used = world.flights().any(|flight| flight.buffer == Some(buffer));
            assert!(!used, "a buffer is unmapped that a request uses");
            let at = world.buffers.iter().position(|mapped| mapped.0 == buffer);
            world.buffers.swap_remove(at.expect("a buffer is unmapped that is not mapped"));
        });
    }

    unsafe fn start(&mut self, token: Token, request: &Request<u32, u32>) -> Start {
        assert!(self.supports(request.opcode), "an operation that is not carried out here");
        with(|world| {
            let file = match request.target {
                Target::Registered(file) => Some(file),
                Target::Fd(_) => None,
            };
            assert!(file.is_none_or(|file| world.files.contains(&file)), "a file that is closed");
            let fixed = [IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED].contains(&request.opcode);
            assert_eq!(fixed, request.buffer.is_some(), "a buffer where none is, or none");
            if let Some(buffer) = request.buffer {
                let mapped = world.buffers.iter().find(|mapped| mapped.0 == buffer);
                let &(_, at, len) = mapped.expect("a buffer that is unmapped");
                let (first, bytes) = (request.addr as usize, request.len as usize);
                let inside = first >= at && first - at <= len && bytes <= len - (first - at);
                assert!(inside, "{bytes} bytes at {first:#x} of {len} at {at:#x}");
            }
            let slot = token.index();
            assert!(world.slots[slot].is_none(), "a slot that is in use");
            world.home[slot] = None;
            let alone = world.flying() == 0;
            let poll = request.opcode == IORING_OP_POLL_ADD;
            let flight = Flight { token, file, buffer: request.buffer, poll };
            let start = match world.bytes.u8() % 16 {
                0..5 => Start::Done(request.len.min(1 << 30) as i32),
                5 => Start::Done(Errno::EIO.to_result()),
                6 => Start::Refused(Errno::EFAULT.to_result()),
                7 if !alone => Start::NoRoom,
                8 if poll && request.op_flags & EPOLLONESHOT == 0 => Start::More(1),
                9 if !world.polled => Start::Waiting,
                _ if request.fallback && !alone && poll => Start::NoRoom,
                _ => Start::Pending,
            };
            if matches!(start, Start::Pending | Start::Waiting | Start::More(_)) {
                world.slots[slot] = Some(flight);
            }
            start
        })
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        with(|world| {
            let slot = token.index();
            if world.home[slot] == Some(token) {
                // Its end came when the engine had taken the notice.
                return Start::Pending;
            }
            let flight = world.slots[slot].filter(|flight| flight.token == token);
            let flight = flight.expect("a request is resumed that is not in flight");
            match world.bytes.u8() % 4 {
                0 => Start::Pending,
                1 if flight.poll => Start::More(1),
                2 => Start::Waiting,
                _ => {
                    world.slots[slot] = None;
                    Start::Done(1)
                }
            }
        })
    }

    fn end(&mut self, token: Token) {
        with(|world| {
            // A completion may cross the end.
            if world.home[token.index()] != Some(token) {
                world.land(token);
            }
        });
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        while let Some(token) = with(|world| world.polled_end()) {
            done(token, 1);
            // A device that says it twice, and one that invents.
            if with(|world| world.bytes.u8()) & 7 == 7 {
                done(token, 1);
                let odd = Token::from_raw(with(|world| world.bytes.u32()));
                // What it says of its own commands is to be believed.
                if !with(|world| world.flights().any(|flight| flight.token == odd)) {
                    done(odd, 1);
                }
            }
        }
    }

    fn polling(&self) -> bool {
        with(|world| world.polled && world.flying() != 0)
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        let ends = with(|world| {
            let flies = world.flights().any(|flight| flight.token == token);
            let home = world.home[token.index()] == Some(token);
            assert!(flies || home, "a request is cancelled that is not in flight");
            flies && !world.polled && world.bytes.flag()
        });
        if !ends {
            return Cancel::Running;
        }
        crate::world::complete(token, Errno::ECANCELED.to_result());
        Cancel::Ended
    }

    fn cancel_all(&mut self) {
        with(|world| world.closing = true);
        crate::world::complete_all();
    }
}
