//! Programs measured beside the gateway: a backend, an epoll floor, in-process benches.
