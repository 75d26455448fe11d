//! A Wasm filter that reads and writes headers.
//!
//! Its configuration is the text of a response header, `x-filtered`. It tells the upstream which path the client asked for,
//! answers requests for `/forbidden` itself, and puts the header on every response.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// The filter as configured: one per worker.
#[derive(Default)]
struct Root {
    text: String,
}

/// One request.
struct Request {
    text: String,
}

impl Context for Root {}

impl RootContext for Root {
    /// `false` refuses the configuration, and with it the file it stands in.
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        self.text = String::from_utf8_lossy(&text).trim().to_owned();
        !self.text.is_empty()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { text: self.text.clone() }))
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        if path == "/forbidden" {
            self.send_http_response(403, vec![("x-reason", "path")], Some(b"not here\n"));
            return Action::Pause;
        }
        self.set_http_request_header("x-asked-path", Some(&path));
        if let Some(agent) = self.get_http_request_header("user-agent") {
            self.set_http_request_header("x-agent", Some(&agent.to_lowercase()));
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("x-filtered", Some(&self.text));
        Action::Continue
    }
}
