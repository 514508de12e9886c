//! `annulus copy`: a file or a namespace through the ring.

pub mod end;
mod extents;
mod place;
mod ring;
mod side;
mod source;
mod target;
mod transfer;

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::plan::{check_block, check_depth};
use crate::cli::CopyArgs;
use crate::device::Namespace;
use crate::error::{Failure, failed, usage};
use crate::{human, output};
use end::End;
use source::Source;
use target::Target;
use transfer::{Fault, Sum, Transfer};

/// Copies and reports.
///
/// # Errors
/// A request that makes no sense or is not safe; I/O that fails; Ctrl-C. A DST that is a file is as
/// it was before then.
pub fn run(args: &CopyArgs) -> Result<(), Failure> {
    check_depth(args.depth)?;
    check_block("--bs", args.bs, args.depth)?;
    if let End::Namespace { address, nsid } = args.dst
        && !args.force
    {
        return Err(usage!(
            "a copy would overwrite namespace {nsid} of {address}; use --force if nothing on it \
            is needed any more"
        ));
    }
    let begun = Instant::now();
    let source = Source::open(&args.src, args.size)?;
    let target = Target::find(&args.dst, &source, args.force)?;
    for namespace in [source.namespace(), target.namespace()].into_iter().flatten() {
        namespace.check_grid("--bs", args.bs)?;
    }
    let (src, dst) = (source.name(), target.name());
    let size = source.size();
    let explain = |fault: &Fault| explain(fault, &source, &target);
    target.prepare(size).map_err(|fault| explain(&fault))?;

    let mut transfer =
        Transfer::new(args.depth, args.bs as usize, source.namespace(), target.namespace())?;
    let bar = progress(size);
    let chunks = source.chunks(args.bs, target.holes());
    let sums = transfer
        .copy(source.fd(), target.fd(), chunks, |at| bar.set_position(at))
        .map_err(|fault| explain(&fault))?;
    target.permit(source.permissions())?;
    transfer.sync(target.fd()).map_err(|fault| explain(&fault))?;
    if !args.no_verify {
        target.forget();
        bar.set_message("verifying");
        transfer
            .verify(target.fd(), &sums, |at| bar.set_position(at))
            .map_err(|fault| explain(&fault))?;
    }
    bar.finish_and_clear();
    source.note_changes();
    let padding = target.namespace().map_or_else(String::new, |to| padding(to, size, &src));
    target.publish(&mut transfer)?;

    output::print(&format!(
        "copied {}{} to {dst} in {:.2} s, {}{padding}\n",
        human::size(size),
        holes(size, &sums),
        begun.elapsed().as_secs_f64(),
        if args.no_verify { "not verified" } else { "verified" },
    ));
    Ok(())
}

/// How much of it was data.
fn holes(size: u64, sums: &[Sum]) -> String {
    let data = sums.iter().filter(|sum| !sum.chunk.hole);
    let data: u64 = data.map(|sum| u64::from(sum.chunk.len)).sum();
    match data == size {
        true => String::new(),
        false => format!(" ({} of data, the rest holes)", human::size(data)),
    }
}

/// What is behind the copy on a namespace.
fn padding(namespace: &Namespace, size: u64, src: &str) -> String {
    let block = u64::from(namespace.info.block());
    match size.next_multiple_of(block) - size {
        0 => String::new(),
        zeroes => format!(
            "\nthe last {zeroes} of its last block's {block} bytes are zeroes; to get {src} back, copy \
            with --size {size}"
        ),
    }
}

fn explain(fault: &Fault, source: &Source, target: &Target) -> Failure {
    let (src, dst, kept) = (source.name(), target.name(), target.kept());
    let size = source.size();
    let read = || source.namespace().map_or_else(String::new, Namespace::last_status);
    let written = || target.namespace().map_or_else(String::new, Namespace::last_status);
    match fault {
        Fault::Interrupted => {
            if target.namespace().is_some() {
                eprintln!("annulus: note: {dst} {kept}");
            }
            Failure::Interrupted
        }
        Fault::Ring(failure) => failed!("{failure}; {dst} {kept}"),
        Fault::Ended { offset } => failed!(
            "{src} shrank while it was copied: it ends at {offset}, it had {size} bytes; {dst} \
            {kept}, copy again when nobody writes to it"
        ),
        Fault::Seek { error } => failed!("cannot find the holes of {src}: {error}; {dst} {kept}"),
        Fault::Read { offset, error } => {
            failed!("reading {src} at offset {offset}: {error}{}; {dst} {kept}", read())
        }
        Fault::Reread { offset, error } => {
            failed!("reading the copy back at offset {offset}: {error}{}; {dst} {kept}", written())
        }
        Fault::Differs { offset, expected, found } => failed!(
            "verifying: the copy differs from {src} at offset {offset} (checksum {found:08x}, \
            expected {expected:08x}); {dst} {kept}, check the disk"
        ),
        Fault::Write { offset, error } => match (target, error.raw_os_error()) {
            (Target::File(place, _), Some(libc::ENOSPC | libc::EDQUOT)) => failed!(
                "no room in {}: {error}, at {} of {}; {dst} {kept}, make room or choose another \
                destination",
                place.directory().display(),
                human::size(*offset),
                human::size(size)
            ),
            (Target::File(place, _), Some(libc::EFBIG)) => failed!(
                "a file in {} may not grow to {}: {error} (`ulimit -f` or the file system's \
                limit); {dst} {kept}",
                place.directory().display(),
                human::size(size)
            ),
            _ => failed!("writing {dst} at offset {offset}: {error}{}; {dst} {kept}", written()),
        },
        Fault::Sync { error } => failed!("syncing {dst}: {error}{}; {dst} {kept}", written()),
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
