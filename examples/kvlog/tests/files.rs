//! The log over ordinary files and threads.
#![cfg(not(loom))]

use std::fs::File;
use std::thread;

const KEYS: u32 = 100;

fn log(file: &File) -> (kvlog::Writer, kvlog::Reader) {
    kvlog::open(file.try_clone().unwrap(), KEYS as usize).unwrap()
}

fn value(key: u32, turn: u32) -> Vec<u8> {
    format!("{key} in turn {turn}").into_bytes()
}

#[test]
fn a_get_finds_the_whole_record_or_none() {
    let file = tempfile::tempfile().unwrap();
    let (mut writer, mut reader) = log(&file);
    let putting = thread::spawn(move || {
        for turn in 0..2 {
            for key in 0..KEYS {
                writer.put(key, &value(key, turn)).unwrap();
            }
        }
    });
    let mut seen = 0;
    for key in (0..KEYS).cycle() {
        if let Some(found) = reader.get(key).unwrap() {
            assert!([value(key, 0), value(key, 1)].contains(&found));
            seen += 1;
        }
        if putting.is_finished() {
            break;
        }
    }
    putting.join().unwrap();
    assert!(seen > 0);
    for key in 0..KEYS {
        assert_eq!(reader.get(key).unwrap(), Some(value(key, 1)));
    }
}

#[test]
fn a_log_is_found_again() {
    let file = tempfile::tempfile().unwrap();
    let (mut writer, _) = log(&file);
    writer.put(1, b"one").unwrap();
    writer.put(2, b"two").unwrap();
    writer.put(1, b"again").unwrap();
    let (mut writer, mut reader) = log(&file);
    assert_eq!(reader.get(1).unwrap().as_deref(), Some(&b"again"[..]));
    assert_eq!(reader.get(2).unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(reader.get(3).unwrap(), None);
    writer.put(3, b"three").unwrap();
    assert_eq!(reader.get(3).unwrap().as_deref(), Some(&b"three"[..]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let (mut writer, mut reader) = kvlog::open(file, 1).unwrap();
    assert!(writer.put(1, &[0; kvlog::VALUE + 1]).is_err());
    writer.put(1, &[0; kvlog::VALUE]).unwrap();
    assert!(writer.put(2, b"no place").is_err());
    assert_eq!(reader.get(2).unwrap(), None);
}
