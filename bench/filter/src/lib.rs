//! The filter that measurements run with, on every proxy the same file: for each request it reads three fields and
//! writes two, one of them on the response.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

struct Request;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request))
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let agent = self.get_http_request_header("user-agent").unwrap_or_default();
        let mobile = agent.contains("Mobile") && path.starts_with('/');
        self.set_http_request_header("x-device", Some(if mobile { "mobile" } else { "other" }));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let kind = self.get_http_response_header("content-type").unwrap_or_default();
        self.set_http_response_header("x-kind", Some(kind.split(';').next().unwrap_or_default()));
        Action::Continue
    }
}
