//! Whether a try may follow one that failed.

use crate::client::Connection;
use crate::error::{ProxyError, Side};
use crate::upstream::{Again, Asking, Failed, Tries, is_idempotent};
use gateward_telemetry::Counter;

/// Make ready for a try after the one that `failed`.
///
/// # Errors
/// The failure itself, when it is the last word: nothing would come out otherwise, the request must not go out twice,
/// or no try or budget is left.
pub(crate) fn prepare(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    tries: &mut Tries,
    failed: Failed,
) -> Result<(), Failed> {
    if !may_repeat(connection, &failed) || (tries.left == 0 && !failed.stale) {
        return Err(failed);
    }
    let protection = asking.protection.as_ref().filter(|_| failed.again == Again::Ask && !failed.stale);
    if protection.is_some_and(|protection| !protection.may_repeat(&connection.worker.metrics)) {
        return Err(failed);
    }
    connection.session.upload.rewind();
    if failed.stale {
        tries.fresh_only = true;
        // It says nothing about the target, which a hash may have chosen.
        connection.session.excluded.pop();
    } else {
        tries.left -= 1;
        connection.worker.metrics.count(Counter::UpstreamRetries);
    }
    Ok(())
}

fn may_repeat(connection: &Connection<'_>, failed: &Failed) -> bool {
    // Without a target or a place there is nothing that could come out otherwise.
    let hopeless = matches!(failed.error, ProxyError::NoTarget | ProxyError::Limited(_))
        || failed.error.side() != Side::Upstream
        || failed.again == Again::No;
    if hopeless || !connection.session.upload.can_rewind() {
        return false;
    }
    !failed.sent || (is_idempotent(connection) && !matches!(failed.error, ProxyError::UpstreamHead(_)))
}
