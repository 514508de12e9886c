//! An image that runs: started, listened to, and ended with all it has.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annulus_unikernel::script::{ASKS, BAD, FAILED, GOOD, PASSED, SCENARIO};
use serde_json::json;

use super::super::qmp::{Lines, NoLine, Qmp};
use super::super::running::{START, connected, end_with_us};
use super::machine::Machine;
use crate::rungs::exec;

/// How long an image may take to end.
const END: Duration = Duration::from_secs(10);

/// An image that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    qemu: Child,
    monitor: Qmp,
    serial: Lines,
    /// All that was said on the serial line.
    log: File,
    dir: PathBuf,
    /// How QEMU ends when the verdict is good.
    good: i32,
}

/// What came of a scenario.
#[derive(Debug)]
pub enum Ended {
    /// The image says that it is good.
    Good(String),
    /// It says that it is not, or says nothing more.
    Bad(String),
}

impl Running {
    /// Boots an image with its files in `dir`.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn start(
        machine: &Machine,
        image: &Path,
        command_line: &str,
        dir: &Path,
    ) -> Result<Self, String> {
        let at = |e: io::Error| format!("{}: {e}", dir.display());
        // Of an earlier machine: its media are not this one's.
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(at)?;
        machine.make_media(dir)?;
        let sockets = tempfile::tempdir().map_err(at)?;
        let listen = |name: &str| {
            let path = sockets.path().join(name);
            let listener = UnixListener::bind(&path).map_err(at)?;
            listener.set_nonblocking(true).map_err(at)?;
            Ok::<_, String>((listener, format!("socket,id={name},path={}", path.display())))
        };
        let (monitor, monitor_at) = listen("monitor")?;
        let (serial, serial_at) = listen("serial")?;
        let errors = File::create(dir.join("qemu.log")).map_err(at)?;
        let mut command = Command::new(machine.kind.qemu());
        command.args(machine.arguments(dir, image, command_line));
        command.args(["-chardev", &serial_at, "-serial", "chardev:serial"]);
        command.args(["-chardev", &monitor_at, "-mon", "chardev=monitor,mode=control"]);
        command.stdin(Stdio::null()).stdout(errors.try_clone().map_err(at)?).stderr(errors);
        command.process_group(0);
        // SAFETY: between fork and exec the child makes one system call,
        // which touches no memory.
        unsafe { command.pre_exec(end_with_us) };
        let mut qemu = command.spawn().map_err(|e| format!("{}: {e}", machine.kind.qemu()))?;
        let deadline = Instant::now() + START;
        let streams = connected(&serial, &mut qemu, deadline)
            .and_then(|serial| Ok((serial, connected(&monitor, &mut qemu, deadline)?)))
            .and_then(|(serial, monitor)| Ok((serial, Qmp::new(monitor)?)));
        let (serial, monitor) = match streams {
            Ok(both) => both,
            Err(why) => {
                exec::end(&mut qemu);
                return Err(format!("{why}\n{}", exec::tail(&dir.join("qemu.log"))));
            }
        };
        let log = File::create(dir.join("serial")).map_err(at)?;
        let (serial, dir, good) = (Lines::new(serial), dir.into(), machine.kind.good());
        Ok(Self { qemu, monitor, serial, log, dir, good })
    }

    /// Waits until the image says what came of the scenario.
    pub fn scenario(&mut self, words: &str, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let begin = format!("{SCENARIO}{words}");
        loop {
            let line = match self.hear(deadline) {
                Ok(line) => line,
                Err(why) => return Ended::Bad(self.lost(&why)),
            };
            if let Some(what) = line.strip_prefix(ASKS) {
                if let Err(why) = self.serve(what) {
                    return Ended::Bad(self.lost(&why));
                }
            } else if let Some(said) = line.strip_prefix(&begin) {
                if let Some(said) = said.strip_prefix(GOOD) {
                    return Ended::Good(said.trim_end_matches(')').into());
                }
                let why = said.strip_prefix(BAD).unwrap_or(said);
                return Ended::Bad(self.lost(why));
            } else if line == FAILED || line == PASSED {
                return Ended::Bad(self.lost("the image ended before"));
            }
        }
    }

    /// Waits until the image has ended by itself, and well.
    ///
    /// # Errors
    /// It has not.
    pub fn ends(mut self, left: Duration) -> Result<(), String> {
        let deadline = Instant::now() + END.min(left);
        let line = self.hear(deadline).map_err(|why| self.lost(&why))?;
        if line != PASSED {
            return Err(self.lost(&format!("its verdict is {line:?}")));
        }
        match exec::wait(&mut self.qemu, END.min(left)).map_err(|e| e.to_string())? {
            Some(status) if status.code() == Some(self.good) => Ok(()),
            Some(status) => Err(self.lost(&format!("QEMU ended with {status}"))),
            None => Err(self.lost("the image did not end the machine")),
        }
    }

    /// Does what a scenario asks for.
    fn serve(&mut self, what: &str) -> Result<(), String> {
        match what.split_once(' ') {
            Some(("unplug", device)) => {
                self.monitor.execute("device_del", json!({"id": device})).map(|_| ())
            }
            Some(("gone", device)) => {
                // It is no longer there, though QEMU may keep what it was for
                // a while.
                let there = json!({"path": "/machine/peripheral"});
                let there = self.monitor.execute("qom-list", there)?;
                match there.as_array().into_iter().flatten().any(|one| one["name"] == device) {
                    true => Err(format!("{device} is still in the machine")),
                    false => Ok(()),
                }
            }
            _ => Err(format!("the image asks for {what:?}")),
        }
    }

    fn hear(&mut self, deadline: Instant) -> Result<String, String> {
        let line = self.serial.next(deadline).map_err(|why| match why {
            NoLine::Late => "the image says nothing more".to_owned(),
            NoLine::Ended(_) => "the machine has ended by itself".to_owned(),
        })?;
        // It is there to be read; what is wrong with it is found elsewhere.
        let _ = writeln!(self.log, "{line}");
        Ok(line)
    }

    /// Why, with what the image and QEMU said last.
    fn lost(&self, why: &str) -> String {
        let (serial, qemu) = (self.dir.join("serial"), self.dir.join("qemu.log"));
        let (said, log) = (exec::tail(&serial), exec::tail(&qemu));
        format!("{why}\n{log}{said}  (all of it: {})", serial.display())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        exec::end(&mut self.qemu);
    }
}
