//! A filter for tests: it makes the callouts that a request's path asks for, and answers with what came of them.
//!
//! `/http/PATH` asks over HTTP with the headers of the request and `POST`s `x-body`; `/unary/METHOD` and `/stream/METHOD` call `test.Echo`
//! with the messages in `x-messages`, separated by commas; `/storm/COUNT` asks as often over HTTP at once; `/go/PATH` and
//! `/leave/METHOD` ask and open a stream, and let the request go on without an answer. The configuration is the name of the service; behind a comma may
//! stand `tick`: then the instance itself keeps a stream open, sends on it every 20 ms, and `/ticks` says what came back.
//! `x-timeout` is in milliseconds.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    service: String,
    tick: bool,
    stream: Option<u32>,
    metric: u32,
}

struct Call {
    service: String,
    events: Vec<String>,
    messages: Vec<String>,
    /// Messages after which the filter's side of a stream ends.
    wanted: usize,
    open: usize,
    refused: usize,
    failed: usize,
}

impl Context for Root {
    fn on_grpc_stream_message(&mut self, _: u32, _: usize) {
        hostcalls::increment_metric(self.metric, 1).unwrap();
    }

    fn on_grpc_stream_close(&mut self, _: u32, _: u32) {
        self.stream = None;
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = String::from_utf8(self.get_plugin_configuration().unwrap_or_default()).unwrap();
        let (service, tick) = text.split_once(',').unwrap_or((&text, ""));
        self.service = service.to_owned();
        self.tick = tick == "tick";
        if self.tick {
            self.set_tick_period(Duration::from_millis(20));
            self.metric = hostcalls::define_metric(MetricType::Counter, "came_back").unwrap();
        }
        true
    }

    fn on_tick(&mut self) {
        if self.stream.is_none() {
            self.stream = self.open_grpc_stream(&self.service, "test.Echo", "Each", vec![]).ok();
        }
        if let Some(stream) = self.stream {
            self.send_grpc_stream_message(stream, Some(b"tick"), false);
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let service = self.service.clone();
        let (events, messages) = (Vec::new(), Vec::new());
        Some(Box::new(Call { service, events, messages, wanted: 0, open: 0, refused: 0, failed: 0 }))
    }
}

impl Call {
    fn answer(&mut self) {
        let events = self.events.join(" ");
        self.send_http_response(200, vec![("x-events", &events)], Some(self.messages.join("|").as_bytes()));
    }

    fn storm_ended(&mut self) {
        if self.open == 0 {
            self.events.push(format!("refused:{} failed:{}", self.refused, self.failed));
            self.answer();
        }
    }

    fn note(&mut self, what: &str) {
        self.events.push(what.to_owned());
    }

    fn note_status(&mut self, what: &str, code: u32) {
        let (_, text) = self.get_grpc_status();
        self.events.push(format!("{what}:{code}"));
        self.messages.extend(text.filter(|text| !text.is_empty()));
    }
}

impl Context for Call {
    fn on_http_call_response(&mut self, _: u32, headers: usize, size: usize, trailers: usize) {
        if self.open > 0 {
            self.open -= 1;
            self.failed += usize::from(headers == 0);
            return self.storm_ended();
        }
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        self.events.push(format!("status:{status}"));
        if trailers > 0 {
            let seen = self.get_http_call_response_trailer("x-trailer").unwrap_or_default();
            self.events.push(format!("trailer:{seen}"));
        }
        if headers == 0 {
            self.note_status("failed", hostcalls::get_grpc_status().unwrap().0);
        }
        self.messages.push(String::from_utf8_lossy(&body).into_owned());
        self.answer();
    }

    fn on_grpc_call_response(&mut self, _: u32, code: u32, size: usize) {
        self.note_status("ended", code);
        if code == 0 {
            let message = self.get_grpc_call_response_body(0, size).unwrap_or_default();
            self.messages.push(String::from_utf8_lossy(&message).into_owned());
        }
        self.answer();
    }

    fn on_grpc_stream_initial_metadata(&mut self, _: u32, _: u32) {
        let kind = self.get_grpc_stream_initial_metadata_value("content-type").unwrap_or_default();
        self.events.push(format!("initial:{}", String::from_utf8_lossy(&kind)));
    }

    fn on_grpc_stream_message(&mut self, stream: u32, size: usize) {
        let message = self.get_grpc_stream_message(0, size).unwrap_or_default();
        self.messages.push(String::from_utf8_lossy(&message).into_owned());
        if self.messages.len() == self.wanted {
            self.close_grpc_stream(stream);
        }
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _: u32, _: u32) {
        let status = self.get_grpc_stream_trailing_metadata_value("grpc-status").unwrap_or_default();
        self.events.push(format!("trailing:{}", String::from_utf8_lossy(&status)));
    }

    fn on_grpc_stream_close(&mut self, _: u32, code: u32) {
        self.note_status("closed", code);
        self.answer();
    }
}

impl HttpContext for Call {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let messages = self.get_http_request_header("x-messages");
        let messages: Vec<&str> = messages.iter().flat_map(|messages| messages.split(',')).collect();
        let timeout = self.get_http_request_header("x-timeout").and_then(|text| text.parse().ok()).unwrap_or(10_000);
        let timeout = Duration::from_millis(timeout);
        let key = self.get_http_request_header("x-key").unwrap_or_default();
        let (kind, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let done = match kind {
            "http" | "go" => {
                let path = format!("/{rest}");
                let body = self.get_http_request_header("x-body").unwrap_or_default();
                let method = if body.is_empty() { "GET" } else { "POST" };
                let headers = vec![(":method", method), (":path", &path), (":authority", "asked.test"), ("x-key", &key)];
                let trailers = if body.is_empty() { vec![] } else { vec![("x-last", "sent")] };
                let body = Some(body.as_bytes()).filter(|body| !body.is_empty());
                self.dispatch_http_call(&self.service, headers, body, trailers, timeout).map(drop)
            }
            "unary" => {
                let message = messages.first().map(|message| message.as_bytes());
                let metadata = vec![("x-there", key.as_bytes())];
                self.dispatch_grpc_call(&self.service, "test.Echo", rest, metadata, message, timeout).map(drop)
            }
            "stream" | "leave" => {
                let opened = self.open_grpc_stream(&self.service, "test.Echo", rest, vec![("x-there", key.as_bytes())]);
                opened.map(|stream| {
                    let (last, first) = messages.split_last().unwrap_or((&"", &[]));
                    for message in first {
                        self.send_grpc_stream_message(stream, Some(message.as_bytes()), false);
                    }
                    // A stream that echoes is ended when everything came back.
                    self.wanted = if rest == "Each" { messages.len() } else { 0 };
                    self.send_grpc_stream_message(stream, Some(last.as_bytes()), rest != "Each");
                })
            }
            "storm" => {
                for _ in 0..rest.parse().unwrap_or(0) {
                    let headers = vec![(":method", "GET"), (":path", "/slow"), (":authority", "asked.test")];
                    match self.dispatch_http_call(&self.service, headers, None, vec![], timeout) {
                        Ok(_) => self.open += 1,
                        Err(_) => self.refused += 1,
                    }
                }
                self.storm_ended();
                Ok(())
            }
            _ => return Action::Continue,
        };
        if let Err(status) = done {
            self.note(&format!("refused:{}", status as u32));
            self.answer();
        }
        if kind == "leave" || kind == "go" { Action::Continue } else { Action::Pause }
    }
}
