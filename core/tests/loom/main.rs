//! The loom models.

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
mod place;
#[cfg(loom)]
mod rings;
#[cfg(loom)]
mod script;
#[cfg(loom)]
mod served;
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
