//! The simulator: the real engine, and everything around it made of decisions
//! that a seed draws. No threads, no time, no files.
//!
//! An application pushes entries, enters, takes CQEs and changes tables; a
//! backend ends requests now, later, early, by polling, after wake-ups, or has
//! no room; workers and interrupts bring completions, also such as mean
//! nothing; a clock moves when nobody looks. The engine is driven by the
//! application, by a polling thread, or by both and a helper: coroutines
//! ([`drive`]). After each step the model ([`model`]) says whether the contract
//! still holds.

mod action;
mod device;
mod draw;
mod drive;
mod driven;
mod ending;
mod entry;
mod model;
mod place;
mod polls;
mod provided;
mod ring;
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use annulus::fault::Fault;
use ring::{Failure, run};
use world::Source;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only this seed, with everything that it does
    #[arg(long)]
    pub seed: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// From one seed to the next
    #[arg(long, default_value_t = 1)]
    pub stride: u64,
    /// Steps in all
    #[arg(long, default_value_t = 1_000_000)]
    pub steps: u64,
    /// Steps that are drawn for one seed
    #[arg(long, default_value_t = 600)]
    pub length: u64,
    /// Switch on a seeded fault (needs a build with --cfg annulus_faults)
    #[arg(long)]
    pub fault: Option<String>,
    /// End at the first failure without making it shorter
    #[arg(long)]
    pub no_shrink: bool,
}

/// Seeded faults that it must find.
pub const FINDS: &[Fault] = &[
    Fault::ReturnPushTwice,
    Fault::StaleTokenAccepted,
    Fault::ArmedLate,
    Fault::ReferenceIgnored,
    Fault::QueuedClearedLate,
    Fault::EndNotChecked,
    Fault::FallbackLeaked,
    Fault::OverflowNotShown,
    Fault::SubmitAllIgnored,
    Fault::FailureDoesNotStop,
    Fault::FailureNotCounted,
    Fault::RangeOnePast,
    Fault::RangeStartUnchecked,
    Fault::RangeUnchecked,
    Fault::BufferIndexOffByOne,
    Fault::PersonalityUnchecked,
    Fault::SqeFlagsUnchecked,
    Fault::UnknownOpcodeSucceeds,
    Fault::NopInjectIgnored,
    Fault::ErrorsBecomeZero,
    Fault::LateResultOffByOne,
    Fault::LateUserDataLost,
    Fault::CqeFlagsGarbage,
    Fault::OverflowLosesOne,
    Fault::RoomOfOthers,
    Fault::PublishNoWake,
    Fault::PolledEndFollowedLate,
    Fault::ReturnNoWake,
    Fault::RoomNoWake,
    Fault::MailNoWake,
    Fault::PollsNoWake,
    Fault::FreedNoWake,
    Fault::StarvedForEver,
    Fault::ClaimNoRecheck,
    Fault::HelperNoRecheck,
    Fault::PollerNoRecheck,
    Fault::RegisterTwiceSucceeds,
    Fault::UnregisterDoesNothing,
    Fault::UpdateSkipEmpties,
    Fault::UpdateCountsFailed,
    Fault::WaitForgotten,
    Fault::TimeoutForgotten,
    Fault::LastSqeLeft,
    Fault::DrainIgnored,
    Fault::DrainAfterSkip,
    Fault::ShortKeepsChain,
    Fault::FailureKeepsChain,
    Fault::HardLinkBreaks,
    Fault::SkipIgnored,
    Fault::SkippedChainSpeaks,
    Fault::CountOffByOne,
    Fault::TimeoutsCounted,
    Fault::CancelSaysNoEntry,
    Fault::GuardNotDisarmed,
    Fault::LinkTimeoutIgnored,
    Fault::UpdateKeepsTime,
    Fault::MultishotOnceMore,
    Fault::RetireBlind,
    Fault::MoreNotShown,
    Fault::MoreLost,
    Fault::PollAlwaysForgotten,
    Fault::PollAlwaysOnce,
    Fault::PollOldestFirst,
    Fault::PollUserDataKept,
    Fault::PollEventsKept,
    Fault::PollRemovedTwice,
    Fault::CancelOpIgnored,
    Fault::CancelFileIgnored,
    Fault::CancelAllEndsOne,
    Fault::BufferIdOffByOne,
    Fault::BufferNotPutBack,
    Fault::NoBufferMistold,
];

/// Runs one seed.
fn one(seed: u64, length: u64, keep: bool) -> Result<u64, Failure> {
    let (setup, mut drawn) = draw::begin(seed);
    drawn.more(length);
    run(setup, Source::Drawn(drawn), keep)
}

/// Runs seeds in this process; the last line on standard output is JSON for
/// whoever started it.
///
/// # Errors
/// No such fault.
pub fn main(options: &Options) -> std::io::Result<ExitCode> {
    crate::kernel::select_fault(options.fault.as_deref())?;
    // What panics is told of with the actions that led to it.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let (mut steps, mut seeds) = (0, 0);
    let mut seed = options.seed.unwrap_or(options.first);
    while steps < options.steps {
        seeds += 1;
        match one(seed, options.length, options.seed.is_some()) {
            Ok(taken) => steps += taken,
            Err(failure) => return Ok(failed(options, seed, steps, &failure)),
        }
        if options.seed.is_some() {
            break;
        }
        seed += options.stride;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", json!({ "steps": steps, "seeds": seeds, "seconds": seconds }));
    Ok(ExitCode::SUCCESS)
}

fn failed(options: &Options, seed: u64, steps: u64, failure: &Failure) -> ExitCode {
    let mut failure = failure.clone();
    if failure.actions.is_empty() {
        // The same again, kept this time.
        if let Err(again) = one(seed, options.length, true) {
            failure = again;
        }
    }
    let steps = steps + failure.actions.len() as u64;
    if !options.no_shrink {
        println!("seed {seed}: {}, after {} steps", failure.why, failure.actions.len());
        let small = shrink::shrink(&failure, Duration::from_secs(20));
        println!("the shortest way found:\n{small}");
    }
    let what = format!("after {steps} steps: {}", failure.why);
    println!("{}", json!({ "what": what, "program": seed, "steps": steps }));
    ExitCode::from(crate::kernel::DIFFERENT)
}
