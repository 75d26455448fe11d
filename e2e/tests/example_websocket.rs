//! `examples/websocket`: its one command starts something that works.

use gateward_e2e::has_tool;
use gateward_e2e::websocket::try_connect;
use gateward_testkit::{eventually, free_port, gateward_command};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the script, which ends what it started.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn websocket() {
    if !has_tool("python3") {
        println!("skipped: there is no python3");
        return;
    }
    let (gateway, backend) = (free_port(), free_port());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/websocket/run.sh");
    let child = Command::new(script)
        .env("GATEWARD", gateward_command().get_program())
        .env("PORT", gateway.port().to_string())
        .env("BACKEND_PORT", backend.port().to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the script starts");
    let script = Script(child);
    let mut socket = None;
    eventually(PATIENCE, || {
        socket = try_connect(gateway, "/chat").ok();
        socket.is_some()
    });
    let mut socket = socket.expect("connected above");
    for message in [Message::text("hello"), Message::binary(vec![1_u8; 100_000])] {
        socket.send(message.clone()).expect("sent");
        assert!(socket.read().expect("received") == message);
    }
    drop(script);
    // The gateway said goodbye before it ended.
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1001));
}
