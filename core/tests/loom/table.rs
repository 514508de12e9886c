//! Which models there are, and which of them catch which fault.

use crate::{lane, rings};
use annulus::fault::Fault::{self, *};

pub struct Model {
    pub name: &'static str,
    pub preemptions: usize,
    pub run: fn(),
}

const fn model_of(name: &'static str, preemptions: usize, run: fn()) -> Model {
    Model { name, preemptions, run }
}

pub const MODELS: &[Model] = &[
    model_of("sq_ring", 3, rings::sq_ring),
    model_of("sq_ring_array", 3, rings::sq_ring_array),
    model_of("sq_indices", 3, rings::sq_indices),
    model_of("cq_ring", 3, rings::cq_ring),
    model_of("return_list", 3, lane::return_list),
];

pub fn model(name: &str) -> &'static Model {
    MODELS.iter().find(|m| m.name == name).expect("a model's name")
}

/// What becomes of a fault.
pub enum Expect {
    /// Each of these models fails with it.
    Caught(&'static [&'static str]),
    /// It is none: `model` passes with it, for the reason given.
    Equivalent { model: &'static str, why: &'static str },
    /// Nobody has thought about it.
    Unknown,
}

pub fn expect(fault: Fault) -> Expect {
    let by: &[&str] = match fault {
        SqTailRelaxed | SqTailLoadRelaxed | SqHeadRelaxed | SqHeadLoadRelaxed => {
            &["sq_ring", "sq_ring_array"]
        }
        CqTailRelaxed | CqTailLoadRelaxed | CqHeadRelaxed | CqHeadLoadRelaxed => &["cq_ring"],
        ReturnPushRelaxed | ReturnTakeRelaxed | ReturnPushTwice => &["return_list"],
        _ => return Expect::Unknown,
    };
    Expect::Caught(by)
}
