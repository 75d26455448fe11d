//! `examples/resilience/run.sh`: run the example and print its tables.

use gateward_e2e::resilience;

fn main() {
    println!("{}", resilience::mixed_faults());
    println!("{}", resilience::total_outage());
}
