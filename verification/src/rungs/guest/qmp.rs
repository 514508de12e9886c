//! QEMU's machine protocol, and lines over a socket with a deadline.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines over a socket.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    /// What came and is not yet a line.
    rest: Vec<u8>,
}

/// Why there is no line.
#[derive(Debug, PartialEq, Eq)]
pub enum NoLine {
    /// The deadline came first.
    Late,
    /// The other end is closed, or broken: how.
    Ended(String),
}

impl Lines {
    /// Over this socket.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Waits for a line until the deadline.
    ///
    /// # Errors
    /// There is none.
    pub fn next(&mut self, deadline: Instant) -> Result<String, NoLine> {
        let ended = |e: std::io::Error| NoLine::Ended(e.to_string());
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::Late);
            }
            self.stream.set_read_timeout(Some(left)).map_err(ended)?;
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return Err(NoLine::Ended("closed".into())),
                Ok(n) => self.rest.extend(&some[..n]),
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(ended(e)),
                },
            }
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// Of the socket.
    pub fn send(&mut self, line: &str) -> Result<(), String> {
        self.stream.write_all(format!("{line}\n").as_bytes()).map_err(|e| e.to_string())
    }
}

/// A client.
#[derive(Debug)]
pub struct Qmp {
    lines: Lines,
    /// What happened and nobody has asked for yet.
    events: VecDeque<Value>,
}

impl Qmp {
    /// Greets QEMU at the other end.
    ///
    /// # Errors
    /// Why it does not greet back.
    pub fn new(stream: UnixStream) -> Result<Self, String> {
        let mut qmp = Self { lines: Lines::new(stream), events: VecDeque::new() };
        let greeting = qmp.read(Instant::now() + PATIENCE)?;
        if greeting["QMP"].is_null() {
            return Err(format!("this is not QEMU's machine protocol: {greeting}"));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command: what it returns.
    ///
    /// # Errors
    /// What QEMU says against it.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let deadline = Instant::now() + PATIENCE;
        let request = json!({"execute": command, "arguments": arguments});
        self.lines.send(&request.to_string())?;
        loop {
            let mut said = self.read(deadline)?;
            if said.get("event").is_some() {
                self.events.push_back(said);
            } else if let Some(error) = said.get("error") {
                let text = error["desc"].as_str().unwrap_or("for no reason");
                return Err(format!("QEMU refuses {command}: {text}"));
            } else {
                return Ok(said["return"].take());
            }
        }
    }

    /// Waits for an event: of that name, and about what is `wanted`; its data.
    ///
    /// # Errors
    /// It does not happen.
    pub fn event(
        &mut self,
        name: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let deadline = Instant::now() + limit;
        let right = |event: &Value| event["event"] == name && wanted(&event["data"]);
        loop {
            if let Some(at) = self.events.iter().position(right) {
                let event = self.events.remove(at).unwrap_or_default();
                return Ok(event["data"].clone());
            }
            let said = self.read(deadline).map_err(|why| format!("no {name}: {why}"))?;
            self.events.push_back(said);
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<Value, String> {
        let line = self.lines.next(deadline).map_err(|why| match why {
            NoLine::Late => "QEMU says nothing".to_owned(),
            NoLine::Ended(how) => format!("QEMU's monitor: {how}"),
        })?;
        serde_json::from_str(&line).map_err(|e| format!("QEMU says {line:?}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's end: says `greeting`, then for each line it gets the lines of
    /// one of the answers.
    fn qemu(greeting: &'static str, answers: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let mut lines = Lines::new(theirs);
            lines.send(greeting)?;
            for answer in answers {
                let deadline = Instant::now() + PATIENCE;
                lines.next(deadline).map_err(|why| format!("{why:?}"))?;
                lines.send(answer)?;
            }
            Ok::<_, String>(())
        });
        ours
    }

    #[test]
    fn answers_errors_and_events_are_told_apart() {
        let stream = qemu(
            r#"{"QMP": {}}"#,
            &[
                r#"{"return": {}}"#,
                "{\"event\": \"E\", \"data\": {\"device\": \"a\"}}\n{\"return\": [1]}",
                r#"{"error": {"class": "GenericError", "desc": "Bus does not support it"}}"#,
            ],
        );
        let mut qmp = Qmp::new(stream).expect("greeted");
        assert_eq!(qmp.execute("one", json!({})), Ok(json!([1])));
        let refused = qmp.execute("two", json!({"a": 1}));
        assert!(refused.is_err_and(|why| why.contains("two: Bus does not")));
        let event = qmp.event("E", PATIENCE, |data| data["device"] == "a");
        assert_eq!(event, Ok(json!({"device": "a"})));
        let late = qmp.event("E", Duration::from_millis(10), |_| true);
        assert!(late.is_err_and(|why| why.contains("no E")));
    }

    #[test]
    fn a_line_comes_whole_or_late() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut lines = Lines::new(theirs);
        let soon = || Instant::now() + Duration::from_millis(10);
        ours.write_all(b"one\r\ntw").expect("room");
        assert_eq!(lines.next(soon()), Ok("one".into()));
        assert_eq!(lines.next(soon()), Err(NoLine::Late));
        ours.write_all(b"o\n").expect("room");
        assert_eq!(lines.next(soon()), Ok("two".into()));
        drop(ours);
        assert!(matches!(lines.next(soon()), Err(NoLine::Ended(_))));
    }
}
