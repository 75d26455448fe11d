//! The HTTP data plane: one spine function per request.
