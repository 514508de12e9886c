//! 4 KiB reads of a file in the page cache, 32 at a time: into buffers that the
//! reads name, and into provided ones, from a group and from a ring of them.
//! What providing them again takes is included.
//!
//! `cargo bench --bench provided -- [--pairs 101] [--batches 200]`: each pair is
//! so many batches of the one, and right after them of the other.

use annulus_linux::{Ring, opcode, squeue, types};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Reads at a time.
const BATCH: usize = 32;
const BLOCK: usize = 4096;
/// Blocks of the file.
const BLOCKS: u64 = 4096;
const GROUP: u16 = 1;
/// The group that is a ring.
const RING: u16 = 2;

/// Where a read's buffer comes from.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The read names it.
    Plain,
    /// A group that PROVIDE_BUFFERS fills.
    Group,
    /// A ring of buffers.
    Ring,
}

/// A page of entries: a ring of buffers.
#[repr(C, align(4096))]
struct Entries([types::BufRingEntry; BATCH]);

/// A ring, a file, and a batch of buffers, all of them provided in both ways.
struct Reader {
    ring: Ring,
    file: File,
    buffers: Box<[[u8; BLOCK]; BATCH]>,
    entries: Box<Entries>,
    tail: u16,
    /// The block that is read next.
    block: u64,
}

