//! The numbers of the Proxy-Wasm ABI: statuses, actions, and the kinds of buffers, maps and streams.
//!
//! Source: proxy-wasm/spec, abi-versions/v0.2.1, section "Types". The numbers are the same in 0.1.0 and 0.2.0.

/// What a host function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// What a callback asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pass what was shown on.
    Continue,
    /// Keep it until `proxy_continue_stream`.
    Pause,
}

impl Action {
    /// Zero is `Continue`; everything else holds the stream, which is the safe reading of unknown numbers.
    pub(crate) fn from_guest(number: u32) -> Self {
        if number == 0 { Self::Continue } else { Self::Pause }
    }
}

/// A version of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum Abi {
    V0_1_0,
    V0_2_0,
    V0_2_1,
}

impl Abi {
    /// All versions, newest first, each with the export that announces it.
    pub const MARKERS: [(&'static str, Self); 3] = [
        ("proxy_abi_version_0_2_1", Self::V0_2_1),
        ("proxy_abi_version_0_2_0", Self::V0_2_0),
        ("proxy_abi_version_0_1_0", Self::V0_1_0),
    ];

    /// `0.2.1` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }
}

/// A map of fields that belongs to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum FieldMap {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
}

/// A map of fields that a callout brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyMap {
    GrpcInitial,
    GrpcTrailing,
    CallHeaders,
    CallTrailers,
}

/// Any map, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnyMap {
    Stream(FieldMap),
    Reply(ReplyMap),
}

impl AnyMap {
    pub(crate) fn from_guest(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Stream(FieldMap::RequestHeaders),
            1 => Self::Stream(FieldMap::RequestTrailers),
            2 => Self::Stream(FieldMap::ResponseHeaders),
            3 => Self::Stream(FieldMap::ResponseTrailers),
            4 => Self::Reply(ReplyMap::GrpcInitial),
            5 => Self::Reply(ReplyMap::GrpcTrailing),
            6 => Self::Reply(ReplyMap::CallHeaders),
            7 => Self::Reply(ReplyMap::CallTrailers),
            _ => return Err(Status::BadArgument),
        })
    }
}

/// A buffer that belongs to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum DataBuffer {
    RequestBody,
    ResponseBody,
    Downstream,
    Upstream,
}

/// Any buffer, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnyBuffer {
    Stream(DataBuffer),
    CallBody,
    GrpcMessage,
    VmConfiguration,
    PluginConfiguration,
    ForeignArguments,
}

impl AnyBuffer {
    pub(crate) fn from_guest(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Stream(DataBuffer::RequestBody),
            1 => Self::Stream(DataBuffer::ResponseBody),
            2 => Self::Stream(DataBuffer::Downstream),
            3 => Self::Stream(DataBuffer::Upstream),
            4 => Self::CallBody,
            5 => Self::GrpcMessage,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::ForeignArguments,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// A direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum Direction {
    Request = 0,
    Response = 1,
    Downstream = 2,
    Upstream = 3,
}

impl Direction {
    pub(crate) fn from_guest(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Request,
            1 => Self::Response,
            2 => Self::Downstream,
            3 => Self::Upstream,
            _ => return Err(Status::BadArgument),
        })
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Who closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum Peer {
    Unknown = 0,
    Local = 1,
    Remote = 2,
}

/// Severity of a filter's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum LogLevel {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

impl LogLevel {
    pub(crate) fn from_guest(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// A callback, for counters and error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum Phase {
    Start,
    Configure,
    Create,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Connection,
    Data,
    Done,
    Log,
    Tick,
    Callout,
    Queue,
    Foreign,
}

impl Phase {
    /// Every phase, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Start,
        Self::Configure,
        Self::Create,
        Self::RequestHeaders,
        Self::RequestBody,
        Self::RequestTrailers,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::ResponseTrailers,
        Self::Connection,
        Self::Data,
        Self::Done,
        Self::Log,
        Self::Tick,
        Self::Callout,
        Self::Queue,
        Self::Foreign,
    ];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Configure => "configure",
            Self::Create => "create",
            Self::RequestHeaders => "request_headers",
            Self::RequestBody => "request_body",
            Self::RequestTrailers => "request_trailers",
            Self::ResponseHeaders => "response_headers",
            Self::ResponseBody => "response_body",
            Self::ResponseTrailers => "response_trailers",
            Self::Connection => "connection",
            Self::Data => "data",
            Self::Done => "done",
            Self::Log => "log",
            Self::Tick => "tick",
            Self::Callout => "callout",
            Self::Queue => "queue",
            Self::Foreign => "foreign",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_listed_in_the_order_of_their_numbers() {
        for (index, phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, index, "{}", phase.as_str());
        }
    }

    #[test]
    fn unknown_numbers_are_refused_and_unknown_actions_hold() {
        assert_eq!(AnyMap::from_guest(8), Err(Status::BadArgument));
        assert_eq!(AnyBuffer::from_guest(9), Err(Status::BadArgument));
        assert_eq!(Direction::from_guest(4), Err(Status::BadArgument));
        assert_eq!(LogLevel::from_guest(6), Err(Status::BadArgument));
        assert_eq!([0, 1, 7].map(Action::from_guest), [Action::Continue, Action::Pause, Action::Pause]);
    }
}
