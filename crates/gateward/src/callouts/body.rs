//! Contents of callouts: one piece with trailers, or messages as a filter sends them.

use super::grpc::frame;
use bytes::Bytes;
use gateward_wasm::callout::Messages;
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// See the module's text.
pub(super) enum Body {
    Once { content: Option<Bytes>, trailers: Option<HeaderMap> },
    Messages(Messages),
}

impl Body {
    /// `content`, and behind it the trailers, if there are any.
    pub(super) fn once(content: Vec<u8>, trailers: HeaderMap) -> Self {
        let content = Some(content).filter(|content| !content.is_empty()).map(Bytes::from);
        Self::Once { content, trailers: Some(trailers).filter(|trailers| !trailers.is_empty()) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Once { content, trailers } => {
                let content = content.take().map(Frame::data);
                Poll::Ready(content.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Messages(messages) => {
                messages.poll_next(context).map(|next| next.map(|message| Ok(Frame::data(frame(&message)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once { content: None, trailers: None })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Trailers go behind chunks, not behind a length.
            Self::Once { content, trailers: None } => {
                SizeHint::with_exact(content.as_ref().map_or(0, Bytes::len) as u64)
            }
            _ => SizeHint::default(),
        }
    }
}
