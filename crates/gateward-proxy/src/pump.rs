//! One direction of a body: receive, decode, encode, send, with back-pressure and bounded memory.
//!
//! The same loop moves request bodies and response bodies. Its state lives in [`Pump`], not in the future, so a
//! run may be dropped and taken up again: that is how a response head is handled while a request body is still
//! on its way. At most one buffer is in flight: nothing is read before what was read is written.

use crate::body::{Buffer, Decoder, Encoder, Mark, STREAM_BYTES, equip, retire};
use crate::flow::{Sink, Source};
use gateward_http::{BodyFraming, ChunkedError, Headers};
use gateward_net::{Deadline, Outbox, Stream};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A body on its way.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) input: Buffer,
    pub(crate) decoder: Decoder,
    pub(crate) encoder: Encoder,
    /// Encoded bytes to send: usually begins with the message's head, so that head and body leave together.
    pub(crate) output: Vec<u8>,
    pub(crate) trailers: Headers,
    /// Body bytes decoded so far.
    pub(crate) body_bytes: u64,
    /// Bytes written so far.
    pub(crate) sent_bytes: u64,
    /// How many of the bytes to write are the message's head.
    pub(crate) head_bytes: u64,
    written: usize,
    ended: bool,
    /// What is in the input is the rest of the body.
    closing: bool,
    /// Likewise already when the body began.
    whole: bool,
    replay: Option<(Mark, BodyFraming)>,
}

/// Rules of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Milliseconds between two reads.
    pub(crate) read_ms: u64,
    /// Milliseconds between two writes.
    pub(crate) write_ms: u64,
    /// Least average bytes per second once `read_ms` have passed; 0: none.
    pub(crate) rate: u64,
    /// Most body bytes; `u64::MAX`: any.
    pub(crate) most: u64,
}

/// Why a body did not get through.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The sender closed early or its connection failed.
    Read,
    /// The sender was silent too long, or too slow.
    ReadTimeout,
    /// The sender broke the chunked coding.
    Malformed(ChunkedError),
    /// The body is longer than allowed.
    TooLarge,
    /// The receiver's connection failed or is stuck.
    Write(io::Error),
}

impl Pump {
    /// Get ready for a body; what is in `input` stays, it may belong to the body.
    pub(crate) fn begin(&mut self, framing: BodyFraming, encoder: Encoder) {
        self.replay = Some((self.input.mark(), framing));
        self.decoder = Decoder::new(framing);
        self.encoder = encoder;
        self.output.clear();
        equip(&mut self.output);
        self.trailers.clear();
        self.body_bytes = 0;
        self.sent_bytes = 0;
        self.head_bytes = 0;
        self.written = 0;
        self.ended = false;
        self.closing = self.whole;
    }

    /// Forget what is in the input.
    pub(crate) fn forget(&mut self) {
        self.input.reset();
        self.whole = false;
    }

    /// Before the body begins: take in what `source` has of it, up to `most` bytes.
    pub(crate) fn take_ready(&mut self, source: &impl Source, context: &mut Context<'_>, most: usize) {
        while !self.whole {
            match source.poll_receive(context, self.input.space(most)) {
                Poll::Ready(Ok(count)) if count > 0 => self.input.fill(count),
                _ => break,
            }
            self.whole = source.is_ended();
        }
        self.input.rest();
    }

    /// Nothing more of the body is received; whether some of it was still to come.
    pub(crate) fn abandon(&mut self) -> bool {
        let unfinished = !self.decoder.is_done();
        self.decoder = Decoder::Done;
        if unfinished {
            self.input.reset();
        }
        unfinished
    }

    /// All there is to send has been put into the output.
    pub(crate) fn conclude(&mut self) {
        self.ended = true;
    }

    /// Start the same body again, for another try. `false`: part of it is gone, because more was received than
    /// was there at the beginning.
    pub(crate) fn rewind(&mut self) -> bool {
        let Some((mark, framing)) = self.replay else { return false };
        self.input.rewind(mark);
        self.begin(framing, self.encoder);
        true
    }

    /// Whether [`Self::rewind`] would succeed.
    pub(crate) fn can_rewind(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether the whole body was received and sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended && self.output.is_empty()
    }

    /// Whether nothing of the body needs to be received any more.
    pub(crate) fn is_received(&self) -> bool {
        self.decoder.is_done()
    }

