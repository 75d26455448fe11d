//! A Wasm filter that asks a service about each request before it goes on.
//!
//! Its configuration is the name of a service or upstream of the gateway. A request waits while `GET /check` is sent there with
//! its `authorization`; 200 lets it pass with the answer's `x-user`, everything else, and no answer, ends it with 401.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// The filter as configured: one per worker.
#[derive(Default)]
struct Root {
    service: String,
}

/// One request.
struct Request {
    service: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        self.service = String::from_utf8_lossy(&text).trim().to_owned();
        !self.service.is_empty()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { service: self.service.clone() }))
    }
}

impl Context for Request {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        // A call that failed has no headers at all.
        if self.get_http_call_response_header(":status").as_deref() != Some("200") {
            self.send_http_response(401, vec![], Some(b"who are you?\n"));
            return;
        }
        let user = self.get_http_call_response_header("x-user").unwrap_or_default();
        self.set_http_request_header("x-user", Some(&user));
        self.resume_http_request();
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let authorization = self.get_http_request_header("authorization").unwrap_or_default();
        let headers = vec![
            (":method", "GET"),
            (":path", "/check"),
            (":authority", "check"),
            ("authorization", authorization.as_str()),
        ];
        match self.dispatch_http_call(&self.service, headers, None, vec![], Duration::from_secs(2)) {
            Ok(_) => Action::Pause,
            Err(_) => {
                self.send_http_response(500, vec![], Some(b"the service cannot be asked\n"));
                Action::Pause
            }
        }
    }
}
