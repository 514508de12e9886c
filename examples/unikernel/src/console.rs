//! Lines on the serial port.

use core::fmt::{self, Write};

use annulus::sync::{AtomicU32, Mutex, Ordering};

use crate::arch;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        arch::write(text.as_bytes());
        Ok(())
    }
}

static LOCK: Mutex<()> = Mutex::new(());
/// 1: nobody waits for the lock any more.
static FORCED: AtomicU32 = AtomicU32::new(0);

/// Prints a line; lines of two cores are not mixed. Not for interrupt
/// handlers.
pub fn print(text: fmt::Arguments<'_>) {
    let line = |()| {
        // The serial port takes everything.
        let _ = Serial.write_fmt(format_args!("{text}\r\n"));
    };
    // Relaxed: no data.
    if FORCED.load(Ordering::Relaxed) != 0 {
        line(());
    } else {
        LOCK.with(|()| line(()));
    }
}

/// For the last words: whoever prints may never finish.
pub fn force() {
    // Relaxed: no data.
    FORCED.store(1, Ordering::Relaxed);
}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}
