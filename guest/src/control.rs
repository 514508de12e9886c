//! The control channel: lines of text over the second serial line.
//!
//! The host speaks first only to say what to do next; whatever the guest asks
//! is answered before the host says anything else. So nothing is ever in the
//! line that the process which reads it does not expect.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::str::FromStr;

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The guest's end.
const TTY: &str = "/dev/ttyS1";

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// Set up, with the kernel's release: it waits for a word.
    Ready(String),
    /// The scenario asks for something; see [`Request`].
    Ask(Request),
    /// The scenario passed, with what it has to tell.
    Passed(String),
    /// The scenario failed: why.
    Failed(String),
}

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuest {
    /// Run the scenario of this name and with these arguments.
    Run {
        /// How long it may take.
        seconds: u64,
        /// Its name, and its arguments behind it.
        words: Vec<String>,
    },
    /// What was asked for was done; the answer, if there is one.
    Answer(String),
    /// What was asked for could not be done: why.
    Refused(String),
    /// Power off.
    Off,
}

/// What a scenario can ask the host for. Names are those of the machine's
/// plan: controllers are `nvme0`, `nvme1`, ..., namespaces `ns0`, `ns1`, ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin to take the controller away; answered when that has begun.
    Unplug(String),
    /// Wait until the controller is gone.
    Gone(String),
    /// Let the namespace's medium answer nothing more (the first request
    /// may still get through).
    Stall(String),
    /// Let it answer again.
    Resume(String),
    /// Say what the namespace's medium has done.
    Stats(String),
}

/// What a medium has done since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads done.
    pub reads: u64,
    /// Writes done.
    pub writes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Requests that failed.
    pub failed: u64,
}

impl fmt::Display for FromGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FromGuest::Ready(release) => write!(f, "ready {}", escape(release)),
            FromGuest::Ask(request) => write!(f, "ask {request}"),
            FromGuest::Passed(text) => write!(f, "passed {}", escape(text)),
            FromGuest::Failed(why) => write!(f, "failed {}", escape(why)),
        }
    }
}

impl FromStr for FromGuest {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        match word(line) {
            ("ready", rest) => Ok(FromGuest::Ready(unescape(rest))),
            ("ask", rest) => Ok(FromGuest::Ask(rest.parse()?)),
            ("passed", rest) => Ok(FromGuest::Passed(unescape(rest))),
            ("failed", rest) => Ok(FromGuest::Failed(unescape(rest))),
            _ => Err(unknown(line)),
        }
    }
}

impl fmt::Display for ToGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToGuest::Run { seconds, words } => write!(f, "run {seconds} {}", words.join(" ")),
            ToGuest::Answer(text) => write!(f, "answer {}", escape(text)),
            ToGuest::Refused(why) => write!(f, "refused {}", escape(why)),
            ToGuest::Off => f.write_str("off"),
        }
    }
}

impl FromStr for ToGuest {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        match word(line) {
            ("run", rest) => {
                let (seconds, words) = word(rest);
                let seconds = seconds.parse().map_err(|_| unknown(line))?;
                Ok(ToGuest::Run { seconds, words: words.split(' ').map(String::from).collect() })
            }
            ("answer", rest) => Ok(ToGuest::Answer(unescape(rest))),
            ("refused", rest) => Ok(ToGuest::Refused(unescape(rest))),
            ("off", "") => Ok(ToGuest::Off),
            _ => Err(unknown(line)),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Unplug(controller) => write!(f, "unplug {controller}"),
            Request::Gone(controller) => write!(f, "gone {controller}"),
            Request::Stall(namespace) => write!(f, "stall {namespace}"),
            Request::Resume(namespace) => write!(f, "resume {namespace}"),
            Request::Stats(namespace) => write!(f, "stats {namespace}"),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (verb, name) = word(line);
        let name = name.to_owned();
        match verb {
            "unplug" => Ok(Request::Unplug(name)),
            "gone" => Ok(Request::Gone(name)),
            "stall" => Ok(Request::Stall(name)),
            "resume" => Ok(Request::Resume(name)),
            "stats" => Ok(Request::Stats(name)),
            _ => Err(unknown(line)),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.reads, self.writes, self.flushes, self.failed)
    }
}

