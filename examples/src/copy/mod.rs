//! `annulus copy`: a file through the ring.

mod extents;
mod place;
mod transfer;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::plan::{check_block, check_depth};
use crate::cli::CopyArgs;
use crate::error::{Failure, failed, usage};
use crate::{human, output};
use extents::Chunks;
use place::Place;
use transfer::{Fault, Transfer};

/// The permission bits that a copy takes over. Setuid, setgid and sticky would mean something else
/// under a new owner.
const PERMISSIONS: u32 = 0o777;

/// Copies and reports.
///
/// # Errors
/// A request that makes no sense or is not safe; I/O that fails; Ctrl-C. DST is as it was before
/// then.
pub fn run(args: &CopyArgs) -> Result<(), Failure> {
    check_depth(args.depth)?;
    check_block("--bs", args.bs, args.depth)?;
    let begun = Instant::now();
    let (src, metadata) = open_source(&args.src)?;
    let place = Place::find(&args.src, &metadata, &args.dst, args.force)?;
    let size = metadata.len();
    let copy = place.temporary()?;
    let context = Context { src: &args.src, place: &place, size };
    // Sets the length first: what is never written stays a hole.
    copy.as_file()
        .set_len(size)
        .map_err(|error| context.explain(&Fault::Write { offset: size, error }))?;

    let mut transfer = Transfer::new(args.depth, args.bs as usize)?;
    let bar = progress(size);
    let chunks = Chunks::new(&src, size, args.bs);
    let sums = transfer
        .copy(src.as_raw_fd(), copy.as_file().as_raw_fd(), chunks, |at| bar.set_position(at))
        .map_err(|fault| context.explain(&fault))?;
    copy.as_file()
        .set_permissions(PermissionsExt::from_mode(metadata.mode() & PERMISSIONS))
        .map_err(|error| failed!("cannot set the permissions of the copy: {error}"))?;
    transfer.sync(copy.as_file().as_raw_fd()).map_err(|fault| context.explain(&fault))?;
    if !args.no_verify {
        // What is on the disk is to be read, not what is left in memory. Advice only: where it is
        // not taken, nothing is lost.
        let _ = rustix::fs::fadvise(copy.as_file().as_fd(), 0, None, rustix::fs::Advice::DontNeed);
        bar.set_message("verifying");
        transfer
            .verify(copy.as_file().as_raw_fd(), &sums, |at| bar.set_position(at))
            .map_err(|fault| context.explain(&fault))?;
    }
    bar.finish_and_clear();
    note_changes(&args.src, &src, &metadata);
    place.publish(copy)?;
    place.sync_directory(&mut transfer)?;

    let data: u64 = sums.iter().map(|sum| u64::from(sum.chunk.len)).sum();
    let seconds = begun.elapsed().as_secs_f64();
    let holes = match data == size {
        true => String::new(),
        false => format!(" ({} of data, the rest holes)", human::size(data)),
    };
    output::print(&format!(
        "copied {}{holes} to {} in {seconds:.2} s, {}\n",
        human::size(size),
        place.path().display(),
        if args.no_verify { "not verified" } else { "verified" },
    ));
    Ok(())
}

fn open_source(path: &Path) -> Result<(File, std::fs::Metadata), Failure> {
    let shown = path.display();
    let look = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed!("{shown} does not exist; nothing was copied"),
        _ => failed!("cannot open {shown}: {error}; nothing was copied"),
    };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(look)?.file_type();
    if kind.is_dir() {
        return Err(usage!(
            "{shown} is a directory; annulus copy copies one file, so name a file in it"
        ));
    }
    if !kind.is_file() {
        return Err(usage!(
            "{shown} is not a regular file; annulus copy copies regular files only"
        ));
    }
    let file = File::open(path).map_err(look)?;
    let metadata = file.metadata().map_err(look)?;
    Ok((file, metadata))
}

/// Says what happened to the source behind the copy's back. The copy itself is whole: it is what
/// was read.
fn note_changes(path: &Path, src: &File, before: &std::fs::Metadata) {
    let Ok(after) = src.metadata() else { return };
    let shown = path.display();
    if after.nlink() == 0 {
        eprintln!(
            "annulus: note: {shown} was removed while it was copied; the copy is complete and is \
            the only one left"
        );
    } else if after.len() != before.len() {
        eprintln!(
            "annulus: note: {shown} grew while it was copied; the copy has its first {} bytes, \
            copy it again for the rest",
            before.len()
        );
    } else if (after.mtime(), after.mtime_nsec()) != (before.mtime(), before.mtime_nsec()) {
        eprintln!(
            "annulus: note: {shown} was written to while it was copied; the copy may mix its old \
            and new content"
        );
    }
}

/// What a fault has to be told with.
struct Context<'a> {
    src: &'a Path,
    place: &'a Place,
    size: u64,
}

impl Context<'_> {
    fn explain(&self, fault: &Fault) -> Failure {
        let (src, dst, dir) =
            (self.src.display(), self.place.path().display(), self.place.directory().display());
        let kept = if self.place.replaces() { "is as it was before" } else { "was not made" };
        match fault {
            Fault::Interrupted => Failure::Interrupted,
            Fault::Ring(failure) => failed!("{failure}; {dst} {kept}"),
            Fault::Ended { offset } => failed!(
                "{src} shrank while it was copied: it ends at {offset}, it had {} bytes; {dst} \
                {kept}, copy again when nobody writes to it",
                self.size
            ),
            Fault::Seek { error } => {
                failed!("cannot find the holes of {src}: {error}; {dst} {kept}")
            }
            Fault::Read { offset, error } => {
                failed!("reading {src} at offset {offset}: {error}; {dst} {kept}")
            }
            Fault::Reread { offset, error } => {
                failed!("reading the copy back at offset {offset}: {error}; {dst} {kept}")
            }
            Fault::Differs { offset, expected, found } => failed!(
                "verifying: the copy differs from {src} at offset {offset} (checksum \
                {found:08x}, expected {expected:08x}); {dst} {kept}, check the disk"
            ),
            Fault::Write { offset, error } => match error.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => failed!(
                    "no room in {dir}: {error}, at {} of {}; {dst} {kept}, make room or choose \
                    another destination",
                    human::size(*offset),
                    human::size(self.size)
                ),
                Some(libc::EFBIG) => failed!(
                    "a file in {dir} may not grow to {}: {error} (`ulimit -f` or the file \
                    system's limit); {dst} {kept}",
                    human::size(self.size)
                ),
                _ => failed!("writing {dst} at offset {offset}: {error}; {dst} {kept}"),
            },
            Fault::Sync { error } => failed!("syncing {dst}: {error}; {dst} {kept}"),
        }
    }
}

fn progress(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {msg}",
    );
    // Hidden by itself when stderr is no terminal.
    ProgressBar::new(size)
        .with_style(style.expect("a valid constant template"))
        .with_message("copying")
}
