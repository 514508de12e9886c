//! The loom models: what an image's cores, its interrupt handlers and its
//! devices say to each other, in all the orders that the C++ memory model
//! allows.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p annulus-baremetal --release --test loom [-- NAME...]
//! ```
//!
//! First each model, which must pass; then each seeded fault of
//! `annulus_baremetal::fault` with each model that [`FAULTS`](table::FAULTS)
//! lists for it, which must fail. A fault in nobody's list, and one that is not
//! caught, fail the run. Each run is a process of its own, for a model that
//! fails leaves loom's threads where they are.
//!
//! There is no bound on preemptions: every order is tried.

#[cfg(not(loom))]
fn main() {
    println!("the models are built with RUSTFLAGS=\"--cfg loom\": cargo verify loom");
}

#[cfg(loom)]
mod line;
#[cfg(loom)]
mod place;
#[cfg(loom)]
mod queue;
#[cfg(loom)]
mod table;

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    table::main()
}
