//! Rings with an ordering weakened, for the thread sanitizer to report: the
//! rung `tsan` switches the fault on that `ANNULUS_FAULT` names. Without it
//! this is a test like others, of a build that has the faults.
#![cfg(annulus_faults)]

mod common;

use annulus::fault::{Fault, select};
use annulus_linux::{Probe, Ring, opcode};
use common::*;

fn select_fault() {
    let name = std::env::var("ANNULUS_FAULT").unwrap_or_default();
    if !name.is_empty() {
        select(Some(Fault::from_name(&name).expect("the name of a fault")));
    }
}

#[test]
fn what_threads_hand_to_each_other() {
    select_fault();
    let mut polled = Ring::builder().setup_sqpoll(50).build(4).unwrap();
    let mut served = Ring::builder().setup_served().build(4).unwrap();
    let (from, to) = pipe(0);
    for round in 0..100 {
        let nops: Vec<_> =
            (0..4).map(|n| opcode::Nop::new().build().user_data(4 * round + n)).collect();
        for ring in [&mut polled, &mut served] {
            for (cqe, nop) in run(ring, &nops).iter().zip(&nops) {
                assert_eq!(cqe.user_data(), nop.get_user_data());
            }
            ring.submitter().register_probe(&mut Probe::new()).unwrap();
            // One that comes home by another thread.
            let mut byte = 0u8;
            push(ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build()]);
            ring.submit().unwrap();
            put(&to, b"x");
            assert_eq!((reap(ring, 1)[0].result(), byte), (1, b'x'));
        }
    }
}
