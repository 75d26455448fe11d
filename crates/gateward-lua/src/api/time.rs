//! Clocks, and waiting for them.

use crate::shared::Op;
use mlua::{Lua, MultiValue, Result, Table};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest sleep; a request that waits longer is of no use to anybody.
const LONGEST: f64 = 3600.0;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let sleep = lua.create_function(|_, seconds: f64| {
        let time = duration(seconds, LONGEST);
        Ok(Op::new(async move {
            tokio::time::sleep(time).await;
            Ok(MultiValue::new())
        }))
    })?;
    functions.raw_set("sleep", sleep)?;
    let now = lua.create_function(|_, ()| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(now.as_millis() as f64 / 1000.0)
    })?;
    functions.raw_set("now", now)
}

/// So many seconds, `longest` at most; what is no number is none.
pub(super) fn duration(seconds: f64, longest: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_seconds_panics() {
        for (seconds, ms) in
            [(1.5, 1500), (0.0, 0), (-1.0, 0), (f64::NAN, 0), (f64::NEG_INFINITY, 0), (1e300, 3_600_000)]
        {
            assert_eq!(duration(seconds, LONGEST).as_millis(), ms, "{seconds}");
        }
    }
}
