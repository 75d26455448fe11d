//! The properties that fuzzing checks, one function per target: the fuzz targets and the replay of the committed corpus call
//! the same code. Each function panics when a property does not hold.
//!
//! Not part of the API: hidden from the documentation, and free to change.

use crate::pairs::{self, Pairs};
use crate::{FilterConfig, Limits, Runtime, Services, Tracing};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Maps of fields: what is read is what is written, and nothing else is read.
pub fn pairs(data: &[u8]) {
    let Ok(read) = pairs::parse(data) else { return };
    assert_eq!(read.into_iter().count(), read.len());
    let lowered: Vec<(Vec<u8>, &[u8])> =
        read.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let written = pairs::to_bytes(read.into_iter());
    let again: Pairs<'_> = pairs::parse(&written).expect("what was written can be read");
    assert!(again.into_iter().eq(lowered.iter().map(|(name, value)| (name.as_slice(), *value))));
    for (name, _) in &lowered {
        assert!(again.value(name).is_some());
    }
}

/// Modules: whatever the bytes are, they are taken or refused, and what is taken starts or fails within its limits.
pub fn module(data: &[u8]) {
    static RUNTIME: LazyLock<Arc<Runtime>> =
        LazyLock::new(|| Runtime::new(Services::new(Arc::new(Tracing)), None).expect("the machine runs Wasm"));
    if let Ok(module) = RUNTIME.load(data) {
        let limits = Limits {
            memory_bytes: 4 << 20,
            start: Duration::from_millis(20),
            callback: Duration::from_millis(20),
            ..Limits::default()
        };
        let config = FilterConfig { limits, ..FilterConfig::new("fuzzed") };
        let _ = crate::Filter::new(&RUNTIME, &module, config, Arc::new(crate::callout::NoUpstreams));
    }
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, check: fn(&[u8])) {
        gateward_testkit::corpus(target, 1).for_each(|input| check(&input));
    }

    #[test]
    fn the_corpus_holds() {
        replay("wasm_pairs", super::pairs);
        replay("wasm_module", super::module);
    }
}
