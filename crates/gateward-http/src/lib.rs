//! Sans-IO HTTP/1.1: bytes in, events out; and the rules on heads that HTTP/2 shares.
//!
//! Everything here is a function of its arguments: no socket, no clock, no runtime. The data plane reads
//! bytes, calls in, and acts on what comes back, so that every rule of RFC 9110/9112 can be tested and
//! fuzzed without a network. `protobuf` is here for the messages that gRPC puts into bodies.

#[doc(hidden)]
pub mod fuzzing;

pub mod chunked;
pub mod head;
pub mod headers;
pub mod hop;
pub mod method;
pub mod protobuf;
pub mod uri;
pub mod websocket;

pub use chunked::{ChunkedDecoder, ChunkedError, ChunkedStep};
pub use head::{
    BodyFraming, HeadError, HeadLimits, MessageParts, Parsed, RequestHead, ResponseHead, Version, parse_request_head,
    parse_response_head, read_request_head, read_response_head, read_trailers, worth_parsing,
};
pub use headers::{Headers, Name};
pub use method::Method;
