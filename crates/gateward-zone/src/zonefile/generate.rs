//! `$GENERATE start-stop[/step] lhs [ttl] [class] type rhs`, as BIND documents it.
//!
//! `$` becomes the number, `${offset,width,base}` a variant of it: base d, o, x, X, or n and N for hexadecimal digits in reverse
//! order with dots between them. `\$` and `$$` are a dollar sign. A quoted right-hand side is taken apart into words, as BIND does
//! (`MX "10 mail-$"`); a string with spaces in it is written `TXT "\"a b\""`.

use std::fmt::Write;

use crate::lexer::{Fault, Token};
use crate::presentation::read_head;
use crate::rdata::Cursor;

/// A line that is written once for each number.
pub(super) struct Template {
    start: u32,
    stop: u32,
    step: u32,
    parts: Vec<Part>,
}

enum Part {
    Literal(Vec<u8>),
    Number(Format),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    offset: i64,
    width: usize,
    base: u8,
}

const PLAIN: Format = Format { offset: 0, width: 0, base: b'd' };
/// Nothing in a zone file is longer than a name.
const WIDEST: usize = 255;

impl Template {
    /// Reads what follows `$GENERATE`.
    pub(super) fn read(words: &mut Cursor<'_, '_>) -> Result<Self, Fault> {
        let (start, stop, step) = read_range(words.need("a range")?)?;
        let mut template = Template { start, stop, step, parts: Vec::new() };
        template.push(words.need("a name")?, false)?;
        let head: Vec<&Token<'_>> = words.rest().iter().collect();
        let before = head.len();
        read_head(words)?;
        let head_len = before - words.rest().len();
        for token in &head[..head_len] {
            template.literal(b" ");
            template.literal(token.raw);
        }
        let data = words.rest();
        let unpacked = data.len() == 1 && data[0].quoted;
        words.need("a right-hand side")?;
        for token in data {
            template.literal(b" ");
            if unpacked {
                let inner = unquote(token.raw);
                template.push(&Token { raw: &inner, ..*token }, false)?;
            } else {
                template.push(token, token.quoted)?;
            }
        }
        Ok(template)
    }

    /// How many records it makes.
    pub(super) fn count(&self) -> usize {
        usize::try_from((self.stop - self.start) / self.step).unwrap_or(usize::MAX).saturating_add(1)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> + use<> {
        let (stop, step) = (self.stop, self.step);
        std::iter::successors(Some(self.start), move |value| value.checked_add(step).filter(|next| *next <= stop))
    }

    /// Makes the line for `value`, up to a little more than `room` octets of it: numbers may be far wider than what asks for them.
    pub(super) fn line(&self, value: u32, out: &mut Vec<u8>, room: usize) -> Result<(), String> {
        for part in &self.parts {
            if out.len() > room {
                break;
            }
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Number(format) => out.extend(format.apply(value)?.into_bytes()),
            }
        }
        out.push(b'\n');
        Ok(())
    }

    fn literal(&mut self, text: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Literal(last)) => last.extend_from_slice(text),
            _ => self.parts.push(Part::Literal(text.to_vec())),
        }
    }

    fn push(&mut self, token: &Token<'_>, quoted: bool) -> Result<(), Fault> {
        if quoted {
            self.literal(b"\"");
        }
        let mut rest = token.raw;
        while let Some((octet, tail)) = rest.split_first() {
            let used = match (octet, tail) {
                (b'\\', [_, ..]) => {
                    self.literal(&rest[..2]);
                    2
                }
                (b'$', [b'$', ..]) => {
                    self.literal(b"\\$");
                    2
                }
                (b'$', [b'{', inner @ ..]) => {
                    let end = inner.iter().position(|octet| *octet == b'}');
                    let format = end.and_then(|end| Format::parse(&inner[..end]));
                    let (Some(end), Some(format)) = (end, format) else {
                        return Err(token
                            .fault(format!("`{}` holds a `${{` without offset, width, base and `}}`", token.shown()))
                            .remedy("as in ${0,3,d}; bases are d, o, x, X, n, N"));
                    };
                    self.parts.push(Part::Number(format));
                    end + 3
                }
                (b'$', _) => {
                    self.parts.push(Part::Number(PLAIN));
                    1
                }
                _ => {
                    self.literal(&rest[..1]);
                    1
                }
            };
            rest = &rest[used..];
        }
        if quoted {
            self.literal(b"\"");
        }
        Ok(())
    }
}

