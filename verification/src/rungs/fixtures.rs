//! Small crates that rungs build outside the workspace.

use std::fs;
use std::time::Duration;

use super::exec::Cmd;
use super::{Found, root, target_dir};

const MANIFEST: &str = r#"[package]
name = "no-alloc"
version = "0.0.0"
edition = "2024"

[dependencies]
annulus = { path = "@CORE@", default-features = false }

[profile.dev]
panic = "abort"

[workspace]
"#;

/// A program that has core and nothing else. There is no allocator: if core,
/// or anything that it needs, linked `alloc`, the compiler would refuse it.
const MAIN: &str = r#"#![no_std]
#![no_main]

use annulus::config::Config;
use annulus::engine::StaticMemory;

static MEMORY: StaticMemory<4096> = StaticMemory::new();
const CONFIG: Config = Config::new(8);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    if CONFIG.validate().is_err() || MEMORY.take().is_none() {
        panic!();
    }
    loop {}
}
"#;

/// Links core into a program without an allocator.
pub fn no_alloc(left: Duration) -> Found {
    let dir = target_dir("verify").join("no-alloc");
    let source = dir.join("src");
    let core = root().join("core").display().to_string();
    let error = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(&source).map_err(error)?;
    fs::write(dir.join("Cargo.toml"), MANIFEST.replace("@CORE@", &core)).map_err(error)?;
    fs::write(source.join("main.rs"), MAIN).map_err(error)?;
    // The versions that the workspace has, as far as they are the same.
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).map_err(error)?;
    Cmd::cargo(&["build", "--target", "x86_64-unknown-none"])
        .env("CARGO_TARGET_DIR", target_dir("verify").join("no-alloc-target"))
        .dir(&dir)
        .run(&dir.join("log"), left)
}
