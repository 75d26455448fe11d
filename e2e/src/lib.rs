//! Tests that drive real gateward processes and real peers.
