//! Ends the process when a program hangs, and says which.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::HUNG;

struct Watched {
    since: Instant,
    index: u64,
    program: String,
}

/// Watches a program at a time.
pub struct Dog(Arc<Mutex<Option<Watched>>>);

impl Dog {
    /// The program that runs from now on.
    pub fn watch(&self, index: u64, program: &impl ToString) {
        let watched = Watched { since: Instant::now(), index, program: program.to_string() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched);
    }
}

/// Starts watching. A report with its shrinking may take longer than a
/// program: it counts as the program's, so `limit` is generous.
pub fn start(limit: Duration) -> Dog {
    let shared = Arc::new(Mutex::new(None::<Watched>));
    let watched = Arc::clone(&shared);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let guard = watched.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(now) = &*guard else { continue };
            if now.since.elapsed() > limit + Duration::from_secs(60) {
                println!("program {} hangs:\n{}", now.index, now.program);
                println!("{}", serde_json::json!({ "program": now.index, "what": "hangs" }));
                // Nothing can be done if this fails.
                let _ = std::io::stdout().flush();
                std::process::exit(i32::from(HUNG));
            }
        }
    });
    Dog(shared)
}
