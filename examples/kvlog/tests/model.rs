//! The log in every order of events.
#![cfg(loom)]

use annulus::errno::Errno;
use annulus::model::loom::thread;
use annulus::model::{File, Model, note};

#[test]
fn a_get_finds_the_whole_record_or_none() {
    Model::new("put beside get").check(|| {
        let (mut writer, mut reader) = kvlog::open(File::new(b""), 1).unwrap();
        let putting = thread::spawn(move || {
            writer.put(7, b"seven").unwrap();
            note(format_args!("put has returned"));
        });
        let found = reader.get(7).unwrap();
        assert!(found.is_none() || found.as_deref() == Some(b"seven"));
        putting.join().unwrap();
        assert_eq!(reader.get(7).unwrap().as_deref(), Some(&b"seven"[..]));
    });
}

#[test]
fn what_one_has_got_no_crash_takes_away() {
    Model::new("get, then a crash").preemptions(1).check(|| {
        let file = File::new(b"");
        let medium = file.try_clone().unwrap();
        let (mut writer, mut reader) = kvlog::open(file, 1).unwrap();
        let putting = thread::spawn(move || writer.put(7, b"seven").unwrap());
        let found = reader.get(7).unwrap();
        let (_, mut recovered) = kvlog::open(File::new(&medium.synced()), 1).unwrap();
        assert!(found.is_none() || recovered.get(7).unwrap() == found);
        putting.join().unwrap();
    });
}

#[test]
fn a_put_that_fails_is_not_there() {
    Model::new("failing put").preemptions(0).failing(Errno::EIO, 1).check(|| {
        let Ok((mut writer, mut reader)) = kvlog::open(File::new(b""), 1) else { return };
        match writer.put(7, b"seven") {
            // If this get fails, the next does not: one request does at most.
            Ok(()) => {
                let found = reader.get(7).or_else(|_| reader.get(7)).unwrap();
                assert_eq!(found.as_deref(), Some(&b"seven"[..]));
            }
            Err(_) => assert_eq!(reader.get(7).unwrap(), None),
        }
    });
}
