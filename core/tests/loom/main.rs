//! The loom models: every lane between an engine and everybody else, run in
//! all the orders that the C++ memory model allows, within bounds.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p annulus --release --test loom [-- NAME...]
//! ```
//!
//! First each model without a fault, which must pass; then each seeded fault
//! of `annulus::fault` with each model that `table.rs` lists for it, which
//! must fail. A fault in nobody's list, and one that is not caught, fail the
//! run. NAME chooses models and faults by a part of their names.
//!
//! The models run the crate's own code: `inline`, `sqpoll` and `served` whole
//! rings made by `engine::build`, with a scripted backend and threads of the
//! model for completers, devices and interrupt handlers; `rings`, `lane`,
//! `waits` and `workers` one part each; `messages` both.
//!
//! # What is bounded, and why that is enough
//!
//! * **Sizes.** Rings of one and two entries, one or two requests, up to four
//!   threads, two or three turns of each. Every rule here is about one word,
//!   one slot or one entry and what is next to it: full, empty, wrap-around,
//!   reuse and overtaking all happen at these sizes. The free-running indices
//!   do not pass 2^32 here; that is plain arithmetic, for the unit tests.
//! * **Preemptions.** An execution may take a running thread off its processor
//!   so many times (`table.rs`: 2, 3 or 4; `all` has no bound). Switches at a
//!   wait, a yield or an end are free, and so are stale reads: each load may
//!   see every value that the memory model allows. A race between two
//!   accesses needs one preemption, an announce-and-look-again protocol two;
//!   every fault of the list is found within its model's bound, most of them in
//!   the first few executions. `LOOM_MAX_PREEMPTIONS` raises the bounds
//!   that are lower.
//! * **Polling.** The poller's idle period is none in a model, and it looks at
//!   the clock in each round: it sleeps as often as it can. Where threads of
//!   a model spin, loom lets each see something newer after it has yielded.
//!
//! # What a model cannot say
//!
//! * loom's full fence is stronger than the language's: it also orders two
//!   threads' fences like a lock. For what the crate uses fences for (store,
//!   fence, load of the other's word, on both sides) the two agree.
//! * A load never sees a store that comes later in its own thread's program.
//!   Where that could matter (the message of a slot, overwritten by the next
//!   notice), the word is a cell under loom, which objects to any access that
//!   is not ordered.
//! * Once a thread has loaded a word and then stored to it, loom tries no order
//!   in which another thread's earlier load of that word comes after the store
//!   (loom's issues 166 and 392). `annulus::model::atomic` tries those, too, for
//!   the words of users' models; the rings' own words do not go through it: the
//!   models would take up to eighty times as many executions.
//! * The place that models sleep in has a lock, and orders more than `Park`
//!   promises; `*_unordered` run where nothing is ordered by sleeping.
//! * Plain memory of the engine (records, free lists, tables) is not watched.
//!   It has one owner; that a served engine has one at a time is watched.
//! * Orderings towards devices are argued beside their code.

#[cfg(not(loom))]
fn main() {
    println!("the models are built with RUSTFLAGS=\"--cfg loom\": cargo verify loom");
}

#[cfg(loom)]
mod harness;
#[cfg(loom)]
mod inline;
#[cfg(loom)]
mod lane;
#[cfg(loom)]
mod messages;
#[cfg(loom)]
mod polls;
#[cfg(loom)]
mod rings;
#[cfg(loom)]
mod script;
#[cfg(loom)]
mod served;
#[cfg(loom)]
mod signals;
#[cfg(loom)]
mod sqpoll;
#[cfg(loom)]
mod table;
#[cfg(loom)]
mod waits;
#[cfg(loom)]
mod workers;

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    harness::main()
}
