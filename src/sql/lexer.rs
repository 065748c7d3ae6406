//! PostgreSQL's lexical rules (its `scan.l`), as far as the ends of statements depend on them:
//! strings, quoted identifiers, dollar quotes, nested comments and words.
//!
//! The lexer can stop anywhere and go on when more of the text is there, so that a file of any size
//! passes through a small buffer. It works on bytes: PostgreSQL takes each byte above 127 for a letter.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `;`
    Semicolon,
    /// `(`
    Open,
    /// `)`
    Close,
    /// A backslash outside of quotes, and the rest of its line: psql's, never PostgreSQL's.
    Meta,
    /// A string, a quoted identifier, digits, or one character of an operator.
    Other,
}

/// A token of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// Where the lexer stands in a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Lexer {
    position: usize,
    /// Where the token began that `state` is inside of.
    start: usize,
    state: State,
    gap: Option<Gap>,
    /// What the text ended in the middle of.
    open: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    Word,
    String {
        /// Whether a backslash escapes the next character, as in `E'…'`.
        escapes: bool,
    },
    QuotedIdentifier,
    LineComment,
    BlockComment {
        depth: u32,
    },
    DollarTag,
    DollarQuote {
        tag: usize,
    },
    Meta,
}

/// There is no more text now.
struct Wait;

/// What has stood since the end of an `E'…'` string. A string that follows at once (a doubled
/// quote) or on another line continues it, and backslashes escape in it too.
#[derive(Debug, Clone, Copy)]
enum Gap {
    None,
    Blank,
    Newline,
}

impl Lexer {
    /// How far the text has been read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// What the whole text ended in the middle of, and where that began; told once.
    pub(super) fn take_open(&mut self) -> Option<(usize, &'static str)> {
        self.open.take().map(|what| (self.start, what))
    }

    /// Goes on at another position of the text, between two tokens.
    pub(super) fn seek(&mut self, position: usize) {
        self.position = position;
    }

    /// The next token; `None` at the end of `text`. Where that is not the `whole` text, the next
    /// call goes on with the same text grown longer.
    pub(super) fn next(&mut self, text: &[u8], whole: bool) -> Option<Token> {
        self.advance(text, whole).ok()
    }

    fn advance(&mut self, text: &[u8], whole: bool) -> Result<Token, Wait> {
        loop {
            let kind = match self.state {
                State::Between => self.between(text, whole)?,
                State::Word => self.word(text, whole)?,
                State::String { escapes } => self.string(text, whole, escapes)?,
                State::QuotedIdentifier => {
                    self.until(text, whole, |byte| byte == b'"')?;
                    self.note_end(text, "quoted identifier");
                    self.position = text.len().min(self.position + 1);
                    Some(Kind::Other)
                }
                State::LineComment => {
                    self.until(text, whole, is_newline)?;
                    self.state = State::Between;
                    None
                }
                State::BlockComment { depth } => self.block_comment(text, whole, depth)?,
                State::DollarTag => self.dollar_tag(text, whole)?,
                State::DollarQuote { tag } => self.dollar_quote(text, whole, tag)?,
                State::Meta => {
                    self.until(text, whole, is_newline)?;
                    Some(Kind::Meta)
                }
            };
            if let Some(kind) = kind {
                self.gap = match (self.state, kind) {
                    (State::String { escapes: true }, Kind::Other) => Some(Gap::None),
                    _ => None,
                };
                self.state = State::Between;
                return Ok(Token { kind, range: self.start..self.position });
            }
        }
    }

    /// Moves to the first byte that `is_end`, or to the end of the `whole` text; an error where
    /// that byte may still come.
    fn until(&mut self, text: &[u8], whole: bool, is_end: impl Fn(u8) -> bool) -> Result<(), Wait> {
        let found = text[self.position..].iter().position(|&byte| is_end(byte));
        self.position = found.map_or(text.len(), |index| self.position + index);
        if found.is_some() || whole { Ok(()) } else { Err(Wait) }
    }

