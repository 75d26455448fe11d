//! What of the bytes that have arrived answers a `receive`.

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A line, without its end; carriage returns are left out.
    Line,
    /// Everything until the other side closes.
    All,
    /// So many bytes.
    Bytes(usize),
    /// Whatever there is, at most so many bytes.
    Any(usize),
    /// Up to a text; with it, if so asked. With a size: at most so many bytes before it.
    Until { text: Vec<u8>, inclusive: bool, size: Option<usize> },
}

/// What was found: an answer, and for [`What::Until`] whether the text was reached.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) reached: bool,
}

/// Take the answer out of `buffer`; nothing while more is needed. `closed`: nothing more will come.
pub(crate) fn find(what: &What, buffer: &mut Vec<u8>, closed: bool) -> Option<Answer> {
    let answer = |bytes| Some(Answer { bytes, reached: false });
    match what {
        What::Line => {
            let end = memchr::memchr(b'\n', buffer)?;
            let mut line = take(buffer, end + 1);
            line.retain(|byte| *byte != b'\n' && *byte != b'\r');
            answer(line)
        }
        What::All => closed.then(|| Answer { bytes: std::mem::take(buffer), reached: false }),
        What::Bytes(bytes) => (buffer.len() >= *bytes).then(|| take(buffer, *bytes)).and_then(answer),
        What::Any(most) => (!buffer.is_empty()).then(|| take(buffer, (*most).min(buffer.len()))).and_then(answer),
        What::Until { text, inclusive, size } => until(text, *inclusive, *size, buffer),
    }
}

fn take(buffer: &mut Vec<u8>, bytes: usize) -> Vec<u8> {
    if bytes == buffer.len() {
        return std::mem::take(buffer);
    }
    let rest = buffer.split_off(bytes);
    std::mem::replace(buffer, rest)
}

fn until(text: &[u8], inclusive: bool, size: Option<usize>, buffer: &mut Vec<u8>) -> Option<Answer> {
    let most = size.unwrap_or(usize::MAX);
    if let Some(at) = memchr::memmem::find(buffer, text) {
        if at > most {
            return Some(Answer { bytes: take(buffer, most), reached: false });
        }
        let mut bytes = take(buffer, at + text.len());
        if !inclusive {
            bytes.truncate(at);
        }
        return Some(Answer { bytes, reached: true });
    }
    // What may be the beginning of the text waits for its end.
    let sure = buffer.len().saturating_sub(text.len() - 1);
    (sure >= most).then(|| Answer { bytes: take(buffer, most), reached: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &What, buffer: &str, expected: Option<&str>, rest: &str) {
        let mut bytes = buffer.as_bytes().to_vec();
        let found = find(what, &mut bytes, false).map(|answer| String::from_utf8(answer.bytes).unwrap());
        assert_eq!((found.as_deref(), str::from_utf8(&bytes)), (expected, Ok(rest)), "{what:?} of {buffer:?}");
    }

    #[test]
    fn answers_are_taken_out_of_what_arrived() {
        check(&What::Line, "a\r\nb\n", Some("a"), "b\n");
        check(&What::Line, "\n", Some(""), "");
        check(&What::Line, "abc\r", None, "abc\r");
        check(&What::Bytes(2), "abc", Some("ab"), "c");
        check(&What::Bytes(4), "abc", None, "abc");
        check(&What::Bytes(0), "", Some(""), "");
        check(&What::Any(2), "abc", Some("ab"), "c");
        check(&What::Any(9), "", None, "");
        check(&What::All, "abc", None, "abc");
        let until = |size, inclusive| What::Until { text: b"--x".to_vec(), inclusive, size };
        check(&until(None, false), "ab--xc", Some("ab"), "c");
        check(&until(None, true), "ab--xc", Some("ab--x"), "c");
        check(&until(None, false), "ab--", None, "ab--");
        check(&until(Some(1), false), "ab--xc", Some("a"), "b--xc");
        check(&until(Some(2), false), "ab--xc", Some("ab"), "c");
        check(&until(Some(2), false), "ab-", None, "ab-");
        check(&until(Some(1), false), "ab-", Some("a"), "b-");
        check(&until(Some(9), false), "--xc", Some(""), "c");
    }

    #[test]
    fn all_is_there_when_the_other_side_closed() {
        let mut buffer = b"abc".to_vec();
        assert_eq!(find(&What::All, &mut buffer, true).unwrap().bytes, b"abc");
        assert!(find(&What::Line, &mut b"abc".to_vec(), true).is_none());
    }
}
