//! Strict JSON (RFC 8259) to the positioned tree: no comments, no trailing commas, no repeated keys.
//!
//! Our own reader of structure, because no JSON crate keeps the place of every value; numbers are read by
//! the standard library, which rounds correctly, so that a dump reads back to the same value.

use crate::limits;
use crate::tree::{Key, Node, Position, SyntaxError, Tree, check_duplicates};

/// Parse a whole text.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, line: 1, column: 1, nodes: 0 };
    reader.skip_space();
    let node = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("text after the end of the JSON value; a file holds one value")),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    line: u32,
    column: u32,
    nodes: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Parsed<Node> {
        if depth > limits::DEPTH {
            return Err(self.error(format!("nested deeper than {} levels", limits::DEPTH)));
        }
        self.nodes += 1;
        if self.nodes > limits::NODES {
            return Err(self.error(format!("more than {} values in one file", limits::NODES)));
        }
        let position = self.position();
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Tree::String { text: self.string()?, plain: false },
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Tree::Bool(true))?,
            Some(b'f') => self.word("false", Tree::Bool(false))?,
            Some(b'n') => self.word("null", Tree::Null)?,
            Some(_) => return Err(self.error("expected a JSON value")),
            None => return Err(self.error("the text ends where a JSON value is expected")),
        };
        Ok(Node { position, value })
    }

    fn object(&mut self, depth: usize) -> Parsed<Tree> {
        self.advance(1);
        let mut entries = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.advance(1);
            return Ok(Tree::Map(entries));
        }
        loop {
            self.skip_space();
            let position = self.position();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in double quotes"));
            }
            let text = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.error("expected ':' after the key"));
            }
            self.advance(1);
            self.skip_space();
            let value = self.value(depth + 1)?;
            entries.push((Key { text, position }, value));
            if !self.more(b'}')? {
                check_duplicates(&entries)?;
                return Ok(Tree::Map(entries));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Parsed<Tree> {
        self.advance(1);
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.advance(1);
            return Ok(Tree::Seq(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            if !self.more(b']')? {
                return Ok(Tree::Seq(items));
            }
        }
    }

    /// After an element: whether a comma follows (true) or the closing bracket (false).
    fn more(&mut self, close: u8) -> Parsed<bool> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.advance(1);
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.advance(1);
                Ok(false)
            }
            _ => Err(self.error(format!("expected ',' or '{}'", char::from(close)))),
        }
    }

    fn string(&mut self) -> Parsed<String> {
        self.advance(1);
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.advance(plain);
            match self.peek() {
                Some(b'"') => {
                    self.advance(1);
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("a control character inside a string; write it as \\u00XX")),
                None => return Err(self.error("the text ends inside a string")),
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let simple = match self.bytes.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error("no such escape in JSON")),
        };
        self.advance(2);
        Ok(simple)
    }

    fn unicode_escape(&mut self) -> Parsed<char> {
        let high = self.hex4(self.at)?;
        let (code, length) = match high {
            0xD800..=0xDBFF => {
                let low = self.hex4(self.at + 6).ok().filter(|low| (0xDC00..=0xDFFF).contains(low));
                let low = low.ok_or_else(|| self.error("half of a surrogate pair"))?;
                (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12)
            }
            code => (code, 6),
        };
        let decoded = char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair"))?;
        self.advance(length);
        Ok(decoded)
    }

    /// The value of `\uXXXX` at byte `at`.
    fn hex4(&self, at: usize) -> Parsed<u32> {
        let digits = match self.bytes.get(at..at + 6) {
            Some([b'\\', b'u', digits @ ..]) if digits.iter().all(u8::is_ascii_hexdigit) => digits,
            _ => return Err(self.error("expected four hexadecimal digits after \\u")),
        };
        Ok(digits.iter().fold(0, |value, digit| value * 16 + char::from(*digit).to_digit(16).unwrap_or(0)))
    }

    fn number(&mut self) -> Parsed<Tree> {
        let start = self.at;
        let length =
            self.bytes[start..].iter().take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
        let text = &self.text[start..start + length.count()];
        let value = number(text).ok_or_else(|| self.error("not a JSON number"))?;
        self.advance(text.len());
        Ok(value)
    }

    fn word(&mut self, word: &str, value: Tree) -> Parsed<Tree> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("expected a JSON value"));
        }
        self.advance(word.len());
        Ok(value)
    }

    fn skip_space(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r') => self.advance(1),
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                    self.column = 1;
                }
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Over `bytes` bytes that hold no line break.
    fn advance(&mut self, bytes: usize) {
        let passed = &self.bytes[self.at..self.at + bytes];
        // Continuation bytes of UTF-8 are 0b10xxxxxx; every other byte begins a character.
        let characters = passed.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        self.column = self.column.saturating_add(u32::try_from(characters).unwrap_or(u32::MAX));
        self.at += bytes;
    }

    fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.position(), message)
    }
}

/// A number by JSON's grammar: `-? int frac? exp?`.
fn number(text: &str) -> Option<Tree> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let integer = digits.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if integer == 0 || (integer > 1 && digits.starts_with('0')) {
        return None;
    }
    let mut rest = &digits[integer..];
    if rest.is_empty() {
        return text.parse().map(Tree::Int).ok().or_else(|| finite(text));
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == fraction.len() {
            return None;
        }
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == digits.len() {
            return None;
        }
    }
    if rest.is_empty() { finite(text) } else { None }
}

fn finite(text: &str) -> Option<Tree> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Tree::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let outcome = match parse(text) {
            Ok(node) => format!("{:?}", node.value),
            Err(error) => format!("{}:{} {}", error.position.line, error.position.column, error.message),
        };
        assert_eq!(outcome, expected, "{text}");
    }

    #[test]
    fn reads_scalars_exactly() {
        check("-12", "Int(-12)");
        check("1e3", "Float(1000.0)");
        check("18446744073709551615", "Float(1.8446744073709552e19)");
        check(r#""a\u00e9\ud83d\ude00\n""#, r#"String { text: "aé😀\n", plain: false }"#);
        for (text, at) in [("01", 1), ("1.", 1), ("-", 1), ("1e", 1), ("1e999", 1)] {
            check(text, &format!("1:{at} not a JSON number"));
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        check("", "1:1 the text ends where a JSON value is expected");
        check("{\"a\":1,}", "1:8 expected a key in double quotes");
        check("[1,]", "1:4 expected a JSON value");
        check("[1 2]", "1:4 expected ',' or ']'");
        check("// x\n1", "1:1 expected a JSON value");
        check("{\"a\":1,\n \"a\":2}", "2:2 the key 'a' is given twice in this map (first at 1:2); remove one");
        check("\"\\ud800\"", "1:2 half of a surrogate pair");
        check("\"\\u12\"", "1:2 expected four hexadecimal digits after \\u");
        check("1 1", "1:3 text after the end of the JSON value; a file holds one value");
        check(&"[".repeat(100_000), "1:66 nested deeper than 64 levels");
        check(&"{\"a\":".repeat(100_000), "1:326 nested deeper than 64 levels");
    }
}
