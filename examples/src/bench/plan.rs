//! The options of a bench, checked: what is wrong is said here, before anything is touched.

use std::time::Duration;

use super::verify;
use crate::buffers;
use crate::cli::{BenchArgs, Completions, Mode, Rw};
use crate::error::{Failure, usage};
use crate::human;

/// The deepest queue: the kernel's limit for the entries of a ring.
const DEEPEST: u32 = 32_768;

/// The most commands that a queue pair of an NVMe controller is given at once.
const DEEPEST_PAIR: u32 = 4095;

/// The longest measurement in seconds, a day.
const LONGEST: f64 = 86_400.0;

/// The default batch is no larger than this.
const USUAL_BATCH: u32 = 32;

/// A bench that makes sense.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Operations on a file; None: operations that do nothing.
    pub rw: Option<Rw>,
    /// Bytes an operation.
    pub bs: u64,
    /// Operations in flight at most.
    pub depth: u32,
    /// Operations a submission at most.
    pub batch: u32,
    /// Completions to wait for at once.
    pub wait: u32,
    /// How long each engine is measured.
    pub time: Duration,
    /// Bypass the page cache.
    pub direct: bool,
    /// Who drives the engine.
    pub mode: Mode,
    /// The processor of the thread that polls the submission queue.
    pub sqpoll_cpu: Option<u32>,
    /// Check the content of blocks.
    pub verify: bool,
    /// Measure the other engines too.
    pub compare: bool,
    /// Register the file and the buffers.
    pub registered: bool,
    /// Print JSON.
    pub json: bool,
    /// How completions are found; None: there is no choice, it is a file.
    pub completions: Option<Completions>,
}

