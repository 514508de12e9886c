//! A machine that runs: started, spoken to, and ended with all it has.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annulus_guest::control::{FromGuest, Request, Stats, ToGuest};
use serde_json::{Value, json};

use super::image;
use super::machine::Machine;
use super::qmp::{Lines, NoLine, Qmp};
use crate::rungs::exec;

/// The program that machines run in, and the package that it comes from.
pub const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// How long QEMU may take to start.
pub const START: Duration = Duration::from_secs(60);
/// What the guest may take more than a scenario's time, to say so itself.
const GRACE: Duration = Duration::from_secs(15);
/// How long a guest may take to let a device go.
const UNPLUG: Duration = Duration::from_secs(30);

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    qemu: Child,
    monitor: Qmp,
    control: Lines,
    dir: PathBuf,
}

/// What came of a scenario.
#[derive(Debug)]
pub enum Ended {
    /// The guest says that it passed.
    Passed(String),
    /// The guest says that it failed, or is not there any more.
    Failed(String),
}

impl Running {
    /// Starts the machine with its files in `dir` and waits until its guest is
    /// set up. The kernel's release.
    ///
    /// # Errors
    /// Why it does not get that far, with the end of its console.
    pub fn start(
        machine: &Machine,
        initramfs: &Path,
        dir: &Path,
        limit: Duration,
    ) -> Result<(Self, String), String> {
        let at = |e: io::Error| format!("{}: {e}", dir.display());
        let deadline = Instant::now() + limit;
        // Of an earlier machine: its media are not this one's.
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(at)?;
        machine.make_media(dir)?;
        // Sockets have short names, so they do not lie with the rest.
        let sockets = tempfile::tempdir().map_err(at)?;
        let listen = |name: &str| {
            let path = sockets.path().join(name);
            let listener = UnixListener::bind(&path).map_err(at)?;
            listener.set_nonblocking(true).map_err(at)?;
            Ok::<_, String>((listener, format!("socket,id={name},path={}", path.display())))
        };
        let (monitor, monitor_at) = listen("monitor")?;
        let (control, control_at) = listen("control")?;
        let console = format!("file,id=console,path={}", dir.join("console").display());
        let log = File::create(dir.join("qemu.log")).map_err(at)?;
        let mut command = Command::new(QEMU.0);
        command.args(machine.arguments(dir, &image::kernel(), initramfs));
        command.args(["-chardev", &console, "-serial", "chardev:console"]);
        command.args(["-chardev", &control_at, "-serial", "chardev:control"]);
        command.args(["-chardev", &monitor_at, "-mon", "chardev=monitor,mode=control"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(at)?).stderr(log);
        command.process_group(0);
        // SAFETY: between fork and exec the child makes one system call,
        // which touches no memory.
        unsafe { command.pre_exec(end_with_us) };
        let mut qemu = command.spawn().map_err(|e| format!("{}: {e}", QEMU.0))?;
        let mut connect =
            |listener| connected(listener, &mut qemu, deadline.min(Instant::now() + START));
        let streams = connect(&monitor).and_then(|monitor| Ok((monitor, connect(&control)?)));
        let streams = streams.and_then(|(monitor, control)| Ok((Qmp::new(monitor)?, control)));
        let (monitor, control) = match streams {
            Ok(both) => both,
            Err(why) => {
                exec::end(&mut qemu);
                return Err(format!("{why}\n{}", exec::tail(&dir.join("qemu.log"))));
            }
        };
        let mut running = Self { qemu, monitor, control: Lines::new(control), dir: dir.into() };
        match running.hear(deadline) {
            Ok(FromGuest::Ready(release)) => Ok((running, release)),
            Ok(other) => Err(running.lost(&format!("the guest begins with {other:?}"))),
            Err(why) => Err(running.lost(&format!("the guest is not set up: {why}"))),
        }
    }

    /// The number of QEMU's process.
    pub fn process(&self) -> u32 {
        self.qemu.id()
    }

    /// Runs a scenario: its name and arguments, within `limit`.
    pub fn run(&mut self, words: &str, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit + GRACE;
        let words = words.split(' ').map(String::from).collect();
        let run = ToGuest::Run { seconds: limit.as_secs().max(1), words };
        if let Err(why) = self.say(&run) {
            return Ended::Failed(self.lost(&why));
        }
        loop {
            let said = match self.hear(deadline) {
                Ok(FromGuest::Passed(text)) => return Ended::Passed(text),
                Ok(FromGuest::Failed(why)) => return Ended::Failed(self.lost(&why)),
                Ok(FromGuest::Ask(request)) => match self.serve(&request) {
                    Ok(text) => ToGuest::Answer(text),
                    Err(why) => ToGuest::Refused(why),
                },
                Ok(other) => return Ended::Failed(self.lost(&format!("it says {other:?}"))),
                Err(why) => return Ended::Failed(self.lost(&why)),
            };
            if let Err(why) = self.say(&said) {
                return Ended::Failed(self.lost(&why));
            }
        }
    }

    /// Has the guest power off, and waits until it is.
    ///
    /// # Errors
    /// It does not.
    pub fn off(mut self, limit: Duration) -> Result<(), String> {
        self.say(&ToGuest::Off).map_err(|why| self.lost(&why))?;
        match exec::wait(&mut self.qemu, limit).map_err(|e| e.to_string())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.lost(&format!("QEMU ended with {status}"))),
            None => Err(self.lost("the guest did not power off")),
        }
    }

    /// Does what a scenario asks for.
    fn serve(&mut self, request: &Request) -> Result<String, String> {
        match request {
            Request::Unplug(controller) => {
                self.monitor.execute("device_del", json!({"id": controller}))?;
            }
            Request::Gone(controller) => {
                let ours = |data: &Value| data["device"] == controller.as_str();
                self.monitor.event("DEVICE_DELETED", UNPLUG, ours)?;
            }
            // One byte a second is as good as none, and whatever waits goes
            // on when the limit is lifted.
            Request::Stall(namespace) => self.throttle(namespace, 1)?,
            Request::Resume(namespace) => self.throttle(namespace, 0)?,
            Request::Stats(namespace) => return Ok(self.stats(namespace)?.to_string()),
        }
        Ok(String::new())
    }

    fn throttle(&mut self, namespace: &str, bytes: u64) -> Result<(), String> {
        let limits = json!({
            "id": namespace, "bps": bytes, "bps_rd": 0, "bps_wr": 0,
            "iops": 0, "iops_rd": 0, "iops_wr": 0,
        });
        self.monitor.execute("block_set_io_throttle", limits).map(|_| ())
    }

    /// What the medium of a namespace has done, by QEMU's count.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn stats(&mut self, namespace: &str) -> Result<Stats, String> {
        let all = self.monitor.execute("query-blockstats", json!({}))?;
        let path = format!("/{namespace}");
        let own = |device: &&Value| {
            device["qdev"].as_str().is_some_and(|qdev| qdev == namespace || qdev.ends_with(&path))
        };
        let device = all.as_array().into_iter().flatten().find(own);
        let stats = &device.ok_or_else(|| format!("no medium of {namespace} in {all}"))?["stats"];
        let number = |name: &str| stats[name].as_u64().unwrap_or_default();
        Ok(Stats {
            reads: number("rd_operations"),
            writes: number("wr_operations"),
            flushes: number("flush_operations"),
            failed: ["rd", "wr", "flush", "unmap"]
                .iter()
                .map(|kind| number(&format!("failed_{kind}_operations")))
                .sum(),
        })
    }

    fn say(&mut self, what: &ToGuest) -> Result<(), String> {
        self.control.send(&what.to_string())
    }

    fn hear(&mut self, deadline: Instant) -> Result<FromGuest, String> {
        let line = self.control.next(deadline).map_err(|why| match why {
            NoLine::Late => "the guest says nothing more".to_owned(),
            NoLine::Ended(_) => "the machine has ended by itself".to_owned(),
        })?;
        line.parse()
    }

    /// Why, with what the console and QEMU said last.
    fn lost(&self, why: &str) -> String {
        let (console, qemu) = (self.dir.join("console"), self.dir.join("qemu.log"));
        let (said, log) = (exec::tail(&console), exec::tail(&qemu));
        format!("{why}\n{log}{said}  (all of it: {})", console.display())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        exec::end(&mut self.qemu);
    }
}

/// Nobody else would end it if we are killed.
pub fn end_with_us() -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until QEMU has connected to one of its sockets.
pub fn connected(
    listener: &UnixListener,
    qemu: &mut Child,
    deadline: Instant,
) -> Result<UnixStream, String> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                return stream.set_nonblocking(false).map(|()| stream).map_err(|e| e.to_string());
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.to_string()),
        }
        if let Some(status) = qemu.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("QEMU ended at once with {status}"));
        }
        if Instant::now() > deadline {
            return Err("QEMU does not open its sockets".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
