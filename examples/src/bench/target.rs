//! The file that a bench works on: found, made or refused.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};

use super::plan::Plan;
use super::work::fill_with_noise;
use crate::cli::BenchArgs;
use crate::error::{Failure, failed, usage};
use crate::{human, stop};

/// The size of a new file when none is asked for.
pub const NEW_FILE: u64 = 128 << 20;

/// Bytes a write when a file is laid out, and a read when it is warmed.
const CHUNK: usize = 1 << 20;

/// The least alignment of O_DIRECT where the file system does not say.
const SECTOR: u32 = 512;

/// An open file, ready to be measured.
#[derive(Debug)]
pub struct Target {
    /// Open for what the plan does, with O_DIRECT if it says so.
    pub file: File,
    /// How much of it is used; at least one block.
    pub size: u64,
    /// What it is called in a heading.
    pub name: String,
}

impl Target {
    /// Finds or makes the file.
    ///
    /// # Errors
    /// What is wrong with it and what to do; an existing file is untouched then, and a new one is
    /// removed.
    pub fn open(args: &BenchArgs, plan: &Plan) -> Result<Self, Failure> {
        let target = match &args.file {
            None => Self::temporary(args.size.unwrap_or(NEW_FILE.max(plan.bs)), plan)?,
            Some(path) => match std::fs::metadata(path) {
                Ok(metadata) => Self::existing(path, &metadata, args, plan)?,
                Err(error) if error.kind() == ErrorKind::NotFound => Self::new(path, args, plan)?,
                Err(error) => return Err(failed!("cannot look at {}: {error}", path.display())),
            },
        };
        if plan.direct {
            target.check_direct(plan.bs)?;
        }
        Ok(target)
    }

    fn temporary(size: u64, plan: &Plan) -> Result<Self, Failure> {
        check_size(size, plan.bs, "the temporary file")?;
        let dir = std::env::temp_dir();
        let file = tempfile::tempfile_in(&dir).map_err(|error| {
            failed!(
                "cannot make a temporary file in {}: {error}; name a file with --file, or \
            set TMPDIR",
                dir.display()
            )
        })?;
        let name = format!("a temporary file in {}", dir.display());
        lay_out(&file, 0, size).map_err(|error| explain_full(error, &dir, size))?;
        let file = if plan.direct {
            // The file has no name: it is opened again by its descriptor.
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            open(Path::new(&link), plan, 0).map_err(|error| explain_open(&error, &dir, plan))?
        } else {
            file
        };
        Ok(Self { file, size, name })
    }

