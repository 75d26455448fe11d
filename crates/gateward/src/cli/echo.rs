//! `gateward echo`: a backend that answers with the request it got, for trying things out; also what happens when it
//! does not.

use crate::cli::faults::{self, Fault, Script};
use crate::cli::{FAILURE, complain};
use bytes::Bytes;
use gateward_api::{Door, Reset};
use gateward_net::{Drain, Listener};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Queue of connections not yet accepted.
const BACKLOG: i32 = 1024;

/// Flags of `gateward echo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; may be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9101")]
    listen: Vec<SocketAddr>,
    /// Name in every answer; the address if not given
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[arg(long, value_name = "SCRIPT", default_value = "", hide_default_value = true, help = faults::HELP)]
    faults: Script,
}

/// What a backend is like.
#[derive(Debug, Default)]
pub(crate) struct Nature {
    /// Name in every answer; the address if there is none.
    pub(crate) name: Option<String>,
    /// What it does wrong.
    pub(crate) faults: Script,
}

/// Serve until a signal.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("echo").enable_all().build()?;
    for address in &arguments.listen {
        let nature = Nature { name: arguments.name.clone(), faults: arguments.faults.clone() };
        let bound = start(&runtime, *address, nature)?;
        complain(&format!("echo listens on {bound}"));
    }
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// Start a backend on `runtime`; the address with the port it got.
///
/// # Errors
/// When the address is in use.
pub(crate) fn start(runtime: &Runtime, address: SocketAddr, nature: Nature) -> anyhow::Result<SocketAddr> {
    let listener = Listener::bind(address, BACKLOG).map_err(|error| {
        anyhow::anyhow!("cannot listen on {address}: {error}; choose another address with --listen")
    })?;
    let bound = listener.local_addr()?;
    let name: Arc<str> = nature.name.unwrap_or_else(|| bound.to_string()).into();
    let faults = Arc::new((nature.faults, AtomicU64::new(0)));
    runtime.spawn(async move {
        let answer = move |request| {
            let (name, faults) = (name.clone(), faults.clone());
            async move {
                let number = faults.1.fetch_add(1, Ordering::Relaxed) + 1;
                let status = go_wrong(faults.0.fault(number)).await?;
                let mut response = answer(&name, request).await;
                *response.status_mut() = status;
                Ok(response)
            }
        };
        match Door::new(listener, None, Drain::new()) {
            Ok(door) => gateward_api::accept(door, answer).await,
            Err(error) => tracing::error!(%error, "an echo listener could not be used"),
        }
    });
    Ok(bound)
}

/// What the script wants before there is an answer, and the status of that.
async fn go_wrong(fault: Option<Fault>) -> Result<StatusCode, Reset> {
    match fault {
        None => Ok(StatusCode::OK),
        Some(Fault::Status(status)) => Ok(status),
        Some(Fault::Reset) => Err(Reset),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(StatusCode::OK)
        }
    }
}

async fn answer(name: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    let mut body_bytes: u64 = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(_) => break,
        }
    }
    let mut headers = Map::new();
    for (field, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.get_mut(field.as_str()) {
            None => drop(headers.insert(field.as_str().to_owned(), Value::String(value))),
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    let text = json!({
        "name": name,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": body_bytes,
    });
    let mut response = Response::new(Full::from(format!("{text:#}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
