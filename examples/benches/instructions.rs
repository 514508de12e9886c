//! Instructions per operation, counted by callgrind: unlike times they repeat
//! to the last digit on any machine with the same compiler and processor
//! type.
//!
//! Every workload runs twice under valgrind, with N and with 2 N rounds; the
//! difference, divided by N, is what one round takes, set-up and valgrind's
//! own work excluded.
//!
//! `cargo bench --bench instructions` prints the table, and with `-- --write`
//! puts it into docs/performance.md.

// What is shared with the other benchmark is not all used here.
#[allow(dead_code)]
mod support;

use annulus::engine::EnterFlags;
use annulus::hal::Backend;
use annulus::nvme::{Controller, NvmeBackend, Options, QueueOptions, Tracker};
use annulus::register::Call;
use annulus::ring::lane;
use annulus::squeue::{Entry, Flags};
use annulus::types::{BufRingEntry, Fd, Fixed, Iovec};
use annulus::{config::Config, opcode};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU16, Ordering};
use support::nvme::Ready;
use support::{
    Ends, Polled, Ring, memory, nop, nop_round, null_ring, providing_ring, push_nops, reap, ring,
    submit,
};

/// Rounds of the shorter run.
const ROUNDS: u32 = 2000;
const BATCH: usize = 32;
/// Asks this program, in its second life under valgrind, for a workload.
const WORKLOAD: &str = "--workload";
const BEGIN: &str = "<!-- instructions: begin -->";
const END: &str = "<!-- instructions: end -->";

struct Workload {
    name: &'static str,
    what: &'static str,
    /// Operations a round.
    ops: usize,
    run: fn(rounds: u32),
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "nop-32",
        what: "NOP, push to reap, batch 32",
        ops: BATCH,
        run: nops::<BATCH>,
    },
    Workload { name: "nop-1", what: "NOP, push to reap, batch 1", ops: 1, run: nops::<1> },
    Workload {
        name: "ring-32",
        what: "NOP through annulus_linux::Ring, batch 32",
        ops: BATCH,
        run: ring_nops::<BATCH>,
    },
    Workload {
        name: "ring-1",
        what: "NOP through annulus_linux::Ring, batch 1",
        ops: 1,
        run: ring_nops::<1>,
    },
    Workload { name: "push", what: "push alone, batch 32", ops: BATCH, run: push },
    Workload { name: "reap", what: "reap alone, batch 32", ops: BATCH, run: reap_only },
    Workload { name: "lane", what: "SQ lane, push to take, batch 32", ops: BATCH, run: sq_lane },
    Workload {
        name: "read-32",
        what: "READ_FIXED of a registered file, null backend, batch 32",
        ops: BATCH,
        run: |rounds| reads::<BATCH>(rounds, null_ring(64, Ends::AtOnce)),
    },
    Workload {
        name: "read-1",
        what: "the same, batch 1",
        ops: 1,
        run: |rounds| reads::<1>(rounds, null_ring(64, Ends::AtOnce)),
    },
    Workload {
        name: "return-32",
        what: "the same, completed over the return list, batch 32",
        ops: BATCH,
        run: |rounds| reads::<BATCH>(rounds, null_ring(64, Ends::ByCompleter)),
    },
    Workload {
        name: "polled-32",
        what: "the same, found complete by polling, batch 32",
        ops: BATCH,
        run: |rounds| reads::<BATCH>(rounds, ring(Config::new(64), |_| Polled::new())),
    },
    Workload {
        name: "polled-32-direct",
        what: "the same, without an index array (NO_SQARRAY), batch 32",
        ops: BATCH,
        run: |rounds| {
            reads::<BATCH>(rounds, ring(Config::new(64).index_array(false), |_| Polled::new()))
        },
    },
    Workload {
        name: "polled-1",
        what: "found complete by polling, batch 1",
        ops: 1,
        run: |rounds| reads::<1>(rounds, ring(Config::new(64), |_| Polled::new())),
    },
    Workload {
        name: "nvme-32",
        what: "4 KiB READ_FIXED of an NVMe namespace, SQE push to CQE reap, batch 32",
        ops: BATCH,
        run: nvme_reads::<BATCH>,
    },
    Workload { name: "nvme-1", what: "the same, batch 1", ops: 1, run: nvme_reads::<1> },
    Workload {
        name: "plain-32",
        what: "READ of 4 KiB to a plain buffer, null backend, batch 32",
        ops: BATCH,
        run: |rounds| null_reads::<BATCH>(rounds, false),
    },
    Workload {
        name: "provided-32",
        what: "the same, to a buffer of a provided ring",
        ops: BATCH,
        run: |rounds| null_reads::<BATCH>(rounds, true),
    },
    Workload {
        name: "file-plain-32",
        what: "READ of 4 KiB of a file to a plain buffer, annulus_linux::Ring, batch 32",
        ops: BATCH,
        run: |rounds| file_reads::<BATCH>(rounds, false),
    },
    Workload {
        name: "file-provided-32",
        what: "the same, to a buffer of a provided ring",
        ops: BATCH,
        run: |rounds| file_reads::<BATCH>(rounds, true),
    },
];

