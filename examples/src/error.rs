//! What can go wrong, and the exit code that says so to a script.

use std::process::ExitCode;

/// Why the program ended without doing what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request makes no sense or is not safe; nothing was touched. Exit code 2, as clap's own.
    #[error("{0}")]
    Usage(String),
    /// A system call, a device or the data failed. Exit code 1.
    #[error("{0}")]
    Io(String),
    /// Ctrl-C or a request to terminate. Exit code 130, a shell's 128 + SIGINT.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Io(_) => 1,
            Self::Interrupted => 130,
        })
    }
}

/// A [`Failure::Usage`] from format arguments.
macro_rules! usage {
    ($($arg:tt)*) => { $crate::error::Failure::Usage(format!($($arg)*)) };
}

/// A [`Failure::Io`] from format arguments.
macro_rules! failed {
    ($($arg:tt)*) => { $crate::error::Failure::Io(format!($($arg)*)) };
}

pub(crate) use {failed, usage};
