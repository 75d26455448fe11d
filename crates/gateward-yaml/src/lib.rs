//! Texts in YAML and JSON as values that know their place, for files that people write.
//!
//! serde's data model loses positions, and with them the only useful part of an error message. Readers of formats
//! (`gateward-config`, `gateward-zone`, `gateward-domain`) walk the tree, know their fields, and report every problem of a
//! file at once. Texts are bounded in `limits`; nothing here reads a file or a clock.

mod json;
mod limits;
mod path;
mod suggest;
mod tree;
mod yaml;

pub use path::Path;
pub use suggest::did_you_mean;
pub use tree::{Key, Node, Position, SyntaxError, Tree, quote};

/// The one document of a text in YAML 1.2 (core schema); null when there is none.
///
/// # Errors
/// The first mistake: not UTF-8, not YAML, a key given twice, too large or too deep.
pub fn parse_yaml(text: &[u8]) -> Result<Node, SyntaxError> {
    parse_yaml_within(text, limits::NODES, limits::BYTES)
}

/// [`parse_yaml`] of a text with at most `values` values and `bytes` of texts in them, those that aliases repeat counted every time.
///
/// # Errors
/// As for [`parse_yaml`].
pub fn parse_yaml_within(text: &[u8], values: usize, bytes: usize) -> Result<Node, SyntaxError> {
    let most = yaml::Amount { nodes: values.min(limits::NODES), bytes: bytes.min(limits::BYTES) };
    decode(text).and_then(|text| yaml::parse(text, most))
}

/// The one value of a text in JSON (RFC 8259).
///
/// # Errors
/// As for [`parse_yaml`].
pub fn parse_json(text: &[u8]) -> Result<Node, SyntaxError> {
    decode(text).and_then(json::parse)
}

fn decode(text: &[u8]) -> Result<&str, SyntaxError> {
    if text.len() > limits::TEXT_BYTES {
        let message = format!("the file is larger than {} MiB", limits::TEXT_BYTES >> 20);
        return Err(SyntaxError::new(Position::START, message));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let lines = before.split(|byte| *byte == b'\n');
        let (count, last) = lines.fold((0, &[][..]), |(count, _), line| (count + 1, line));
        let column = String::from_utf8_lossy(last).chars().count() + 1;
        let bounded = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let at = Position { line: bounded(count), column: bounded(column) };
        SyntaxError::new(at, "the file is not UTF-8; save it in that encoding")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
