//! What is done with whole files: names, descriptors, the table of files.

use super::super::check::{self, Desc, Kind};
use super::super::program::{Data, FIXED_FILE, Fd, Mem, Name, Slot, Sqe, op};
use super::super::world::NEVER_OPEN;
use super::{ALL, Claim, Fact, Model, Race, Thing, claim};

/// `IORING_FILE_INDEX_ALLOC`.
const ANY: u32 = u32::MAX;
/// Bytes of the attributes.
const STATUS: u64 = 256;

/// Flags with which a name may be made, or a file emptied.
const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE;

impl Model {
    /// What an SQE names must not be on its way to mean something else.
    pub(super) fn named(&self, sqe: &Sqe) -> Result<(), Race> {
        if sqe.flags & FIXED_FILE != 0 {
            self.free(&claim(Thing::Table, ALL, false))?;
        }
        let more = match &sqe.data {
            Data::Fds { list, .. } => list.as_slice(),
            _ => &[],
        };
        for fd in more.iter().chain([&sqe.fd]) {
            if let Fd::Slot(slot) = fd {
                self.free(&claim(Thing::Number(*slot), ALL, false))?;
            }
        }
        Ok(())
    }

    /// A request that is no read or write and is not refused.
    pub(super) fn whole(&mut self, sqe: &Sqe, later: bool, fact: &mut Fact) -> Result<(), Race> {
        let mut claims = Vec::new();
        let noted = match sqe.op {
            op::FILES_UPDATE => self.update(sqe, &mut claims)?,
            op::CLOSE => self.close(sqe, &mut claims)?,
            op::OPENAT => self.open_at(sqe, &mut claims)?,
            op::STATX => self.attributes(sqe, &mut claims)?,
            _ => self.range(sqe, &mut claims)?,
        };
        for claim in &claims {
            self.free(claim)?;
        }
        fact.sync = noted && !later;
        if !fact.sync {
            // What it names is looked up where it is carried out.
            self.unheld = true;
            self.busy.extend(claims);
        }
        Ok(())
    }

    /// SYNC_FILE_RANGE, FADVISE, FALLOCATE. Like the others: whether it ends
    /// at submission.
    fn range(&mut self, sqe: &Sqe, claims: &mut Vec<Claim>) -> Result<bool, Race> {
        if sqe.flags & FIXED_FILE == 0 && matches!(sqe.fd, Fd::Raw(0..NEVER_OPEN)) {
            return Err(Race("somebody else's file"));
        }
        let desc = check::resolve(sqe, self.files.as_deref(), |fd| self.desc(fd));
        if let Some(Desc { kind: Kind::Inode(i), .. }) = desc
            && sqe.op != op::SYNC_FILE_RANGE
        {
            let allocates = sqe.op == op::FALLOCATE;
            claims.push(claim(Thing::Inode(i), ALL, allocates));
            // Pages may go, and more than those.
            self.inodes[i].holey = true;
            self.inodes[i].vague |= allocates;
        }
        Ok(sqe.op == op::FADVISE && sqe.op_flags <= 2)
    }

    /// FILES_UPDATE.
    fn update(&mut self, sqe: &Sqe, claims: &mut Vec<Claim>) -> Result<bool, Race> {
        if self.unheld {
            return Err(Race("whether a worker has looked its file up"));
        }
        claims.push(claim(Thing::Table, ALL, true));
        let Data::Fds { list, edge } = &sqe.data else {
            // No memory: none is done, but the first place is still there.
            return Ok(true);
        };
        if *edge && std::mem::replace(&mut self.edge, true) {
            return Err(Race("two arrays at one edge"));
        }
        let more = sqe.len as usize > list.len();
        if more && !edge {
            return Err(Race("what is behind an array"));
        }
        if list.iter().any(|fd| matches!(fd, Fd::Raw(0..NEVER_OPEN))) {
            return Err(Race("somebody else's file"));
        }
        let list = list[..list.len().min(sqe.len as usize)].to_vec();
        let off = sqe.off as u32;
        if off != ANY {
            let fits = u64::from(off) + u64::from(sqe.len) <= self.places() as u64;
            if fits {
                self.no_pipe_goes(off as usize, list.len())?;
                self.update_files(off as usize, &list);
            }
            return Ok(true);
        }
        for fd in list {
            let (Some(desc), Some(place)) = (self.desc(fd), self.empty_place()) else { break };
            self.fill(place, desc);
        }
        Ok(true)
    }

    /// Places of the table.
    fn places(&self) -> usize {
        self.files.as_ref().map_or(0, Vec::len)
    }

    /// The place that the ring would choose.
    fn empty_place(&self) -> Option<usize> {
        let table = self.files.as_deref()?;
        let free = |&place: &usize| table[place].is_none();
        let hint = self.hint.min(table.len());
        (hint..table.len()).find(free).or_else(|| (0..hint).find(free))
    }

    fn fill(&mut self, place: usize, desc: Desc) {
        let Some(table) = &mut self.files else { return };
        if table[place].replace(desc).is_none() {
            self.hint = place + 1;
        }
    }

    /// Whoever waits for the other end of a pipe would find out some time.
    fn no_pipe_goes(&self, from: usize, count: usize) -> Result<(), Race> {
        let Some(table) = &self.files else { return Ok(()) };
        let pipe = |desc: &Option<Desc>| {
            desc.is_some_and(|desc| matches!(desc.kind, Kind::PipeR(_) | Kind::PipeW(_)))
        };
        match table.iter().skip(from).take(count).any(pipe) {
            true => Err(Race("when a pipe is let go")),
            false => Ok(()),
        }
    }

