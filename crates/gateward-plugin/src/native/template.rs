//! Value templates of the transformers: `$(headers.x)`, `$(query_params["a-b"])`, `$(uri_captures[1] or 'none')`.
//!
//! Kong hands `$( ... )` to Lua. The look-ups people write, and chains of them joined by `or` that may end in a quoted
//! text, are served here without it. Everything else is rendered before the template is needed, by the node's
//! [`Templates`](crate::Templates), and taken from there; without one it is refused when the configuration is loaded.
//! A template is compiled once; rendering allocates only when it has to join pieces or decode a query value.

use crate::Captures;
use crate::query;
use gateward_http::Headers;
use std::borrow::Cow;

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// Where a template's values come from.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// `headers`: the request's fields.
    pub headers: &'a Headers,
    /// `query_params`: the query without `?`.
    pub query: Option<&'a str>,
    /// `uri_captures`: what the route's regex captured.
    pub captures: &'a Captures,
    /// What templates with expressions came to.
    pub rendered: &'a [String],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The first of these that exists; none: nothing.
    FirstOf(Vec<Term>),
    /// One of [`Values::rendered`].
    Rendered(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Header(String),
    Query(String),
    Capture(String),
    Literal(String),
}

impl Template {
    /// Compile `text`. The error says what is wrong and what is served instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("$(") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let mut scanner = Scanner { rest: &rest[start + 2..] };
            let terms = scanner.terms().ok_or_else(|| refusal(text, &rest[start..]))?;
            parts.push(Part::FirstOf(terms));
            rest = scanner.rest;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Likewise; a text with expressions is put among `expressions`, to be rendered by others.
    pub fn with_expressions(text: &str, expressions: &mut Vec<String>) -> Self {
        Self::parse(text).unwrap_or_else(|_| {
            expressions.push(text.to_owned());
            Self { parts: vec![Part::Rendered(expressions.len() - 1)] }
        })
    }

    /// The text with every look-up replaced by its value, or by nothing when there is none.
    pub fn render<'a>(&'a self, values: &Values<'a>) -> Cow<'a, str> {
        match self.parts.as_slice() {
            [] => Cow::Borrowed(""),
            [part] => part.value(values),
            parts => Cow::Owned(parts.iter().map(|part| part.value(values)).collect()),
        }
    }

    /// Whether rendering looks at the request at all.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The fixed text the template starts with; empty when it starts with a look-up.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }
}

fn refusal(text: &str, at: &str) -> String {
    let shown: String = at.chars().take(40).collect();
    format!(
        "template '{text}' cannot be served at '{shown}': Lua expressions in templates are not served by this build; \
         use $(headers.NAME), $(query_params.NAME) or $(uri_captures.NAME), with [\"...\"] for other names and \
         'or \"text\"' for a default"
    )
}

impl Part {
    fn value<'a>(&'a self, values: &Values<'a>) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Rendered(index) => Cow::Borrowed(values.rendered.get(*index).map_or("", String::as_str)),
            Self::FirstOf(terms) => terms.iter().find_map(|term| term.value(values)).unwrap_or_default(),
        }
    }
}

impl Term {
    fn value<'a>(&'a self, values: &Values<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            Self::Capture(name) => values.captures.get(name).map(Cow::Borrowed),
            Self::Header(name) => header(values.headers, name).map(String::from_utf8_lossy),
            Self::Query(name) => {
                let is_named = |raw: &str| raw == name || query::decode(raw) == name.as_str();
                let (_, value) = query::pairs(values.query?).find(|(raw, _)| is_named(raw))?;
                // Lua sees `true` for an argument without `=`.
                Some(value.map_or(Cow::Borrowed("true"), query::decode))
            }
        }
    }
}

/// As Kong's header table: `x_y` also finds `X-Y`.
fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    headers.get(name).or_else(|| if name.contains('_') { headers.get(&name.replace('_', "-")) } else { None })
}

/// Reads what is between `$(` and `)`.
struct Scanner<'t> {
    rest: &'t str,
}