    /// Decode and encode what has been received, without IO.
    pub(crate) fn digest(&mut self, most: u64) -> Result<(), PumpError> {
        let Self { input, decoder, encoder, output, trailers, body_bytes, closing, .. } = self;
        decoder
            .advance(input, trailers, |data| {
                *body_bytes += data.len() as u64;
                encoder.data(data, output);
            })
            .map_err(PumpError::Malformed)?;
        if *body_bytes > most {
            return Err(PumpError::TooLarge);
        }
        if *closing && !decoder.close() {
            return Err(PumpError::Read);
        }
        if decoder.is_done() && !self.ended {
            encoder.end(trailers, output);
            self.ended = true;
        }
        Ok(())
    }

    /// The body, all of which has been received, was sent elsewhere: nothing of it is left to send.
    pub(crate) fn discard(&mut self, most: u64) -> Result<(), PumpError> {
        self.digest(most)?;
        retire(&mut self.output);
        self.written = 0;
        Ok(())
    }

    /// Part of the body was given away: it cannot be [rewound](Self::rewind) any more.
    pub(crate) fn spend(&mut self) {
        self.replay = None;
    }

    /// Encode `data` that took another way than [`Self::digest`].
    pub(crate) fn encode(&mut self, data: &[u8]) {
        self.encoder.data(data, &mut self.output);
    }

    /// Likewise the end.
    pub(crate) fn finish(&mut self, trailers: Headers) {
        self.trailers = trailers;
        self.encoder.end(&self.trailers, &mut self.output);
        self.ended = true;
    }

    /// Whether everything there is to send has been put into the output.
    pub(crate) fn is_concluded(&self) -> bool {
        self.ended
    }

    /// Decode what has been received onto the end of `data` instead of encoding it; whether that was the end.
    pub(crate) fn decode(&mut self, data: &mut Vec<u8>) -> Result<bool, PumpError> {
        let Self { input, decoder, trailers, body_bytes, .. } = self;
        let decoded = decoder.advance(input, trailers, |run| {
            *body_bytes += run.len() as u64;
            data.extend_from_slice(run);
        });
        decoded.map_err(PumpError::Malformed)?;
        if self.closing && !self.decoder.close() {
            return Err(PumpError::Read);
        }
        Ok(self.decoder.is_done())
    }

    /// Send what is encoded. May be dropped and called again: it goes on where it was.
    pub(crate) async fn flush(
        &mut self,
        sink: &impl Sink,
        deadline: &Deadline,
        timeout_ms: u64,
    ) -> Result<(), PumpError> {
        while self.written < self.output.len() {
            deadline.arm(timeout_ms);
            let rest = &self.output[self.written..];
            let last = self.ended && self.trailers.is_empty();
            let attempt = deadline.guard(poll_fn(|context| sink.poll_send(context, rest, last))).await;
            let count = match attempt {
                Ok(Ok(count)) if count > 0 => count,
                Ok(Ok(_)) => return Err(PumpError::Write(io::ErrorKind::WriteZero.into())),
                Ok(Err(error)) => return Err(PumpError::Write(error)),
                Err(_) => return Err(PumpError::Write(io::ErrorKind::TimedOut.into())),
            };
            self.written += count;
            self.sent_bytes += count as u64;
        }
        retire(&mut self.output);
        self.written = 0;
        if self.ended { sink.end(&self.trailers).map_err(PumpError::Write) } else { Ok(()) }
    }

    /// Let what is encoded, which is all there is, leave with what others send; `false`: it has to be
    /// [written](Self::flush).
    pub(crate) fn post(&mut self, stream: &Rc<Stream>, outbox: &Rc<Outbox>) -> bool {
        debug_assert!(self.ended, "more is to come");
        let count = self.output.len();
        if self.written > 0 || !outbox.post(stream, &mut self.output) {
            return false;
        }
        self.sent_bytes += count as u64;
        retire(&mut self.output);
        true
    }

    /// Move the rest of the body. May be dropped and called again.
    pub(crate) async fn run(
        &mut self,
        source: &impl Source,
        sink: &impl Sink,
        deadline: &Deadline,
        pace: Pace,
    ) -> Result<(), PumpError> {
        let began = deadline.now_ms();
        loop {
            self.digest(pace.most)?;
            self.flush(sink, deadline, pace.write_ms).await?;
            if self.ended {
                return Ok(());
            }
            self.receive(source, deadline, pace, began).await?;
        }
    }

