//! The crate that embeds Annulus from outside of the workspace, and the page
//! that tells of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::exec::Cmd;
use super::{Found, Step, root, target_dir};

/// Machines that it is built for.
const TARGETS: &[&str] =
    &["x86_64-unknown-none", "aarch64-unknown-none", "riscv64gc-unknown-none-elf"];

fn dir() -> PathBuf {
    root().join("examples/embedded")
}

/// The machine that its kernel is for, with its Debian package.
pub const QEMU: (&str, &str) = ("qemu-system-riscv64", "qemu-system-misc");

/// How long the kernel may take.
const RUN: Duration = Duration::from_secs(60);

/// Bytes of its disk, and how many of them it writes.
const DISK: u64 = 16 << 20;
const WRITTEN: usize = 4096;

fn target() -> PathBuf {
    target_dir("verify").join("embedded")
}

fn cargo(args: &[&str]) -> Cmd {
    Cmd::cargo(args).args(["--locked"]).env("CARGO_TARGET_DIR", target()).dir(dir())
}

fn kernel() -> Step {
    let args = ["build", "--release", "--features", "virt", "--target", TARGETS[2]];
    Step::command("embedded: its kernel", cargo(&args))
}

/// What the rung `test` does with it.
pub fn steps() -> Vec<Step> {
    let mut steps =
        vec![Step::check("docs/embedding.md has the code of examples/embedded", |_| page())];
    for target in TARGETS {
        let build = cargo(&["build", "--release", "--target", target]);
        steps.push(Step::command(format!("embedded: {target}"), build));
    }
    let lints = cargo(&["clippy", "--release", "--features", "virt", "--target", TARGETS[2]]);
    let lints = lints.args(["--", "-D", "warnings"]);
    steps.push(Step::command("embedded: lints, with its kernel", lints));
    let format = Cmd::cargo(&["fmt", "--check"]).dir(dir());
    steps.push(Step::command("embedded: formatting", format));
    steps
}

/// What the rung `guest` does with it.
pub fn guest_steps(wanted: impl Fn(&str) -> bool) -> Vec<Step> {
    let mut steps = vec![kernel()];
    steps.push(Step::check("embedded: verifies a read on riscv64", verifies));
    steps.push(Step::check("embedded: says that there is no disk, as it must", finds_no_disk));
    steps.retain(|_| wanted("embedded"));
    steps
}

/// Boots the kernel. What it said, or why it ended badly, with what it said.
fn boot(name: &str, more: &[String], left: Duration) -> Found {
    let kernel = target().join(TARGETS[2]).join("release/kernel");
    let machine = ["-M", "virt", "-accel", "tcg", "-bios", "none", "-m", "128M", "-nographic"];
    let modern = ["-global", "virtio-mmio.force-legacy=false", "-kernel"];
    Cmd::new(QEMU.0, &machine)
        .args(modern)
        .args([kernel])
        .args(more)
        .show("verified a read")
        .run(&target().join(name), RUN.min(left))
}

fn verifies(left: Duration) -> Found {
    let disk = target().join("disk.img");
    let error = |e: std::io::Error| format!("{}: {e}", disk.display());
    fs::File::create(&disk).and_then(|file| file.set_len(DISK)).map_err(error)?;
    let drive = format!("file={},format=raw,if=none,id=disk", disk.display());
    let device = "virtio-blk-device,drive=disk".to_owned();
    let said = boot("verifies.log", &["-drive".into(), drive, "-device".into(), device], left)?;
    if !said.contains(&format!("a disk of {DISK} bytes")) {
        return Err(format!("the kernel did not say that it has read its disk: {said}"));
    }
    // What it wrote is on the medium, too.
    let content = fs::read(&disk).map_err(error)?;
    let good = |at: usize| content[at] == if at < WRITTEN { (at % 251) as u8 } else { 0 };
    match (0..content.len()).find(|&at| !good(at)) {
        None => Ok(said),
        Some(at) => Err(format!("byte {at} of the disk is {:#x}", content[at])),
    }
}

fn finds_no_disk(left: Duration) -> Found {
    match boot("no-disk.log", &[], left) {
        Ok(said) => Err(format!("it ended well, without a disk: {said}")),
        Err(why) if why.contains("no place has a disk") => Ok(String::new()),
        Err(why) => Err(why),
    }
}

/// The page's pieces, one after the other, are the whole file.
fn page() -> Found {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{path:?}: {e}"));
    let page = read(root().join("docs/embedding.md"))?;
    same("src/lib.rs", &blocks(&page, "rust"), &read(dir().join("src/lib.rs"))?)?;
    let manifest = read(dir().join("Cargo.toml"))?;
    match blocks(&page, "toml").iter().find(|line| !manifest.lines().any(|other| other == **line)) {
        Some(line) => Err(format!("docs/embedding.md: Cargo.toml has no line `{line}`")),
        None => Ok(String::new()),
    }
}

/// The lines in a page's blocks of a language, empty ones left out.
pub(super) fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let mut inside = None;
    let mut found = Vec::new();
    for line in page.lines() {
        match (inside, line.strip_prefix("```")) {
            (None, Some(name)) => inside = Some(name),
            (Some(_), Some(_)) => inside = None,
            (Some(name), None) if name == language && !line.is_empty() => found.push(line),
            _ => {}
        }
    }
    found
}

fn same(name: &str, page: &[&str], file: &str) -> Result<(), String> {
    let file: Vec<_> = file.lines().filter(|line| !line.is_empty()).collect();
    let shorter = page.len().min(file.len());
    let at = (0..shorter).find(|&n| page[n] != file[n]).unwrap_or(shorter);
    if page.len() == file.len() && at == shorter {
        return Ok(());
    }
    let line = |lines: &[&str]| lines.get(at).map_or("nothing more".into(), |l| format!("`{l}`"));
    Err(format!(
        "docs/embedding.md is not {name}: the page has {}, the file {}; change the page",
        line(page),
        line(&file)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "text\n```rust\nfn a() {\n\n}\n```\n```toml\nb = 1\n```\n```rust\n// c\n```\n";

    #[test]
    fn pieces_are_put_together() {
        assert_eq!(blocks(PAGE, "rust"), ["fn a() {", "}", "// c"]);
        assert_eq!(blocks(PAGE, "toml"), ["b = 1"]);
        assert_eq!(same("x", &blocks(PAGE, "rust"), "fn a() {\n}\n\n// c\n"), Ok(()));
    }

    #[test]
    fn the_page_is_the_code() {
        assert_eq!(page(), Ok(String::new()));
    }

    #[test]
    fn a_difference_is_shown() {
        let pieces = blocks(PAGE, "rust");
        for (file, shown) in [
            ("fn a() {\n    b();\n}\n// c\n", "`    b();`"),
            ("fn a() {\n}\n", "nothing more"),
            ("fn a() {\n}\n// c\n// d\n", "`// d`"),
        ] {
            let why = same("x.rs", &pieces, file).expect_err("they differ");
            assert!(why.contains(shown), "{why}");
        }
    }
}
