//! Zone-file text to entries and tokens (RFC 1035, 5.1): parentheses, quotes, comments, escapes, line numbers.
//!
//! An entry with an error in it is read to its end all the same, so that the next one starts at the right place.

use crate::name::{NameError, unescape};

/// One word of an entry, as written: escapes are still in it, quotes around it are not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) quoted: bool,
    pub(crate) line: u32,
}

impl Token<'_> {
    /// The word for an error text.
    pub(crate) fn shown(&self) -> String {
        const LONGEST: usize = 60;
        let text = String::from_utf8_lossy(self.raw);
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.into_owned(),
        }
    }

    /// The word as text, when it is plain ASCII.
    pub(crate) fn ascii(&self) -> Option<&str> {
        std::str::from_utf8(self.raw).ok().filter(|text| text.is_ascii())
    }

    /// A fault at this word.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { line: self.line, message: message.into(), remedy: None }
    }
}

/// A syntax error within an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Fault {
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Appends the octets that `raw` stands for.
pub(crate) fn push_unescaped(raw: &[u8], out: &mut Vec<u8>) -> Result<(), NameError> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|octet| *octet == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let (octet, used) = unescape(&rest[at + 1..])?;
        out.push(octet);
        rest = &rest[at + 1 + used..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its first line, from 1.
    pub(crate) line: u32,
    /// Whether it begins with white space: its owner is that of the entry before.
    pub(crate) indented: bool,
}

/// Reads entries one after the other.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    /// Text whose first line has the number `line`.
    pub(crate) fn new(text: &'a [u8], line: u32) -> Self {
        Lexer { text: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), at: 0, line }
    }

    /// The next entry that is not empty, its words in `tokens`; `None` at the end of the text.
    ///
    /// # Errors
    /// The first fault of an entry. The entry is skipped: the next call goes on behind it.
    pub(crate) fn next_entry(&mut self, tokens: &mut Vec<Token<'a>>) -> Result<Option<Entry>, Fault> {
        while self.at < self.text.len() {
            tokens.clear();
            let entry = Entry { line: self.line, indented: matches!(self.text[self.at], b' ' | b'\t') };
            self.read_entry(tokens)?;
            if !tokens.is_empty() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn read_entry(&mut self, tokens: &mut Vec<Token<'a>>) -> Result<(), Fault> {
        // The lines of open parentheses.
        let mut open: Vec<u32> = Vec::new();
        let mut first_fault = None;
        while let Some(octet) = self.text.get(self.at).copied() {
            match octet {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    if open.is_empty() {
                        break;
                    }
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b';' => self.skip_comment(),
                b'(' => {
                    // More are never closed in earnest; the count is kept within bounds.
                    if open.len() < 1024 {
                        open.push(self.line);
                    }
                    self.at += 1;
                }
                b')' => {
                    self.at += 1;
                    if open.pop().is_none() {
                        first_fault.get_or_insert(self.fault("`)` without `(` before it"));
                    }
                }
                b'"' => match self.quoted() {
                    Ok(token) => tokens.push(token),
                    Err(fault) => _ = first_fault.get_or_insert(fault),
                },
                _ => tokens.push(self.word()),
            }
        }
        if let Some(line) = open.first() {
            let message = "`(` is never closed; everything up to the end of the file was taken as one entry".to_owned();
            return Err(Fault { line: *line, message, remedy: Some("add `)` at the entry's end".to_owned()) });
        }
        first_fault.map_or(Ok(()), Err)
    }

    fn fault(&self, message: &str) -> Fault {
        Fault { line: self.line, message: message.to_owned(), remedy: None }
    }

    fn skip_comment(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len());
    }

    /// From behind a quote to the next one on the same line.
    fn quoted(&mut self) -> Result<Token<'a>, Fault> {
        self.at += 1;
        let start = self.at;
        if self.skip_to_quote() {
            let token = Token { raw: &self.text[start..self.at], quoted: true, line: self.line };
            self.at += 1;
            return Ok(token);
        }
        Err(self
            .fault("a quoted string does not end on its line")
            .remedy("add the closing `\"`; a line break is written \\010"))
    }

    /// Moves to the next unescaped quote of this line; false if there is none.
    fn skip_to_quote(&mut self) -> bool {
        while let Some(octet) = self.text.get(self.at) {
            match octet {
                b'"' => return true,
                b'\n' => return false,
                b'\\' if self.text.get(self.at + 1).is_some_and(|next| *next != b'\n') => self.at += 2,
                _ => self.at += 1,
            }
        }
        false
    }

    /// Up to white space or a special character. `key="a b"` is one word (RFC 9460, 2.1).
    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        while let Some(octet) = self.text.get(self.at) {
            match octet {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => break,
                b'"' if self.at > start && self.text[self.at - 1] != b'=' => break,
                b'"' => {
                    let here = self.at;
                    self.at += 1;
                    if self.skip_to_quote() {
                        self.at += 1;
                    } else {
                        self.at = here + 1;
                    }
                }
                b'\\' if self.text.get(self.at + 1).is_some_and(|next| *next != b'\n') => self.at += 2,
                _ => self.at += 1,
            }
        }
        Token { raw: &self.text[start..self.at], quoted: false, line: self.line }
    }
}
