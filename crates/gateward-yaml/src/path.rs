//! Where in the structure of a file a value stands, for messages.

use std::fmt;

/// Where in the structure of the file a value stands; a list on the stack, written out only for a message.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// A path that is there as text; the empty one is the whole file.
    Text(&'a str),
    /// A key of a map.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list, from 0.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
            Self::Key(parent, key) => {
                let simple = key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
                match parent {
                    _ if !simple || key.is_empty() => write!(formatter, "{parent}[{:?}]", crate::tree::quote(key)),
                    Self::Text("") => formatter.write_str(key),
                    _ => write!(formatter, "{parent}.{key}"),
                }
            }
        }
    }
}
