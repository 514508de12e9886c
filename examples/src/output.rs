//! Standard output.

use std::io::{ErrorKind, Write};

use crate::error::{Failure, failed};

/// Prints to standard output. A reader that went away (as `head` does) is no error.
pub fn print(text: &str) {
    if let Err(failure) = try_print(text) {
        eprintln!("annulus: {failure}");
    }
}

fn try_print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(failed!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}
