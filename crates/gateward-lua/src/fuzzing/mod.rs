//! The properties that fuzzing checks, one function per target: the fuzz targets and the replay of the committed corpus call
//! the same code. Each function panics when a property does not hold; one that does not end is found by the fuzzer's clock.
//!
//! Not part of the API: hidden from the documentation, and free to change.

mod bytes;
mod json;
mod schema;

pub use json::{text, values};
pub use schema::schema;

use crate::code::Code;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Sources without a plugin.
fn no_plugins() -> &'static Arc<Code> {
    static CODE: LazyLock<Arc<Code>> = LazyLock::new(|| Arc::new(Code::new(BTreeMap::new())));
    &CODE
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, check: fn(&[u8])) {
        gateward_testkit::corpus(target, 1).for_each(|input| check(&input));
    }

    #[test]
    fn the_corpus_of_json_texts_holds() {
        replay("lua_json", super::text);
    }

    #[test]
    fn the_corpus_of_lua_values_holds() {
        replay("lua_values", super::values);
    }

    #[test]
    fn the_corpus_of_schemas_holds() {
        replay("lua_schema", super::schema);
    }

    /// Inputs without a meaning, always the same ones: what a fuzzer begins with.
    #[test]
    fn noise_is_taken() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for length in 0..200 {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 32) as u8
                })
                .collect();
            super::text(&noise);
            super::values(&noise);
            super::schema(&noise);
        }
    }
}
