//! The files, pipes and memory that a program works on, made afresh for each
//! run so that both sides begin with the same.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::memory::{ARENA, Arena};
use super::program::{Data, Fd, Mem, Program, Slot, Sqe, Step};
use super::target::RawSqe;

/// The slots' descriptors begin here: beyond every number that is handed out
/// by itself, so that a slot that is closed is not filled by chance.
const BASE: i32 = 1000;
/// A number that is never a file.
pub const NEVER_OPEN: i32 = 999;

/// Bytes of file A at the start.
pub const A_LEN: u64 = 12_000;
/// Bytes of file B at the start.
pub const B_LEN: u64 = 5_000;
/// Bytes of file C at the start: whole blocks and a part of one.
pub const C_LEN: u64 = 16_384 + 1_808;
/// Bytes in the first pipe at the start.
pub const PIPE_LEN: u32 = 1_500;
/// What the one-page pipe holds: it is full.
pub const TINY_LEN: u32 = 4_096;

/// The directory with names, in that of all programs.
const TREE: &str = "tree";

/// A program's surroundings.
pub struct World<'a> {
    open: Vec<Slot>,
    files: Vec<(&'static str, i32)>,
    /// The directory with names.
    tree: Option<PathBuf>,
    memory: &'a mut Arena,
}

/// What is left at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Of each file: name, length, checksum.
    pub files: Vec<(&'static str, u64, u64)>,
    /// Of each slot that is a file: its position.
    pub positions: Vec<(Slot, i64)>,
    /// Of each pipe: what was left in it.
    pub pipes: Vec<(Slot, Vec<u8>)>,
    /// What is in the directory: name, mode, length, checksum.
    pub names: Vec<(String, u32, u64, u64)>,
}

