//! Models of programs on a ring, run by loom in all orders.
//!
//! Only in builds with `--cfg loom`, which turn every atomic, cell and lock of
//! this crate ([`crate::sync`]) into loom's twin of it. What is here is the
//! rest that a model needs:
//!
//! * [`Model`] runs a closure in every order within bounds, and says what
//!   happened in the one that fails;
//! * [`Ring`] is a ring with the names of `annulus_linux::IoUring`, so that a
//!   program chooses between the two by one `use` line;
//! * [`atomic`] has loom's atomics, with orders that loom leaves out;
//! * [`File`] is a file of a model. One device carries out what rings start on
//!   the files of a model: each request at any time, and several in every
//!   order.
//!
//! `docs/model-checking.md` goes through it step by step. Whoever has a
//! [`Backend`](crate::hal::Backend) of their own builds a ring with
//! [`engine::build`](crate::engine::build), in an [`Arena`] and a [`Place`].

pub mod atomic;
mod check;
mod device;
mod file;
mod inside;
mod place;
mod ring;
mod world;

pub use ::loom;
pub use check::{Explored, Model};
pub use file::File;
#[doc(hidden)]
pub use inside::{CqWriter, EventCount, Key, MessageLane, Post, ReturnLane, cq, wait_until};
pub use place::{Arena, Place};
pub use ring::{Builder, Ring, SharedRing, Submitter};
pub use world::note;
