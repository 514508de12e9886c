//! The chains' files: a directory with names, numbers, and what comes of them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use annulus::uapi;

use super::super::super::target::RawSqe;
use super::super::super::world::checksum;
use super::{FileOp, How, Name, On, With};

/// The numbers of the chains' files, beyond all that are handed out: a number that
/// has been closed is not given to another by chance.
const FIRST: RawFd = 1000;
/// The number of the directory.
const DIRECTORY: RawFd = 999;
/// A number that no file has.
const NONE: i32 = 100_000;
/// A place beyond any table.
const BEYOND: i32 = 5000;
/// Bytes of each file at the start.
const LEN: usize = 1024;
/// What is looked at of each file in the end.
const LOOK: u64 = 8192;
/// An address that is the kernel's.
const NOWHERE: u64 = 0xffff_8880_0000_0000;

/// What an SQE points to besides its data. What is not a path lasts until it has
/// ended.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Keep {
    /// A path, which may go once the SQE has been taken.
    pub path: [u8; 16],
    numbers: [i32; 2],
    attributes: [u8; 256],
}

impl Keep {
    /// Nothing.
    pub const NEW: Keep = Keep { path: [0; 16], numbers: [0; 2], attributes: [0; 256] };
}

/// Memory of an SQE.
pub struct Memory<'a> {
    /// What it points to.
    pub keep: &'a mut Keep,
    /// Two buffers, for a vector.
    pub vector: &'a mut [[u64; 2]; 2],
    /// Its data.
    pub data: &'a mut [u8],
    /// Its part of the registered buffer.
    pub fixed: &'a mut [u8],
}

/// The files of a program's chains.
pub struct Tree {
    path: PathBuf,
    count: u8,
    /// The place of the first.
    place: i32,
    /// Who opens a file for which there will be a number.
    opens: BTreeSet<u64>,
    told: Vec<String>,
}

