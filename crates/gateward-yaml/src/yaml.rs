//! YAML 1.2 (core schema) to the positioned tree, with anchors, aliases and merge keys.
//!
//! Built from parser events on an explicit stack. Aliases copy the anchored value against a budget of nodes and of bytes,
//! so "billion laughs" is an error and not an allocation, and so is one long text many times. YAML 1.1 booleans (`yes`, `off`) stay text here:
//! whether they mean a boolean depends on the field.

use crate::limits;
use crate::tree::{Key, Node, Position, SyntaxError, Tree, check_duplicates};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::collections::HashMap;

/// Parse a text of at most one document with at most so much in it.
pub(crate) fn parse(text: &str, most: Amount) -> Result<Node, SyntaxError> {
    check_characters(text)?;
    let mut builder = Builder { most, ..Builder::default() };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|error| SyntaxError::new(position(*error.marker()), format!("not YAML: {}", error.info())))?;
        builder.event(event, position(span.start))?;
    }
    Ok(builder.root.unwrap_or(Node { position: Position::START, value: Tree::Null }))
}

fn position(marker: Marker) -> Position {
    let bounded = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: bounded(marker.line()).max(1), column: bounded(marker.col()).saturating_add(1) }
}

/// Control characters are not YAML; a NUL in particular would end the text early, unnoticed.
fn check_characters(text: &str) -> Result<(), SyntaxError> {
    let bad = |c: char| (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || c == '\u{7f}';
    let Some(at) = text.find(bad) else { return Ok(()) };
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let bounded = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let at = Position { line: bounded(line), column: bounded(column) };
    Err(SyntaxError::new(at, "a control character; YAML allows it only as an escape inside double quotes"))
}

/// How much of a tree.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amount {
    pub(crate) nodes: usize,
    /// Of texts.
    pub(crate) bytes: usize,
}

/// An open list or map.
struct Frame {
    position: Position,
    anchor: usize,
    /// What was counted before this one, to know how much it holds.
    before: Amount,
    /// Levels below this one.
    height: usize,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merges: Vec<Node> },
}

struct Anchored {
    node: Node,
    amount: Amount,
    height: usize,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
    counted: Amount,
    most: Amount,
}

