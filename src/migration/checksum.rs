//! Checksums: SHA-256 of a file's raw bytes, equal to what `sha256sum` prints.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file's raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first eight of its 32 bytes.
    pub fn leading_bytes(&self) -> [u8; 8] {
        std::array::from_fn(|index| self.0[index])
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = |index: usize| u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok();
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = digits(index)?;
        }
        (text.len() == 64).then_some(Self(bytes))
    }

    /// The lower-case hexadecimal digits, 64 of them.
    pub fn hex(&self) -> String {
        self.to_string()
    }
}

impl From<Sha256> for Checksum {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes bytes piece by piece and gives the checksum of the whole, and of the same text as it
/// would be with other line endings or with and without a byte-order mark. A file is read once.
pub struct Hasher {
    raw: Sha256,
    /// With LF only, no mark; then CRLF, no mark; then both again with a mark.
    variants: [Sha256; 4],
    at_start: bool,
    pending_cr: bool,
}

/// What [`Hasher`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// Of the raw bytes: the one that counts.
    pub raw: Checksum,
    /// Of the same text with LF or CRLF, without or with a byte-order mark.
    pub variants: [Checksum; 4],
}

const BOM: &[u8] = b"\xef\xbb\xbf";

impl Default for Hasher {
    fn default() -> Self {
        let mut variants = [const { None }; 4].map(|_: Option<()>| Sha256::new());
        variants[2].update(BOM);
        variants[3].update(BOM);
        Self { raw: Sha256::new(), variants, at_start: true, pending_cr: false }
    }
}

impl Hasher {
    /// Takes the next piece; the first one must hold a byte-order mark whole, if there is one.
    pub fn update(&mut self, piece: &[u8]) {
        self.raw.update(piece);
        let mut rest = piece;
        if std::mem::take(&mut self.at_start) {
            rest = rest.strip_prefix(BOM).unwrap_or(rest);
        }
        if self.pending_cr && !rest.is_empty() {
            self.pending_cr = false;
            if rest[0] != b'\n' {
                self.text(b"\r");
            }
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            self.text(&rest[..end]);
            match rest[end..] {
                [b'\r', b'\n', ..] => {
                    self.newline();
                    rest = &rest[end + 2..];
                }
                [b'\r'] => {
                    self.pending_cr = true;
                    rest = &[];
                }
                [b'\r', ..] => {
                    self.text(b"\r");
                    rest = &rest[end + 1..];
                }
                _ => {
                    self.newline();
                    rest = &rest[end + 1..];
                }
            }
        }
        self.text(rest);
    }

    /// The checksums of all that was taken.
    pub fn finish(mut self) -> Checksums {
        if self.pending_cr {
            self.text(b"\r");
        }
        Checksums { raw: self.raw.into(), variants: self.variants.map(Checksum::from) }
    }

    fn text(&mut self, text: &[u8]) {
        self.variants.iter_mut().for_each(|hasher| hasher.update(text));
    }

    fn newline(&mut self) {
        for (index, hasher) in self.variants.iter_mut().enumerate() {
            hasher.update(if index % 2 == 0 { b"\n".as_slice() } else { b"\r\n" });
        }
    }
}

impl Checksums {
    /// The checksums of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// How the checksum that a row holds compares with this file.
    pub fn compare(&self, stored: &str) -> Comparison {
        let is = |checksum: &Checksum| checksum.hex().eq_ignore_ascii_case(stored.trim());
        if is(&self.raw) {
            Comparison::Equal
        } else if self.variants.iter().any(is) {
            Comparison::LineEndings
        } else {
            Comparison::Different
        }
    }
}

/// How a stored checksum compares with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same bytes.
    Equal,
    /// The same text, with other line endings or a byte-order mark.
    LineEndings,
    /// Another text.
    Different,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Checksum::of(b"").hex(), empty);
        let hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(Checksums::of(b"hello\n").raw.hex(), hello);
    }

    #[test]
    fn comparisons() {
        let check = |stored: &[u8], file: &[u8], expected| {
            let compared = Checksums::of(file).compare(&Checksum::of(stored).hex());
            assert_eq!(compared, expected, "{stored:?} in the row, {file:?} on disk");
        };
        check(b"a\nb\n", b"a\nb\n", Comparison::Equal);
        check(b"a\nb\n", b"a\r\nb\r\n", Comparison::LineEndings);
        check(b"a\r\nb\r\n", b"a\nb\n", Comparison::LineEndings);
        check(b"a\nb\n", b"\xef\xbb\xbfa\nb\n", Comparison::LineEndings);
        check(b"\xef\xbb\xbfa\r\nb\r\n", b"a\nb\n", Comparison::LineEndings);
        check(b"a\nb\n", b"a\r\nb\n", Comparison::LineEndings);
        check(b"a\nb\n", b"a\rb\n", Comparison::Different);
        check(b"a\nb\n", b"a\nb", Comparison::Different);
        check(b"", b"a", Comparison::Different);
    }

    #[test]
    fn pieces_do_not_matter() {
        let text = b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\n\r";
        let whole = Checksums::of(text);
        for cut in 3..text.len() {
            let mut hasher = Hasher::default();
            hasher.update(&text[..cut]);
            hasher.update(&text[cut..]);
            assert_eq!(hasher.finish(), whole, "cut at {cut}");
        }
    }
}
