//! Per-worker metric slabs, exporters, access log.
