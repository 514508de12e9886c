//! Short texts without an allocator.

use core::fmt::{self, Write};

/// What a scenario says: as much of it as there is room for.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; 400],
    len: usize,
}

impl Text {
    /// From its parts.
    pub fn new(parts: fmt::Arguments<'_>) -> Self {
        let mut text = Self { bytes: [0; 400], len: 0 };
        // It takes everything.
        let _ = text.write_fmt(parts);
        text
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let end = self.len + character.len_utf8();
            let Some(room) = self.bytes.get_mut(self.len..end) else { break };
            character.encode_utf8(room);
            self.len = end;
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[..self.len]).unwrap_or(""))
    }
}

/// A [`Text`] by a format.
#[macro_export]
macro_rules! text {
    ($($parts:tt)*) => { $crate::text::Text::new(format_args!($($parts)*)) };
}
