//! Choices made of a fuzzer's bytes. When they are used up every choice is the first one, so that all that is made of
//! them comes to an end.

use serde_json::{Map, Number, Value};

/// Bytes that choose.
pub(super) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    /// A few bytes as they are.
    pub(super) fn take(&mut self) -> &'a [u8] {
        let length = self.below(24).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    pub(super) fn float(&mut self) -> f64 {
        match self.below(12) {
            0 => 0.0,
            1 => 1.0,
            2 => -1.0,
            3 => 0.1,
            4 => f64::INFINITY,
            5 => f64::NAN,
            6 => 9_007_199_254_740_993.0,
            7 => -9_223_372_036_854_775_808.0,
            8 => f64::MIN_POSITIVE,
            9 => f64::MAX,
            10 => f64::from(self.byte()),
            _ => f64::from_be_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A text; most are short words.
    pub(super) fn text(&mut self, words: &[&str]) -> String {
        if self.below(4) > 0 {
            return self.one_of(words).to_owned();
        }
        String::from_utf8_lossy(self.take()).into_owned()
    }

    /// Any JSON, `depth` levels at most.
    pub(super) fn json(&mut self, words: &[&str], depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => Value::Bool(self.byte() % 2 == 1),
            2 => Number::from_f64(self.float()).map_or(Value::Null, Value::Number),
            3 => Value::from(self.byte()),
            4 => Value::String(self.text(words)),
            5 | 6 => Value::Array((0..self.below(5)).map(|_| self.json(words, depth - 1)).collect()),
            _ => {
                let fields = (0..self.below(5)).map(|_| (self.text(words), self.json(words, depth - 1)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}