fn nops<const BATCH: usize>(rounds: u32) {
    let mut ring = null_ring(64, Ends::AtOnce);
    measured(|| {
        for _ in 0..rounds {
            black_box(nop_round::<BATCH>(&mut ring));
        }
    });
}

fn ring_nops<const BATCH: usize>(rounds: u32) {
    let mut ring = annulus_linux::Ring::new(64).expect("a small ring");
    measured(|| {
        for _ in 0..rounds {
            let mut queue = ring.submission();
            for i in 0..BATCH {
                // SAFETY: a NOP points to nothing.
                unsafe { queue.push(&nop(i as u64)) }.expect("the batch fits");
            }
            drop(queue);
            let taken = ring.submit_and_wait(BATCH).expect("a NOP is taken");
            assert!(taken == BATCH);
            let (mut queue, mut sum) = (ring.completion(), 0);
            for _ in 0..BATCH {
                let cqe = queue.next().expect("waited for it");
                assert!(cqe.result() == 0);
                sum += cqe.user_data();
            }
            black_box(sum);
        }
    });
}

fn push(rounds: u32) {
    let mut ring = null_ring(64, Ends::AtOnce);
    for _ in 0..rounds {
        measured(|| push_nops::<BATCH>(&mut ring));
        submit::<BATCH>(&mut ring);
        reap::<BATCH>(&mut ring, 0);
    }
}

fn reap_only(rounds: u32) {
    let mut ring = null_ring(64, Ends::AtOnce);
    for _ in 0..rounds {
        push_nops::<BATCH>(&mut ring);
        submit::<BATCH>(&mut ring);
        black_box(measured(|| reap::<BATCH>(&mut ring, 0)));
    }
}

fn sq_lane(rounds: u32) {
    let config = Config::new(64);
    let (mut sq, mut end) =
        lane(&config, memory(config.offsets().total)).expect("a lane of a power of two");
    measured(|| {
        for _ in 0..rounds {
            let mut queue = sq.queue();
            for i in 0..BATCH {
                // SAFETY: a NOP points to nothing.
                unsafe { queue.push(&nop(i as u64)) }.expect("the batch fits");
            }
            drop(queue);
            black_box(end.take().map(|sqe| sqe.user_data).sum::<u64>());
        }
    });
}

fn reads<const BATCH: usize>(rounds: u32, mut ring: Ring<impl Backend>) {
    let mut buffer = vec![0u8; 4096];
    let at = buffer.as_mut_ptr();
    let iovecs = [Iovec { base: at, len: buffer.len() }];
    // SAFETY: the buffer outlives the last request, which ends below.
    let answers = unsafe {
        [
            ring.engine.call(Call::RegisterFiles(&[0])),
            ring.engine.call(Call::RegisterBuffers(&iovecs)),
        ]
    };
    assert_eq!(answers, [Ok(0), Ok(0)]);
    measured(move || {
        let at = black_box(at);
        for _ in 0..rounds {
            let mut queue = ring.sq.queue();
            for i in 0..BATCH as u64 {
                let entry = opcode::ReadFixed::new(Fixed(0), at, 4096, 0)
                    .offset(i * 4096)
                    .build()
                    .user_data(i);
                // SAFETY: the buffer is there until the end.
                unsafe { queue.push(&entry) }.expect("the batch fits");
            }
            drop(queue);
            submit::<BATCH>(&mut ring);
            black_box(reap::<BATCH>(&mut ring, 4096));
        }
        // The engine's end is not counted.
        (ring, buffer)
    });
}

