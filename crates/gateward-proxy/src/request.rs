//! The life of a request, in order. Every other module is a leaf called from here.

use crate::client::Connection;
use crate::error::ProxyError;
use crate::outcome::{After, Local, Verdict};
use crate::{head, matching, phases, record, relay, reply, upstream};

/// Serve one request that has begun to arrive, and say what becomes of the connection.
pub(crate) async fn serve(connection: &mut Connection<'_>) -> After {
    connection.session.begin();
    connection.session.times.started = connection.worker.now_us();
    match head::receive(connection).await {
        Ok(true) => {}
        Ok(false) => return After::Abort,
        Err(error) => return refuse(connection, error).await,
    }
    let plan = connection.worker.plan();
    head::describe(connection);

    let verdict = match phases::rewrite(connection, &plan).await {
        Verdict::Proxy => matching::find(connection, &plan),
        ended => matching::Matched::ended(ended),
    };
    let verdict = match verdict {
        matching::Matched::Route { chain } => phases::access(connection, &plan, chain).await,
        matching::Matched::Ended(verdict) => {
            phases::collect_global(connection, &plan);
            verdict
        }
    };

    let answered = match verdict {
        Verdict::Proxy => upstream::ask(connection, &plan).await,
        Verdict::Respond(response) => Err(Local::Plugin(response)),
        Verdict::Fail(error) => Err(Local::Error(error)),
    };

    let ended = match answered {
        Ok(upstream) => match relay::prepare(connection, &plan, upstream).await {
            relay::Prepared::Stream(upstream) => relay::run(connection, &plan, upstream).await,
            relay::Prepared::Replaced(local) => reply::send(connection, &plan, local).await,
        },
        Err(local) => reply::send(connection, &plan, local).await,
    };
    record::finish(connection, &plan, &ended);
    ended.after
}

/// Answer a request whose head cannot be used, and close.
async fn refuse(connection: &mut Connection<'_>, error: ProxyError) -> After {
    let plan = connection.worker.plan();
    head::describe(connection);
    phases::collect_global(connection, &plan);
    let ended = reply::send(connection, &plan, Local::Error(error)).await;
    record::finish(connection, &plan, &ended);
    After::Close
}
