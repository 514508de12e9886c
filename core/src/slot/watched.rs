//! The message of a slot, and who has the news, as cells that loom watches.

#![allow(unsafe_code)]

use super::{Message, Turn};
use crate::sync::UnsafeCell;

// SAFETY: this is the claim that the models check: QUEUED orders the accesses.
unsafe impl Sync for Message {}

impl Message {
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    pub(super) fn write(&self, message: i32) {
        // SAFETY: whoever writes has won QUEUED; loom objects if not.
        self.0.with_mut(|cell| unsafe { *cell = message });
    }

    pub(super) fn read(&self) -> i32 {
        // SAFETY: the slot is on a taken list; loom objects if not.
        self.0.with(|cell| unsafe { *cell })
    }
}

// SAFETY: as above: the lane that the news are of orders the accesses.
unsafe impl Sync for Turn {}

impl Turn {
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new(()))
    }

    pub(super) fn written(&self) {
        self.0.with_mut(|_| ());
    }

    pub(super) fn read(&self) {
        self.0.with(|_| ());
    }
}
