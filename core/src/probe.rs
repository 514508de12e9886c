//! Which operations a ring supports.

use crate::op;
use crate::uapi::{self, IO_URING_OP_SUPPORTED, io_uring_probe, io_uring_probe_op};
use core::fmt;
use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;

/// A ring's answer to the question which operations it supports, laid out as Linux's `io_uring_probe` with 256 rows.
///
/// A new probe supports nothing; a ring fills it in.
#[repr(C)]
#[derive(Clone)]
pub struct Probe {
    head: io_uring_probe,
    ops: [io_uring_probe_op; Probe::COUNT],
}

const_assert_eq!(size_of::<Probe>(), 16 + 256 * 8);
const_assert_eq!(offset_of!(Probe, ops), 16);

impl Probe {
    /// Rows of a probe: one for every number that an opcode can have.
    pub const COUNT: usize = 256;

    /// A probe in which nothing is supported.
    #[must_use]
    pub const fn new() -> Probe {
        Probe {
            head: io_uring_probe { last_op: 0, ops_len: 0, resv: 0, resv2: [0; 3] },
            ops: [io_uring_probe_op { op: 0, resv: 0, flags: 0, resv2: 0 }; Probe::COUNT],
        }
    }

    /// Whether requests with this opcode are carried out. The others are answered with `-EINVAL`.
    #[must_use]
    pub const fn is_supported(&self, opcode: u8) -> bool {
        self.ops[opcode as usize].flags & IO_URING_OP_SUPPORTED != 0
    }

    /// The last opcode that the ring knows, supported or not.
    #[must_use]
    pub const fn last_op(&self) -> u8 {
        self.head.last_op
    }

    /// The rows, one for each opcode up to [`last_op`](Probe::last_op); none before a ring has filled them in.
    #[must_use]
    pub fn ops(&self) -> &[io_uring_probe_op] {
        &self.ops[..usize::from(self.head.ops_len)]
    }

    /// The answer of a ring whose backend carries out what `backend` says.
    #[must_use]
    pub fn of(backend: impl Fn(u8) -> bool) -> Probe {
        let mut probe = Probe::new();
        probe.fill(|opcode| op::supported(opcode, &backend));
        probe
    }

    /// Writes the answer: a row for every opcode of the contract, marked where `supported` says so.
    pub(crate) fn fill(&mut self, supported: impl Fn(u8) -> bool) {
        *self = Probe::new();
        self.head.last_op = uapi::IORING_OP_LAST - 1;
        self.head.ops_len = uapi::IORING_OP_LAST;
        for op in 0..uapi::IORING_OP_LAST {
            let flags = if supported(op) { IO_URING_OP_SUPPORTED } else { 0 };
            self.ops[usize::from(op)] =
                io_uring_probe_op { op, flags, ..io_uring_probe_op::default() };
        }
    }
}

impl Default for Probe {
    fn default() -> Probe {
        Probe::new()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A name without quotation marks.
        struct Name(&'static str);
        impl fmt::Debug for Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        let names = (0..=u8::MAX).filter(|&op| self.is_supported(op)).filter_map(uapi::opcode_name);
        f.write_str("Probe ")?;
        f.debug_set().entries(names.map(Name)).finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn a_new_probe_supports_nothing() {
        let probe = Probe::default();
        assert!((0..=u8::MAX).all(|op| !probe.is_supported(op)));
        assert!(probe.ops().is_empty());
    }

    #[test]
    fn filling_marks_what_is_supported_and_forgets_the_rest() {
        let mut probe = Probe::new();
        probe.fill(|_| true);
        probe.fill(|op| op == uapi::IORING_OP_FSYNC || op == 255);
        assert!(probe.is_supported(uapi::IORING_OP_FSYNC));
        assert!(!probe.is_supported(uapi::IORING_OP_NOP));
        assert!(!probe.is_supported(255), "not an opcode of the contract");
        assert_eq!(probe.last_op(), uapi::IORING_OP_PIPE);
        assert_eq!(probe.ops().len(), usize::from(probe.last_op()) + 1);
        assert!(probe.ops().iter().zip(0u8..).all(|(row, op)| row.op == op));
        assert_eq!(format!("{probe:?}"), "Probe {FSYNC}");
    }
}