/// Memory for reads, and a ring of it. The application's filling of that is not
/// counted.
struct Buffers {
    memory: Vec<u8>,
    base: *mut BufRingEntry,
    tail: u16,
}

/// Places of the ring, which fill its page.
const PLACES: u16 = 256;
const GROUP: u16 = 1;

impl Buffers {
    fn new() -> Self {
        #[repr(align(4096))]
        struct Page([BufRingEntry; PLACES as usize]);
        let page = Box::leak(Box::new(Page([const { BufRingEntry::new() }; PLACES as usize])));
        Self { memory: vec![0; BATCH * 4096], base: page.0.as_mut_ptr(), tail: 0 }
    }

    fn at(&mut self, index: usize) -> *mut u8 {
        self.memory[index * 4096..].as_mut_ptr()
    }

    /// Provides them all.
    fn provide(&mut self) {
        for index in 0..BATCH {
            let addr = self.at(index).expose_provenance() as u64;
            // SAFETY: one of the page's, which the ring does not look at yet.
            let entry = unsafe { &mut *self.base.add(usize::from(self.tail % PLACES)) };
            entry.set_addr(addr);
            entry.set_len(4096);
            entry.set_bid(index as u16);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the page's word, which only this writes.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn entry(&mut self, fd: i32, index: usize, provided: bool) -> Entry {
        let at = if provided { std::ptr::null_mut() } else { self.at(index) };
        let read = opcode::Read::new(Fd(fd), at, 4096).offset(index as u64 * 4096);
        match provided {
            true => read.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT),
            false => read.build(),
        }
    }
}

fn null_reads<const BATCH: usize>(rounds: u32, provided: bool) {
    let mut ring = providing_ring(64);
    let mut buffers = Buffers::new();
    let (base, entries, group) = (buffers.base, PLACES.into(), GROUP);
    let call = Call::RegisterBufRing { base, entries, group, incremental: false };
    // SAFETY: the page is leaked; the buffers outlive the last read.
    let answer = unsafe { ring.engine.call(call) };
    assert_eq!(answer, Ok(0));
    for _ in 0..rounds {
        buffers.provide();
        measured(|| {
            let mut queue = ring.sq.queue();
            for index in 0..BATCH {
                let entry = buffers.entry(0, index, provided).user_data(index as u64);
                // SAFETY: the buffer is there until the end.
                unsafe { queue.push(&entry) }.expect("the batch fits");
            }
            drop(queue);
            submit::<BATCH>(&mut ring);
            black_box(reap::<BATCH>(&mut ring, 4096));
        });
        if !provided {
            buffers.tail = buffers.tail.wrapping_sub(BATCH as u16);
        }
    }
}

fn file_reads<const BATCH: usize>(rounds: u32, provided: bool) {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(BATCH as u64 * 4096).expect("room");
    let mut ring = annulus_linux::Ring::new(64).expect("a small ring");
    let mut buffers = Buffers::new();
    let base = buffers.base.expose_provenance() as u64;
    // SAFETY: the page is leaked; the buffers outlive the last read.
    unsafe { ring.submitter().register_buf_ring_with_flags(base, PLACES, GROUP, 0) }
        .expect("a ring of buffers");
    for _ in 0..rounds {
        buffers.provide();
        measured(|| {
            let mut queue = ring.submission();
            for index in 0..BATCH {
                let entry = buffers.entry(file.as_raw_fd(), index, provided);
                // SAFETY: the buffer is there until the end.
                unsafe { queue.push(&entry) }.expect("the batch fits");
            }
            drop(queue);
            assert!(ring.submit_and_wait(BATCH).expect("reads are taken") == BATCH);
            let mut queue = ring.completion();
            for _ in 0..BATCH {
                assert!(queue.next().expect("waited for it").result() == 4096);
            }
        });
        if !provided {
            buffers.tail = buffers.tail.wrapping_sub(BATCH as u16);
        }
    }
}