    fn new(path: &Path, args: &BenchArgs, plan: &Plan) -> Result<Self, Failure> {
        let size = args.size.unwrap_or(NEW_FILE.max(plan.bs));
        check_size(size, plan.bs, &human::path(path))?;
        let plain = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|error| failed!("cannot make {}: {error}", path.display()))?;
        let laid_out = lay_out(&plain, 0, size).map_err(|error| explain_full(error, path, size));
        let file = laid_out.and_then(|()| {
            if plan.direct {
                open(path, plan, 0).map_err(|error| explain_open(&error, path, plan))
            } else {
                Ok(plain)
            }
        });
        match file {
            Ok(file) => {
                eprintln!("annulus: made {} ({}); it is kept", path.display(), human::size(size));
                Ok(Self { file, size, name: human::path(path) })
            }
            Err(failure) => {
                // The failure that led here is what the user has to know.
                let _ = std::fs::remove_file(path);
                Err(failure)
            }
        }
    }

    fn existing(
        path: &Path,
        metadata: &std::fs::Metadata,
        args: &BenchArgs,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        let shown = path.display();
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(usage!(
                "{shown} is a directory; give a file in it: --file {}",
                path.join("bench.tmp").display()
            ));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(usage!(
                "{shown} is neither a regular file nor a block device, so blocks of it cannot be \
                addressed"
            ));
        }
        // A mounted block device is not opened exclusively: writing to it would destroy the file
        // system.
        let exclusive = if kind.is_block_device() && plan.writes() { libc::O_EXCL } else { 0 };
        let may_overwrite = args.overwrite || (kind.is_file() && metadata.len() == 0);
        if plan.writes() && !may_overwrite {
            let what = if plan.verify { "--verify" } else { plan.work_name() };
            return Err(usage!(
                "{shown} exists and is not empty, and {what} would overwrite it; add --overwrite \
                if that is meant, or name a new file"
            ));
        }
        let mut file =
            open(path, plan, exclusive).map_err(|error| explain_open(&error, path, plan))?;
        let length = file
            .seek(SeekFrom::End(0))
            .map_err(|error| failed!("cannot find the size of {shown}: {error}"))?;
        let size = match args.size {
            Some(size) => size,
            None if length == 0 && plan.writes() => NEW_FILE.max(plan.bs),
            None => length,
        };
        check_size(size, plan.bs, &human::path(path))?;
        if size > length {
            if !plan.writes() || !kind.is_file() {
                return Err(usage!(
                    "--size {size}: {shown} has only {length} bytes; use --size {length} or \
                    less, or let it be laid out under a new name"
                ));
            }
            let plain = OpenOptions::new().write(true).open(path);
            plain
                .and_then(|plain| lay_out(&plain, length, size))
                .map_err(|error| explain_full(error, path, size))?;
        }
        stop::check()?;
        Ok(Self { file, size, name: human::path(path) })
    }

    /// Reads everything once, so that no engine pays for being the first. Not more than fits the
    /// page cache well.
    ///
    /// # Errors
    /// Those of reading.
    pub fn warm(&self, most: u64) -> Result<(), Failure> {
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.size.min(most) {
            stop::check()?;
            let moved = rustix::io::pread(&self.file, &mut buffer, at)
                .map_err(|error| failed!("reading {} at offset {at}: {error}", self.name))?;
            if moved == 0 {
                break;
            }
            at += moved as u64;
        }
        Ok(())
    }

    fn check_direct(&self, bs: u64) -> Result<(), Failure> {
        let statx =
            rustix::fs::statx(&self.file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
        let known = statx.filter(|statx| statx.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
        let align = known.map_or(SECTOR, |statx| statx.stx_dio_offset_align);
        if align == 0 {
            return Err(usage!(
                "--direct: the file system of {} has no O_DIRECT; leave --direct out",
                self.name
            ));
        }
        if !bs.is_multiple_of(u64::from(align)) {
            let right = bs.next_multiple_of(u64::from(align));
            return Err(usage!(
                "--direct with --bs {bs}: {} takes multiples of {align} bytes only; use --bs \
                {right}, or leave --direct out",
                self.name
            ));
        }
        Ok(())
    }
}

/// Checks how much of something is used.
///
/// # Errors
/// [`Failure::Usage`] for less than a block.
pub fn check_size(size: u64, bs: u64, name: &str) -> Result<(), Failure> {
    if size == 0 {
        return Err(usage!(
            "{name} is empty, there is nothing to read; give a file with data, or a new name to \
            have one made"
        ));
    }
    if size < bs {
        return Err(usage!(
            "{name}: {size} bytes are less than one block; use --bs {size} or less, or \
            something larger"
        ));
    }
    Ok(())
}

fn open(path: &Path, plan: &Plan, flags: i32) -> std::io::Result<File> {
    let direct = if plan.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(plan.writes()).custom_flags(flags | direct).open(path)
}

fn explain_open(error: &std::io::Error, path: &Path, plan: &Plan) -> Failure {
    let shown = path.display();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY) if plan.writes() => {
            let what = if plan.verify { "--verify" } else { plan.work_name() };
            failed!(
                "cannot write to {shown}, as {what} has to: {error}; name a file that you may \
                write, or use --rw randread"
            )
        }
        Some(libc::EINVAL) if plan.direct => {
            failed!(
                "cannot open {shown} with O_DIRECT: its file system does not have it; leave \
                --direct out"
            )
        }
        Some(libc::EBUSY) if plan.writes() => {
            failed!("cannot write to {shown}: it is in use (mounted?)")
        }
        _ => failed!("cannot open {shown}: {error}"),
    }
}

fn explain_full(error: std::io::Error, path: &Path, size: u64) -> Failure {
    let shown = path.display();
    match error.raw_os_error() {
        _ if error.kind() == ErrorKind::Interrupted => Failure::Interrupted,
        Some(libc::ENOSPC | libc::EDQUOT) => failed!(
            "no room for {} in {shown}: {error}; use a smaller --size, or a place with more room \
            (--file, or TMPDIR)",
            human::size(size)
        ),
        Some(libc::EFBIG) => failed!(
            "{shown} may not grow to {}: {error}; use a smaller --size, or a higher `ulimit -f`",
            human::size(size)
        ),
        _ => failed!("laying out {} in {shown}: {error}", human::size(size)),
    }
}

/// Fills the file from `from` to `to` with bytes that are not zero, so that reading it reads
/// something.
fn lay_out(mut file: &File, from: u64, to: u64) -> std::io::Result<()> {
    let mut noise = vec![0; CHUNK];
    fill_with_noise(&mut noise);
    file.seek(SeekFrom::Start(from))?;
    let mut left = to - from;
    while left > 0 {
        if stop::asked() {
            return Err(ErrorKind::Interrupted.into());
        }
        let len = left.min(CHUNK as u64) as usize;
        file.write_all(&noise[..len])?;
        left -= len as u64;
    }
    Ok(())
}
