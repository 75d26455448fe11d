//! Why a head was refused: one variant per rule, each with the status and the label it is counted under.
//!
//! Variants are rules rather than positions in the bytes: the refusal counter must tell an operator which
//! client habit or attack is seen, and the peer gets nothing but a status.

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    /// CR without LF (RFC 9112 section 2.2).
    #[error("bare CR in the head; lines end in CRLF")]
    BareCr,
    /// LF without CR as the end of a line.
    #[error("bare LF in the head; lines end in CRLF")]
    BareLf,
    /// A field continued on a second line (RFC 9112 section 5.2).
    #[error("folded header line; send the field on one line")]
    ObsFold,
    /// White space between a field name and its colon (RFC 9112 section 5.1).
    #[error("white space between a field name and its colon")]
    SpaceBeforeColon,
    /// White space before the start line or the first field (RFC 9112 section 2.2).
    #[error("white space before the first line or the first field")]
    LeadingSpace,
    /// Empty lines before the request line, beyond the one that is ignored.
    #[error("more than one empty line before the request line")]
    EmptyLines,
    /// A request line that is not method SP target SP version.
    #[error("malformed request line; it is method, space, target, space, version")]
    RequestLine,
    /// A request line without a version.
    #[error("request without a version; HTTP/0.9 is not served")]
    Http09,
    /// A method longer than any known (status 501, RFC 9112 section 3).
    #[error("method longer than 64 bytes")]
    MethodTooLong,
    /// Not the text `HTTP/1.0` or `HTTP/1.1`.
    #[error("malformed version; it is HTTP/1.0 or HTTP/1.1")]
    BadVersion,
    /// Another major version, well-formed (status 505).
    #[error("unsupported major version of HTTP; use HTTP/1.1")]
    UnsupportedVersion,
    /// A byte the target must not hold raw, or a form the method does not allow.
    #[error("malformed request target; percent-encode what is not allowed, and use a form the method allows")]
    BadTarget,
    /// The target is longer than the limit (status 414).
    #[error("request target too long")]
    TargetTooLong,
    /// A field name that is not a token, or a line without a colon.
    #[error("malformed field name")]
    FieldName,
    /// A control character in a field value (RFC 9110 section 5.5).
    #[error("control character in a field value")]
    FieldValue,
    /// The head is longer than the limit (status 431).
    #[error("head too large")]
    HeadTooLarge,
    /// More fields than the limit (status 431).
    #[error("too many header fields")]
    TooManyFields,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    #[error("HTTP/1.1 request without Host")]
    MissingHost,
    /// Host more than once.
    #[error("more than one Host field")]
    RepeatedHost,
    /// Host, or the authority of the target, is not a host with an optional port.
    #[error("malformed Host or authority; it is a name or address with an optional port")]
    BadHost,
    /// Content-Length is not 1*DIGIT within 64 bits (RFC 9110 section 8.6).
    #[error("malformed Content-Length; it is one decimal number")]
    BadContentLength,
    /// Content-Length more than once (in a response: with different values).
    #[error("more than one Content-Length")]
    RepeatedContentLength,
    /// Content-Length together with Transfer-Encoding (RFC 9112 section 6.1).
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// Transfer-Encoding is not exactly one `chunked`.
    #[error("malformed Transfer-Encoding; only chunked, once, is accepted")]
    BadTransferEncoding,
    /// A transfer coding that is not implemented (status 501, RFC 9112 section 6.1).
    #[error("transfer coding not implemented; only chunked is")]
    UnknownTransferCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
    /// A field that has one value was sent more than once.
    #[error("a field that may stand once is repeated")]
    RepeatedField,
    /// An expectation other than `100-continue` (status 417, RFC 9110 section 10.1.1).
    #[error("unknown expectation; only 100-continue is known")]
    UnknownExpectation,
    /// A field that concerns a connection in an HTTP/2 message (RFC 9113 section 8.2.2).
    #[error("field about the connection in an HTTP/2 message")]
    ConnectionField,
    /// A malformed status line (responses only).
    #[error("malformed status line")]
    StatusLine,
}

impl HeadError {
    /// Status to answer a client with: 400, 414, 417, 431, 501 or 505.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodTooLong | Self::UnknownTransferCoding => 501,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// Reason label for the refusal counter, e.g. `bare_cr`, `obs_fold`, `length_and_encoding`.
    pub fn label(self) -> &'static str {
        match self {
            Self::BareCr => "bare_cr",
            Self::BareLf => "bare_lf",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::LeadingSpace => "leading_space",
            Self::EmptyLines => "empty_lines",
            Self::RequestLine => "request_line",
            Self::Http09 => "http09",
            Self::MethodTooLong => "method_too_long",
            Self::BadVersion => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadTarget => "bad_target",
            Self::TargetTooLong => "target_too_long",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::BadHost => "bad_host",
            Self::BadContentLength => "bad_content_length",
            Self::RepeatedContentLength => "repeated_content_length",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::EncodingInHttp10 => "encoding_in_http10",
            Self::RepeatedField => "repeated_field",
            Self::UnknownExpectation => "unknown_expectation",
            Self::ConnectionField => "connection_field",
            Self::StatusLine => "status_line",
        }
    }
}
