//! Cosockets against servers of the test.

use super::waiting::{access, holds};
use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread;

/// Serve each connection with `serve`, on a thread of its own; the port.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn every_form_of_send_and_receive() {
    let port = server(echo);
    holds("socket-echo", &format!("local port = {port}\n{}", include_str!("lua/socket_echo.lua")));
}

#[test]
fn connections_are_kept_and_taken_again() {
    let port = server(echo);
    holds("socket-pool", &format!("local port = {port}\n{}", include_str!("lua/socket_pool.lua")));
}

#[test]
fn errors_are_in_openrestys_words() {
    let closing = server(|mut stream| {
        let _ = stream.write_all(b"partial");
    });
    let silent = server(|stream| thread::park_timeout(Duration::from_secs(5 + u64::from(stream.nodelay().is_err()))));
    let endless = server(|mut stream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = format!("local closing, silent, endless, free = {closing}, {silent}, {endless}, {free}\n");
    holds("socket-errors", &(ports + include_str!("lua/socket_errors.lua")));
}

#[test]
fn unix_sockets_and_datagrams() {
    let folder = Folder::new("socket-unix", &[("x", "")]);
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(echo));
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = datagrams.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((read, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..read], from);
        }
    });
    holds(
        "socket-others",
        &format!(
            r#"
            local sock = ngx.socket.tcp()
            assert(sock:connect("unix:{}") == true)
            assert(sock:send("line\n") == 5 and sock:receive() == "line")
            assert(sock:setkeepalive() == 1 and select(2, sock:receive()) == "closed")
            local ok, err = ngx.socket.connect("unix:/nowhere/at/all")
            assert(ok == nil and err == "no such file or directory", err)
            local udp = ngx.socket.udp()
            ok, err = udp:send("x")
            assert(ok == nil and err == "not connected", err)
            assert(udp:setpeername("127.0.0.1", {port}) == true)
            assert(udp:send({{ "a", 1, {{ "b" }} }}) == 1 and udp:receive() == "a1b")
            udp:settimeout(20)
            ok, err = udp:receive()
            assert(ok == nil and err == "timeout", err)
            assert(udp:close() == 1 and udp:close() == nil)
            "#,
            path.display()
        ),
    );
}

#[test]
fn a_socket_where_nothing_can_wait_is_an_error_of_the_plugin() {
    let handler = "local P = { PRIORITY = 5 }\nfunction P:header_filter()\nlocal ok, err = pcall(function() \
         return ngx.socket.tcp():connect('127.0.0.1', 1) end)\nassert(not ok)\nkong.response.set_header('X-Error', err)\nend\nreturn P";
    let (_folder, plugin) = plugin("socket-phase", handler);
    let mut exchange = Exchange::new();
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    let error = exchange.response.headers.get_str("X-Error").unwrap_or_default();
    assert!(error.contains("API disabled in the context of header_filter"), "{error} {}", vm::LAST_ERROR.take());
}

#[test]
fn a_handler_that_is_given_up_lets_go_of_its_connection() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let port = server(move |mut stream| {
        let _ = sender.send(stream.read(&mut [0; 8]).map_err(|error| error.kind()));
    });
    let body = format!(
        "local sock = ngx.socket.tcp() sock:connect('127.0.0.1', {port})\n\
         ngx.thread.spawn(function() sock:receive() end)\nngx.sleep(0.02) kong.response.exit(204)"
    );
    assert_eq!(status(&access("socket-given-up", &body).0), Some(204));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), Ok(0), "closed with the machine");
}

/// Answers by path; what it was asked comes back as the body.
fn http_server(mut stream: TcpStream) {
    let mut asked = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Some(end) = asked.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => asked.extend_from_slice(&buffer[..read]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&asked[..end + 4]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        while asked.len() < end + 4 + length {
            let read = stream.read(&mut buffer).unwrap_or(0);
            asked.extend_from_slice(&buffer[..read]);
            if read == 0 {
                return;
            }
        }
        let echo: Vec<u8> = asked.drain(..end + 4 + length).collect();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (answer, close): (Vec<u8>, bool) = match path.split('?').next().unwrap_or_default() {
            "/chunked" => (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n3\r\nefg\r\n0\r\nX-Trailer: t\r\n\r\n".to_vec(),
                false,
            ),
            "/close" => (b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec(), true),
            "/none" => (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\nx-a: 2\r\n\r\n".to_vec(), false),
            "/informed" => (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), false),
            "/nonsense" => (b"nonsense\r\n\r\n".to_vec(), true),
            "/cut" => (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec(), true),
            "/endless" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(b"X-Field: value\r\n").is_ok() {}
                return;
            }
            _ => {
                let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", echo.len()).into_bytes();
                if !head.starts_with("HEAD") {
                    answer.extend(echo);
                }
                (answer, false)
            }
        };
        if stream.write_all(&answer).is_err() || close {
            return;
        }
    }
}

#[test]
fn the_http_client() {
    let port = server(http_server);
    holds("http-client", &format!("local port = {port}\n{}", include_str!("lua/http.lua")));
}