    /// Takes white space, or the first byte of something: a whole token, or the state to go on in.
    fn between(&mut self, text: &[u8], whole: bool) -> Result<Option<Kind>, Wait> {
        let byte = *text.get(self.position).ok_or(Wait)?;
        let next = text.get(self.position + 1).copied();
        if next.is_none() && !whole && matches!(byte, b'-' | b'/') {
            return Err(Wait);
        }
        self.start = self.position;
        self.position += 1;
        match (byte, next) {
            (b'\n' | b'\r', _) => self.gap = self.gap.map(|_| Gap::Newline),
            (b' ' | b'\t' | b'\x0b' | b'\x0c', _) => {
                self.gap = self.gap.map(|gap| if matches!(gap, Gap::None) { Gap::Blank } else { gap });
            }
            (b'-', Some(b'-')) => self.state = State::LineComment,
            (b'/', Some(b'*')) => {
                self.position += 1;
                self.gap = None;
                self.state = State::BlockComment { depth: 1 };
            }
            (b'\'', _) => {
                let escapes = matches!(self.gap, Some(Gap::None | Gap::Newline));
                self.state = State::String { escapes };
            }
            (b'"', _) => self.state = State::QuotedIdentifier,
            (b'$', _) => self.state = State::DollarTag,
            (b'\\', _) => self.state = State::Meta,
            (b';', _) => return Ok(Some(Kind::Semicolon)),
            (b'(', _) => return Ok(Some(Kind::Open)),
            (b')', _) => return Ok(Some(Kind::Close)),
            (b'0'..=b'9', _) => {
                let digits = text[self.position..].iter().take_while(|byte| byte.is_ascii_digit());
                self.position += digits.count();
                return Ok(Some(Kind::Other));
            }
            _ if is_word_start(byte) => self.state = State::Word,
            _ => return Ok(Some(Kind::Other)),
        }
        Ok(None)
    }

    fn word(&mut self, text: &[u8], whole: bool) -> Result<Option<Kind>, Wait> {
        self.until(text, whole, |byte| !is_word_part(byte))?;
        let is_escape_prefix = matches!(text[self.start..self.position], [b'e' | b'E']);
        if is_escape_prefix && text.get(self.position) == Some(&b'\'') {
            self.position += 1;
            self.state = State::String { escapes: true };
            return Ok(None);
        }
        Ok(Some(Kind::Word))
    }

    /// A doubled quote is taken for the end of one string and the beginning of the next: where a
    /// statement ends does not depend on it.
    fn string(&mut self, text: &[u8], whole: bool, escapes: bool) -> Result<Option<Kind>, Wait> {
        loop {
            self.until(text, whole, |byte| byte == b'\'' || (escapes && byte == b'\\'))?;
            if text.get(self.position) != Some(&b'\\') {
                self.note_end(text, "string");
                self.position = text.len().min(self.position + 1);
                return Ok(Some(Kind::Other));
            }
            if self.position + 1 == text.len() && !whole {
                return Err(Wait);
            }
            self.position = text.len().min(self.position + 2);
        }
    }

    fn block_comment(&mut self, text: &[u8], whole: bool, mut depth: u32) -> Result<Option<Kind>, Wait> {
        while depth > 0 {
            self.state = State::BlockComment { depth };
            self.until(text, whole, |byte| matches!(byte, b'*' | b'/'))?;
            let step = match text[self.position..] {
                [] => {
                    self.note_end(text, "comment");
                    break;
                }
                [_] if !whole => return Err(Wait),
                [b'*', b'/', ..] => {
                    depth -= 1;
                    2
                }
                [b'/', b'*', ..] => {
                    depth += 1;
                    2
                }
                _ => 1,
            };
            self.position += step;
        }
        self.state = State::Between;
        Ok(None)
    }

    /// After a `$`: the rest of `$tag$`, or nothing, where the `$` stands for itself.
    fn dollar_tag(&mut self, text: &[u8], whole: bool) -> Result<Option<Kind>, Wait> {
        self.until(text, whole, |byte| byte == b'$' || !is_word_part(byte))?;
        let tag = &text[self.start + 1..self.position];
        let is_tag = tag.first().is_none_or(|&byte| is_word_start(byte));
        if is_tag && text.get(self.position) == Some(&b'$') {
            self.position += 1;
            self.state = State::DollarQuote { tag: self.position - self.start };
            return Ok(None);
        }
        self.position = self.start + 1;
        Ok(Some(Kind::Other))
    }

    fn dollar_quote(&mut self, text: &[u8], whole: bool, tag: usize) -> Result<Option<Kind>, Wait> {
        let tag = &text[self.start..self.start + tag];
        loop {
            self.until(text, whole, |byte| byte == b'$')?;
            let rest = &text[self.position..];
            if rest.starts_with(tag) {
                self.position += tag.len();
                return Ok(Some(Kind::Other));
            }
            if rest.len() < tag.len() {
                if !whole {
                    return Err(Wait);
                }
                self.position = text.len();
                self.note_end(text, "dollar-quoted string");
                return Ok(Some(Kind::Other));
            }
            self.position += 1;
        }
    }

