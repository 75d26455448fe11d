//! The gRPC backend behind every measured proxy: one thread, one answer of one small message.
//!
//! HTTP/2 with prior knowledge by the h2 crate. A call is read to its end before it is answered, as a unary method
//! must do; what it holds does not matter.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// Not compressed, the length, and a protobuf message of 16 bytes.
const ANSWER: &[u8] = b"\x00\x00\x00\x00\x10\x0a\x0egateward bench";
/// Calls at once on a connection: proxies bring those of many clients together on few.
const STREAMS: u32 = 10_000;

#[derive(Parser)]
#[command(about = "A minimal gRPC backend for measurements")]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9202")]
    listen: SocketAddr,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(arguments.listen)
            .await
            .with_context(|| format!("cannot listen on {}", arguments.listen))?;
        loop {
            let (stream, _) = listener.accept().await.context("cannot accept")?;
            // A connection that breaks is the peer's matter: it counts what it did not get.
            tokio::task::spawn_local(async move { drop(serve(stream).await) });
        }
    })
}

async fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut server = server::Builder::new();
    // A load that ends resets its calls, and a proxy passes that on: no attack, and the connection must survive it.
    server.max_pending_accept_reset_streams(STREAMS as usize).max_concurrent_reset_streams(STREAMS as usize);
    let mut connection = server.max_concurrent_streams(STREAMS).handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::task::spawn_local(async move { drop(answer(request, respond).await) });
    }
    Ok(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    // It fits into any window: h2 queues it.
    stream.send_data(Bytes::from_static(ANSWER), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    if let Err(error) = stream.send_trailers(trailers) {
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Err(error.into());
    }
    Ok(())
}