type Built = Result<(), SyntaxError>;

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Built {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let amount = Amount { nodes: 1, bytes: text.len() };
                self.count(at, amount)?;
                let node = Node { position: at, value: scalar(&text, style, tag.as_deref(), at)? };
                self.remember(anchor, &node, amount, 0)?;
                self.place(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                check_collection_tag(tag.as_deref(), "seq", at)?;
                self.open(at, anchor, Content::Seq(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_collection_tag(tag.as_deref(), "map", at)?;
                self.open(at, anchor, Content::Map { entries: Vec::new(), key: None, merges: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(SyntaxError::new(at, "a second YAML document; a configuration is one document"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, position: Position, anchor: usize, content: Content) -> Built {
        if self.stack.len() >= limits::DEPTH {
            return Err(SyntaxError::new(position, format!("nested deeper than {} levels", limits::DEPTH)));
        }
        let before = self.counted;
        self.count(position, Amount { nodes: 1, bytes: 0 })?;
        self.stack.push(Frame { position, anchor, before, height: 0, content });
        Ok(())
    }

    fn close(&mut self) -> Built {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.content {
            Content::Seq(items) => Tree::Seq(items),
            Content::Map { entries, merges, .. } => {
                check_duplicates(&entries)?;
                Tree::Map(merge(entries, merges)?)
            }
        };
        let node = Node { position: frame.position, value };
        let Amount { nodes, bytes } = self.counted;
        let amount = Amount { nodes: nodes - frame.before.nodes, bytes: bytes - frame.before.bytes };
        self.remember(frame.anchor, &node, amount, frame.height)?;
        self.place(node, frame.height)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Built {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(at, "this alias stands inside the value it names"));
        };
        if self.stack.len() + anchored.height > limits::DEPTH {
            return Err(SyntaxError::new(at, format!("nested deeper than {} levels", limits::DEPTH)));
        }
        let (amount, height) = (anchored.amount, anchored.height);
        self.count(at, amount)?;
        // The copy stands where the alias is; what is inside it, where it was written.
        let node = self.anchors.get(&anchor).map(|anchored| Node { position: at, value: anchored.node.value.clone() });
        node.map_or(Ok(()), |node| self.place(node, height))
    }

    /// Keep an anchored value for its aliases. The copy counts too: it is memory.
    fn remember(&mut self, anchor: usize, node: &Node, amount: Amount, height: usize) -> Built {
        if anchor > 0 {
            self.count(node.position, amount)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), amount, height });
        }
        Ok(())
    }

    /// Before anything is copied.
    fn count(&mut self, at: Position, amount: Amount) -> Built {
        self.counted.nodes += amount.nodes;
        self.counted.bytes += amount.bytes;
        let (unit, most) = match self.counted {
            Amount { nodes, .. } if nodes > self.most.nodes => ("values", self.most.nodes),
            Amount { bytes, .. } if bytes > self.most.bytes => ("bytes of text", self.most.bytes),
            _ => return Ok(()),
        };
        Err(SyntaxError::new(at, format!("more than {most} {unit} in one file, aliases expanded")))
    }

    /// Put a finished value into the list or map that is open.
    fn place(&mut self, node: Node, height: usize) -> Built {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::Seq(items) => items.push(node),
            Content::Map { entries, key, merges } => match key.take() {
                None => {
                    *key = Some(map_key(node)?);
                    return Ok(());
                }
                Some(key) if key.text == MERGE => merges.push(node),
                Some(key) => entries.push((key, node)),
            },
        }
        frame.height = frame.height.max(height + 1);
        Ok(())
    }
}

/// Stands for an unquoted `<<`; no key of a file can hold a NUL.
const MERGE: &str = "\0<<";

fn map_key(node: Node) -> Result<Key, SyntaxError> {
    let position = node.position;
    let text = match node.value {
        Tree::String { text, plain: true } if text == "<<" => MERGE.to_owned(),
        Tree::String { text, .. } => text,
        Tree::Int(value) => value.to_string(),
        Tree::Float(value) => value.to_string(),
        Tree::Bool(value) => value.to_string(),
        Tree::Null | Tree::Seq(_) | Tree::Map(_) => {
            return Err(SyntaxError::new(position, "a key of a map must be a text"));
        }
    };
    Ok(Key { text, position })
}

/// Add the entries of merged maps; keys given in the map itself win, then earlier merges.
fn merge(mut entries: Vec<(Key, Node)>, merges: Vec<Node>) -> Result<Vec<(Key, Node)>, SyntaxError> {
    let mut sources = Vec::new();
    for node in merges {
        match node.value {
            Tree::Seq(items) => sources.extend(items),
            _ => sources.push(node),
        }
    }
    if sources.is_empty() {
        return Ok(entries);
    }
    let mut present: std::collections::HashSet<String> = entries.iter().map(|(key, _)| key.text.clone()).collect();
    for source in sources {
        let Tree::Map(merged) = source.value else {
            return Err(SyntaxError::new(source.position, "'<<' merges maps only"));
        };
        entries.extend(merged.into_iter().filter(|(key, _)| present.insert(key.text.clone())));
    }
    Ok(entries)
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Tree, SyntaxError> {
    let string = |plain| Tree::String { text: text.to_owned(), plain };
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { string(false) });
    };
    let resolved = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => return Ok(string(false)),
        (false, "!") if tag.handle.is_empty() => return Ok(string(false)),
        (true, "int") => Some(plain(text)).filter(|value| matches!(value, Tree::Int(_))),
        (true, "float") => match plain(text) {
            #[expect(clippy::cast_precision_loss, reason = "the file asked for a float")]
            Tree::Int(value) => Some(Tree::Float(value as f64)),
            value => Some(value).filter(|value| matches!(value, Tree::Float(_))),
        },
        (true, "bool") => Some(plain(text)).filter(|value| matches!(value, Tree::Bool(_))),
        (true, "null") => Some(Tree::Null),
        _ => return Err(unknown_tag(tag, at)),
    };
    resolved.ok_or_else(|| SyntaxError::new(at, format!("this text is not a YAML !!{}", tag.suffix)))
}

fn check_collection_tag(tag: Option<&Tag>, expected: &str, at: Position) -> Built {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) && tag.handle != "!" => {
            Err(unknown_tag(tag, at))
        }
        Some(tag) if tag.handle == "!" && !tag.suffix.is_empty() => Err(unknown_tag(tag, at)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> SyntaxError {
    let name = crate::tree::quote(&tag.to_string());
    SyntaxError::new(at, format!("the YAML tag '{name}' is not supported; remove it"))
}

/// An unquoted scalar by YAML 1.2's core schema (section 10.3.2).
fn plain(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        "true" | "True" | "TRUE" => return Tree::Bool(true),
        "false" | "False" | "FALSE" => return Tree::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Tree::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Tree::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Tree::Float(f64::NAN),
        _ => {}
    }
    number(text).unwrap_or_else(|| Tree::String { text: text.to_owned(), plain: true })
}

