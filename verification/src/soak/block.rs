//! Blocks that say what they are: of which file, at which place, and of which
//! write. Their bytes follow from that alone, so each of them is checked.

/// Bytes of a block: whatever a file system or a device asks for.
pub const BLOCK: usize = 4096;

const WORDS: usize = 4;
const MAGIC: u64 = 0x5eed_5eed_0000_0000;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().expect("eight bytes"))
}

fn head(file: u32, place: u64, write: u32) -> [u64; WORDS] {
    let own = MAGIC | u64::from(file);
    let sum = own.rotate_left(17) ^ place.rotate_left(31) ^ u64::from(write);
    [own, place, write.into(), sum.wrapping_mul(0x9e37_79b9_7f4a_7c15)]
}

/// What stands at each word behind the head.
fn pattern(head: &[u64; WORDS]) -> impl Iterator<Item = [u8; 8]> + use<> {
    let mut word = head[3] | 1;
    std::iter::repeat_with(move || {
        word = word.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(23);
        word.to_le_bytes()
    })
}

/// Makes `bytes` (a multiple of 8, at least 64) what write number `write` puts at
/// `place` of `file`; write 0 is what a hole reads as.
pub fn fill(bytes: &mut [u8], file: u32, place: u64, write: u32) {
    if write == 0 {
        return bytes.fill(0);
    }
    let head = head(file, place, write);
    let (front, rest) = bytes.split_at_mut(8 * WORDS);
    for (to, word) in front.chunks_exact_mut(8).zip(head) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    for (to, word) in rest.chunks_exact_mut(8).zip(pattern(&head)) {
        to.copy_from_slice(&word);
    }
}

/// Whether `bytes` are that.
pub fn is(bytes: &[u8], file: u32, place: u64, write: u32) -> bool {
    if write == 0 {
        return bytes.iter().all(|&byte| byte == 0);
    }
    let head = head(file, place, write);
    let (front, rest) = bytes.split_at(8 * WORDS);
    (0..WORDS).all(|at| word(front, at) == head[at])
        && rest.chunks_exact(8).zip(pattern(&head)).all(|(there, word)| there == word)
}

/// What `bytes` are instead.
pub fn describe(bytes: &[u8], file: u32, place: u64) -> String {
    if bytes.iter().all(|&byte| byte == 0) {
        return "nothing but zeroes".into();
    }
    let (own, there, write) = (word(bytes, 0), word(bytes, 1), word(bytes, 2) as u32);
    if own & MAGIC != MAGIC || word(bytes, 3) != head(own as u32, there, write)[3] {
        return format!("no block, beginning with {:02x?}", &bytes[..16]);
    }
    let sound = if is(bytes, own as u32, there, write) { "" } else { ", torn" };
    match (own as u32 == file, there == place) {
        (false, _) => format!("place {there} of file {:#x}, write {write}{sound}", own as u32),
        (_, false) => format!("the block of place {there}, write {write}{sound}"),
        _ => format!("write {write}{sound}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_itself_and_no_other() {
        for size in [64, 512, BLOCK] {
            let mut block = vec![1; size];
            fill(&mut block, 7, 3, 9);
            assert!(is(&block, 7, 3, 9));
            for (file, place, write) in [(6, 3, 9), (7, 2, 9), (7, 3, 8), (7, 3, 0)] {
                assert!(!is(&block, file, place, write));
            }
            assert_eq!(describe(&block, 7, 3), "write 9");
            assert_eq!(describe(&block, 7, 4), "the block of place 3, write 9");
            assert!(describe(&block, 8, 3).starts_with("place 3 of file 0x7"));
            for at in [0, 9, 17, 30, size - 1] {
                block[at] ^= 4;
                assert!(!is(&block, 7, 3, 9), "byte {at}");
                block[at] ^= 4;
            }
            block[size - 1] ^= 1;
            assert_eq!(describe(&block, 7, 3), "write 9, torn");
            fill(&mut block, 7, 3, 0);
            assert!(is(&block, 7, 3, 0) && block == vec![0; size]);
        }
    }
}
