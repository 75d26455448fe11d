//! Contents of callouts: one piece with trailers, or messages as a filter sends them.

use super::grpc::frame;
use bytes::Bytes;
use gateward_wasm::callout::Messages;
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// See the module's text.
pub(super) enum Body {
    Once { content: Option<Bytes>, trailers: Option<HeaderMap> },
    Messages(Outgoing),
}

/// A filter's messages on their way. Should nobody take one, they come back when the body goes: the call can be made elsewhere.
pub(super) struct Outgoing {
    messages: Option<Messages>,
    back: Option<oneshot::Sender<Messages>>,
}

impl Outgoing {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        let next = messages.poll_next(context);
        if matches!(next, Poll::Ready(Some(_))) {
            self.back = None;
        }
        next
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let (Some(messages), Some(back)) = (self.messages.take(), self.back.take()) {
            // Who made the call may have given it up.
            let _ = back.send(messages);
        }
    }
}

impl Body {
    /// `messages`, and where they come back if none of them was taken.
    pub(super) fn messages(messages: Messages) -> (Self, oneshot::Receiver<Messages>) {
        let (back, unread) = oneshot::channel();
        (Self::Messages(Outgoing { messages: Some(messages), back: Some(back) }), unread)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn messages_that_nobody_took_come_back() {
        let (sender, messages) = Messages::channel();
        let (body, unread) = Body::messages(messages);
        assert!(sender.send(b"first".to_vec()));
        drop(body);
        let (mut body, unread) = Body::messages(unread.await.unwrap());
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, frame(b"first"));
        drop(body);
        assert!(unread.await.is_err());
    }
}
