//! One step of a rung: a command with a limit, or a look at something.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Which lines of a command's output are shown when it succeeds. All of it
/// goes to a log file; a failing command shows the end of its log.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// None.
    Nothing,
    /// Those that contain one of these.
    Lines(&'static [&'static str]),
    /// All.
    All,
}

type Check = Box<dyn FnOnce() -> Result<String, String>>;

enum What {
    Command(Command),
    Check(Check),
}

/// A part of a rung that passes or fails.
pub struct Step {
    name: String,
    what: What,
    show: Show,
}

/// What became of a step.
pub struct Outcome {
    pub name: String,
    pub took: Duration,
    /// Why it failed.
    pub failure: Option<String>,
}

/// `cargo` with arguments, separated by spaces.
pub fn cargo(arguments: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments.split_whitespace());
    // The toolchain that runs us must not choose for a `cargo +nightly`.
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    command
}

impl Step {
    /// A command that must succeed.
    pub fn run(name: impl Into<String>, command: Command) -> Self {
        Self { name: name.into(), what: What::Command(command), show: Show::Nothing }
    }

    /// `cargo` with arguments.
    pub fn cargo(name: impl Into<String>, arguments: &str) -> Self {
        Self::run(name, cargo(arguments))
    }

    /// A look at something: a word about it, or what is wrong.
    pub fn check(
        name: impl Into<String>,
        check: impl FnOnce() -> Result<String, String> + 'static,
    ) -> Self {
        Self { name: name.into(), what: What::Check(Box::new(check)), show: Show::Nothing }
    }

    /// Which lines are shown.
    pub fn show(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        if let What::Command(command) = &mut self.what {
            command.env(name, value);
        }
        self
    }

    /// The step's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Carries it out, before `deadline`, writing its output to `log`.
    pub fn carry_out(self, log: &Path, deadline: Instant) -> Outcome {
        let start = Instant::now();
        let failure = match self.what {
            What::Check(check) => match check() {
                Ok(word) => {
                    println!("    {word}");
                    None
                }
                Err(why) => Some(why),
            },
            What::Command(command) => run(command, self.show, log, deadline).err(),
        };
        Outcome { name: self.name, took: start.elapsed(), failure }
    }
}

fn run(mut command: Command, show: Show, log: &Path, deadline: Instant) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().map_err(|e| format!("no pipe: {e}"))?;
    let second = writer.try_clone().map_err(|e| format!("no pipe: {e}"))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
    let mut child = command
        .spawn()
        .map_err(|e| format!("{} did not start: {e}", command.get_program().to_string_lossy()))?;
    // The pipe ends when the last process that writes into it ends.
    drop(command);
    let path = log.to_owned();
    let copy = std::thread::spawn(move || copy_output(reader, show, &path));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => break None,
            Err(e) => return Err(format!("it cannot be waited for: {e}")),
        }
    };
    // Its children too: a hung test program must not outlive its rung. After
    // a normal end there is nobody left in the group.
    // SAFETY: a signal to a process group that we made.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
    let _ = child.wait();
    let _ = copy.join();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            Err(format!("{}; the end of {}:\n{}", ended(status), log.display(), tail(log)))
        }
        None => Err(format!(
            "the rung's time was up (--budget-scale gives it more); the end of {}:\n{}",
            log.display(),
            tail(log)
        )),
    }
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("it ended with exit code {code}"),
        None => format!("it was ended: {status}"),
    }
}

fn copy_output(reader: std::io::PipeReader, show: Show, log: &Path) {
    let Ok(mut file) = File::create(log) else {
        return;
    };
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let _ = file.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let shown = match show {
            Show::Nothing => false,
            Show::Lines(parts) => parts.iter().any(|part| text.contains(part)),
            Show::All => true,
        };
        if shown {
            println!("    {}", text.trim_end());
        }
        line.clear();
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Step::run("test", command)
    }

    #[test]
    fn failures_are_seen_and_time_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let soon = || Instant::now() + Duration::from_secs(20);
        assert!(sh("exit 0").carry_out(&log, soon()).failure.is_none());
        let failure = sh("echo the reason; exit 3").carry_out(&log, soon()).failure.unwrap();
        assert!(failure.contains("exit code 3") && failure.contains("the reason"), "{failure}");

        // A grandchild that would write for ever does not keep the step.
        let start = Instant::now();
        let late = start + Duration::from_millis(300);
        let failure = sh("(sleep 100; echo late) & sleep 100").carry_out(&log, late).failure;
        assert!(failure.unwrap().contains("time was up"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
