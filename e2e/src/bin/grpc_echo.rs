//! The service of `examples/grpc`: `grpc_echo ADDRESS` serves `test.Echo` until it is killed.

use gateward_e2e::grpc::GrpcServer;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9102".to_owned());
    GrpcServer::start_at(&address, None).wait();
}
