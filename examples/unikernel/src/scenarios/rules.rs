//! The rules of a disk: its grid, its end, what it refuses.

use annulus::errno::Errno;
use annulus::opcode;
use annulus::squeue::Entry;
use annulus::types::{Fd, Iovec};
use annulus::uapi::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
use annulus_unikernel::script::Line;

use super::Outcome;
use crate::disks::{Info, OnDisk, Scratch, Storage, Way, on_disk};
use crate::memory::Region;
use crate::ring::{App, Setup};
use crate::text;
use crate::text::Text;

/// Offsets and lengths, ranges, and what the disk refuses; on a disk that
/// cannot be written, that it is not.
pub fn rules(line: &Line<'_>) -> Outcome {
    struct Rules;
    impl OnDisk for Rules {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let info = disk.info();
            let mut memory = Region::new(4 * info.block as usize)?;
            let mut scratch = Scratch::new()?;
            let way = Way::of(line)?;
            let done = Setup::new(8).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, 8, way, &mut scratch),
                |app| match info.read_only {
                    false => writable(app, &info, &mut memory),
                    true => read_only(app, &info, &mut memory),
                },
                |_| (),
            )?;
            Ok(done.0)
        }
    }
    on_disk(&Rules, line)
}

/// A case: what it is, the request, and what it must answer.
type Case = (&'static str, Entry, i32);

fn check(app: &mut App<'_, '_>, cases: &[Case]) -> Result<usize, Text> {
    for (what, entry, wanted) in cases {
        // SAFETY: the callers' memory outlives the ring.
        let result = unsafe { app.one(*entry)? };
        if result != *wanted {
            return Err(text!("{what}: {result}, not {wanted}"));
        }
    }
    Ok(cases.len())
}

fn error(errno: Errno) -> i32 {
    errno.to_result()
}

fn writable(app: &mut App<'_, '_>, info: &Info, memory: &mut Region) -> Outcome {
    let Info { fd, block, bytes: end, .. } = *info;
    let (size, length) = (block as i32, u64::from(block));
    let base = memory.as_mut_ptr();
    let iovec = [Iovec { base: base.cast(), len: memory.len() }];
    // SAFETY: the caller's memory outlives the ring.
    unsafe { app.register_buffers(&iovec)? };
    let read = |len, at| opcode::Read::new(fd, base, len).offset(at).build();
    let write = |len, at| opcode::Write::new(fd, base, len).offset(at).build();
    let fixed =
        |addr: *mut u8, len, at| opcode::ReadFixed::new(fd, addr, len, 0).offset(at).build();
    let range = |mode| opcode::Fallocate::new(fd, length).mode(mode).offset(0).build();
    let zeroes = |mode| match info.zeroes {
        true => (range(mode), 0),
        false => (range(mode), error(Errno::EOPNOTSUPP)),
    };
    let (zero, zeroed) = zeroes(FALLOC_FL_ZERO_RANGE);
    let (hole, punched) = zeroes(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    let outside = base.wrapping_add(memory.len() - block as usize / 2);
    let of = |fd| opcode::Read::new(Fd(fd), base, block).build();
    let cases: [Case; 21] = [
        ("a block", read(block, 0), size),
        ("a block, registered", fixed(base, block, 0), size),
        ("off the grid", read(block, 1), error(Errno::EINVAL)),
        ("a part of a block", read(block - 1, 0), error(Errno::EINVAL)),
        ("a sector and a part", fixed(base, block + 4, 0), error(Errno::EINVAL)),
        ("no bytes", read(0, 0), 0),
        ("across the end", read(2 * block, end - length), size),
        ("across the end, registered", fixed(base, 2 * block, end - length), size),
        ("at the end", read(block, end), 0),
        ("past the end", read(block, end + length), 0),
        ("far past the end", read(block, 1 << 62), 0),
        ("a write across the end", write(2 * block, end - length), size),
        ("a write at the end", write(block, end), error(Errno::ENOSPC)),
        ("the current position", read(block, u64::MAX), error(Errno::EINVAL)),
        ("out of the registered buffer", fixed(outside, block, 0), error(Errno::EFAULT)),
        ("fsync", opcode::Fsync::new(fd).build(), 0),
        ("zero range", zero, zeroed),
        ("punch hole", hole, punched),
        ("allocate", range(0), error(Errno::EOPNOTSUPP)),
        ("no such disk", of(99), error(Errno::EBADF)),
        ("no disk", of(-1), error(Errno::EBADF)),
    ];
    let count = check(app, &cases)?;
    if info.zeroes {
        // What was zeroed reads as zeroes, and what is beside it does not.
        memory.fill(7);
        let cases = [
            ("two blocks of sevens", write(2 * block, 0), 2 * size),
            ("the first of them zeroed", zero, 0),
        ];
        check(app, &cases)?;
        memory.fill(1);
        check(app, &[("both read", read(2 * block, 0), 2 * size)])?;
        let (first, rest) = memory.split_at(block as usize);
        let second = &rest[..block as usize];
        if first.iter().any(|byte| *byte != 0) || second.iter().any(|byte| *byte != 7) {
            return Err(text!("zeroes are not where they should be"));
        }
    }
    Ok(text!("{count} rules hold"))
}

fn read_only(app: &mut App<'_, '_>, info: &Info, memory: &mut Region) -> Outcome {
    let Info { fd, block, .. } = *info;
    let base = memory.as_mut_ptr();
    let (size, length) = (block as i32, u64::from(block));
    let zero = opcode::Fallocate::new(fd, length).mode(FALLOC_FL_ZERO_RANGE).build();
    let count = check(
        app,
        &[
            ("a read", opcode::Read::new(fd, base, block).build(), size),
            ("a write", opcode::Write::new(fd, base, block).build(), error(Errno::EROFS)),
            ("zero range", zero, error(Errno::EROFS)),
            ("a read afterwards", opcode::Read::new(fd, base, block).build(), size),
        ],
    )?;
    Ok(text!("{count} rules of a disk that is read only hold"))
}
