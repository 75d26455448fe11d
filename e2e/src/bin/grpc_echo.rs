//! The service of `examples/grpc`: `grpc_echo ADDRESS` serves `test.Echo` until it is killed. `grpc_echo ADDRESS DIR` does
//! so over TLS, as `localhost`, and writes the authority of its certificate to `DIR/ca.pem`.

use gateward_e2e::Authority;
use gateward_e2e::grpc::GrpcServer;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9102".to_owned());
    let Some(dir) = arguments.next() else {
        GrpcServer::start_at(&address).wait();
        return Ok(());
    };
    let authority = Authority::new();
    let server = GrpcServer::start_tls(&address, &authority.issue("localhost"), None);
    // Whoever waits for the file finds it whole, and the server listening.
    let (unfinished, file) = (Path::new(&dir).join("ca.pem.new"), Path::new(&dir).join("ca.pem"));
    std::fs::write(&unfinished, authority.pem())?;
    std::fs::rename(unfinished, file)?;
    server.wait();
    Ok(())
}
