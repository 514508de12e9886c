//! The rung *test*: everything that runs on a stable toolchain, and the
//! builds that show what core does without.

use std::fs;
use std::path::Path;

use super::Context;
use super::setup::Need;
use super::step::{Show, Step};

const TARGETS: [&str; 4] = [
    "x86_64-unknown-none",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
    "thumbv7em-none-eabihf",
];

pub const NEEDS: &[Need] = &[
    Need::Target(TARGETS[0]),
    Need::Target(TARGETS[1]),
    Need::Target(TARGETS[2]),
    Need::Target(TARGETS[3]),
    Need::Program { name: "valgrind", package: "valgrind" },
];

/// Lines of a source file that can be read in one go.
const LONG: usize = 400;

pub fn steps(context: &Context) -> Vec<Step> {
    let results = Show::Lines(&["test result"]);
    let mut steps = vec![
        Step::cargo("format", "fmt --all --check"),
        Step::cargo("lints", "clippy --workspace --all-targets -- -D warnings"),
        Step::cargo("tests and doc tests", "test --workspace").show(results),
        Step::cargo("documentation", "doc --workspace --no-deps")
            .env("RUSTDOCFLAGS", "-D warnings"),
    ];
    for target in TARGETS {
        steps.push(Step::cargo(
            format!("core and hal-baremetal for {target}"),
            &format!("build -p annulus -p annulus-baremetal --target {target}"),
        ));
    }
    steps.push(no_alloc(context));
    // The first of the two commands, as a new user types it.
    steps.push(Step::cargo("build of the main job", "build --release"));
    let mut main_job = std::process::Command::new("timeout");
    main_job.args(["20", "cargo", "run", "--release"]);
    steps
        .push(Step::run("the main job, in under 20 seconds", main_job).show(Show::Lines(&["is "])));
    steps.push(Step::cargo("benches build", "bench --no-run"));
    steps.push(
        Step::cargo("instruction counts", "bench --bench instructions").show(Show::Lines(&["|"])),
    );
    let root = context.root.clone();
    steps.push(Step::check("lengths of the source files", move || lengths(&root)));
    steps
}

/// A program with core in it and nothing else: it links only if core needs
/// neither std nor a global allocator.
fn no_alloc(context: &Context) -> Step {
    let dir = context.work.join("no-alloc");
    let core = context.root.join("core");
    let manifest = format!(
        "[package]\nname = \"no-alloc\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\nannulus = {{ path = {core:?} }}\n\
         [profile.dev]\npanic = \"abort\"\n[workspace]\n"
    );
    let made = fs::create_dir_all(dir.join("src"))
        .and_then(|()| fs::write(dir.join("Cargo.toml"), manifest))
        .and_then(|()| fs::write(dir.join("src/main.rs"), include_str!("no_alloc.rs.txt")))
        // The versions that the workspace is built with, offline or not.
        .and_then(|()| {
            fs::copy(context.root.join("Cargo.lock"), dir.join("Cargo.lock")).map(|_| ())
        });
    if let Err(e) = made {
        return Step::check("a ring links without an allocator", move || Err(e.to_string()));
    }
    Step::cargo(
        "a ring links without an allocator",
        &format!("build --manifest-path {}/Cargo.toml --target x86_64-unknown-none", dir.display()),
    )
    .env("CARGO_TARGET_DIR", dir.join("target"))
}

fn lengths(root: &Path) -> Result<String, String> {
    let mut long = Vec::new();
    let mut count = 0;
    let mut folders: Vec<_> = ["core", "hal-linux", "hal-baremetal", "verification", "examples"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| e.to_string())?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                count += 1;
                let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
                let lines = text.lines().count();
                if lines > LONG {
                    let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                    long.push(format!("{name} ({lines})"));
                }
            }
        }
    }
    // A warning, not a failure: a table may be longer.
    Ok(if long.is_empty() {
        format!("{count} files, none over {LONG} lines")
    } else {
        format!("{count} files; over {LONG} lines: {}", long.join(", "))
    })
}