/// The whole path of a read but the device's own part, which is done between
/// two counted stretches.
fn nvme_reads<const BATCH: usize>(rounds: u32) {
    let controller: &Controller<Ready> =
        Box::leak(Box::new(Controller::new(Ready::new(), Options::default()).expect("ready")));
    let trackers: Vec<_> = (0..65).map(|_| Tracker::new()).collect();
    let backend = NvmeBackend::new(controller, &QueueOptions::default(), trackers.leak(), &mut [])
        .expect("a queue pair");
    let mut ring = ring(Config::new(64).index_array(false), |_| backend);
    let mut buffer = vec![0u8; 2 * 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let at = buffer[skip..].as_mut_ptr();
    let iovecs = [Iovec { base: at, len: 4096 }];
    // SAFETY: the buffer outlives the last request, which ends below.
    let answers = unsafe {
        [
            ring.engine.call(Call::RegisterFiles(&[1])),
            ring.engine.call(Call::RegisterBuffers(&iovecs)),
        ]
    };
    assert_eq!(answers, [Ok(0), Ok(0)]);
    for _ in 0..rounds {
        measured(|| {
            let mut queue = ring.sq.queue();
            for i in 0..BATCH as u64 {
                let entry = opcode::ReadFixed::new(Fixed(0), at, 4096, 0)
                    .offset(i * 4096)
                    .build()
                    .user_data(i);
                // SAFETY: the buffer is there until the end.
                unsafe { queue.push(&entry) }.expect("the batch fits");
            }
            drop(queue);
            let batch = BATCH as u32;
            let taken = ring.engine.enter(ring.sq.ready(), 0, EnterFlags::empty(), None);
            assert!(matches!(taken, Ok(taken) if taken == batch));
        });
        controller.platform().run();
        measured(|| {
            let waited = ring.engine.enter(0, BATCH as u32, EnterFlags::GETEVENTS, None);
            assert!(waited.is_ok());
            black_box(reap::<BATCH>(&mut ring, 4096));
        });
    }
}

/// What callgrind counts: the inside of this function, and nothing else.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Instructions that callgrind saw inside [`measured`].
fn count(workload: &Workload, rounds: u32) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*measured*")
        .arg(this)
        .args([WORKLOAD, workload.name, &rounds.to_string()])
        .output()
        .map_err(|e| {
            format!(
                "cannot run valgrind: {e}\n\
                 install it (Debian, Ubuntu: apt install valgrind; Fedora: dnf install valgrind; \
                 Arch: pacman -S valgrind) and run this again"
            )
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind failed at {}:\n{said}", workload.name));
    }
    said.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .filter(|&count| count != 0)
        .ok_or_else(|| {
            format!(
                "valgrind counted nothing at {}: build with symbols (no `strip` in the profile) \
                 and run this again\n{said}",
                workload.name
            )
        })
}

fn table() -> Result<String, String> {
    let mut table = String::from("| work | instructions per operation |\n|---|---:|\n");
    for workload in WORKLOADS {
        let once = count(workload, ROUNDS)?;
        let twice = count(workload, 2 * ROUNDS)?;
        let ops = f64::from(ROUNDS) * workload.ops as f64;
        let each = twice.saturating_sub(once) as f64 / ops;
        table += &format!("| {} | {each:.1} |\n", workload.what);
    }
    Ok(table)
}

/// Replaces what is between the markers in docs/performance.md.
fn write(table: &str) -> Result<(), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        return Err(format!("{path} has no lines `{BEGIN}` and `{END}` to write between"));
    };
    std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))
        .map_err(|e| format!("cannot write {path}: {e}"))
}

/// The second life: nothing but the workload.
fn live_again(name: &str, rounds: &str) -> Result<(), String> {
    let workload = WORKLOADS.iter().find(|workload| workload.name == name);
    let (Some(workload), Ok(rounds)) = (workload, rounds.parse()) else {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        return Err(format!("{WORKLOAD} takes one of {names:?} and a number of rounds"));
    };
    (workload.run)(rounds);
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORKLOAD, name, rounds] => live_again(name, rounds),
        // `cargo test --benches`: that it runs is enough.
        _ if !args.iter().any(|arg| arg == "--bench") => {
            WORKLOADS.iter().for_each(|workload| (workload.run)(2));
            Ok(())
        }
        _ => table().and_then(|table| {
            println!("\n{table}");
            if args.iter().any(|arg| arg == "--write") { write(&table) } else { Ok(()) }
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
