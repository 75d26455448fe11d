//! `gateward echo`: a backend that answers with the request it got, for trying things out.

use crate::cli::{FAILURE, complain};
use crate::server;
use bytes::Bytes;
use gateward_net::{Drain, Listener};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
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
        let bound = start(&runtime, *address, arguments.name.clone())?;
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
pub(crate) fn start(runtime: &Runtime, address: SocketAddr, name: Option<String>) -> anyhow::Result<SocketAddr> {
    let listener = Listener::bind(address, BACKLOG).map_err(|error| {
        anyhow::anyhow!("cannot listen on {address}: {error}; choose another address with --listen")
    })?;
    let bound = listener.local_addr()?;
    let name: Arc<str> = name.unwrap_or_else(|| bound.to_string()).into();
    runtime.spawn(async move {
        let answer = move |request| {
            let name = name.clone();
            async move { answer(&name, request).await }
        };
        if let Err(error) = server::accept(listener, Drain::new(), answer).await {
            tracing::error!(%error, "an echo listener could not be used");
        }
    });
    Ok(bound)
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
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
