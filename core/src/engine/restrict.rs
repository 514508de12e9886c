//! A ring that starts disabled, and what it may do when it is enabled.

use super::Engine;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::sqe::Sqe;
use crate::sync::Ordering;
use crate::types::Restriction;
use crate::uapi::{
    IORING_OP_LAST, IORING_REGISTER_LAST, IORING_RESTRICTION_LAST, IORING_RESTRICTION_REGISTER_OP,
    IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
    IORING_RESTRICTION_SQE_OP, io_uring_restriction,
};

/// The kernel's bound: one of each.
const MOST: usize =
    IORING_RESTRICTION_LAST as usize + IORING_REGISTER_LAST as usize + IORING_OP_LAST as usize;
const _: () = assert!(IORING_OP_LAST <= 64 && IORING_REGISTER_LAST <= 64);

/// What has been allowed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Restrictions {
    /// They hold: the ring has been enabled with them.
    pub on: bool,
    registered: bool,
    /// A bit each.
    register_ops: u64,
    sqe_ops: u64,
    flags_allowed: u8,
    flags_required: u8,
}

impl Restrictions {
    fn parse(list: &[Restriction]) -> Result<Self, Errno> {
        let mut all = Self { registered: true, ..Self::default() };
        for Restriction(io_uring_restriction { opcode, arg, .. }) in list {
            match u32::from(*opcode) {
                IORING_RESTRICTION_REGISTER_OP if u32::from(*arg) < IORING_REGISTER_LAST => {
                    all.register_ops |= 1 << arg;
                }
                IORING_RESTRICTION_SQE_OP if *arg < IORING_OP_LAST => all.sqe_ops |= 1 << arg,
                IORING_RESTRICTION_SQE_FLAGS_ALLOWED => all.flags_allowed = *arg,
                IORING_RESTRICTION_SQE_FLAGS_REQUIRED => all.flags_required = *arg,
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(all)
    }

    /// Whether an SQE, of an opcode that there is, may be taken.
    pub fn permit(&self, sqe: &Sqe) -> bool {
        let (allowed, required) = (self.flags_allowed, self.flags_required);
        let lacks = sqe.flags & required != required && !fault::on(Fault::RequiredFlagsForgotten);
        let more = sqe.flags & !(allowed | required) != 0;
        !self.on || self.sqe_ops >> (sqe.opcode & 63) & 1 != 0 && !lacks && !more
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Whether it has not been enabled yet.
    #[inline(always)]
    pub(crate) fn disabled(&self) -> bool {
        // Relaxed: written by whoever drives the engine.
        self.shared.disabled.load(Ordering::Relaxed) != 0
    }

    /// `EACCES` if a register operation is not allowed.
    pub(super) fn permit_call(&self, number: Option<u32>) -> Result<(), Errno> {
        match number {
            Some(number) if self.restrict.on && self.restrict.register_ops >> number & 1 == 0 => {
                Err(Errno::EACCES)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn register_restrictions(&mut self, list: &[Restriction]) -> Result<u32, Errno> {
        if !self.disabled() {
            return Err(Errno::EBADFD);
        }
        if self.restrict.registered {
            return Err(Errno::EBUSY);
        }
        if list.len() > MOST || self.holding.held.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.restrict = Restrictions::parse(list)?;
        Ok(0)
    }

    pub(super) fn enable_rings(&mut self) -> Result<u32, Errno> {
        if !self.disabled() {
            return Err(Errno::EBADFD);
        }
        self.restrict.on = self.restrict.registered;
        self.holding.restricted = self.restrict.on;
        self.note_engaged();
        // Relaxed: the answer to the call orders it for the application.
        self.shared.disabled.store(0, Ordering::Relaxed);
        self.short = self.may_be_short();
        Ok(0)
    }
}
