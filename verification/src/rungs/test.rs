//! The rung `test`.

use std::fs;
use std::path::{Path, PathBuf};

use super::exec::Cmd;
use super::{Found, Step, Wishes, root, target_dir};
use super::{embedded, fixtures, kvlog};

/// Places without an operating system.
pub const TARGETS: &[&str] = &[
    "x86_64-unknown-none",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
    "thumbv7em-none-eabihf",
];

/// Lines of a source file that ask to be split.
const LONG: usize = 400;

pub fn steps(_: &Wishes) -> Vec<Step> {
    let mut steps = vec![
        Step::check("the toolchain is the oldest supported one", |_| msrv()),
        Step::command("formatting", Cmd::cargo(&["fmt", "--all", "--check"])),
        Step::command(
            "lints",
            Cmd::cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        Step::command(
            "tests",
            Cmd::cargo(&["test", "--workspace", "--no-fail-fast"]).show("test result: ok"),
        ),
    ];
    if has_features() {
        let cmd = Cmd::cargo(&["test", "--workspace", "--all-features"]);
        steps.push(Step::command("tests with every feature", cmd));
        // Alone: in the workspace's graph others turn them on.
        let cmd = Cmd::cargo(&["test", "-p", "annulus", "--no-default-features"]);
        steps.push(Step::command("core's tests without features", cmd.show("test result: ok")));
    }
    steps.push(Step::command(
        "documentation",
        Cmd::cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    ));
    for target in TARGETS {
        let args = ["build", "-p", "annulus", "-p", "annulus-baremetal", "--target", target];
        let bare = Cmd::cargo(&args).args(["--no-default-features"]);
        steps.push(Step::command(format!("no_std: {target}"), bare));
        if has_features() {
            let all = Cmd::cargo(&args).args(["--all-features"]);
            steps.push(Step::command(format!("no_std: {target}, every feature"), all));
        }
    }
    steps.push(Step::check("no alloc: core links without an allocator", fixtures::no_alloc));
    steps.extend(embedded::steps());
    steps.extend(kvlog::steps());
    steps.push(Step::check("length of files", |_| Ok(long_files())));
    steps
}

/// Whether a package has any feature to be left out.
fn has_features() -> bool {
    let metadata =
        Cmd::cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]).ask();
    let parsed = metadata.ok().and_then(|text| serde_json::from_str(&text).ok());
    let Some(serde_json::Value::Object(parsed)) = parsed else { return true };
    let packages = parsed.get("packages").and_then(|p| p.as_array());
    packages.into_iter().flatten().any(|p| p["features"].as_object().is_some_and(|f| !f.is_empty()))
}

/// `rust-version` is what is tested with.
fn msrv() -> Found {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(|e| e.to_string())?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version"));
    let wanted = line.map(|rest| rest.trim_matches([' ', '=', '"'].as_slice()).to_owned());
    let wanted = wanted.ok_or("Cargo.toml has no rust-version")?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Cmd::new(rustc, &["--version"]).ask()?;
    let version = said.split(' ').nth(1).unwrap_or_default();
    if version == wanted || version.starts_with(&format!("{wanted}.")) {
        return Ok(String::new());
    }
    Err(format!(
        "rust-version is {wanted}, and this is {said}: run with `cargo +{wanted} verify`, or raise it"
    ))
}

/// Warns of files that have grown long.
fn long_files() -> String {
    let mut files = Vec::new();
    for package in ["core", "hal-linux", "hal-baremetal", "verification", "guest", "examples"] {
        sources(&root().join(package), &mut files);
    }
    let mut text = String::new();
    for file in files {
        let lines = fs::read_to_string(&file).map_or(0, |content| content.lines().count());
        if lines > LONG {
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            text += &format!("    warning: {name} has {lines} lines, more than {LONG}\n");
        }
    }
    text
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && path != target_dir("") && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