    /// Read once. Afterwards the body can no longer be [rewound](Self::rewind).
    pub(crate) async fn receive(
        &mut self,
        source: &impl Source,
        deadline: &Deadline,
        pace: Pace,
        began_ms: u64,
    ) -> Result<(), PumpError> {
        deadline.arm(pace.read_ms);
        self.replay = None;
        let space = self.input.space(STREAM_BYTES);
        let room = space.len();
        match deadline.guard(poll_fn(|context| source.poll_receive(context, space))).await {
            Err(_) => Err(PumpError::ReadTimeout),
            Ok(Err(_)) => Err(PumpError::Read),
            Ok(Ok(0)) => {
                source.take_trailers(&mut self.trailers).map_err(PumpError::Malformed)?;
                if self.decoder.close() { Ok(()) } else { Err(PumpError::Read) }
            }
            Ok(Ok(count)) => {
                self.input.fill(count);
                self.closing = source.is_ended();
                if count == room {
                    self.input.widen(STREAM_BYTES);
                }
                let elapsed_ms = deadline.now_ms().saturating_sub(began_ms);
                if elapsed_ms > pace.read_ms && self.body_bytes / (elapsed_ms / 1000).max(1) < pace.rate {
                    return Err(PumpError::ReadTimeout);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_net::Deadlines;
    use std::cell::RefCell;

    /// A body that is all there.
    struct Bytes(RefCell<Vec<u8>>);

    impl From<&[u8]> for Bytes {
        fn from(bytes: &[u8]) -> Self {
            Self(RefCell::new(bytes.to_vec()))
        }
    }

    impl Source for Bytes {
        fn poll_receive(&self, _context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut left = self.0.borrow_mut();
            let count = left.len().min(buf.len());
            buf[..count].copy_from_slice(&left[..count]);
            left.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    #[derive(Default)]
    struct Collected(RefCell<Vec<u8>>);

    impl Sink for Collected {
        fn poll_send(&self, _context: &mut Context<'_>, buf: &[u8], _last: bool) -> Poll<io::Result<usize>> {
            self.0.borrow_mut().extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }
    }

    const PACE: Pace = Pace { read_ms: 1000, write_ms: 1000, rate: 0, most: u64::MAX };

    fn check(framing: BodyFraming, encoder: Encoder, sent: &[u8], most: u64) -> Result<Vec<u8>, PumpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let deadlines = Deadlines::new();
            let deadline = deadlines.register();
            let mut pump = Pump::default();
            pump.begin(framing, encoder);
            let out = Collected::default();
            let pace = Pace { most, ..PACE };
            pump.run(&Bytes::from(sent), &out, &deadline, pace).await.map(|()| out.0.take())
        })
    }

    #[test]
    fn a_body_changes_framing_on_the_way() {
        let chunked = b"4\r\nwiki\r\n0\r\n\r\n";
        assert_eq!(check(BodyFraming::Chunked, Encoder::Raw, chunked, 10).unwrap(), b"wiki");
        assert_eq!(check(BodyFraming::Length(4), Encoder::Chunked, b"wiki", 10).unwrap(), chunked);
        assert_eq!(check(BodyFraming::UntilClose, Encoder::Chunked, b"wiki", 10).unwrap(), chunked);
    }

    #[test]
    fn a_body_can_be_sent_again_while_it_is_all_in_the_buffer() {
        let mut pump = Pump::default();
        pump.input.space(STREAM_BYTES)[..8].copy_from_slice(b"wikiGET ");
        pump.input.fill(8);
        pump.begin(BodyFraming::Length(4), Encoder::Raw);
        pump.digest(10).unwrap();
        assert_eq!((pump.output.as_slice(), pump.input.filled()), (&b"wiki"[..], &b"GET "[..]));
        assert!(pump.rewind());
        pump.digest(10).unwrap();
        assert_eq!((pump.output.as_slice(), pump.input.filled()), (&b"wiki"[..], &b"GET "[..]));
    }

    #[test]
    fn too_long_cut_off_and_malformed_bodies_are_told_apart() {
        assert!(matches!(check(BodyFraming::Length(4), Encoder::Raw, b"wiki", 3), Err(PumpError::TooLarge)));
        assert!(matches!(check(BodyFraming::Length(9), Encoder::Raw, b"wiki", 99), Err(PumpError::Read)));
        assert!(matches!(check(BodyFraming::Chunked, Encoder::Raw, b"x\r\n", 99), Err(PumpError::Malformed(_))));
    }
}
