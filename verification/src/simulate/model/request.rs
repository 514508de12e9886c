//! What is known of one request.

use super::super::action::Spec;
use super::{Buffer, NONE};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the SQ.
    Pushed,
    /// Taken, and not its turn yet.
    Waiting,
    /// With the backend.
    Flying,
    /// A timeout that runs.
    Armed,
    /// It has ended, and the engine has not looked since.
    Home,
    /// It has ended.
    Ended,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Req {
    pub spec: Spec,
    pub state: State,
    /// The one before it in its chain, and the first of that.
    pub pred: u32,
    pub head: u32,
    /// Its flags, or its neighbours, keep it from starting at once.
    pub held: bool,
    /// Its chain waits for all before it.
    pub drains: bool,
    /// It came behind something that waits for a drain, and may wait for more
    /// than it has to.
    pub lazy: bool,
    /// It has failed, as its chain sees it.
    pub failed: bool,
    /// It never began: its chain was broken before.
    pub cancelled: bool,
    /// Its CQE, and whether there is to be one.
    pub result: i32,
    pub posts: bool,
    pub seen: bool,
    /// How its order among others is known, and what it is.
    pub order: Order,
    /// A right result as well.
    pub other: Option<i32>,
    /// It has been woken, and that has not been looked at.
    pub woken: bool,
    /// The backend was asked to end it, and does.
    pub ended_by_us: bool,
    /// When a timeout ends: at this time, at this many CQEs, as is known or not.
    pub deadline: u64,
    /// Which of two began first.
    pub armed: u32,
    pub count: Option<i64>,
    pub exact: bool,
    /// How often it has ended, of several times, and the CQEs to come of that.
    pub repeats: u8,
    pub more: u32,
    /// What a guard guards.
    pub guards: u32,
    /// Times that the backend had no room for it.
    pub refusals: u8,
    /// Of a wait for readiness: its name, its events, which began first, and
    /// whether it has been removed.
    pub name: u8,
    pub events: u32,
    pub age: u32,
    pub removed: bool,
    /// It has been woken, and the engine must have looked by now.
    pub overdue: bool,
    /// The provided buffer that it has, and the bytes that it has asked for.
    pub picked: Option<Buffer>,
    pub wanted: u16,
}

/// What orders the CQE of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Any,
    /// Ended as its entry was taken: in the order of the entries.
    Entry,
    /// Told by the backend, as the so-manieth.
    Told(u32),
}

impl Req {
    /// Of an entry that is in the SQ.
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            state: State::Pushed,
            pred: NONE,
            head: NONE,
            held: false,
            drains: false,
            lazy: false,
            failed: false,
            cancelled: false,
            result: 0,
            posts: false,
            seen: false,
            order: Order::Any,
            refusals: 0,
            other: None,
            woken: false,
            ended_by_us: false,
            deadline: 0,
            armed: 0,
            count: None,
            exact: false,
            repeats: 0,
            more: 0,
            guards: NONE,
            name: if spec.polls() { spec.name } else { 0 },
            events: 0,
            age: 0,
            removed: false,
            overdue: false,
            picked: None,
            wanted: spec.len,
        }
    }
}
