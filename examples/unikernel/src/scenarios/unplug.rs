//! A disk that is wanted back while it is used.

use annulus::errno::Errno;
use annulus::hal::Clock as _;
use annulus_unikernel::script::{ASKS, Line};

use super::faults::{MANY, all_at_once, count, register};
use super::{Outcome, number};
use crate::disks::{OnDisk, Scratch, Storage, Way, asked_to_leave, until_gone};
use crate::memory::Region;
use crate::place::MACHINE;
use crate::ring::Setup;
use crate::{println, text};

const BYTES: i32 = 4096;
/// Of a disk that has left.
const GONE: i32 = Errno::ENODEV.to_result();

/// The host unplugs the disk while it is read: the slot says so, requests end
/// with what they have or with -ENODEV, each once, all after them with
/// -ENODEV; the disk is made quiet, its slot is switched off, and it is gone.
pub fn hot_unplug(line: &Line<'_>) -> Outcome {
    struct Unplug;
    impl OnDisk for Unplug {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let fd = disk.info().fd;
            let mut memory = Region::new(MANY * BYTES as usize)?;
            let mut scratch = Scratch::new()?;
            let way = Way::of(line)?;
            let n = number(line, "disk", 0)?;
            let (mut rounds, mut last, mut after) = (0, [0; MANY], [0; MANY]);
            Setup::new(MANY as u32).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, MANY as u32, way, &mut scratch),
                |app| {
                    let base = register(app, &mut memory)?;
                    let until = MACHINE.now() + 30_000_000_000;
                    while rounds == 0 || !asked_to_leave() {
                        if rounds == 1 {
                            println!("{ASKS}unplug disk{n}");
                        }
                        all_at_once(app, fd, base, false, &mut last)?;
                        if count(&last, BYTES) != MANY {
                            return Err(text!("it is still there, and a read: {last:?}"));
                        }
                        if MACHINE.now() > until {
                            return Err(text!("the slot says nothing"));
                        }
                        rounds += 1;
                    }
                    // The driver looks now and then whether it is to leave.
                    disk.leave().ask();
                    while count(&last, GONE) == 0 {
                        all_at_once(app, fd, base, false, &mut last)?;
                        if count(&last, BYTES) + count(&last, GONE) != MANY {
                            return Err(text!("when it was to leave: {last:?}"));
                        }
                        if MACHINE.now() > until {
                            return Err(text!("the driver does not leave"));
                        }
                    }
                    all_at_once(app, fd, base, false, &mut after)
                },
                |_| (),
            )?;
            if count(&after, GONE) != MANY {
                return Err(text!("afterwards: {after:?}"));
            }
            let (done, ended) = (count(&last, BYTES), count(&last, GONE));
            Ok(text!("after {rounds} rounds {done} of {MANY} reads done, {ended} ended"))
        }
    }
    until_gone(&Unplug, line)
}
