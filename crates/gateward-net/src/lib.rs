//! Workers, listeners, deadlines, drain, dialling and upstream connection pools.
