//! Ctrl-C: the first one asks for an orderly end, so that temporary files go; the second one kills.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::Failure;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the handlers. Without them (in unit tests) nothing ever asks for a stop.
///
/// SIGXFSZ, the signal of a write beyond `ulimit -f`, is caught as well: the write then fails with
/// an error that can be explained, where the default would be to die with a core dump and leave a
/// temporary file.
///
/// # Errors
/// Those of `sigaction`.
pub fn install() -> std::io::Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds `asked` false and sets it, the next one finds it
        // true and ends the process.
        flag::register_conditional_default(signal, Arc::clone(asked))?;
        flag::register(signal, Arc::clone(asked))?;
    }
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Whether the user asked the program to end.
pub fn asked() -> bool {
    // Relaxed: a lone flag, no other memory is published with it.
    ASKED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// [`asked`] as a result.
///
/// # Errors
/// [`Failure::Interrupted`] once the user asked the program to end.
pub fn check() -> Result<(), Failure> {
    if asked() { Err(Failure::Interrupted) } else { Ok(()) }
}
