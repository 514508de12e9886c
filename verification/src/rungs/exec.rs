//! Running commands: in a process group of their own, with a log, and not
//! past a deadline.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A command.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    dir: Option<PathBuf>,
    /// On success, lines that begin with one of these are printed.
    pub show: Vec<&'static str>,
}

impl Cmd {
    /// `program` with its arguments.
    pub fn new(program: impl Into<OsString>, args: &[&str]) -> Self {
        Self {
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: Vec::new(),
            dir: None,
            show: Vec::new(),
        }
    }

    /// Cargo of the toolchain that this program was started by.
    pub fn cargo(args: &[&str]) -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
    }

    /// Cargo of the nightly toolchain.
    pub fn nightly(args: &[&str]) -> Self {
        let mut all = vec!["run", "nightly", "cargo"];
        all.extend(args);
        Self::new("rustup", &all)
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With this in the environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// In this directory instead of the workspace's.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Prints lines that begin so.
    pub fn show(mut self, begin: &'static str) -> Self {
        self.show.push(begin);
        self
    }

    /// As one would type it.
    pub fn line(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={:?}", value));
        let words = std::iter::once(&self.program).chain(&self.args);
        let words = words.map(|word| word.to_string_lossy().into_owned());
        env.chain(words).collect::<Vec<_>>().join(" ")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        // Of the toolchain that runs us: another one would be confused by it.
        for name in ["RUSTC", "RUSTDOC", "CARGO_MAKEFLAGS", "RUSTUP_TOOLCHAIN"] {
            if self.program == *"rustup" {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.clone().unwrap_or_else(super::root));
        // So that the whole family can be ended.
        command.process_group(0);
        command
    }

    /// Runs it with its output in `log`.
    ///
    /// # Errors
    /// What went wrong, with the end of the log.
    pub fn run(&self, log: &Path, limit: Duration) -> Result<String, String> {
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let both = file.try_clone().map_err(|e| e.to_string())?;
        let mut command = self.command();
        command.stdout(file).stderr(both);
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.line()))?;
        let ended = wait(&mut child, limit).map_err(|e| e.to_string())?;
        let why = match ended {
            Some(status) if status.success() => return Ok(shown(log, &self.show)),
            Some(status) => status.to_string(),
            None => format!("stopped at the rung's time limit, after {:.0} s", limit.as_secs_f64()),
        };
        Err(format!("{why}\n  {}\n{}  (all of it: {})", self.line(), tail(log), log.display()))
    }

    /// Runs it and answers what it says on standard output, for short ones.
    ///
    /// # Errors
    /// Whatever is in the way.
    pub fn ask(&self) -> Result<String, String> {
        let output = self.command().output().map_err(|e| format!("{}: {e}", self.line()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {}\n{said}", self.line(), output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it with its standard output to be read.
    ///
    /// # Errors
    /// Of the start.
    pub fn start(&self) -> io::Result<Child> {
        self.command().stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()
    }

    /// The same, without what it says of its errors.
    ///
    /// # Errors
    /// Of the start.
    pub fn start_quietly(&self) -> io::Result<Child> {
        self.command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
    }
}

/// Waits for a child; past the limit, ends it and its family.
///
/// # Errors
/// Of the system.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            end(child);
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(if start.elapsed().as_secs() < 2 {
            5
        } else {
            50
        }));
    }
}

/// Ends a child that was started here, and everything it started.
pub fn end(child: &mut Child) {
    let group = -(child.id() as libc::pid_t);
    // SAFETY: no memory. The child leads the group and is not yet waited
    // for, so its number is nobody else's.
    unsafe { libc::kill(group, libc::SIGKILL) };
    // It has ended, or is about to.
    let _ = child.wait();
}

fn lines(log: &Path) -> Vec<String> {
    let Ok(file) = File::open(log) else { return Vec::new() };
    let read = BufReader::new(file).split(b'\n').map_while(Result::ok);
    read.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}

fn shown(log: &Path, show: &[&str]) -> String {
    let wanted = |line: &String| show.iter().any(|begin| line.trim_start().starts_with(begin));
    let text = lines(log).into_iter().filter(wanted).map(|line| format!("    {line}\n"));
    text.collect()
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    const LAST: usize = 120;
    let lines = lines(log);
    let from = lines.len().saturating_sub(LAST);
    lines[from..].iter().map(|line| format!("    | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        (dir, log)
    }

    #[test]
    fn success_shows_what_was_asked_for() {
        let (_dir, log) = log();
        let cmd = Cmd::new("sh", &["-c", "echo fault A caught; echo noise"]).show("fault");
        assert_eq!(cmd.run(&log, Duration::from_secs(10)).as_deref(), Ok("    fault A caught\n"));
    }

    #[test]
    fn failure_shows_the_command_and_the_log() {
        let (_dir, log) = log();
        let cmd = Cmd::new("sh", &["-c", "echo the reason >&2; exit 3"]);
        let why = cmd.run(&log, Duration::from_secs(10)).expect_err("it fails");
        assert!(why.contains("the reason") && why.contains("exit status: 3"), "{why}");
    }

    #[test]
    fn the_deadline_ends_the_family_too() {
        let (dir, log) = log();
        let mark = dir.path().join("mark");
        let script = format!("(sleep 2; touch {}) & sleep 60", mark.display());
        let start = Instant::now();
        let why = Cmd::new("sh", &["-c", &script])
            .run(&log, Duration::from_millis(300))
            .expect_err("it takes too long");
        assert!(why.contains("time limit"), "{why}");
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!mark.exists(), "a grandchild lived on");
    }
}