    fn close(&mut self, sqe: &Sqe, claims: &mut Vec<Claim>) -> Result<bool, Race> {
        if self.unheld {
            return Err(Race("whether a worker has looked its file up"));
        }
        if sqe.file_index() != 0 {
            claims.push(claim(Thing::Table, ALL, true));
            let place = sqe.file_index() as usize - 1;
            if place < self.places() {
                self.no_pipe_goes(place, 1)?;
                self.update_files(place, &[Fd::Raw(-1)]);
            }
            return Ok(true);
        }
        match sqe.fd {
            Fd::Raw(0..NEVER_OPEN) => Err(Race("somebody else's file")),
            Fd::Raw(_) => Ok(false),
            Fd::Slot(slot) => {
                let desc = self.slots[slot as usize].take();
                if desc.is_some_and(|d| matches!(d.kind, Kind::PipeR(_) | Kind::PipeW(_))) {
                    return Err(Race("when a pipe is let go"));
                }
                claims.push(claim(Thing::Number(slot), ALL, true));
                Ok(false)
            }
        }
    }

    /// Whether names are looked up where they are, and not elsewhere.
    fn here(&self, sqe: &Sqe) -> Result<bool, Race> {
        match sqe.fd {
            _ if sqe.data == Data::Path(Name::DevNull) => Ok(false),
            Fd::Raw(libc::AT_FDCWD) => match sqe.data {
                Data::Path(Name::Missing) => Ok(false),
                _ => Err(Race("somebody else's directory")),
            },
            Fd::Raw(0..NEVER_OPEN) => Err(Race("somebody else's file")),
            fd => Ok(self.desc(fd).is_some_and(|desc| desc.kind == Kind::Dir)),
        }
    }

    fn open_at(&mut self, sqe: &Sqe, claims: &mut Vec<Claim>) -> Result<bool, Race> {
        let Data::Path(name) = sqe.data else { return Ok(false) };
        let here = self.here(sqe)?;
        if self.setup.pool.is_some_and(|pool| self.waiting() as u32 >= pool) {
            // It could be a FIFO, so it does not take the reserve.
            return Err(Race("whether there is a request for an OPENAT"));
        }
        let flags = sqe.op_flags as i32;
        let makes = flags & MAKES != 0;
        if makes && !here && sqe.fd == Fd::Raw(libc::AT_FDCWD) {
            return Err(Race("somebody else's directory"));
        }
        claims.push(claim(Thing::Names, ALL, makes));
        if let (true, Some(i)) = (here && flags & libc::O_TRUNC != 0, name.inode()) {
            claims.push(claim(Thing::Inode(i), ALL, true));
            self.inodes[i].vague = true;
            self.inodes[i].holey = true;
        }
        if sqe.file_index() != 0 {
            if self.unheld {
                return Err(Race("whether a worker has looked its file up"));
            }
            claims.push(claim(Thing::Table, ALL, true));
            if let Some(desc) = self.opens(sqe, here, name)? {
                self.open_into(sqe.file_index(), desc)?;
            }
        }
        Ok(false)
    }

    /// A file comes into the table.
    fn open_into(&mut self, file_index: u32, desc: Desc) -> Result<(), Race> {
        let place = match file_index {
            ANY => self.empty_place(),
            _ => Some(file_index as usize - 1).filter(|&place| place < self.places()),
        };
        if let Some(place) = place {
            self.no_pipe_goes(place, 1)?;
            self.fill(place, desc);
        }
        Ok(())
    }

    /// What an OPENAT for the table opens, if anything.
    fn opens(&self, sqe: &Sqe, here: bool, name: Name) -> Result<Option<Desc>, Race> {
        let flags = sqe.op_flags as i32;
        let access = flags & libc::O_ACCMODE;
        let plain = libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK;
        if flags & !plain != 0 || access == libc::O_ACCMODE {
            return Err(Race("what such flags open"));
        }
        let kind = match name {
            Name::DevNull => Kind::Null,
            _ if !here => return Ok(None),
            Name::Missing | Name::MissingInner | Name::Through | Name::Loop | Name::Overlong => {
                return Ok(None);
            }
            _ => match name.inode() {
                Some(i) => Kind::Inode(i),
                None => return Err(Race("what such a name opens")),
            },
        };
        Ok(Some(Desc {
            // Not that slot's position, but nobody else's either.
            origin: Slot::Spare,
            kind,
            read: access != libc::O_WRONLY,
            write: access != libc::O_RDONLY,
            append: flags & libc::O_APPEND != 0,
            direct: false,
        }))
    }

    fn attributes(&mut self, sqe: &Sqe, claims: &mut Vec<Claim>) -> Result<bool, Race> {
        let Data::Path(name) = sqe.data else { return Ok(false) };
        let here = if name == Name::Empty {
            // Of the descriptor itself.
            match self.desc(sqe.fd).map(|desc| desc.kind) {
                Some(Kind::Inode(i)) => claims.push(claim(Thing::Inode(i), ALL, false)),
                Some(_) => {}
                None if matches!(sqe.fd, Fd::Raw(libc::AT_FDCWD | 0..NEVER_OPEN)) => {
                    return Err(Race("somebody else's file"));
                }
                None => {}
            }
            true
        } else {
            self.here(sqe)?
        };
        if here {
            claims.push(claim(Thing::Names, ALL, false));
            if let Some(i) = name.inode() {
                claims.push(claim(Thing::Inode(i), ALL, false));
            }
        }
        if let Some(Mem::Arena(at)) = sqe.second {
            let range = (u64::from(at), u64::from(at) + STATUS);
            claims.push(claim(Thing::Memory, range, true));
        }
        Ok(false)
    }
}