impl FromStr for Stats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [reads, writes, flushes, failed] = numbers[..] else { return Err(unknown(text)) };
        Ok(Stats { reads, writes, flushes, failed })
    }
}

fn word(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

fn unknown(line: &str) -> String {
    format!("not a line of the control channel: {line:?}")
}

/// A text of several lines in one.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    plain
}

/// The guest's end of the channel. Process 1 and the scenario that it runs
/// have one each; only the scenario's is used while it runs.
#[derive(Debug)]
pub struct Host {
    tty: File,
}

impl Host {
    /// Opens the serial line.
    ///
    /// # Errors
    /// Of the system.
    pub fn open() -> io::Result<Self> {
        let tty = File::options().read(true).write(true).open(TTY)?;
        let mut termios = tcgetattr(&tty)?;
        // Neither echo nor translation: the line is the host's.
        termios.make_raw();
        tcsetattr(&tty, OptionalActions::Now, &termios)?;
        Ok(Self { tty })
    }

    /// Says something.
    ///
    /// # Errors
    /// Of the system.
    pub fn say(&mut self, what: &FromGuest) -> io::Result<()> {
        self.tty.write_all(format!("{what}\n").as_bytes())
    }

    /// Waits for what the host says.
    ///
    /// # Errors
    /// Of the system, or a line that means nothing.
    pub fn hear(&mut self) -> io::Result<ToGuest> {
        let mut line = Vec::new();
        // One by one: what stands behind the line may be another process's.
        loop {
            let mut byte = [0];
            self.tty.read_exact(&mut byte)?;
            if byte == *b"\n" {
                break;
            }
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).parse().map_err(io::Error::other)
    }

    /// Asks for something and waits for it.
    ///
    /// # Errors
    /// Why the host refused it, or of the line.
    pub fn ask(&mut self, request: Request) -> Result<String, String> {
        let asked = request.to_string();
        self.say(&FromGuest::Ask(request)).map_err(|e| format!("{TTY}: {e}"))?;
        match self.hear().map_err(|e| format!("{TTY}: {e}"))? {
            ToGuest::Answer(text) => Ok(text),
            ToGuest::Refused(why) => Err(format!("the host could not {asked}: {why}")),
            other => Err(format!("the host answered {asked} with {other}")),
        }
    }

    /// What the namespace's medium has done.
    ///
    /// # Errors
    /// As of [`ask`](Self::ask).
    pub fn stats(&mut self, namespace: &str) -> Result<Stats, String> {
        self.ask(Request::Stats(namespace.into()))?.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_comes_back_as_it_went() {
        let stats = Stats { reads: 1, writes: 2, flushes: 3, failed: 4 };
        assert_eq!(stats.to_string().parse(), Ok(stats));
        let name = || "nvme0".to_owned();
        let requests = [
            Request::Unplug(name()),
            Request::Gone(name()),
            Request::Stall(name()),
            Request::Resume(name()),
            Request::Stats(name()),
        ];
        for request in requests {
            let line = FromGuest::Ask(request);
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        let text = || "two\nlines, a \\ and\r".to_owned();
        for line in
            [FromGuest::Ready(text()), FromGuest::Passed(text()), FromGuest::Failed(String::new())]
        {
            assert!(!line.to_string().contains('\n'));
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        let run = ToGuest::Run { seconds: 3, words: vec!["name".into(), "a=1".into()] };
        for line in [run, ToGuest::Answer(text()), ToGuest::Refused(text()), ToGuest::Off] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "ask", "ask dance nvme0", "run soon name", "[    0.000000] Linux"] {
            assert!(line.parse::<FromGuest>().is_err());
            assert!(line.parse::<ToGuest>().is_err());
        }
        assert!("1 2 3".parse::<Stats>().is_err());
    }
}