impl<'t> Scanner<'t> {
    fn terms(&mut self) -> Option<Vec<Term>> {
        let mut terms = vec![self.term()?];
        loop {
            self.skip_space();
            if self.eat(")") {
                return Some(terms);
            }
            (self.word()? == "or").then_some(())?;
            terms.push(self.term()?);
        }
    }

    fn term(&mut self) -> Option<Term> {
        self.skip_space();
        if let Some(text) = self.quoted() {
            return Some(Term::Literal(text.to_owned()));
        }
        let make = match self.word()? {
            "headers" => Term::Header,
            "query_params" => Term::Query,
            "uri_captures" => Term::Capture,
            _ => return None,
        };
        if self.eat(".") {
            return Some(make(self.word()?.to_owned()));
        }
        self.eat("[").then_some(())?;
        self.skip_space();
        let name = match self.quoted() {
            Some(name) => name,
            None => self.word().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?,
        };
        self.skip_space();
        self.eat("]").then(|| make(name.to_owned()))
    }

    fn word(&mut self) -> Option<&'t str> {
        // A `-` ends a name in Lua, which would subtract then; here nothing can be subtracted, so it is a part.
        let is_end = |byte: u8| !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let end = self.rest.bytes().position(is_end).unwrap_or(self.rest.len());
        (end > 0).then(|| self.take(end))
    }

    /// A quoted text without escapes.
    fn quoted(&mut self) -> Option<&'t str> {
        let quote = self.rest.chars().next().filter(|quote| *quote == '"' || *quote == '\'')?;
        let end = self.rest[1..].find(quote)? + 1;
        let text = &self.rest[1..end];
        (!text.contains('\\')).then(|| {
            self.take(end + 1);
            text
        })
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.strip_prefix(text);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn take(&mut self, end: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn look_ups_find_what_the_request_has() {
        let mut headers = Headers::default();
        headers.add("X-Tenant", "acme");
        headers.add("plain", "p");
        let captures = Captures {
            unnamed: vec!["/u/7".to_owned(), "7".to_owned()],
            named: vec![("user-id".to_owned(), "seven".to_owned())],
        };
        let values =
            Values { headers: &headers, query: Some("a=1%202&b&c-d=x&a=9"), captures: &captures, rendered: &[] };
        for (template, expected) in [
            ("", ""),
            ("constant $ ( $5 )", "constant $ ( $5 )"),
            ("$(headers.plain)", "p"),
            ("$(headers.x-tenant)", "acme"),
            ("$(headers.x_tenant)", "acme"),
            ("$(headers[\"X-Tenant\"])", "acme"),
            ("$( headers[ 'x-tenant' ] )", "acme"),
            ("$(headers.missing)", ""),
            ("<$(headers.missing)>", "<>"),
            ("$(query_params.a)", "1 2"),
            ("$(query_params.b)", "true"),
            ("$(query_params['c-d'])", "x"),
            ("/v/$(uri_captures[1])/$(uri_captures['user-id'])", "/v/7/seven"),
            ("$(uri_captures.1)$(uri_captures[0])", "7/u/7"),
            ("$(uri_captures[9] or 'none')", "none"),
            ("$(headers.plain or 'none')", "p"),
            ("$(headers.missing or query_params.missing or \"a ) b\")!", "a ) b!"),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&values), expected, "{template}");
        }
    }

    #[test]
    fn lua_is_refused_when_it_is_configured() {
        for template in [
            "$((function() return 1 end)())",
            "$(headers.a .. 'x')",
            "$(headers.a == 'x' and 'y' or 'z')",
            "$(headers)",
            "$(shared.x)",
            "$(headers.a",
            "$(headers['a)",
            "$(headers[a])",
            "$('a\\'b')",
            "$()",
            "$(headers.a or)",
            "x$(os.time())",
        ] {
            let text = Template::parse(template).unwrap_err();
            assert!(text.contains("Lua expressions in templates are not served by this build"), "{template}: {text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_text_compiles_or_is_refused(text in "[$()\\[\\]'\" a-z.é_]{0,30}") {
            let (headers, captures) = Default::default();
            if let Ok(template) = Template::parse(&text) {
                template.render(&Values { headers: &headers, query: None, captures: &captures, rendered: &[] });
            }
        }
    }
}
