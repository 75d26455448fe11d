//! What is sent instead of an answer that may not go out: its question and its OPT record, which stand in the buffer already.

use super::{Kind, Reply, rcode};
use crate::message::{AA, HEADER, TC};

/// Cuts an answer down to an empty one that says that there is more over TCP.
pub(crate) fn slip(reply: &mut Reply, out: &mut [u8]) {
    strip(reply, out);
    out[2] |= TC;
    reply.truncated = true;
}

/// Turns an answer into a refusal.
pub(crate) fn refuse(reply: &mut Reply, out: &mut [u8]) {
    strip(reply, out);
    out[2] &= !(AA | TC);
    out[3] = out[3] & 0xf0 | rcode::REFUSED as u8;
    (reply.rcode, reply.kind, reply.truncated) = (rcode::REFUSED, Kind::Error, false);
}

/// Takes all other records out. The OPT record holds no pointers, so it can stand anywhere.
fn strip(reply: &mut Reply, out: &mut [u8]) {
    let opt = reply.len - reply.opt_at;
    out.copy_within(reply.opt_at..reply.len, reply.question_end);
    out[6..HEADER].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(opt > 0)]);
    reply.opt_at = reply.question_end;
    reply.len = reply.opt_at + opt;
}
