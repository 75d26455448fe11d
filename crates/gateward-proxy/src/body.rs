//! Bytes in flight: the read buffer, and bodies decoded from one framing and encoded into another.

use gateward_http::chunked::{write_chunk_head, write_last_chunk};
use gateward_http::{BodyFraming, ChunkedDecoder, ChunkedError, Headers};
use std::cell::RefCell;

/// Bytes a buffer starts with: a usual head with a small body. A body that fits beside its head can be sent again when
/// a try fails. An odd number of cache lines, so that the beginnings of many buffers, which are all that most messages
/// touch, do not share cache sets.
pub(crate) const BUFFER_BYTES: usize = 261 * 64;
/// Bytes a buffer may grow to while it streams a body.
pub(crate) const STREAM_BYTES: usize = 64 * 1024;

/// A place in a [`Buffer`] to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    start: usize,
    end: usize,
}

/// Memory this thread's buffers have given back, the last first: what a message has just used is still in the cache
/// when the next one needs it.
#[derive(Default)]
struct Spare {
    /// Of [`BUFFER_BYTES`] each.
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

/// Pieces of memory kept of either kind.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Give `output` memory that is ready, if there is some.
pub(crate) fn equip(output: &mut Vec<u8>) {
    if output.capacity() == 0
        && let Some(spare) = SPARE.with_borrow_mut(|spare| spare.outputs.pop())
    {
        *output = spare;
    }
}

/// Forget what is in `output`, and let others have its memory.
pub(crate) fn retire(output: &mut Vec<u8>) {
    let mut output = std::mem::take(output);
    output.clear();
    SPARE.with_borrow_mut(|spare| {
        if (1..=BUFFER_BYTES).contains(&output.capacity()) && spare.outputs.len() < SPARE_MAX {
            spare.outputs.push(output);
        }
    });
}

/// Received bytes not yet dealt with, in one piece. Has memory only while there are some, or while it is
/// [asked for](Self::space).
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What is there.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The first `count` bytes are dealt with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "consumed more than was there");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// The place now.
    pub(crate) fn mark(&self) -> Mark {
        Mark { start: self.start, end: self.end }
    }

    /// Back to `mark`; nothing may have been read since.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.start = mark.start;
        self.end = mark.end;
    }

    /// Room to read into: at least one byte, growing up to `most` bytes in all. Empty when `most` bytes are held.
    pub(crate) fn space(&mut self, most: usize) -> &mut [u8] {
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            self.widen(most);
        }
        &mut self.bytes[self.end..]
    }

    /// Make room for more at a time, up to `most` bytes in all: a read that fills all there is will not be the last.
    pub(crate) fn widen(&mut self, most: usize) {
        if self.bytes.len() < most {
            if self.bytes.is_empty()
                && let Some(spare) = SPARE.with_borrow_mut(|spare| spare.inputs.pop())
            {
                self.bytes = spare;
                return;
            }
            let grown = (self.bytes.len() * 2).clamp(BUFFER_BYTES, most.max(BUFFER_BYTES));
            self.bytes.resize(grown, 0);
        }
    }

    /// `count` bytes were read into the space.
    pub(crate) fn fill(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len(), "filled more than the space");
    }

    /// Forget everything, and let others have the memory.
    pub(crate) fn reset(&mut self) {
        self.start = 0;
        self.end = 0;
        let bytes = std::mem::take(&mut self.bytes);
        SPARE.with_borrow_mut(|spare| {
            if bytes.len() == BUFFER_BYTES && spare.inputs.len() < SPARE_MAX {
                spare.inputs.push(bytes);
            }
        });
    }

    /// Let others have the memory while there is nothing in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.reset();
        }
    }
}

/// A body being received.
#[derive(Debug, Default)]
pub(crate) enum Decoder {
    #[default]
    Done,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
}

impl Decoder {
    pub(crate) fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => Self::Done,
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked(Box::default()),
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Decode everything that is in `input`, giving each run of data to `sink`. Trailers that came with the end
    /// are appended to `trailers`.
    pub(crate) fn advance(
        &mut self,
        input: &mut Buffer,
        trailers: &mut Headers,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), ChunkedError> {
        while !input.is_empty() {
            match self {
                Self::Done => break,
                Self::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    sink(&input.filled()[..count]);
                    input.consume(count);
                    *left -= count as u64;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                }
                Self::UntilClose => {
                    sink(input.filled());
                    input.consume(input.len());
                }
                Self::Chunked(decoder) => {
                    let step = decoder.decode(input.filled())?;
                    if !step.data.is_empty() {
                        sink(&input.filled()[step.data.clone()]);
                    }
                    input.consume(step.consumed);
                    if step.done {
                        for (name, value) in decoder.trailers().iter() {
                            trailers.add(name, value);
                        }
                        *self = Self::Done;
                    } else if step.consumed == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The sender closed: the end of a body that is delimited so, otherwise `false`: the body is cut off.
    pub(crate) fn close(&mut self) -> bool {
        let complete = matches!(self, Self::Done | Self::UntilClose);
        if complete {
            *self = Self::Done;
        }
        complete
    }
}

/// How a body is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoder {
    /// As it is: the length was announced, or the connection's end delimits it.
    #[default]
    Raw,
    /// In chunks.
    Chunked,
    /// Not at all: the message must not have content, whatever there is.
    Nothing,
}

impl Encoder {
    pub(crate) fn data(self, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Raw => out.extend_from_slice(data),
            Self::Chunked => {
                write_chunk_head(out, data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nothing => {}
        }
    }

    pub(crate) fn end(self, trailers: &Headers, out: &mut Vec<u8>) {
        if self == Self::Chunked {
            write_last_chunk(out, trailers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.space(STREAM_BYTES)[..bytes.len()].copy_from_slice(bytes);
        buffer.fill(bytes.len());
        buffer
    }

    #[test]
    fn a_buffer_keeps_what_is_not_consumed_and_makes_room() {
        let mut input = buffer(b"abcdef");
        input.consume(2);
        assert_eq!(input.filled(), b"cdef");
        while input.len() < BUFFER_BYTES {
            let room = input.space(BUFFER_BYTES).len();
            input.fill(room);
        }
        assert!(input.space(BUFFER_BYTES).is_empty());
        assert_eq!(&input.filled()[..4], b"cdef");
        assert!(!input.space(STREAM_BYTES).is_empty());
        input.reset();
        assert!(input.is_empty());
        input.widen(STREAM_BYTES);
        assert_eq!(input.space(STREAM_BYTES).len(), BUFFER_BYTES);
    }

    #[test]
    fn a_length_body_leaves_the_next_request_alone() {
        let (mut input, mut got) = (buffer(b"helloGET /"), Vec::new());
        let mut body = Decoder::new(BodyFraming::Length(5));
        body.advance(&mut input, &mut Headers::default(), |data| got.extend_from_slice(data)).unwrap();
        assert!(body.is_done());
        assert_eq!((got.as_slice(), input.filled()), (&b"hello"[..], &b"GET /"[..]));
    }

    #[test]
    fn only_a_body_delimited_by_close_ends_with_it() {
        assert!(Decoder::new(BodyFraming::UntilClose).close());
        assert!(!Decoder::new(BodyFraming::Length(1)).close());
        assert!(!Decoder::new(BodyFraming::Chunked).close());
    }
}
