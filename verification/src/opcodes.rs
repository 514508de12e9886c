//! docs/opcodes.md, made from what the code says of itself.
//!
//! The test fails when the file is stale; with `ANNULUS_BLESS=1` it writes it:
//!
//! ```text
//! ANNULUS_BLESS=1 cargo test -p annulus-verification opcodes
//! ```

use std::fmt::Write as _;

use annulus::block::Medium;
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::uapi;

/// The page.
pub fn page(files: &Probe) -> String {
    let mut text = String::from(
        "# Operations\n\n\
         Every opcode and every register operation of Linux 6.18's `linux/io_uring.h`. This page is made from the code:\n\
          `ANNULUS_BLESS=1 cargo test -p annulus-verification opcodes` writes it, and the same test without the variable\n\
         fails if it is stale. What a ring itself says (`IORING_REGISTER_PROBE`) is the same\n\
         for what it was made for.\n\n\
         ## Opcodes\n\n\
         * *files*: a ring of `annulus-linux` on file descriptors.\n\
         * *NVMe*: a ring on an NVMe controller, on Linux through VFIO or on bare metal.\n\
         * *virtio*: a ring on a virtio-blk disk on bare metal.\n\
         * *core*: the engine carries it out itself, so every ring has it that was made for it: timeouts, guards and\n\
          ASYNC_CANCEL need `Config::held` (the default), PROVIDE_BUFFERS and REMOVE_BUFFERS room (`Config::provided`,\n\
          which `annulus-linux` has unless told otherwise, and core alone has not). A ring with IOPOLL has none of these,\n\
          nor polls.\n\n\
         MSG_RING is the engine's and needs a place that knows other rings, which a Linux process is and bare metal is not; of\n\
         its two kinds `IORING_MSG_DATA` goes from any ring to any, and `IORING_MSG_SEND_FD` from files to files: a ring on\n\
         a device answers `-EINVAL`.\n\n",
    );
    let columns = [
        ("files", files.clone()),
        ("NVMe", Probe::of(Medium::carries_out)),
        ("virtio", Probe::of(Medium::carries_out)),
    ];
    let own = Probe::of(|_| false);
    text += "| number | `IORING_OP_` | ";
    text += &columns.each_ref().map(|(name, _)| *name).join(" | ");
    text += " | by |\n|--:|---|---|---|---|---|\n";
    for opcode in 0..uapi::IORING_OP_LAST {
        let Some(name) = uapi::opcode_name(opcode) else { continue };
        let _ = write!(text, "| {opcode} | {name} |");
        for (column, probe) in &columns {
            let done = match probe.is_supported(opcode) {
                // What a device cannot do it refuses.
                true if Medium::asks_device(opcode)
                    && !probe.is_supported(uapi::IORING_OP_OPENAT) =>
                {
                    "if the device can"
                }
                true => "done",
                // Whatever the device is.
                false if opcode == uapi::IORING_OP_MSG_RING && *column == "NVMe" => "on Linux",
                false => "`-EINVAL`",
            };
            let _ = write!(text, " {done} |");
        }
        let by = match columns.iter().any(|(_, probe)| probe.is_supported(opcode)) {
            false => "",
            true if own.is_supported(opcode) || opcode == uapi::IORING_OP_MSG_RING => "core",
            true => "backend",
        };
        let _ = writeln!(text, " {by} |");
    }
    text += "\nAn opcode that is not done, and a number that is none, is answered with `-EINVAL`, as Linux answers\n\
             what it does not know.\n\n\
             ## Register operations\n\n\
             A ring has no descriptor for `io_uring_register(2)`; each operation that is done is a call of its own\n\
              (`annulus::register::Call`, and methods of the same meaning on `Submitter`), or goes by its number (`register`).\n\
              IOWQ_MAX_WORKERS is for rings that have workers (files), eventfds and clocks for places that have them;\n\
              elsewhere they are `-EINVAL`. What a ring's restrictions leave out is `-EACCES`.\n\n\
             | number | `IORING_` | call |\n|--:|---|---|\n";
    for op in 0..uapi::IORING_REGISTER_LAST {
        let name = uapi::register_name(op).unwrap_or_default();
        let calls: Vec<String> = Call::NUMBERS
            .iter()
            .filter(|&&(number, _)| number == op)
            .map(|(_, call)| format!("`Call::{call}`"))
            .collect();
        let call = if op == uapi::IORING_REGISTER_SEND_MSG_RING {
            // Linux takes it where no ring is named.
            "`engine::send_message`, which no ring is needed for".into()
        } else if calls.is_empty() {
            "`-EINVAL`".into()
        } else {
            calls.join(", ")
        };
        let _ = writeln!(text, "| {op} | {name} | {call} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_opcodes_says_what_the_code_does() {
        let mut files = Probe::new();
        let ring = annulus_linux::Ring::new(1).expect("a ring");
        ring.submitter().register_probe(&mut files).expect("its probe");
        crate::pages::check("opcodes", &page(&files));
    }
}
