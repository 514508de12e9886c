//! The smallest useful program: one read of a file through the ring.
//!
//! `cargo run -p annulus-examples --example hello [FILE]`

use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;

use annulus_linux::{IoUring, opcode, types};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "README.md".into());
    let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let mut ring = IoUring::new(8)?;
    let mut buf = vec![0; 512];

    let fd = types::Fd(file.as_raw_fd());
    let read = opcode::Read::new(fd, buf.as_mut_ptr(), buf.len() as u32).build().user_data(0x42);
    // SAFETY: `file` and `buf` stay until the completion, which is waited for below.
    unsafe { ring.submission().push(&read)? };
    ring.submit_and_wait(1)?;

    let cqe = ring.completion().next().ok_or("no completion")?;
    assert_eq!(cqe.user_data(), 0x42);
    let len = usize::try_from(cqe.result())
        .map_err(|_| std::io::Error::from_raw_os_error(-cqe.result()))?;
    print!("{}", String::from_utf8_lossy(&buf[..len]));
    Ok(())
}
