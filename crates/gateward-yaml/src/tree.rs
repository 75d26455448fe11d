//! A parsed file whose every value knows its place, common to YAML and JSON.
//!
//! serde's data model loses positions, and with them the only useful part of an error message. The tree is
//! bounded (see `limits`) by the parsers that build it, so walking it recursively cannot overflow the stack.

/// A place in the file: both count from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl Position {
    /// Where every text begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub value: Tree,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; YAML 1.1's `yes` and `off` are plain strings.
    Bool(bool),
    /// A number without fraction that fits 64 bits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// `plain`: written without quotes in YAML, so that `yes` may still be a boolean where one is expected.
    String {
        /// What it says, escapes resolved.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A list.
    Seq(Vec<Node>),
    /// A map in the order of the file, no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it begins.
    pub position: Position,
}

/// A file that could not be read as YAML or JSON at all.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntaxError {
    /// Where reading ended.
    pub position: Position,
    /// What is wrong and what to do.
    pub message: String,
}

impl SyntaxError {
    /// An error with its text.
    pub fn new(position: Position, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

impl Node {
    /// Quoted text at a place.
    pub fn text(position: Position, text: impl Into<String>) -> Self {
        Self { position, value: Tree::String { text: text.into(), plain: false } }
    }

    /// The tree form of a JSON value, all at one place.
    pub fn from_json(position: Position, value: &serde_json::Value) -> Self {
        use serde_json::Value;
        let value = match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Number(number) => {
                number.as_i64().map_or_else(|| Tree::Float(number.as_f64().unwrap_or(f64::NAN)), Tree::Int)
            }
            Value::String(text) => Tree::String { text: text.clone(), plain: false },
            Value::Array(items) => Tree::Seq(items.iter().map(|item| Self::from_json(position, item)).collect()),
            Value::Object(fields) => Tree::Map(
                fields
                    .iter()
                    .map(|(text, field)| (Key { text: text.clone(), position }, Self::from_json(position, field)))
                    .collect(),
            ),
        };
        Self { position, value }
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value == Tree::Null
    }

    /// The text when this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Tree::String { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries when this is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(Key, Self)]> {
        match &self.value {
            Tree::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under `key` when this is a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }

    /// What the value is, for "expected x; found y", without the value itself.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Int(_) => "an integer",
            Tree::Float(_) => "a number",
            Tree::String { .. } => "a string",
            Tree::Seq(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// The place of the value at a path such as `hosts[1]` or `healthchecks.active.timeout` below this one; as
    /// deep as the file goes (a field that a default filled has no place of its own).
    pub fn locate(&self, path: &str) -> Position {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match (&node.value, part.strip_suffix(']')) {
                (Tree::Seq(items), Some(index)) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.position
    }
}

/// Reports the first key that a map holds twice.
pub(crate) fn check_duplicates(entries: &[(Key, Node)]) -> Result<(), SyntaxError> {
    let twice = |first: &Key, second: &Key| {
        let Position { line, column } = first.position;
        Err(SyntaxError::new(
            second.position,
            format!(
                "the key '{}' is given twice in this map (first at {line}:{column}); remove one",
                quote(&second.text)
            ),
        ))
    };
    if entries.len() <= 16 {
        for (index, (second, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..index].iter().find(|(first, _)| first.text == second.text) {
                return twice(first, second);
            }
        }
        return Ok(());
    }
    let mut seen = std::collections::HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        if let Some(first) = seen.insert(key.text.as_str(), key) {
            return twice(first, key);
        }
    }
    Ok(())
}

/// `text` shortened, and without control characters, for a message.
pub fn quote(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut quoted: String = text.chars().take(crate::limits::QUOTED_CHARS).map(shown).collect();
    if text.chars().nth(crate::limits::QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    quoted
}