impl Plan {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Failure::Usage`] saying what to give instead.
    pub fn new(args: &BenchArgs) -> Result<Self, Failure> {
        check_depth(args.depth)?;
        let batch = args.batch.unwrap_or(args.depth.min(USUAL_BATCH));
        if batch == 0 {
            return Err(usage!(
                "--batch 0: nothing would ever be submitted; give 1 or more (32 is usual)"
            ));
        }
        if batch > args.depth {
            return Err(usage!(
                "--batch {batch} is more than --depth {depth}, the operations that may be in \
                flight; use --batch {depth} or --depth {batch}",
                depth = args.depth
            ));
        }
        if !(1..=args.depth).contains(&args.wait) {
            return Err(usage!(
                "--wait {}: give at least 1 completion to wait for, and at most the {} operations \
                that --depth lets be in flight",
                args.wait,
                args.depth
            ));
        }
        if !args.time.is_finite() || args.time <= 0.0 || args.time > LONGEST {
            return Err(usage!(
                "--time {}: give the seconds to measure, more than 0 and at most {LONGEST}, as \
                in --time 3 or --time 0.5",
                args.time
            ));
        }
        if args.vfio.is_some() {
            check_controller(args)?;
        }
        if args.sqpoll_cpu.is_some() && args.mode != Mode::Sqpoll {
            return Err(usage!(
                "--sqpoll-cpu: only --mode sqpoll has a polling thread; add it, or leave \
                --sqpoll-cpu out"
            ));
        }
        if args.size == Some(0) {
            return Err(usage!(
                "--size 0: a file without blocks cannot be read or written; give a size such as \
                128M"
            ));
        }
        if !args.nop {
            check_block("--bs", args.bs, args.depth)?;
            if args.verify && args.bs < verify::SMALLEST {
                return Err(usage!(
                    "--bs {}: a block of --verify holds its offset, generation and checksum; use \
                    --bs {} or more",
                    args.bs,
                    verify::SMALLEST
                ));
            }
        }
        Ok(Self {
            rw: (!args.nop).then_some(args.rw),
            bs: if args.nop { 0 } else { args.bs },
            depth: args.depth,
            batch,
            wait: args.wait,
            time: Duration::from_secs_f64(args.time),
            direct: args.direct,
            mode: args.mode,
            sqpoll_cpu: args.sqpoll_cpu,
            verify: args.verify,
            compare: args.compare,
            registered: args.registered,
            json: args.json,
            completions: args.vfio.is_some().then_some(args.completions),
        })
    }

    /// The work's name as in JSON.
    pub fn work_name(&self) -> &'static str {
        self.rw.map_or("nop", Rw::name)
    }

    /// Whether anything is written to the file.
    pub fn writes(&self) -> bool {
        self.verify || self.rw.is_some_and(Rw::writes)
    }
}

/// Checks what a controller without a kernel driver cannot do.
fn check_controller(args: &BenchArgs) -> Result<(), Failure> {
    if args.compare {
        return Err(usage!(
            "--compare with --vfio: the kernel has no driver on a controller that VFIO has; \
            measure its block device by itself, before `annulus bind` or after `annulus unbind`: \
            annulus bench --file /dev/nvme0n1 --direct --compare, or fio"
        ));
    }
    if args.depth > DEEPEST_PAIR {
        return Err(usage!(
            "--depth {} is more than a queue pair's {DEEPEST_PAIR} commands; use --depth \
            {DEEPEST_PAIR} or less",
            args.depth
        ));
    }
    Ok(())
}

/// Checks a `--depth`.
///
/// # Errors
/// [`Failure::Usage`] saying what to give instead.
pub fn check_depth(depth: u32) -> Result<(), Failure> {
    match depth {
        0 => {
            Err(usage!("--depth 0: nothing would ever be in flight; give 1 or more (32 is usual)"))
        }
        1..=DEEPEST => Ok(()),
        _ => Err(usage!(
            "--depth {depth} is more than a ring's {DEEPEST} entries; use --depth {DEEPEST} or less"
        )),
    }
}

/// Checks the size of a block, and that a block for every operation in flight is not too much
/// memory.
///
/// # Errors
/// [`Failure::Usage`] saying what to give instead.
pub fn check_block(option: &str, bytes: u64, depth: u32) -> Result<(), Failure> {
    if bytes == 0 {
        return Err(usage!(
            "{option} 0: an operation without bytes moves nothing; give a size such as 4k"
        ));
    }
    let most = buffers::MOST / u64::from(depth);
    if bytes > most {
        return Err(usage!(
            "{option} {bytes} times --depth {depth} is more than {} of buffers; use {option} \
            {most} or less, or a smaller --depth",
            human::size(buffers::MOST)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn plan(options: &str) -> Result<Plan, String> {
        let words = ["annulus", "bench"].into_iter().chain(options.split_whitespace());
        let cli = crate::cli::Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Some(crate::cli::Command::Bench(args)) = cli.command else { unreachable!() };
        Plan::new(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_defaults_make_sense() {
        let plan = plan("").unwrap();
        assert_eq!((plan.bs, plan.depth, plan.batch), (4096, 32, 32));
        assert_eq!(super::tests::plan("--depth 4").unwrap().batch, 4);
        assert_eq!(super::tests::plan("--depth 128").unwrap().batch, 32);
        assert_eq!(super::tests::plan("--nop").unwrap().work_name(), "nop");
    }

    #[test]
    fn nonsense_is_refused_with_what_to_do() {
        for (options, words) in [
            ("--depth 0", "--depth 0: nothing would ever be in flight; give 1 or more"),
            ("--depth 40000", "use --depth 32768 or less"),
            ("--batch 0", "--batch 0: nothing would ever be submitted; give 1 or more"),
            ("--batch 64", "use --batch 32 or --depth 64"),
            ("--wait 0", "--wait 0: give at least 1 completion to wait for"),
            ("--wait 33", "at most the 32 operations that --depth lets be in flight"),
            ("--sqpoll-cpu 1", "only --mode sqpoll has a polling thread"),
            ("--bs 0", "--bs 0: an operation without bytes moves nothing; give a size such as 4k"),
            ("--bs 64M", "use --bs 33554432 or less, or a smaller --depth"),
            ("--bs 12q", "as in 4096, 4k, 1M or 2G"),
            ("--time 0", "--time 0: give the seconds to measure, more than 0"),
            ("--time nan", "give the seconds to measure"),
            ("--time inf", "give the seconds to measure"),
            ("--size 0", "--size 0: a file without blocks"),
            ("--verify --bs 63", "use --bs 64 or more"),
            ("--nop --rw read", "cannot be used with"),
            ("--overwrite", "--file"),
            ("--overwrite", "--vfio"),
            ("--namespace 2", "--vfio"),
            ("--completions polled", "--vfio"),
            ("--shadow-doorbells", "--vfio"),
            ("--vfio nvme0", "is no PCI address"),
            ("--vfio 0000:00:03.0 --completions psychic", "adaptive"),
            ("--vfio 0000:00:03.0 --direct", "cannot be used with"),
            ("--vfio 0000:00:03.0 --nop", "cannot be used with"),
            ("--vfio 0000:00:03.0 --file x", "cannot be used with"),
            ("--vfio 0000:00:03.0 --compare", "--file /dev/nvme0n1 --direct --compare"),
            ("--vfio 0000:00:03.0 --depth 4096", "use --depth 4095 or less"),
        ] {
            let message = plan(options).unwrap_err();
            assert!(message.contains(words), "{options}: {message}");
        }
    }
}