/// Quotes within a quoted right-hand side are quotes of the record.
fn unquote(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut octets = raw.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match (octet, octets.peek()) {
            (b'\\', Some(b'"')) => {}
            (b'\\', Some(_)) => text.extend([b'\\', octets.next().unwrap_or_default()]),
            _ => text.push(octet),
        }
    }
    text
}

fn read_range(token: &Token<'_>) -> Result<(u32, u32, u32), Fault> {
    const LARGEST: u32 = i32::MAX as u32;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u32>().ok().filter(|value| digits && *value <= LARGEST)
    };
    let parsed = token.ascii().and_then(|text| {
        let (range, step) = text.split_once('/').unwrap_or((text, "1"));
        let (start, stop) = range.split_once('-')?;
        Some((number(start)?, number(stop)?, number(step)?))
    });
    let good = parsed.filter(|(start, stop, step)| start <= stop && *step > 0);
    good.ok_or_else(|| {
        token
            .fault(format!("`{}` is not a range", token.shown()))
            .remedy("as in 1-254 or 0-100/2: start, stop, and a step above 0")
    })
}

impl Format {
    /// `offset[,width[,base]]`.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(',');
        let offset = parts.next()?.parse::<i32>().ok()?;
        let width = parts.next().map_or(Some(0), |width| width.parse().ok().filter(|width| *width <= WIDEST))?;
        let base = match parts.next() {
            None => b'd',
            Some(base) => match base.as_bytes() {
                [base @ (b'd' | b'o' | b'x' | b'X' | b'n' | b'N')] => *base,
                _ => return None,
            },
        };
        parts.next().is_none().then_some(Format { offset: i64::from(offset), width, base })
    }

    fn apply(self, value: u32) -> Result<String, String> {
        let Format { offset, width, base } = self;
        let number = i64::from(value) + offset;
        let number =
            u64::try_from(number).map_err(|_| format!("the number {value} with the offset {offset} is below 0"))?;
        Ok(match base {
            b'o' => format!("{number:0width$o}"),
            b'x' => format!("{number:0width$x}"),
            b'X' => format!("{number:0width$X}"),
            b'n' | b'N' => nibbles(number, width, base == b'N'),
            _ => format!("{number:0width$}"),
        })
    }
}

/// Hexadecimal digits from the lowest, dots between them; `width` counts digits and dots.
fn nibbles(mut number: u64, mut width: usize, upper: bool) -> String {
    let mut text = String::new();
    loop {
        let digit = number & 0x0f;
        _ = if upper { write!(text, "{digit:X}") } else { write!(text, "{digit:x}") };
        number >>= 4;
        width = width.saturating_sub(1);
        if width > 0 || number != 0 {
            text.push('.');
            width = width.saturating_sub(1);
        }
        if width == 0 && number == 0 {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_offset_width_and_base() {
        for (format, value, text) in [
            ("0", 7, "7"),
            ("-1", 7, "6"),
            ("0,3", 7, "007"),
            ("10,0,x", 7, "11"),
            ("0,4,X", 171, "00AB"),
            ("0,0,o", 8, "10"),
            ("0,0,n", 0x12, "2.1"),
            ("0,7,n", 0x1a, "a.1.0.0"),
            ("0,7,N", 0x1a, "A.1.0.0"),
            ("0,2,n", 1, "1."),
        ] {
            let format = Format::parse(format.as_bytes()).expect(format);
            assert_eq!(format.apply(value).as_deref(), Ok(text), "{format:?}");
        }
        for wrong in ["", "x", "0,", "0,1,z", "0,1,d,1", "0,300", "99999999999"] {
            assert_eq!(Format::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(Format { offset: -8, ..PLAIN }.apply(7).is_err());
    }
}
