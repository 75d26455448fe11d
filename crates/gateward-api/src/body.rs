//! Bodies of requests: whole, in memory, and not more of it than there is room for.
//!
//! A small body needs no room of its own: as many as there are connections fit anyway. A large one takes a place for the longest that it may
//! be, all of it before it is read on, so that two that are half read never wait for each other.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, RETRY_AFTER};
use hyper::{Request, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::ApiResponse;

/// What requests may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest body of one request.
    pub body_bytes: usize,
    /// Large bodies in memory at once; requests that do not fit wait a while. At least `body_bytes`. Bodies of up to 64 KiB are limited by the
    /// number of connections alone, and so do not keep large ones waiting.
    pub bodies_bytes: usize,
}

/// Makes the response to a request that cannot be read.
pub type Refuse = fn(StatusCode, &str) -> ApiResponse;

/// Longest body that needs no place.
const SMALL: usize = 64 << 10;
/// Time for a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a place among the large bodies.
const PLACE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads bodies.
pub(crate) struct Bodies {
    limits: Limits,
    refuse: Refuse,
    /// A permit for each MiB.
    room: Semaphore,
}

impl Bodies {
    pub(crate) fn new(limits: Limits, refuse: Refuse) -> Self {
        let room = mebibytes(limits.bodies_bytes.max(limits.body_bytes)) as usize;
        Bodies { limits, refuse, room: Semaphore::new(room) }
    }

    /// The body of a request, and the place that it takes.
    pub(crate) async fn read(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiResponse> {
        if let Some(coding) = request.headers().get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
            let message = format!("Content-Encoding {coding:?} is not decoded here; send the body as it is");
            return Err((self.refuse)(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message));
        }
        // Answered at once where the length is known: a client that waits for an answer need not send it all.
        let hint = request.body().size_hint();
        if hint.lower() > self.limits.body_bytes as u64 {
            return Err(self.too_long());
        }
        let longest = hint.upper().map_or(self.limits.body_bytes, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let longest = longest.min(self.limits.body_bytes);
        let place = if hint.lower() > SMALL as u64 { Some(self.place(longest).await?) } else { None };
        let body = self.collect(request.into_body(), longest, place);
        let late = |_| Err((self.refuse)(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"));
        tokio::time::timeout(BODY_TIMEOUT, body).await.unwrap_or_else(late)
    }

    async fn collect<'a>(
        &'a self,
        mut body: Incoming,
        longest: usize,
        mut place: Option<SemaphorePermit<'a>>,
    ) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiResponse> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or_default();
        let mut read = BytesMut::with_capacity(announced.min(longest));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (self.refuse)(StatusCode::BAD_REQUEST, &error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > self.limits.body_bytes {
                return Err(self.too_long());
            }
            if place.is_none() && read.len() + data.len() > SMALL {
                // It did not say how long it is, and turns out not to be small.
                place = Some(self.place(longest).await?);
            }
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), place))
    }

    async fn place(&self, bytes: usize) -> Result<SemaphorePermit<'_>, ApiResponse> {
        let place = self.room.acquire_many(mebibytes(bytes));
        if let Ok(Ok(place)) = tokio::time::timeout(PLACE_TIMEOUT, place).await {
            return Ok(place);
        }
        let message = "too many large bodies at once; try again";
        Err((self.refuse)(StatusCode::SERVICE_UNAVAILABLE, message).header(RETRY_AFTER, "5"))
    }

    fn too_long(&self) -> ApiResponse {
        let message = format!("the body is longer than {} KiB", self.limits.body_bytes >> 10);
        (self.refuse)(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }
}

/// Begun MiB of some bytes, as permits of a semaphore.
fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX >> 3)
}
