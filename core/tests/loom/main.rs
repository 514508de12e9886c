//! The loom models.

#[cfg(not(loom))]
fn main() {
    println!("the models are built with RUSTFLAGS=\"--cfg loom\": cargo verify loom");
}

#[cfg(loom)]
mod harness;
#[cfg(loom)]
mod lane;
#[cfg(loom)]
mod place;
#[cfg(loom)]
mod rings;
#[cfg(loom)]
mod table;

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    harness::main()
}