fn good(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

impl Tree {
    /// Files for so many chains, in `dir`; their places come behind `place` others.
    ///
    /// # Errors
    /// Of the file system, or too few descriptors.
    pub fn new(dir: &Path, count: u8, place: i32) -> io::Result<Self> {
        let path = dir.join("own");
        let tree = Self { path, count, place, opens: BTreeSet::new(), told: Vec::new() };
        if count == 0 {
            return Ok(tree);
        }
        fs::create_dir_all(&tree.path)?;
        Self::number(&File::open(&tree.path)?, DIRECTORY)?;
        for own in 0..count {
            let content: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8 ^ own).collect();
            let path = tree.path.join(format!("f{own}"));
            let mut how = OpenOptions::new();
            let file = how.read(true).write(true).create(true).truncate(true).open(path)?;
            file.write_all_at(&content, 0)?;
            // Read once, so that no read has anything to note in the file.
            (&file).read_exact(&mut [0; LEN])?;
            // SAFETY: no memory.
            good(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) } as i32)?;
            Self::number(&file, FIRST + RawFd::from(own))?;
        }
        Ok(tree)
    }

    fn number(file: &File, number: RawFd) -> io::Result<()> {
        // SAFETY: both numbers are ours.
        good(unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) }).map(drop)
    }

    /// What is registered at the start, in every second place.
    pub fn places(&self) -> impl Iterator<Item = i32> {
        let all = FIRST..FIRST + RawFd::from(self.count);
        all.map(|number| if number % 2 == 0 { number } else { -1 })
    }

    /// The places, of which something may be left in the end.
    pub fn all_places(&self) -> std::ops::Range<i32> {
        self.place..self.place + i32::from(self.count)
    }

    fn name(&self, own: u8, name: Name, keep: &mut Keep) -> u64 {
        let text = match name {
            Name::Own => format!("f{own}"),
            Name::New => format!("n{own}"),
            Name::Dot => ".".into(),
            Name::Missing => "none/none".into(),
            Name::Nowhere => return NOWHERE,
        };
        keep.path = [0; 16];
        keep.path[..text.len()].copy_from_slice(text.as_bytes());
        (&raw const keep.path) as u64
    }

    fn file(&self, own: u8, on: On, raw: &mut RawSqe) {
        raw.fd = match on {
            On::Number | On::Both => FIRST + RawFd::from(own),
            On::Place | On::Alloc => self.place + i32::from(own),
            On::None => NONE,
            On::Beyond => BEYOND,
        };
        if matches!(on, On::Place | On::Alloc | On::Beyond) {
            raw.flags |= uapi::IOSQE_FIXED_FILE;
        }
    }

    /// A place as OPENAT and CLOSE have it: from 1 on.
    fn index(&self, own: u8, on: On) -> i32 {
        match on {
            On::Number | On::None => 0,
            On::Place | On::Both => self.place + i32::from(own) + 1,
            On::Alloc => uapi::IORING_FILE_INDEX_ALLOC as i32,
            On::Beyond => BEYOND + 1,
        }
    }

    /// Fills an entry in.
    pub fn raw(&mut self, raw: &mut RawSqe, own: u8, op: FileOp, memory: Memory<'_>) {
        let Memory { keep, vector, data, fixed } = memory;
        match op {
            FileOp::Open { name, flags, to } => {
                raw.fd = DIRECTORY;
                raw.addr = self.name(own, name, keep);
                (raw.op_flags, raw.len) = (flags as u32, 0o640);
                raw.splice_fd_in = self.index(own, to);
                if raw.splice_fd_in == 0 {
                    self.opens.insert(raw.user_data);
                }
            }
            FileOp::Close { on } => {
                raw.splice_fd_in = self.index(own, on);
                raw.fd = match on {
                    On::Number | On::Both => FIRST + RawFd::from(own),
                    On::None => NONE,
                    _ => 0,
                };
            }
            FileOp::Allocate { on, mode, off, len } => {
                self.file(own, on, raw);
                (raw.len, raw.off, raw.addr) = (mode as u32, off, len);
            }
            FileOp::Advise { on, advice: flags, off, len }
            | FileOp::SyncRange { on, flags, off, len } => {
                self.file(own, on, raw);
                (raw.op_flags, raw.off, raw.len) = (flags, off, len);
            }
            FileOp::Sync { on, flags } => {
                self.file(own, on, raw);
                raw.op_flags = flags;
            }
            FileOp::Attributes { name, mask } => {
                raw.fd = DIRECTORY;
                raw.addr = self.name(own, name, keep);
                (raw.len, raw.off) = (mask, (&raw const keep.attributes) as u64);
            }
            FileOp::Update { to, with } => {
                let number = match with {
                    With::Number | With::Nowhere => FIRST + RawFd::from(own),
                    With::None => NONE,
                    With::Empty => -1,
                    With::Skip => uapi::IORING_REGISTER_FILES_SKIP,
                };
                keep.numbers = [number; 2];
                raw.addr = match with {
                    With::Nowhere => NOWHERE,
                    _ => (&raw const keep.numbers) as u64,
                };
                raw.off = match to {
                    On::Alloc => uapi::IORING_FILE_INDEX_ALLOC.into(),
                    On::Beyond => BEYOND as u64,
                    _ => (self.place + i32::from(own)) as u64,
                };
                raw.len = 1;
            }
            FileOp::Transfer { on, how, write, off, len, bad } => {
                self.file(own, on, raw);
                let into = if how == How::Fixed { fixed } else { data };
                if write {
                    let bytes = raw.user_data.to_ne_bytes();
                    into.iter_mut().zip(bytes.iter().cycle()).for_each(|(to, from)| *to = *from);
                }
                let half = into.len() as u64 / 2;
                let at = if bad { NOWHERE } else { into.as_mut_ptr() as u64 };
                (raw.off, raw.addr, raw.len) = (off, at, len);
                if how == How::Vector {
                    *vector = [[at, len.into()], [at + half, len.into()]];
                    (raw.addr, raw.len) = ((&raw const *vector) as u64, 2);
                }
            }
        }
    }

    /// What an SQE has left in memory, once all have ended.
    pub fn tell(&mut self, user_data: u64, op: FileOp, keep: &Keep, data: &[u8]) {
        let at = |at: usize, len| {
            let word = &keep.attributes[at..at + len];
            word.iter().rev().fold(0_u64, |all, &byte| all << 8 | u64::from(byte))
        };
        let what = match op {
            // What the application asks for, links, mode and size.
            FileOp::Attributes { .. } => {
                format!("{:x} {} {:o} {}", at(0, 4), at(16, 4), at(28, 2), at(40, 8))
            }
            FileOp::Update { .. } => format!("{:?}", keep.numbers),
            FileOp::Transfer { write: false, .. } => format!("{:x}", checksum(data)),
            _ => return,
        };
        self.told.push(format!("{user_data}: {what}"));
    }

    fn opened(&mut self, user_data: u64, number: RawFd) -> io::Result<()> {
        let name = fs::read_link(format!("/proc/self/fd/{number}"))?;
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // SAFETY: no memory.
        let flags = [libc::F_GETFL, libc::F_GETFD].map(|what| unsafe { libc::fcntl(number, what) });
        self.told.push(format!("{user_data}: {name} {flags:x?}"));
        // SAFETY: opened for us.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(())
    }

    /// Rule *numbers*: which number an OPENAT has got depends on what else is open.
    /// The file is looked at and closed.
    ///
    /// # Errors
    /// It has got no file.
    pub fn take(&mut self, user_data: u64, res: i32) -> io::Result<i32> {
        if res < 0 || !self.opens.contains(&user_data) {
            return Ok(res);
        }
        self.opened(user_data, res)?;
        Ok(0)
    }

    /// What is left in the end, when the ring has gone: of each file its length, mode
    /// and content, and what nobody has heard the number of.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remains(&mut self) -> io::Result<Vec<String>> {
        if self.count != 0 {
            for entry in fs::read_dir("/proc/self/fd")? {
                let entry = entry?;
                let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
                let own = (FIRST..FIRST + RawFd::from(self.count)).contains(&number);
                if own || number == DIRECTORY {
                    continue;
                }
                if fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&self.path)) {
                    self.opened(0, number)?;
                }
            }
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let status = entry.metadata()?;
                let mut content = Vec::new();
                File::open(entry.path())?.take(LOOK).read_to_end(&mut content)?;
                let (name, sum) = (entry.file_name(), checksum(&content));
                let (mode, len) = (status.mode(), status.len());
                self.told.push(format!("{}: {mode:o} {len} {sum:x}", name.to_string_lossy()));
            }
        }
        self.told.sort();
        Ok(std::mem::take(&mut self.told))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        for number in [DIRECTORY].into_iter().chain(FIRST..FIRST + RawFd::from(self.count)) {
            // SAFETY: ours, or closed already.
            unsafe { libc::close(number) };
        }
        // What is left would be found by the next program.
        let _ = fs::remove_dir_all(&self.path);
    }
}
