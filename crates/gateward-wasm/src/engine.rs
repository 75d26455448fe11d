//! The engine: how modules are compiled and where instances live.
//!
//! Instances come from a pool that reserves address space once, so that making one costs microseconds. Every memory is
//! reserved whole (4 GiB and a guard), so accesses need no bounds checks. Guests are stopped by epochs, which cost a
//! compare per loop; counting instructions would cost several times that.

use crate::limits::{INSTANCES, MAX_MEMORY_BYTES, STACK_BYTES, TABLE_ELEMENTS, TABLES};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// The engine, and whether its instances are pooled: where address space is limited (`ulimit -v`) the pool is too large
/// and instances are mapped one by one.
///
/// # Errors
/// The machine cannot run compiled code.
pub(crate) fn engine() -> wasmtime::Result<(Engine, bool)> {
    let mut config = config();
    let mut pool = PoolingAllocationConfig::new();
    // Beside each instance there is its bridge, which has a table and no memory.
    pool.total_core_instances(2 * INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(2 * INSTANCES)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    match Engine::new(&config) {
        Ok(engine) => Ok((engine, true)),
        Err(error) => {
            tracing::warn!(%error, "no pool for Wasm instances; they are mapped one by one");
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Ok((Engine::new(&config)?, false))
        }
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // All the address space a memory can grow to is reserved, so compiled code need not look up where it is.
        .memory_may_move(false)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}
