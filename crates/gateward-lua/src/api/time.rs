//! Clocks, and waiting for them.

use crate::shared::Op;
use mlua::{Lua, MultiValue, Result, Table};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest sleep; a request that waits longer is of no use to anybody.
const LONGEST: f64 = 3600.0;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let sleep = lua.create_function(|_, seconds: f64| {
        let time = Duration::from_secs_f64(seconds.clamp(0.0, LONGEST));
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
