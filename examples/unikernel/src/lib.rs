//! What an image and whoever boots it must agree on, and what of an image can
//! be tested without a machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod board;
pub mod epoch;
pub mod fat;
pub mod script;