impl Reader {
    fn new() -> std::io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        for block in 0..BLOCKS {
            let words = block.to_le_bytes().repeat(BLOCK / 8);
            file.write_all(&words)?;
        }
        let ring = Ring::builder().provided_buffers(BATCH as u32, 2).build(2 * BATCH as u32)?;
        let mut entries = Box::new(Entries([const { types::BufRingEntry::new() }; BATCH]));
        let base = entries.0.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: entries and buffers are on the heap, and let go of after the
        // ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(base, BATCH as u16, RING, 0)? };
        let buffers = vec![[0; BLOCK]; BATCH].into_boxed_slice();
        let buffers = buffers.try_into().expect("as many as that");
        let mut reader = Self { ring, file, buffers, entries, tail: 0, block: 0 };
        reader.provide();
        (0..BATCH as u16).for_each(|id| reader.fill(id));
        reader.publish();
        reader.ring.submit_and_wait(1)?;
        let provided = reader.ring.completion().next().expect("waited for it");
        assert_eq!(provided.result(), 0);
        Ok(reader)
    }

    /// Gives the group all buffers.
    fn provide(&mut self) {
        let at = self.buffers.as_mut_ptr().cast();
        let entry = opcode::ProvideBuffers::new(at, BLOCK as i32, BATCH as u16, GROUP, 0);
        // SAFETY: the buffers outlive the ring.
        unsafe { self.ring.submission().push(&entry.build().user_data(u64::MAX)) }.expect("room");
    }

    /// Puts a buffer into the ring of them.
    fn fill(&mut self, id: u16) {
        let addr = self.buffers[usize::from(id)].as_mut_ptr().expose_provenance() as u64;
        let entry = &mut self.entries.0[usize::from(self.tail) % BATCH];
        entry.set_addr(addr);
        entry.set_len(BLOCK as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let base = self.entries.0.as_mut_ptr();
        // SAFETY: the ring's tail, which is there as long as the entries. The
        // Release is for the engine's Acquire.
        unsafe {
            let tail = types::BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// One batch: each read is of a block of its own, and is looked at.
    fn batch(&mut self, kind: Kind) -> std::io::Result<()> {
        let mut queue = self.ring.submission();
        let fd = types::Fd(self.file.as_raw_fd());
        for i in 0..BATCH {
            let block = self.block;
            // Goes through all of them, in no order that is read ahead.
            self.block = (block * 1_229 + 1) % BLOCKS;
            let (at, group) = match kind {
                Kind::Plain => (self.buffers[i].as_mut_ptr(), 0),
                Kind::Group => (std::ptr::null_mut(), GROUP),
                Kind::Ring => (std::ptr::null_mut(), RING),
            };
            let mut entry = opcode::Read::new(fd, at, BLOCK as u32)
                .offset(block * BLOCK as u64)
                .buf_group(group)
                .build()
                .user_data(block << 8 | i as u64);
            if kind != Kind::Plain {
                entry = entry.flags(squeue::Flags::BUFFER_SELECT);
            }
            // SAFETY: file and buffers outlive the ring.
            unsafe { queue.push(&entry) }.expect("room for a batch");
        }
        drop(queue);
        self.ring.submit_and_wait(BATCH)?;
        for _ in 0..BATCH {
            let cqe = self.ring.completion().next().expect("waited for it");
            assert_eq!(cqe.result(), BLOCK as i32);
            let id = annulus_linux::cqueue::buffer_select(cqe.flags());
            assert_eq!(id.is_some(), kind != Kind::Plain);
            let index = id.map_or((cqe.user_data() & 0xff) as usize, usize::from);
            let said = self.buffers[index].first_chunk().map(|word| u64::from_le_bytes(*word));
            assert_eq!(said, Some(cqe.user_data() >> 8), "the block that was asked for");
            if kind == Kind::Ring {
                self.fill(id.expect("looked at above"));
            }
        }
        match kind {
            Kind::Plain => {}
            Kind::Group => {
                self.provide();
                self.ring.submit_and_wait(1)?;
                let provided = self.ring.completion().next().expect("waited for it");
                assert_eq!(provided.result(), 0);
            }
            Kind::Ring => self.publish(),
        }
        Ok(())
    }
}

fn time(reader: &mut Reader, kind: Kind, batches: usize) -> std::io::Result<Duration> {
    let begun = Instant::now();
    for _ in 0..batches {
        reader.batch(kind)?;
    }
    Ok(begun.elapsed())
}
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn bench(pairs: usize, batches: usize) -> std::io::Result<()> {
    let mut reader = Reader::new()?;
    println!("| buffers | a read | against plain, median of {pairs} pairs (middle half) |");
    println!("|---|---:|---:|");
    for (kind, name) in [
        (Kind::Plain, "plain, against itself"),
        (Kind::Group, "from a group"),
        (Kind::Ring, "from a ring"),
    ] {
        let (mut ratios, mut reads) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // The one that is looked at is the first of every second pair.
            let both = if pair % 2 == 0 { [Kind::Plain, kind] } else { [kind, Kind::Plain] };
            let first = time(&mut reader, both[0], batches)?.as_secs_f64();
            let second = time(&mut reader, both[1], batches)?.as_secs_f64();
            let (plain, other) = if pair % 2 == 0 { (first, second) } else { (second, first) };
            ratios.push(other / plain);
            reads.push(other * 1e9 / (batches * BATCH) as f64);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        println!(
            "| {name} | {:.0} ns | {:.3} ({:.3} to {:.3}) |",
            median(reads),
            ratios[pairs / 2],
            ratios[pairs / 4],
            ratios[pairs * 3 / 4],
        );
    }
    Ok(())
}

fn options() -> Result<(usize, usize), String> {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --benches`: that it runs is enough.
        return Ok((1, 2));
    }
    let (mut pairs, mut batches) = (101, 200);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let to = match arg.as_str() {
            // Cargo's own.
            "--bench" => continue,
            "--pairs" => &mut pairs,
            "--batches" => &mut batches,
            _ => return Err(format!("unknown option {arg}; there are --pairs and --batches")),
        };
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        *to = value.parse::<usize>().map_err(|e| format!("{arg} {value}: {e}"))?.max(1);
    }
    Ok((pairs, batches))
}

fn main() -> ExitCode {
    let done =
        options().and_then(|(pairs, batches)| bench(pairs, batches).map_err(|e| e.to_string()));
    if let Err(e) = done {
        eprintln!("error: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
