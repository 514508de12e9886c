//! The command line of an image: scenarios, each a name and words like
//! `depth=32`, with a lone `;` between them. What the machine adds for itself
//! (`virtio_mmio.device=...`) has a dot in its name and is nobody's word.

/// A scenario to be run: its name and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    text: &'a str,
}

/// What the image says before the name of each scenario, behind which stands
/// what came of it.
pub const SCENARIO: &str = "scenario ";
/// What follows if it is good, and if not.
pub const GOOD: &str = " ... ok (";
/// See [`GOOD`].
pub const BAD: &str = " ... FAILED ";
/// What the image says before it names what whoever booted it shall do:
/// `unplug DEVICE`; `gone DEVICE`, to see that it is.
pub const ASKS: &str = "host: ";
/// The last line of an image that found everything good.
pub const PASSED: &str = "annulus-unikernel: PASSED";
/// The last line of one that did not.
pub const FAILED: &str = "annulus-unikernel: FAILED";

/// The scenarios that there are.
pub const NAMES: &[&str] = &[
    "sleeps",
    "wakes-the-second-core",
    "disk-is",
    "verified-io",
    "rules-of-a-disk",
    "many-rings",
    "failing-medium",
    "stalled-medium",
    "power-cut-workload",
    "hot-unplug",
    "fat",
    "bench",
    "fails",
];

/// The scenarios of a command line.
pub fn lines(command_line: &str) -> impl Iterator<Item = Line<'_>> {
    let parts = command_line.split(" ; ").map(|text| Line { text });
    parts.filter(|line| line.own_words().next().is_some())
}

impl<'a> Line<'a> {
    fn own_words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let machines = |word: &&str| word.split('=').next().is_some_and(|name| name.contains('.'));
        self.text.split_ascii_whitespace().filter(move |word| !machines(word))
    }

    /// What to run.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.own_words().next().unwrap_or("")
    }

    /// Name and words, as they were given.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.own_words()
    }

    /// What stands behind `name=`.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&'a str> {
        let mut words = self.own_words().skip(1);
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The same as a number, or `other`.
    ///
    /// # Errors
    /// The name, if it is no number.
    pub fn number<'n>(&self, name: &'n str, other: u64) -> Result<u64, &'n str> {
        self.word(name).map_or(Ok(other), |text| text.parse().map_err(|_| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_taken_apart() {
        let text = "reads depth=8 mode=inline ; sleeps  virtio_mmio.device=512@0xfeb00e00:12";
        let all: Vec<_> = lines(text).collect();
        assert_eq!(all.iter().map(Line::name).collect::<Vec<_>>(), ["reads", "sleeps"]);
        assert_eq!((all[0].word("mode"), all[0].word("reads")), (Some("inline"), None));
        assert_eq!((all[0].number("depth", 1), all[0].number("seed", 7)), (Ok(8), Ok(7)));
        assert_eq!(all[0].number("mode", 1), Err("mode"));
        assert_eq!(all[1].words().collect::<Vec<_>>(), ["sleeps"]);
    }

    #[test]
    fn nothing_is_asked_for_by_what_the_machine_adds() {
        assert_eq!(lines(" virtio_mmio.device=512@0xfeb00e00:12").count(), 0);
        assert_eq!(lines("").count(), 0);
    }
}
