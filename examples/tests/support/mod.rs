//! Running the program and looking at what it says.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// The program with these arguments.
pub fn annulus<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    command.args(args).stdin(Stdio::null());
    command
}

/// The program with these words as arguments.
pub fn words(line: &str) -> Command {
    annulus(line.split_whitespace())
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    ended(command.output().expect("the program starts"))
}

fn ended(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Starts, does something meanwhile, and waits for the end.
pub fn meanwhile(command: &mut Command, act: impl FnOnce(&Child)) -> Ran {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    act(&child);
    ended(child.wait_with_output().expect("the program ends"))
}

/// Sends SIGINT.
pub fn interrupt(child: &Child) {
    // SAFETY: plain system call; the child is ours and not reaped yet.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
}

impl Ran {
    /// Asserts the exit code and that the message has these words.
    #[track_caller]
    pub fn fails(&self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.err.contains(message), "expected {message:?} in {self:#?}");
        assert!(self.err.lines().all(|line| !line.contains("panicked")), "{self:#?}");
    }

    /// Asserts success.
    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// The names in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Forbids the program to make files larger than this.
pub fn limit_file_size(command: &mut Command, bytes: u64) -> &mut Command {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: setrlimit may be called between fork and exec, and `limit` is copied into the
    // closure.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// Whether the tests run as root, whom permissions do not stop.
pub fn is_root() -> bool {
    // SAFETY: plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Makes the program run as an ordinary user. As root, from a copy of the program in `dir`, which
/// `nobody` can reach.
pub fn as_ordinary_user<'a>(args: impl IntoIterator<Item = &'a OsStr>, dir: &Path) -> Command {
    if !is_root() {
        return annulus(args);
    }
    let program = dir.join("annulus-for-nobody");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_annulus"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
    command
}

/// Says that this machine cannot show something, and why. Where all must be shown
/// (`CI`, as `cargo verify` understands it) that is a failure.
pub fn not_run(why: &str) {
    // Not by a macro: the test harness would keep it to itself.
    let to = &mut std::io::stderr();
    writeln!(to, "==== NOT RUN: {why}.").unwrap();
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "in CI nothing may be left out: {why}");
}

/// A small file system in memory, unmounted when dropped.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of this size, writable or not. None: mounting is not allowed here, so the test
    /// cannot be made.
    pub fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "annulus-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            not_run("mounting a tmpfs needs root");
            return None;
        }
        Some(Self { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}
