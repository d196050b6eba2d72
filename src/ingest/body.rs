//! The body: bounded in bytes and in time, and its bytes are counted as they arrive.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::memory::{Exhausted, MemoryBudget, Reservation};
use crate::payload::inflate::{self, Coding, InflateError, inflate};
use crate::signature::Verified;

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest body in bytes, measured on the bytes read.
    pub limit_bytes: usize,
    /// The longest time from the end of the head to the end of the body.
    pub timeout: Duration,
}

/// A body and the memory that it was counted for.
#[derive(Debug)]
pub struct ReceivedBody {
    /// The bytes as they were received, without transfer coding.
    pub bytes: Bytes,
    /// To be kept for as long as anything made of the bytes.
    pub reservation: Reservation,
}

/// Why a body wasn't received.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the limit in bytes.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// It didn't end in time.
    #[error("not received in {0:?}")]
    TooSlow(Duration),
    /// It ended early, or its chunks are malformed.
    #[error("broken: {0}")]
    Broken(#[source] hyper::Error),
    /// The bodies in flight fill the memory that is set aside for them.
    #[error("no memory left for it")]
    NoMemory,
}

impl From<Exhausted> for BodyError {
    fn from(_: Exhausted) -> Self {
        BodyError::NoMemory
    }
}

/// Reads a body within its bounds.
///
/// # Errors
/// Which bound it broke, or how it broke off. A declared length over the limit is refused before a byte is read.
pub async fn receive(
    body: Incoming,
    bounds: Bounds,
    budget: &MemoryBudget,
) -> Result<ReceivedBody, BodyError> {
    let declared = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if declared.is_some_and(|length| length > bounds.limit_bytes) {
        return Err(BodyError::TooLarge(bounds.limit_bytes));
    }
    tokio::time::timeout(bounds.timeout, collect(body, bounds.limit_bytes, budget))
        .await
        .map_err(|_| BodyError::TooSlow(bounds.timeout))?
}

async fn collect(
    mut body: Incoming,
    limit_bytes: usize,
    budget: &MemoryBudget,
) -> Result<ReceivedBody, BodyError> {
    // Bytes are counted as they arrive: a length that is only promised would let a few heads take all the memory.
    let mut reservation = budget.reserve(0)?;
    // Most webhooks arrive in one piece, which is then used as it is.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing that a webhook needs.
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > limit_bytes {
            return Err(BodyError::TooLarge(limit_bytes));
        }
        budget.extend(&mut reservation, data.len())?;
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(length * 2);
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(ReceivedBody { bytes, reservation })
}

/// Undoes the content coding of a verified body, so that everything behind this stage sees what the sender meant.
/// Signatures are over the bytes as they were received, and nobody's bytes are inflated before they are verified; so
/// the few senders whose proof stands in the body can't compress it.
///
/// # Errors
/// What is wrong with the compressed bytes, or which bound they broke. Memory is reserved as it is taken.
pub fn decompress(
    verified: Verified,
    coding: Coding,
    bounds: inflate::Bounds,
    budget: &MemoryBudget,
    reservation: &mut Reservation,
) -> Result<Verified, InflateError> {
    let mut reserve = |bytes| budget.extend(reservation, bytes);
    let content = inflate(coding, verified.body(), bounds, &mut reserve)?;
    Ok(verified.with_content(content.into()))
}