fn check(n: i64) -> i32 {
    if n >= 0 { n as i32 } else { -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

fn or_error(n: i32) -> io::Result<i32> {
    if n >= 0 { Ok(n) } else { Err(io::Error::last_os_error()) }
}

/// FNV-1a: a difference is all it has to show.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The slots that a program needs.
pub fn needs(program: &Program) -> BTreeSet<Slot> {
    let mut set = BTreeSet::new();
    let mut add = |fd: &Fd| {
        if let Fd::Slot(slot) = fd {
            set.insert(*slot);
        }
    };
    for step in &program.steps {
        match step {
            Step::Push(sqes) => {
                for sqe in sqes {
                    add(&sqe.fd);
                    match &sqe.data {
                        Data::Fds { list, .. } => list.iter().for_each(&mut add),
                        // What its names lead to.
                        Data::Path(_) => {
                            [Slot::Dir, Slot::A, Slot::B].map(Fd::Slot).iter().for_each(&mut add);
                        }
                        _ => {}
                    }
                }
            }
            Step::Files(fds) | Step::FilesUpdate(_, fds) => fds.iter().for_each(&mut add),
            Step::Feed(slot, _) | Step::Empty(slot) | Step::Close(slot) | Step::Seek(slot, _) => {
                add(&Fd::Slot(*slot));
            }
            Step::Copy(from, to) => {
                add(&Fd::Slot(*from));
                add(&Fd::Slot(*to));
            }
            _ => {}
        }
    }
    set
}

/// The number of a slot's descriptor.
pub fn number(slot: Slot) -> i32 {
    BASE + slot as i32
}

impl<'a> World<'a> {
    /// The world of a program that needs these slots; its files are made in
    /// `dir` and have no name for long.
    ///
    /// # Errors
    /// Of the file system, or too few descriptors.
    pub fn new(dir: &Path, slots: &BTreeSet<Slot>, memory: &'a mut Arena) -> io::Result<Self> {
        memory.reset();
        let mut world = World { open: Vec::new(), files: Vec::new(), tree: None, memory };
        let any = |list: &[Slot]| list.iter().any(|slot| slots.contains(slot));
        use Slot::*;
        let rdwr = libc::O_RDWR;
        if any(&[Dir]) {
            world.tree(dir)?;
        }
        if any(&[A, A2, ARead, AWrite]) {
            let modes = [(A, rdwr), (A2, rdwr), (ARead, libc::O_RDONLY), (AWrite, libc::O_WRONLY)];
            world.file(dir, "A", A_LEN, &modes)?;
        }
        if any(&[B, BAppend]) {
            world.file(dir, "B", B_LEN, &[(B, rdwr), (BAppend, rdwr | libc::O_APPEND)])?;
        }
        if any(&[C, CDirect]) {
            world.file(dir, "C", C_LEN, &[(C, rdwr), (CDirect, rdwr | libc::O_DIRECT)])?;
        }
        if any(&[Dir]) {
            world.path(Dir, &dir.join(TREE), libc::O_RDONLY | libc::O_DIRECTORY)?;
        }
        for (slot, path) in [(Null, "/dev/null"), (Zero, "/dev/zero"), (Full, "/dev/full")] {
            if any(&[slot]) {
                world.path(slot, Path::new(path), rdwr)?;
            }
        }
        if any(&[PipeR, PipeW]) {
            world.pipe(PipeR, PipeW, 0, PIPE_LEN)?;
        }
        if any(&[QuietR, QuietW]) {
            world.pipe(QuietR, QuietW, libc::O_NONBLOCK, 0)?;
        }
        if any(&[TinyR, TinyW]) {
            world.pipe(TinyR, TinyW, 0, TINY_LEN)?;
        }
        Ok(world)
    }

    /// Moves `fd` to the slot's number.
    fn settle(&mut self, slot: Slot, fd: i32) -> io::Result<()> {
        // SAFETY: both numbers are ours.
        let moved = or_error(unsafe { libc::dup3(fd, number(slot), libc::O_CLOEXEC) });
        // SAFETY: ours, and used no more.
        unsafe { libc::close(fd) };
        self.open.push(slot);
        moved.map(drop)
    }

    fn path(&mut self, slot: Slot, path: &Path, flags: i32) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a string that ends in NUL.
        let fd = or_error(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
        self.settle(slot, fd)
    }

    fn file(
        &mut self,
        dir: &Path,
        name: &'static str,
        len: u64,
        slots: &[(Slot, i32)],
    ) -> io::Result<()> {
        let path = dir.join(name);
        let content: Vec<u8> = (0..len).map(|i| pattern(name.as_bytes()[0], i)).collect();
        std::fs::write(&path, content)?;
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a string that ends in NUL.
        let fd =
            or_error(unsafe { libc::open(c_path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
        self.files.push((name, fd));
        for &(slot, flags) in slots {
            self.path(slot, &path, flags)?;
        }
        if let (Some(tree), "A" | "B") = (&self.tree, name) {
            std::fs::hard_link(&path, tree.join(name))?;
        }
        std::fs::remove_file(path)
    }

    /// Makes the directory with names. Files A and B join it later.
    fn tree(&mut self, dir: &Path) -> io::Result<()> {
        let tree = dir.join(TREE);
        std::fs::create_dir_all(tree.join("sub"))?;
        std::fs::write(tree.join("sub/inner"), b"inner")?;
        std::os::unix::fs::symlink("A", tree.join("link"))?;
        std::os::unix::fs::symlink("loop", tree.join("loop"))?;
        self.tree = Some(tree);
        Ok(())
    }

    /// What is in the directory with names.
    fn names(&self) -> io::Result<Vec<(String, u32, u64, u64)>> {
        let Some(tree) = &self.tree else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(tree)? {
            let entry = entry?;
            let status = entry.metadata()?;
            let content = if status.is_file() { std::fs::read(entry.path())? } else { Vec::new() };
            let name = entry.file_name().to_string_lossy().into_owned();
            names.push((name, status.mode(), content.len() as u64, checksum(&content)));
        }
        names.sort();
        Ok(names)
    }

    /// What an OPENAT has opened, which is closed with this.
    pub fn take_opened(&mut self, fd: i32) -> String {
        // SAFETY: opened for us.
        let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: no memory.
        let flags = [libc::F_GETFL, libc::F_GETFD].map(|what| unsafe { libc::fcntl(fd, what) });
        let mode = file.metadata().map(|status| status.mode());
        format!("flags {flags:x?}, mode {:x?}", mode.ok())
    }

    /// What a STATX has written.
    pub fn take_attributes(&mut self, at: Mem) -> String {
        match at {
            Mem::Arena(at) => self.memory.take_attributes(at),
            other => other.to_string(),
        }
    }

    fn pipe(&mut self, r: Slot, w: Slot, flags: i32, fill: u32) -> io::Result<()> {
        let mut ends = [0; 2];
        // SAFETY: room for two.
        or_error(unsafe { libc::pipe2(ends.as_mut_ptr(), flags | libc::O_CLOEXEC) })?;
        if r == Slot::TinyR {
            // SAFETY: a pipe of ours.
            or_error(unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 4096) })?;
        }
        self.settle(r, ends[0])?;
        self.settle(w, ends[1])?;
        if fill > 0 && self.feed(w, fill) != fill as i32 {
            return Err(io::Error::other("a pipe that does not take its content"));
        }
        Ok(())
    }

    /// The entry as bytes, with every name replaced.
    pub fn raw(&mut self, sqe: &Sqe, user_data: u64) -> RawSqe {
        let addr = match &sqe.data {
            Data::Flat(at) => self.addr(*at),
            Data::Vector(iovecs) => {
                let list: Vec<(u64, u64)> =
                    iovecs.iter().map(|&(at, len)| (self.addr(at), len)).collect();
                self.memory.place(&list)
            }
            Data::Path(name) => self.memory.place_path(&name.text()),
            Data::Fds { list, edge } => {
                let list: Vec<i32> = list.iter().map(fd).collect();
                self.memory.place_fds(&list, *edge)
            }
        };
        RawSqe {
            opcode: sqe.op,
            flags: sqe.flags,
            ioprio: sqe.ioprio,
            fd: fd(&sqe.fd),
            off: sqe.second.map_or(sqe.off, |to| self.addr(to)),
            addr,
            len: sqe.len,
            op_flags: sqe.op_flags,
            user_data,
            buf_index: sqe.buf_index,
            personality: sqe.personality,
            splice_fd_in: sqe.splice_fd_in,
            addr3: 0,
            pad2: sqe.pad2,
        }
    }

    /// The address of a piece of memory.
    pub fn addr(&self, at: Mem) -> u64 {
        match at {
            Mem::Arena(at) => self.memory.base() + u64::from(at),
            Mem::Unmapped => self.memory.unmapped(),
            Mem::Null => 0,
            Mem::Kernel => 0xffff_8880_0000_0000,
            Mem::Bytes(n) => n.into(),
        }
    }

    /// Makes the arrays of buffers of all consumed SQEs unreadable as such:
    /// what an SQE points to besides buffers may go once it is consumed.
    pub fn scribble(&mut self) {
        self.memory.scribble();
    }

    /// A checksum of the memory that requests read and write.
    pub fn memory(&self) -> u64 {
        checksum(self.memory.bytes()) ^ checksum(self.memory.fds_bytes()).rotate_left(1)
    }

    /// Writes to a pipe.
    pub fn feed(&mut self, slot: Slot, bytes: u32) -> i32 {
        let content: Vec<u8> = (0..u64::from(bytes)).map(|i| pattern(slot as u8, i)).collect();
        // SAFETY: readable for its length.
        check(unsafe { libc::write(number(slot), content.as_ptr().cast(), content.len()) } as i64)
    }

    /// Takes out of a pipe what is in it now, and nothing that comes
    /// meanwhile.
    pub fn empty(&mut self, slot: Slot) -> Vec<u8> {
        let mut waiting: libc::c_int = 0;
        // SAFETY: room for one int.
        let r = unsafe { libc::ioctl(number(slot), libc::FIONREAD, &raw mut waiting) };
        if r != 0 || waiting <= 0 {
            return Vec::new();
        }
        let mut all = vec![0; waiting as usize];
        // SAFETY: room for as much.
        let n = unsafe { libc::read(number(slot), all.as_mut_ptr().cast(), all.len()) };
        all.truncate(n.max(0) as usize);
        all
    }

    /// `dup2`.
    pub fn copy(&mut self, from: Slot, to: Slot) -> i32 {
        if !self.open.contains(&to) {
            self.open.push(to);
        }
        // SAFETY: numbers of ours.
        check(unsafe { libc::dup3(number(from), number(to), libc::O_CLOEXEC) }.into())
    }

    /// `close`.
    pub fn close(&mut self, slot: Slot) -> i32 {
        // SAFETY: a number of ours.
        check(unsafe { libc::close(number(slot)) }.into())
    }

    /// `lseek`.
    pub fn seek(&mut self, slot: Slot, to: u32) -> i32 {
        // SAFETY: no memory.
        check(unsafe { libc::lseek(number(slot), i64::from(to), libc::SEEK_SET) })
    }

    /// What is left in the end. Empties the pipes.
    pub fn remains(&mut self) -> Remains {
        let mut remains = Remains {
            files: Vec::new(),
            positions: Vec::new(),
            pipes: Vec::new(),
            names: self.names().unwrap_or_default(),
        };
        for &(name, fd) in &self.files {
            let mut content = vec![0; 1 << 16];
            // SAFETY: room for as much.
            let n = unsafe { libc::pread(fd, content.as_mut_ptr().cast(), content.len(), 0) };
            content.truncate(n.max(0) as usize);
            // SAFETY: no memory.
            let len = unsafe { libc::lseek(fd, 0, libc::SEEK_END) };
            remains.files.push((name, len as u64, checksum(&content)));
        }
        for slot in self.open.clone() {
            // SAFETY: no memory.
            let at = unsafe { libc::lseek(number(slot), 0, libc::SEEK_CUR) };
            if at >= 0 {
                remains.positions.push((slot, at));
            } else if matches!(slot, Slot::PipeR | Slot::QuietR | Slot::TinyR) {
                let left = self.empty(slot);
                remains.pipes.push((slot, left));
            }
        }
        remains
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if let Some(tree) = &self.tree {
            // What is left would be found by the next program's set-up.
            let _ = std::fs::remove_dir_all(tree);
        }
        for &(_, fd) in &self.files {
            // SAFETY: ours.
            unsafe { libc::close(fd) };
        }
        for &slot in &self.open {
            // SAFETY: ours, or closed already.
            unsafe { libc::close(number(slot)) };
        }
    }
}

/// The number that a descriptor argument means.
pub fn fd(fd: &Fd) -> i32 {
    match fd {
        Fd::Slot(slot) => number(*slot),
        Fd::Raw(n) => *n,
    }
}

/// Content that shows where it comes from.
fn pattern(of: u8, at: u64) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8 ^ of
}

const _: () = assert!(ARENA as u64 <= 1 << 20);