fn number(text: &str) -> Option<Tree> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let digits = Some(digits).filter(|digits| digits.chars().all(|c| c.is_digit(radix)))?;
            return i64::from_str_radix(digits, radix).ok().map(Tree::Int);
        }
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Cheap refusal of what is clearly text; `parse` below is stricter, but would take "inf" and "nan".
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        || !digits.bytes().any(|b| b.is_ascii_digit())
    {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Tree::Int).ok().or_else(|| text.parse().map(Tree::Float).ok());
    }
    text.parse().map(Tree::Float).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Amount = Amount { nodes: limits::NODES, bytes: limits::BYTES };

    fn parse(text: &str) -> Result<Node, SyntaxError> {
        super::parse(text, MOST)
    }

    fn check(text: &str, expected: &str) {
        let outcome = match parse(text) {
            Ok(node) => show(&node),
            Err(error) => format!("{}:{} {}", error.position.line, error.position.column, error.message),
        };
        assert_eq!(outcome, expected, "{text}");
    }

    fn show(node: &Node) -> String {
        match &node.value {
            Tree::Null => "null".into(),
            Tree::Bool(value) => value.to_string(),
            Tree::Int(value) => value.to_string(),
            Tree::Float(value) => format!("{value:?}"),
            Tree::String { text, .. } => format!("{text:?}"),
            Tree::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Tree::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{}:{}", key.text, show(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn reads_the_core_schema() {
        check(
            "[~, null, true, False, 12, -3, 0x1F, 0o17, 1.5, 1e3, .5]",
            "[null,null,true,false,12,-3,31,15,1.5,1000.0,0.5]",
        );
        check(
            "[yes, off, 1_000, 1.2.3, '1', \"a\\tb\", +x, ., 12a, 0xZZ]",
            r#"["yes","off","1_000","1.2.3","1","a\tb","+x",".","12a","0xZZ"]"#,
        );
        check("[!!str 1, !!float 1, !!int 3, ! 4]", r#"["1",1.0,3,"4"]"#);
        check("a: |\n  x\n  y\nb: >-\n  x\n  y\n", r#"{a:"x\ny\n",b:"x y"}"#);
        check("", "null");
        check("# nothing\n", "null");
        check("404: x\ntrue: y", r#"{404:"x",true:"y"}"#);
    }

    #[test]
    fn follows_aliases_and_merges() {
        check(
            "a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, p: 3}\nd: {<<: [{p: 1}, {p: 2, r: 3}]}",
            "{a:{p:1,q:2},b:{p:1,q:2},c:{p:3,q:2},d:{p:1,r:3}}",
        );
        check("a: {<<: 3}", "1:9 '<<' merges maps only");
        check("a: {'<<': 3}", "{a:{<<:3}}");
        check("a: &x [*x]", "1:8 this alias stands inside the value it names");
    }

    #[test]
    fn bounds_bombs() {
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..12 {
            let repeated = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{repeated}]\n"));
        }
        assert!(parse(&bomb).expect_err("bomb").message.starts_with("more than 5000000 values"));
        let mut deep = "a0: &a0 [1]\n".to_owned();
        for level in 1..80 {
            deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert_eq!(parse(&deep).expect_err("deep").message, "nested deeper than 64 levels");
        check(&"[".repeat(100_000), "1:256 not YAML: recursion limit exceeded");
        check(&"- ".repeat(100_000), "1:129 nested deeper than 64 levels");
        assert!(parse(&"{a: ".repeat(100_000)).is_err());
    }

    #[test]
    fn says_where_it_is_broken() {
        check("a: 1\na: 2\n", "2:1 the key 'a' is given twice in this map (first at 1:1); remove one");
        check("a: 1\n---\nb: 2\n", "2:1 a second YAML document; a configuration is one document");
        check("a: \0", "1:4 a control character; YAML allows it only as an escape inside double quotes");
        check("? [a]\n: b", "1:3 a key of a map must be a text");
        check("a: !foo x", "1:4 the YAML tag '!foo' is not supported; remove it");
    }

    #[test]
    fn values_are_counted_where_aliases_repeat_them() {
        let text = "a: &a [1, 2, 3]\nb: [*a, *a]\n";
        assert!(super::parse(text, Amount { nodes: 20, ..MOST }).is_ok());
        assert!(super::parse(text, Amount { nodes: 12, ..MOST }).unwrap_err().message.contains("more than 12 values"));
    }

    #[test]
    fn texts_are_counted_where_aliases_repeat_them() {
        // Written, kept for aliases, repeated twice, and four keys.
        let text = format!("a: &a {}\nb: [*a]\nc: {{x: *a}}\n", "t".repeat(100));
        assert!(super::parse(&text, Amount { bytes: 404, ..MOST }).is_ok());
        let error = super::parse(&text, Amount { bytes: 403, ..MOST }).unwrap_err();
        assert_eq!(
            (error.position.line, error.message.as_str()),
            (3, "more than 403 bytes of text in one file, aliases expanded")
        );
        let nested = format!("a: &a [&b {}, *b]\nb: [*a, *a]\n", "t".repeat(100));
        assert!(
            super::parse(&nested, Amount { bytes: 1202, ..MOST }).is_ok(),
            "four times a with three texts, and two keys"
        );
        assert!(super::parse(&nested, Amount { bytes: 1201, ..MOST }).is_err());
        // One mebibyte eight thousand times.
        let bomb = format!("a: &a {}\nb: [{}]\n", "t".repeat(1 << 20), vec!["*a"; 8000].join(","));
        assert!(parse(&bomb).unwrap_err().message.starts_with("more than 536870912 bytes of text"));
    }
}
