//! Draws programs of polls.

use linux_raw_sys::general::{self as uapi, EPOLLIN as IN, EPOLLOUT as OUT, EPOLLRDNORM as RDNORM};

use super::super::rng::Rng;
use super::script::{File, Model, Op, PAIRS, Step};

/// Draws the steps of a program.
pub fn steps(rng: &mut Rng, model: &mut Model) -> Vec<Step> {
    let mut steps = Vec::new();
    let wanted = rng.range(3, 25) as usize;
    for _ in 0..200 {
        let step = one_step(rng);
        let mut next = model.clone();
        if next.step(&step).is_some() && next.waits.len() <= 6 {
            *model = next;
            steps.push(step);
        }
        if steps.len() == wanted {
            break;
        }
    }
    steps
}

fn one_step(rng: &mut Rng) -> Step {
    let pair = rng.below(PAIRS as u64) as usize;
    match rng.weighted(&[45, 22, 14, 5, 4, 4]) {
        0 => Step::Batch((0..rng.range(1, 5)).map(|_| op(rng)).collect()),
        1 => Step::Put(*rng.pick(&[File::Write(pair), File::Event(pair)])),
        2 => Step::Take(*rng.pick(&[File::Read(pair), File::Event(pair)])),
        3 => Step::Close(*rng.pick(&[File::Read(pair), File::Write(pair)])),
        4 => Step::Flood(pair),
        _ => Step::Race {
            event: pair,
            multi: rng.chance(50),
            thread: rng.below(20_000) as u32,
            here: rng.below(20_000) as u32,
        },
    }
}

fn op(rng: &mut Rng) -> Op {
    let user_data = rng.range(1, 4);
    let later = rng.chance(8);
    match rng.weighted(&[50, 18, 18, 6, 12]) {
        0 => {
            let files: Vec<File> = File::all().collect();
            Op::Add {
                file: *rng.pick(&files),
                events: events(rng),
                multi: rng.chance(40),
                user_data,
                later,
                link: rng.chance(15),
            }
        }
        1 => Op::Remove { user_data, later },
        2 => {
            let changed = rng.chance(60).then(|| events(rng));
            let new = (changed.is_none() || rng.chance(50)).then(|| rng.range(1, 4));
            Op::Update { old: user_data, user_data: new, events: changed, multi: rng.chance(20) }
        }
        4 => Op::Cancel { user_data, all: rng.chance(40) },
        _ => Op::Wrong { add: rng.chance(50), how: rng.below(64) as u32 },
    }
}

fn events(rng: &mut Rng) -> u32 {
    let events = *rng.pick(&[IN, IN, IN, OUT, IN | OUT, IN | RDNORM, uapi::EPOLLPRI, 0, 0xffff]);
    // What lies above the events: some of it means something, if anything
    // does.
    match rng.below(10) {
        0 => events | (rng.next() as u32 & 0xefff_0000),
        1 => events | uapi::EPOLLONESHOT,
        _ => events,
    }
}
