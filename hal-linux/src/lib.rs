//! Annulus on Linux.
mod file;
mod guard;
mod host;
mod sys;
mod threads;
