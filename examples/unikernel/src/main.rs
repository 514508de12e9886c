//! An image that runs rings with no operating system below.
//!
//! It boots, runs the scenarios of its command line
//! ([`annulus_unikernel::script`]), tells what came of each over the serial
//! port, and ends the machine.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::result_large_err, reason = "there is no heap to put it on")]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod disks;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod place;
#[cfg(target_os = "none")]
mod ring;
#[cfg(target_os = "none")]
mod scenarios;
#[cfg(target_os = "none")]
mod second;
#[cfg(target_os = "none")]
mod text;
#[cfg(target_os = "none")]
mod traffic;

/// How an image is built.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "annulus-unikernel is an image without an operating system. Build it for its machine:\n  \
         cargo build --release -p annulus-unikernel --target x86_64-unknown-none\n  \
         cargo build --release -p annulus-unikernel --target aarch64-unknown-none\n\
         and boot it: the README says how."
    );
    std::process::ExitCode::from(2)
}

/// What the architecture calls on core 0, with interrupts on.
#[cfg(target_os = "none")]
fn main() -> ! {
    let command_line = arch::command_line();
    println!("annulus-unikernel: {command_line}");
    verdict(scenarios::run(command_line))
}

/// Says how it ended, and ends.
#[cfg(target_os = "none")]
fn verdict(good: bool) -> ! {
    use annulus_unikernel::script::{FAILED, PASSED};
    println!("{}", if good { PASSED } else { FAILED });
    arch::exit(good)
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    console::force();
    println!("PANIC on core {}: {}", arch::core(), info.message());
    if let Some(place) = info.location() {
        println!("  at {place}");
    }
    verdict(false)
}
