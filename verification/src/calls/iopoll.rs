//! What a ring that finds completions by polling only refuses: opcode by opcode
//! on the machine's own and on core, over a backend that carries out whatever
//! it is given. A file of the machine's need not be one that can be polled: what
//! is refused is refused before that is looked at.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use annulus::config::{Config, Footprint};
use annulus::engine::{EnterFlags, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Kept, Request, Start, Token};
use annulus::probe::Probe;
use annulus::uapi::*;
use annulus_linux::squeue::Entry;
use annulus_linux::{LinuxHost, types};

/// Refused there, and done here by a device (docs/differences.md).
const MEANT: [u8; 2] = [IORING_OP_FSYNC, IORING_OP_FALLOCATE];

/// Finds by polling whatever it is given.
struct Willing(Vec<Token>);

impl Backend for Willing {
    type File = ();
    type Buffer = ();

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, _: i32) -> Result<(), Errno> {
        Ok(())
    }

    fn close(&mut self, (): ()) {}

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<(), Errno> {
        Ok(())
    }

    fn unmap(&mut self, (): ()) {}

    unsafe fn keep(&mut self, _: usize, _: u8, addr: u64, bytes: u32) -> Result<Kept, Errno> {
        Ok(Kept { addr, bytes })
    }

    unsafe fn start(&mut self, token: Token, _: &Request<(), ()>) -> Start {
        self.0.push(token);
        Start::Pending
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        self.0.drain(..).for_each(|token| done(token, 0));
    }

    fn polling(&self) -> bool {
        !self.0.is_empty()
    }

    fn iopoll(&self) -> bool {
        true
    }
}

/// Memory, as a ring wants it aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [MaybeUninit<u8>; 64]);

/// What entries point to, for as long as the program runs.
struct Things {
    file: File,
    memory: u64,
    path: u64,
    time: u64,
}

impl Things {
    fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            memory: Box::leak(Box::new([0u64; 64])).as_mut_ptr().expose_provenance() as u64,
            path: c"/nothing of this name".as_ptr().expose_provenance() as u64,
            time: (&raw const *Box::leak(Box::new(types::Timespec::new().nsec(1))))
                .expose_provenance() as u64,
        })
    }

    /// An entry of this opcode that is not `-EINVAL` on a ring that waits, and
    /// those that it needs before it.
    fn entries(&self, opcode: u8) -> Vec<Entry> {
        let fd = self.file.as_raw_fd();
        let entry = Entry { opcode, fd, user_data: 1, ..Entry::default() };
        let of_memory = Entry { addr: self.memory, len: 16, ..entry };
        let at_path = Entry { fd: libc::AT_FDCWD, addr: self.path, ..entry };
        let timed = Entry { fd: -1, addr: self.time, len: 1, ..entry };
        let entry = match opcode {
            IORING_OP_READ | IORING_OP_WRITE | IORING_OP_READ_FIXED | IORING_OP_WRITE_FIXED => {
                of_memory
            }
            IORING_OP_POLL_ADD => Entry { op_flags: annulus::sqe::poll32_events(4), ..entry },
            IORING_OP_FALLOCATE => Entry { addr: 16, ..entry },
            IORING_OP_FADVISE | IORING_OP_SYNC_FILE_RANGE => Entry { len: 16, ..entry },
            IORING_OP_FILES_UPDATE => Entry { fd: -1, len: 1, ..of_memory },
            IORING_OP_PROVIDE_BUFFERS => Entry { fd: 1, ..of_memory },
            IORING_OP_REMOVE_BUFFERS => Entry { fd: 1, ..entry },
            IORING_OP_CLOSE => Entry { fd: 9999, ..entry },
            IORING_OP_OPENAT => at_path,
            IORING_OP_STATX => Entry { off: self.memory, ..at_path },
            IORING_OP_TIMEOUT => timed,
            IORING_OP_LINK_TIMEOUT => {
                let nop = Entry { flags: IOSQE_IO_LINK, ..Entry::default() };
                return vec![nop, timed];
            }
            _ => entry,
        };
        vec![entry]
    }
}

/// Whether the machine's own ring refuses an opcode.
fn theirs(things: &Things, opcode: u8, polled: bool) -> io::Result<bool> {
    let mut builder = io_uring::IoUring::builder();
    if polled {
        builder.setup_iopoll();
    }
    let mut ring: io_uring::IoUring = builder.build(4)?;
    let entries = things.entries(opcode);
    for entry in &entries {
        // SAFETY: both are the uapi's 64 bytes; what they point to lasts.
        unsafe {
            let entry: io_uring::squeue::Entry = std::mem::transmute_copy(entry);
            ring.submission().push(&entry).map_err(io::Error::other)?;
        }
    }
    ring.submit_and_wait(entries.len())?;
    Ok(ring.completion().any(|cqe| cqe.user_data() == 1 && cqe.result() == -libc::EINVAL))
}

/// Whether core does.
fn ours(things: &Things, opcode: u8, polled: bool) -> io::Result<bool> {
    let config = Config::new(4).submit_all(true).provided(4, 1).iopoll(polled);
    let bytes = Footprint::of::<Willing, LinuxHost>(&config).total();
    let mut lines = vec![Line([MaybeUninit::uninit(); 64]); bytes.div_ceil(64)];
    // SAFETY: the same bytes; nobody else has them while the ring does.
    let memory = unsafe {
        let base = lines.as_mut_ptr().cast::<MaybeUninit<u8>>();
        Memory::new(std::slice::from_raw_parts_mut(base, lines.len() * 64))
    };
    let (host, backend) = (LinuxHost::new(None), Willing(vec![]));
    let made = build(&config, memory, RingMemory::Inside, host, |_| backend);
    let Parts { mut engine, mut sq, mut cq, .. } = made.map_err(io::Error::other)?;
    let entries = things.entries(opcode);
    for entry in &entries {
        // SAFETY: what it points to lasts.
        unsafe { sq.queue().push(entry) }.map_err(io::Error::other)?;
    }
    let count = entries.len() as u32;
    let taken = engine.enter(count, count, EnterFlags::GETEVENTS, None);
    taken.map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
    Ok(cq.queue().any(|cqe| cqe.user_data() == 1 && cqe.result() == -libc::EINVAL))
}

/// The opcodes that are not refused for the same.
pub fn compare(differences: &mut Vec<String>) -> io::Result<()> {
    let things = Things::new()?;
    let built = Probe::of(|_| true);
    for opcode in (0..IORING_OP_LAST).filter(|&opcode| built.is_supported(opcode)) {
        let name = opcode_name(opcode).unwrap_or("?");
        for polled in [false, true] {
            let (theirs, ours) = (theirs(&things, opcode, polled)?, ours(&things, opcode, polled)?);
            let expected = theirs && !(polled && MEANT.contains(&opcode));
            if theirs && !polled || ours != expected {
                differences.push(format!(
                    "{name}, IOPOLL {polled}: the kernel refuses it: {theirs}, Annulus: {ours}"
                ));
            }
        }
    }
    Ok(())
}
