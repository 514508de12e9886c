//! A buffered copy of a large file from a cold cache, with sequential merge on
//! and off in turn: time, bytes, hand-overs to workers, context switches.
//!
//! `cargo bench --bench merge -- [--mib 1024] [--rounds 5] [--dir DIR]`

use annulus_linux::{Ring, opcode, types};
use rustix::fs::{Advice, fadvise};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// As the program that the seed was measured with: 64 chunks of 32 KiB.
const DEPTH: usize = 64;
const CHUNK: usize = 32 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Copy,
    Read,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Taken {
    time: Duration,
    bytes: u64,
    handovers: u64,
    merged: u64,
    used: Used,
}

/// What of the machine the process has used.
#[derive(Clone, Copy)]
struct Used {
    /// On processors.
    time: Duration,
    /// Context switches because it waited.
    switches: i64,
}

struct Options {
    mib: u64,
    rounds: usize,
    dir: PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options { mib: 1024, rounds: 5, dir: std::env::temp_dir() };
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --benches`: that it runs is enough.
        return Ok(Options { mib: 4, rounds: 1, ..options });
    }
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{arg} {text}: {e}"));
        match arg.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--mib" => options.mib = number(value()?)?.max(1),
            "--rounds" => options.rounds = number(value()?)?.max(1) as usize,
            "--dir" => options.dir = value()?.into(),
            _ => return Err(format!("unknown option {arg}; there are --mib, --rounds and --dir")),
        }
    }
    Ok(options)
}

/// A file of `mib` MiB on the disk, none of it the same twice.
fn source(path: &Path, mib: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            word.copy_from_slice(&seed.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Puts a file out of the page cache.
fn forget(file: &File) -> std::io::Result<()> {
    file.sync_all()?;
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

fn used() -> Used {
    // SAFETY: plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: room for one.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = [usage.ru_utime, usage.ru_stime]
        .map(|time| Duration::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64));
    Used { time: time[0] + time[1], switches: usage.ru_nvcsw }
}

/// Reads the source in chunks, and writes each to the target when it is there.
fn run(work: Work, merge: bool, from: &File, to: &File) -> std::io::Result<Taken> {
    let size = from.metadata()?.len();
    let mut ring = Ring::builder().merge_sequential(merge).build(2 * DEPTH as u32)?;
    let mut buffers = vec![0u8; DEPTH * CHUNK];
    let base = buffers.as_mut_ptr();
    let (from, to) = (types::Fd(from.as_raw_fd()), types::Fd(to.as_raw_fd()));
    let len = |at: u64| (size - at).min(CHUNK as u64) as u32;
    // What the chunk in each buffer is.
    let mut at = [0u64; DEPTH];
    let read = |buffer: usize, at: u64| {
        let entry = opcode::Read::new(from, base.wrapping_add(buffer * CHUNK), len(at));
        entry.offset(at).build().user_data(buffer as u64)
    };
    let before = used();
    let begun = Instant::now();
    let (mut next, mut left) = (0, size.div_ceil(CHUNK as u64));
    let mut ready: Vec<_> = (0..DEPTH).filter(|&buffer| (buffer as u64) < left).collect();
    let mut writes = Vec::with_capacity(DEPTH);
    while left > 0 {
        let mut sq = ring.submission();
        // In the order of the file, whatever order they came home in.
        writes.sort_unstable_by_key(|&buffer: &usize| at[buffer]);
        for buffer in writes.drain(..) {
            let entry = opcode::Write::new(to, base.wrapping_add(buffer * CHUNK), len(at[buffer]));
            let entry = entry.offset(at[buffer]).build().user_data((DEPTH + buffer) as u64);
            // SAFETY: a buffer is one request's at a time, and outlives the ring.
            unsafe { sq.push(&entry) }.expect("room for each buffer");
        }
        while next < size
            && let Some(buffer) = ready.pop()
        {
            at[buffer] = next;
            // SAFETY: as above.
            unsafe { sq.push(&read(buffer, next)) }.expect("room for each buffer");
            next += CHUNK as u64;
        }
        drop(sq);
        ring.submit_and_wait(1)?;
        for cqe in ring.completion() {
            let buffer = cqe.user_data() as usize % DEPTH;
            assert_eq!(cqe.result(), len(at[buffer]) as i32, "a chunk, whole");
            if work == Work::Copy && (cqe.user_data() as usize) < DEPTH {
                writes.push(buffer);
            } else {
                ready.push(buffer);
                left -= 1;
            }
        }
    }
    let time = begun.elapsed();
    let stats = ring.stats();
    // Workers that are gone have been counted.
    drop(ring);
    let after = used();
    let used = Used { time: after.time - before.time, switches: after.switches - before.switches };
    Ok(Taken { time, bytes: size, handovers: stats.handovers, merged: stats.merged, used })
}

fn same(a: &File, b: &File) -> std::io::Result<bool> {
    let size = a.metadata()?.len();
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..size).step_by(1 << 20) {
        a.read_exact_at(&mut x, at)?;
        b.read_exact_at(&mut y, at)?;
        if x != y {
            return Ok(false);
        }
    }
    Ok(b.metadata()?.len() == size)
}

fn median<T: Copy + PartialOrd>(mut of: Vec<T>) -> T {
    of.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    of[of.len() / 2]
}

fn measure(work: Work, options: &Options, dir: &Path, from: &File) -> std::io::Result<()> {
    // Off, on; on, off; ...: nobody is always the second, when the disk may
    // have had enough.
    let mut taken = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..options.rounds {
        for merge in [round % 2 == 1, round % 2 == 0] {
            let to = File::create_new(dir.join("target"))?;
            forget(from)?;
            let one = run(work, merge, from, &to)?;
            to.sync_all()?;
            if work == Work::Copy && round == 0 {
                let back = File::open(dir.join("target"))?;
                assert!(same(from, &back)?, "the copy is not the file");
            }
            std::fs::remove_file(dir.join("target"))?;
            taken[usize::from(merge)].push(one);
        }
        let last = |merge: usize| taken[merge][round].time.as_secs_f64();
        ratios.push(last(0) / last(1));
    }
    let name = if work == Work::Copy { "copy" } else { "read" };
    for (merge, taken) in ["off", "on"].into_iter().zip(&taken) {
        let of = |what: fn(&Taken) -> f64| median(taken.iter().map(what).collect());
        let times: Vec<_> = taken.iter().map(|one| one.time.as_secs_f64()).collect();
        println!(
            "| {name}, merge {merge} | {:.2} s ({:.2} to {:.2}) | {:.2} s | {} | {} | {} | {} |",
            median(times.clone()),
            times.iter().copied().fold(f64::MAX, f64::min),
            times.iter().copied().fold(0.0, f64::max),
            of(|one| one.used.time.as_secs_f64()),
            taken[0].bytes,
            of(|one| one.handovers as f64),
            of(|one| one.merged as f64),
            of(|one| one.used.switches as f64),
        );
    }
    let (least, most) = ratios.iter().fold((f64::MAX, 0f64), |(a, b), &r| (a.min(r), b.max(r)));
    println!("{name}: off takes {:.2} times as long ({least:.2} to {most:.2})", median(ratios));
    Ok(())
}

fn bench(options: &Options) -> std::io::Result<()> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let from = source(&dir.path().join("source"), options.mib)?;
    println!(
        "| work | time: median (least to greatest) | processors | bytes | hand-overs | merged | switches |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for work in [Work::Copy, Work::Read] {
        measure(work, options, dir.path(), &from)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = options().and_then(|options| bench(&options).map_err(|e| e.to_string()));
    if let Err(e) = done {
        eprintln!("{e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
