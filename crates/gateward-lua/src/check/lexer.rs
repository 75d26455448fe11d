//! The words of a Lua file: names, texts, signs, with their lines. Enough to see what a file mentions, not to run it.

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word<'t> {
    Name(&'t str),
    /// A text without its quotes; escapes stay as they are.
    Text(&'t str),
    Sign(char),
}

/// A word and its line, from 1.
pub(super) type Placed<'t> = (Word<'t>, usize);

/// The words of `text`; comments and numbers are left out.
pub(super) fn words(text: &str) -> Vec<Placed<'_>> {
    let mut lexer = Lexer { text, at: 0, line: 1, words: Vec::new() };
    while lexer.at < text.len() {
        lexer.word();
    }
    lexer.words
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    words: Vec<Placed<'t>>,
}

impl<'t> Lexer<'t> {
    fn word(&mut self) {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return };
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match first {
            '-' if rest.starts_with("--") => self.comment(),
            '[' if long_bracket(rest).is_some() => {
                let line = self.line;
                let content = self.long(rest);
                self.words.push((Word::Text(content), line));
            }
            '"' | '\'' => self.quoted(first),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
                self.words.push((Word::Name(&rest[..end]), self.line));
                self.at += end;
            }
            c if c.is_ascii_digit() => {
                let end = rest.find(|c: char| !name(c) && c != '.').unwrap_or(rest.len());
                // `1..x` joins two values.
                self.pass(rest[..end].find("..").unwrap_or(end));
            }
            c => {
                if !c.is_whitespace() {
                    self.words.push((Word::Sign(c), self.line));
                }
                self.pass(c.len_utf8());
            }
        }
    }

    /// Go on by `bytes`, counting lines.
    fn pass(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.at += bytes;
    }

    fn comment(&mut self) {
        self.pass(2);
        let rest = &self.text[self.at..];
        if long_bracket(rest).is_some() {
            self.long(rest);
        } else {
            self.pass(rest.find('\n').unwrap_or(rest.len()));
        }
    }

    /// A text in long brackets.
    fn long(&mut self, rest: &'t str) -> &'t str {
        let level = long_bracket(rest).unwrap_or(0);
        let begin = level + 2;
        let close = format!("]{}]", "=".repeat(level));
        let end = rest[begin..].find(&close).map_or(rest.len(), |end| begin + end);
        self.pass((end + close.len()).min(rest.len()));
        &rest[begin..end]
    }

    fn quoted(&mut self, quote: char) {
        let rest = &self.text[self.at + 1..];
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = !escaped && (c == quote || c == '\n');
            escaped = !escaped && c == '\\';
            ends
        });
        let end = end.unwrap_or(rest.len());
        self.words.push((Word::Text(&rest[..end]), self.line));
        self.pass((end + 2).min(rest.len() + 1));
    }
}

/// The number of `=` of the long bracket at the beginning of `rest`, if there is one.
fn long_bracket(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('[')?;
    let level = inner.bytes().take_while(|byte| *byte == b'=').count();
    inner[level..].starts_with('[').then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_and_texts() {
        let text = "local a = kong.log -- kong.no\n--[[ more\nkong ]] b[1..2] = 'x\\'y' .. [==[\nlong ]] ]==]\nend_";
        let names: Vec<_> = words(text)
            .into_iter()
            .filter_map(|(word, line)| match word {
                Word::Name(text) | Word::Text(text) => Some((text, line)),
                Word::Sign(_) => None,
            })
            .collect();
        let expected =
            [("local", 1), ("a", 1), ("kong", 1), ("log", 1), ("b", 3), ("x\\'y", 3), ("\nlong ]] ", 3), ("end_", 5)];
        assert_eq!(names, expected);
    }

    proptest! {
        #[test]
        fn any_text_has_an_end(text in r#"[-\[\]='"\\a1.é\n ]{0,40}"#) {
            words(&text);
        }
    }
}
