//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::human::parse_size;

/// io_uring's contract as a library: measure it beside the kernel's own, or copy a file through it.
#[derive(Debug, Parser)]
#[command(
    name = "annulus",
    version,
    after_help = "Without a command: a short tour of the bench on a temporary file."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the ring: operations a second and latencies, alone or beside the kernel's io_uring
    /// and pread/pwrite
    Bench(BenchArgs),
    /// Copy a file through the ring: holes stay holes, the copy is verified, a failed one leaves
    /// nothing behind
    Copy(CopyArgs),
}

/// Which operations, in which order of offsets (the names are fio's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rw {
    /// Reads at random blocks
    #[value(name = "randread")]
    RandomRead,
    /// Writes at random blocks
    #[value(name = "randwrite")]
    RandomWrite,
    /// Reads from the start to the end, and again
    Read,
    /// Writes from the start to the end, and again
    Write,
    /// Random blocks, half of them read, half written
    #[value(name = "randrw")]
    RandomMix,
}

impl Rw {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::Read => "read",
            Self::Write => "write",
            Self::RandomMix => "randrw",
        }
    }

    /// Whether any operation writes.
    pub fn writes(self) -> bool {
        !matches!(self, Self::RandomRead | Self::Read)
    }

    /// Whether blocks are taken at random.
    pub fn random(self) -> bool {
        !matches!(self, Self::Read | Self::Write)
    }
}

/// Who drives the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The thread that submits: no other thread, no lock
    Inline,
    /// A thread of its own polls the submission queue
    Sqpoll,
    /// Whoever has work, under a try-lock, and a helper while the application is elsewhere
    Served,
}

impl Mode {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Sqpoll => "sqpoll",
            Self::Served => "served",
        }
    }
}

const BENCH_NOTES: &str = "\
What is measured:
  Every engine gets the same offsets, buffers and batches: fill a batch, submit it, reap what is
  there; wait only when DEPTH operations are in flight. With --compare the engines take turns in
  short rounds, so that noise hits them alike; the figures are medians of the rounds.
  pread is one pread(2) or pwrite(2) at a time, whatever --depth says; with --nop it is an empty
  pread(2) of /dev/null. With --mode sqpoll the kernel polls too (IORING_SETUP_SQPOLL); served has
  no counterpart there, so the kernel runs inline.
  Latency runs from just before an entry is written to the queue until its completion is seen. Only
  one operation in N is timed; N is chosen after a warm-up so that reading the clock costs less
  than 1 % of the time.

Safety:
  A FILE that exists is only read, unless --overwrite is given. A new FILE is created, filled and
  kept. Without --file a nameless temporary file in $TMPDIR is used: it is gone when the program
  ends, however it ends.

Exit codes:
  0 done, 1 I/O failed or --verify found a bad block, 2 bad request, 130 interrupted.";

/// Options of `annulus bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_NOTES)]
pub struct BenchArgs {
    /// File or block device to use [default: a temporary file]
    #[arg(long, value_name = "PATH", conflicts_with = "nop")]
    pub file: Option<PathBuf>,
    /// How much of the file to use [default: all of it; 128M for a new one]
    #[arg(long, value_parser = parse_size, conflicts_with = "nop")]
    pub size: Option<u64>,
    /// Allow writing to a FILE that exists and is not empty
    #[arg(long, requires = "file")]
    pub overwrite: bool,
    /// Measure the ring alone: operations that do nothing
    #[arg(long)]
    pub nop: bool,
    /// Operations and order of offsets
    #[arg(long, value_enum, default_value = "randread", conflicts_with = "nop")]
    pub rw: Rw,
    /// Bytes an operation: 4096, 4k, 1M
    #[arg(long, value_parser = parse_size, default_value = "4k", conflicts_with = "nop")]
    pub bs: u64,
    /// Operations in flight at most
    #[arg(long, default_value_t = 32)]
    pub depth: u32,
    /// Operations a submission at most [default: DEPTH, at most 32]
    #[arg(long)]
    pub batch: Option<u32>,
    /// Seconds to measure each engine
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, allow_negative_numbers = true)]
    pub time: f64,
    /// Bypass the page cache (O_DIRECT)
    #[arg(long, conflicts_with = "nop")]
    pub direct: bool,
    /// Who drives the engine
    #[arg(long, value_enum, default_value = "inline")]
    pub mode: Mode,
    /// Write checksummed blocks that know their offset and generation, and check every block read
    #[arg(long, conflicts_with = "nop")]
    pub verify: bool,
    /// Measure the kernel's io_uring and plain pread/pwrite as well
    #[arg(long)]
    pub compare: bool,
    /// Use a registered file and registered buffers
    #[arg(long, conflicts_with = "nop")]
    pub registered: bool,
    /// Print one JSON object a line for each engine instead of tables
    #[arg(long)]
    pub json: bool,
}

const COPY_NOTES: &str = "\
The copy is written to a temporary name beside DST, synced, read back and compared, and renamed at
the end: a copy that fails or is interrupted leaves DST as it was. Permission bits are kept (not
setuid, setgid and sticky), and so are holes; owner and times are the new file's own.

Exit codes:
  0 copied, 1 I/O failed, 2 bad request, 130 interrupted.";

/// Options of `annulus copy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = COPY_NOTES)]
pub struct CopyArgs {
    /// The file to copy
    pub src: PathBuf,
    /// The file to make, or a directory to make it in
    pub dst: PathBuf,
    /// Blocks in flight at most
    #[arg(long, default_value_t = 32)]
    pub depth: u32,
    /// Bytes a read and a write: 4096, 64k, 1M
    #[arg(long, value_parser = parse_size, default_value = "1M")]
    pub bs: u64,
    /// Replace DST if it exists
    #[arg(long, short)]
    pub force: bool,
    /// Read the copy back and compare checksums; the default, here to undo an earlier --no-verify
    #[arg(long, overrides_with = "no_verify")]
    pub verify: bool,
    /// Do not read the copy back
    #[arg(long, overrides_with = "verify")]
    pub no_verify: bool,
}
