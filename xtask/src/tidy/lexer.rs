//! Just enough of Rust's lexical grammar to tell code from comments, strings and tests.
//!
//! It keeps every line break, so that line numbers stay true. It does not parse.

/// The text with comments, strings and character literals blanked out.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped_end(text, at);
        if end > at {
            code.extend(text[at..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            let letter = text[at..].chars().next().unwrap_or(' ');
            code.push(letter);
            at += letter.len_utf8();
        }
    }
    code
}

/// The part before the unit tests: `#[cfg(test)]` at the start of a line, up to the end of the file.
pub(crate) fn production(text: &str) -> &str {
    let tests = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let at_line_start = *at == 0 || text[..*at].ends_with('\n');
        let item = text[*at..].lines().skip(1).find(|line| !line.starts_with("#["));
        at_line_start && item.is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    });
    tests.map_or(text, |at| &text[..at])
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn skipped_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return at + rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return at + block_comment(rest);
    }
    if rest.starts_with('"') {
        return at + quoted(rest);
    }
    if rest.starts_with('\'') {
        return at + character(rest);
    }
    let in_word = text[..at].chars().next_back().is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if !in_word && let Some(length) = raw_string(rest) {
        return at + length;
    }
    at
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3),
        Some(_) => letters.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let opened = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - opened.len();
    Some(opened.find(&close).map_or(rest.len(), |at| start + at + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let check = |input: &str, expected: &str| assert_eq!(code_only(input), expected, "{input}");
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("x(\"crate::y\\\"\")", "x(            )");
        check("x('\\'', 'a', b)", "x(    ,    , b)");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("r#\"a\"b\"# + bar", "         + bar");
        check("\"a\nb\" c", "  \n   c");
    }

    #[test]
    fn production_ends_where_the_tests_begin() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(production(text), "fn a() {}\n");
        let with_lint = "fn a() {}\n#[cfg(test)]\n#[allow(dead_code)]\npub(crate) mod testing {\n}\n";
        assert_eq!(production(with_lint), "fn a() {}\n");
        let only_an_import = "#[cfg(test)]\nuse a::b;\nfn c() {}\n";
        assert_eq!(production(only_an_import), only_an_import);
    }
}
