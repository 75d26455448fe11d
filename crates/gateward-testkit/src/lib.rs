//! Helpers for tests: processes on free ports, raw HTTP clients, scripted backends.
