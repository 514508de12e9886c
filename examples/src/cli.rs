//! The command line.

use std::path::PathBuf;

use annulus_linux::vfio::PciAddress;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::copy::end::End;
use crate::human::parse_size;

/// io_uring's contract as a library: measure it beside the kernel's own, copy through it, and drive
/// NVMe controllers with it.
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
    /// nothing behind. Also to and from namespaces of NVMe controllers
    Copy(CopyArgs),
    /// Describe an NVMe controller: limits, namespaces, health
    Info(InfoArgs),
    /// Take an NVMe controller from the kernel, so that a ring can drive it (VFIO)
    #[command(after_help = BIND_NOTES)]
    Bind(BindArgs),
    /// Give an NVMe controller back to the kernel
    #[command(after_help = UNBIND_NOTES)]
    Unbind(BindArgs),
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

/// How completions of an NVMe controller are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Completions {
    /// By looking: the least latency, and a processor that never rests
    Polled,
    /// By interrupts only
    Interrupts,
    /// By looking while there is much to do, by interrupts otherwise
    Adaptive,
}

impl Completions {
    /// The name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polled => "polled",
            Self::Interrupts => "interrupts",
            Self::Adaptive => "adaptive",
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
  With --vfio nothing is written to the namespace, unless --overwrite is given; --verify writes.

NVMe controllers:
  --vfio takes a controller that `annulus bind` has taken from the kernel. The kernel has no driver
  on it then, so --compare cannot run beside it: measure the kernel's block device by itself, with
  --file /dev/nvme0n1 --direct --compare before `annulus bind` or with fio. docs/nvme.md has it step
  by step.

Exit codes:
  0 done, 1 I/O failed, the device cannot be had, or --verify found a bad block, 2 bad request,
  130 interrupted.";

/// Options of `annulus bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_NOTES, group = ArgGroup::new("target").args(["file", "vfio"]))]
pub struct BenchArgs {
    /// File or block device to use [default: a temporary file]
    #[arg(long, value_name = "PATH", conflicts_with = "nop")]
    pub file: Option<PathBuf>,
    /// How much of the file or namespace to use [default: all of it; 128M for a new file, and for
    /// --verify on a namespace]
    #[arg(long, value_parser = parse_size, conflicts_with = "nop")]
    pub size: Option<u64>,
    /// NVMe controller to use instead of a file, by its PCI address: 0000:00:03.0
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["file", "nop", "direct"])]
    pub vfio: Option<PciAddress>,
    /// The controller's namespace
    #[arg(long, value_name = "N", default_value_t = 1, requires = "vfio")]
    pub namespace: u32,
    /// How the controller's completions are found
    #[arg(long, value_enum, default_value = "adaptive", requires = "vfio")]
    pub completions: Completions,
    /// Use the controller's shadow doorbells, if it has them
    #[arg(long, requires = "vfio")]
    pub shadow_doorbells: bool,
    /// Allow writing to a FILE that exists and is not empty, or to a namespace
    #[arg(long, requires = "target")]
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
    /// Completions to wait for at once when nothing more can start
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub wait: u32,
    /// Seconds to measure each engine
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, allow_negative_numbers = true)]
    pub time: f64,
    /// Bypass the page cache (O_DIRECT)
    #[arg(long, conflicts_with = "nop")]
    pub direct: bool,
    /// Who drives the engine
    #[arg(long, value_enum, default_value = "inline")]
    pub mode: Mode,
    /// The processor of the polling thread of --mode sqpoll [default: any]
    #[arg(long, value_name = "CPU")]
    pub sqpoll_cpu: Option<u32>,
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
A copy to a file is written to a temporary name beside DST, synced, read back and compared, and
renamed at the end: a copy that fails or is interrupted leaves DST as it was. Permission bits are
kept (not setuid, setgid and sticky), and so are holes; owner and times are the new file's own.

NVMe controllers:
  vfio:0000:00:03.0 is namespace 1 of the controller at that PCI address, vfio:0000:00:03.0/2 its
  namespace 2; `annulus bind` takes the controller from the kernel first. (A file of such a name is
  ./vfio:...)
  A copy to a namespace overwrites it from its start, so it needs --force. Its last block is padded
  with zeroes, holes are written as zeroes, what is behind the copy stays; it is flushed, read back
  and compared. One that fails or is interrupted leaves the namespace partly overwritten.
  A copy from a namespace takes the whole of it, or --size bytes; blocks of zeroes become holes of
  the file, which only its owner may read.

Exit codes:
  0 copied, 1 I/O failed or the device cannot be had, 2 bad request, 130 interrupted.";

/// Options of `annulus copy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = COPY_NOTES)]
pub struct CopyArgs {
    /// The file to copy, or vfio:ADDRESS[/NAMESPACE]
    #[arg(value_parser = OsStringValueParser::new().try_map(End::parse))]
    pub src: End,
    /// The file to make, a directory to make it in, or vfio:ADDRESS[/NAMESPACE]
    #[arg(value_parser = OsStringValueParser::new().try_map(End::parse))]
    pub dst: End,
    /// Blocks in flight at most
    #[arg(long, default_value_t = 32)]
    pub depth: u32,
    /// Bytes a read and a write: 4096, 64k, 1M
    #[arg(long, value_parser = parse_size, default_value = "1M")]
    pub bs: u64,
    /// How much of a namespace to copy [default: all of it]
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Replace DST if it exists; overwrite it if it is a namespace
    #[arg(long, short)]
    pub force: bool,
    /// Read the copy back and compare checksums; the default, here to undo an earlier --no-verify
    #[arg(long, overrides_with = "no_verify")]
    pub verify: bool,
    /// Do not read the copy back
    #[arg(long, overrides_with = "verify")]
    pub no_verify: bool,
}

const INFO_NOTES: &str = "\
The controller must be bound to vfio-pci (`annulus bind`), and nobody else may use it: it is reset
and brought up to be asked.

Exit codes:
  0 done, 1 the device cannot be had or failed, 2 bad request.";

/// Options of `annulus info`.
#[derive(Debug, Clone, Args)]
#[command(after_help = INFO_NOTES)]
pub struct InfoArgs {
    /// The controller, by its PCI address: 0000:00:03.0
    #[arg(long, value_name = "ADDRESS")]
    pub vfio: PciAddress,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const BIND_NOTES: &str = "\
A controller is refused whose namespaces are mounted, used for swap, or held by anything else (LVM,
RAID, dm-crypt, an open block device). Needs root.

Exit codes:
  0 done, 1 the device cannot be had, 2 bad request or refused.";

const UNBIND_NOTES: &str = "\
A controller is left alone while a process drives it. Needs root.

Exit codes:
  0 done, 1 the device cannot be had or is in use, 2 bad request.";

/// Options of `annulus bind` and `annulus unbind`.
#[derive(Debug, Clone, Args)]
pub struct BindArgs {
    /// The controller's PCI address, as `lspci -D` prints it: 0000:00:03.0
    pub address: PciAddress,
}
