//! The chains of capabilities that VFIO hangs behind its answers
//! (`struct vfio_info_cap_header` of the kernel's `linux/vfio.h`).

/// The field of `N` bytes at `at`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_ne_bytes)
}

/// The capability `id` of the chain that begins `first` bytes into `answer`
/// (0: there is no chain), from its header on to the end of the answer.
pub fn find(answer: &[u8], first: u32, id: u32) -> Option<&[u8]> {
    let mut at = first as usize;
    // A chain that is bent back would never end; it has a handful of links.
    for _ in 0..64 {
        if at == 0 {
            return None;
        }
        let header = word(answer, at)?;
        // A 16-bit id, a 16-bit version, and where the next begins.
        if header.to_ne_bytes()[..2] == (id as u16).to_ne_bytes() {
            return answer.get(at..);
        }
        at = word(answer, at + 4)? as usize;
    }
    None
}

/// The pairs of 64-bit numbers of a capability that counts them behind its
/// header: IOVA ranges, and areas that can be mapped.
pub fn pairs(capability: &[u8]) -> Vec<(u64, u64)> {
    let count = word(capability, 8).unwrap_or(0) as usize;
    let pair = |n: usize| Some((long(capability, 16 + 16 * n)?, long(capability, 24 + 16 * n)?));
    (0..count).map_while(pair).collect()
}

/// The number behind a capability's header.
pub fn number(capability: &[u8]) -> Option<u32> {
    word(capability, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and its body.
    fn capability(id: u16, next: u32, body: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::from(id.to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_chain_is_walked() {
        let mut answer = vec![0; 16];
        answer.extend(capability(2, 48, &[7, 0, 0]));
        answer.extend(capability(1, 0, &[2u64.to_le(), 0x1000, 0x1fff, 0x3000, 0x3fff]));
        let ranges = find(&answer, 16, 1).expect("it is the second");
        assert_eq!(pairs(ranges), [(0x1000, 0x1fff), (0x3000, 0x3fff)]);
        assert_eq!(number(find(&answer, 16, 2).expect("it is the first")), Some(7));
        assert!(find(&answer, 16, 3).is_none());
        assert!(find(&answer, 0, 1).is_none());
    }

    #[test]
    fn a_chain_that_lies_ends() {
        let circle = [vec![0; 8], capability(1, 8, &[u64::MAX])].concat();
        assert!(find(&circle, 8, 2).is_none());
        assert!(find(&circle, 4000, 1).is_none());
        assert!(find(&circle, u32::MAX, 1).is_none());
        // It counts more than there is.
        assert!(pairs(find(&circle, 8, 1).expect("there")).is_empty());
    }
}