    /// Keeps in mind that the text ends before `what` does.
    fn note_end(&mut self, text: &[u8], what: &'static str) {
        if self.position == text.len() {
            self.open = Some(what);
        }
    }
}

/// The words that a statement begins with, up to the first token that is none.
pub(super) fn leading_words(statement: &str) -> impl Iterator<Item = &str> {
    let mut lexer = Lexer::default();
    std::iter::from_fn(move || lexer.next(statement.as_bytes(), true))
        .take_while(|token| token.kind == Kind::Word)
        .map(|token| &statement[token.range])
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of `text`, taken whole and byte by byte.
    fn tokens(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::default();
        let whole: Vec<_> = std::iter::from_fn(|| lexer.next(text.as_bytes(), true)).collect();
        let mut lexer = Lexer::default();
        let mut pieces = Vec::new();
        for end in 0..=text.len() {
            pieces.extend(std::iter::from_fn(|| lexer.next(&text.as_bytes()[..end], end == text.len())));
        }
        let is_digits = |token: &Token| text.as_bytes()[token.range.start].is_ascii_digit();
        let without_digits = |tokens: &[Token]| -> Vec<_> {
            tokens.iter().filter(|token| !is_digits(token)).cloned().collect()
        };
        assert_eq!(without_digits(&whole), without_digits(&pieces), "byte by byte: {text:?}");
        whole.into_iter().map(|token| (token.kind, &text[token.range])).collect()
    }

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = tokens(text).into_iter().map(|(_, token)| token).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn quotes() {
        check("'a;''b;'", &["'a;'", "'b;'"]);
        check(r"'a\';b'';'", &[r"'a\'", ";", "b", "''", ";", "'"]);
        check(r"E'a\';' e'\\';", &[r"E'a\';'", r"e'\\'", ";"]);
        check(r"E'a''\';';", &["E'a'", r"'\';'", ";"]);
        check("E'a' -- c\n '\\';';", &["E'a'", "'\\';'", ";"]);
        check("E'a' '\\';", &["E'a'", "'\\'", ";"]);
        check("E'a' /* c */ \n '\\';", &["E'a'", "'\\'", ";"]);
        check(r"typE'\';", &["typE", r"'\'", ";"]);
        check(r"U&'\';", &["U", "&", r"'\'", ";"]);
        check(r#"U&"\;" "a""b;" "#, &["U", "&", r#""\;""#, r#""a""#, r#""b;""#]);
        check("'open;", &["'open;"]);
        check(r"E'open\", &[r"E'open\"]);
    }

    #[test]
    fn dollar_quotes() {
        check("$$a;$$;", &["$$a;$$", ";"]);
        check("$a$ $b$;$$ $a$;", &["$a$ $b$;$$ $a$", ";"]);
        check("$é1$;$é1$;", &["$é1$;$é1$", ";"]);
        check("$a$$a$a$", &["$a$$a$", "a$"]);
        check("a$$;$$", &["a$$", ";", "$$"]);
        check("$1;$1a$;", &["$", "1", ";", "$", "1", "a$", ";"]);
        check("$a;b$;", &["$", "a", ";", "b$", ";"]);
        check("$$a$", &["$$a$"]);
        check("$a", &["$", "a"]);
    }

    #[test]
    fn comments() {
        check("a--;'\nb", &["a", "b"]);
        check("a--;\rb;", &["a", "b", ";"]);
        check("/* ; /* ' */ ; */ a /*/ ; */ b /***/ c /* open", &["a", "b", "c"]);
        check("1-/**/-2--", &["1", "-", "-", "2"]);
        check("a*/b", &["a", "*", "/", "b"]);
    }

    #[test]
    fn kinds() {
        let expected = [
            (Kind::Word, "sélect"),
            (Kind::Open, "("),
            (Kind::Other, "12"),
            (Kind::Close, ")"),
            (Kind::Semicolon, ";"),
            (Kind::Meta, r"\copy it's; ('"),
            (Kind::Word, "b"),
        ];
        assert_eq!(tokens("sélect(12);\n \\copy it's; ('\r\nb"), expected);
    }

    #[test]
    fn words_up_to_the_first_that_is_none() {
        let words: Vec<_> = leading_words("/* x */ CREATE -- y\n INDEX \"i\" on").collect();
        assert_eq!(words, ["CREATE", "INDEX"]);
    }
}
