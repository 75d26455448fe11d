//! What one request needs: buffers, the exchange, times. Pooled per worker, so that an idle connection holds
//! none of it and a busy one allocates none of it.

use crate::body;
use crate::course::Course;
use crate::grpc::Call;
use crate::outcome::Persistence;
use crate::pump::Pump;
use gateward_http::ResponseHead;
use gateward_net::Deadline;
use gateward_plugin::{ClientTls, Exchange, Needs, ProxyOrigin};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// Sessions kept for reuse per worker.
const SPARE_SESSIONS: usize = 128;
/// Bytes of headers above which a session's arenas are given back.
const HEADERS_KEPT: usize = 64 * 1024;

/// Who a connection is from and where it came in. Every session of the connection is told all of it: what a session
/// kept of another connection would be somebody else's.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The connection's serial number.
    pub(crate) number: u64,
    /// The peer, or the client that a trusted PROXY header named.
    pub(crate) peer: SocketAddr,
    /// The listener's address.
    pub(crate) local: SocketAddr,
    /// What a trusted PROXY header said.
    pub(crate) origin: Option<Arc<ProxyOrigin>>,
    /// The TLS session, if the connection has one.
    pub(crate) tls: Option<Arc<ClientTls>>,
}

/// State of one request. Reset, not dropped.
pub(crate) struct Session {
    pub(crate) exchange: Exchange,
    /// Client to upstream. Its input is the client's bytes, also those of a next, pipelined request.
    pub(crate) upload: Pump,
    /// Upstream to client.
    pub(crate) download: Pump,
    pub(crate) response_head: ResponseHead,
    /// Targets tried, by index in the upstream's list of this generation.
    pub(crate) excluded: Vec<usize>,
    pub(crate) excluded_of: u64,
    /// Which part of a hedged request this is, if it is one.
    pub(crate) role: Role,
    /// Plugin instances chosen for this request, in order.
    pub(crate) active: Vec<u32>,
    /// What any of them may need, so that most phases need not look at each.
    pub(crate) wanted: Needs,
    /// Of everything that receives from the upstream and sends to the client.
    pub(crate) deadline: Deadline,
    pub(crate) times: Times,
    pub(crate) scratch: String,
    /// Bytes of the request besides those the upload counts: its head, and a body that was held for plugins.
    pub(crate) received_bytes: u64,
    /// Status of the upstream's response.
    pub(crate) upstream_status: Option<u16>,
    /// The peer's address as text.
    pub(crate) peer: Vec<u8>,
    /// Fields that say where requests of this connection come from, for upstreams.
    pub(crate) direct: Vec<u8>,
    /// Where the connection came in.
    pub(crate) local: SocketAddr,
    /// The request is a gRPC call.
    pub(crate) call: Option<Call>,
    /// Index of the matched route.
    pub(crate) route: Option<usize>,
    /// What the response head said about the client's connection.
    pub(crate) persistence: Persistence,
    /// The protocols the request may switch to; once the upstream agreed, the one it switches to.
    pub(crate) upgrade: Option<Box<str>>,
    /// The request's way through the plugins that see it in pieces.
    pub(crate) course: RefCell<Course>,
    /// The response body's.
    pub(crate) returns: RefCell<Course>,
    /// The request's body goes upstream through its course.
    pub(crate) streams: bool,
    /// The beginning of a response body that turned out too long to buffer.
    pub(crate) held_back: Vec<u8>,
    /// Likewise of a request body.
    pub(crate) held_up: Vec<u8>,
}

/// Two tries of one request may go on at the same time.
#[derive(Debug, Default)]
pub(crate) enum Role {
    /// The try has no other beside it.
    #[default]
    Only,
    /// It is watched, and another may start beside it.
    First(Rc<WatchedTry>),
    /// It started beside a first one, and is of use with another target than that one's only.
    Second(Option<usize>),
}

/// What is known of a try from outside.
#[derive(Debug, Default)]
pub(crate) struct WatchedTry {
    /// Its target's index, for a second one to go elsewhere.
    pub(crate) target: Cell<Option<usize>>,
    /// It took too long; its target is to hear of it.
    pub(crate) given_up: Cell<bool>,
}

/// Marks in the life of a request, in microseconds of the worker's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) started: u64,
    /// The gateway's own work before the upstream is done.
    pub(crate) forwarded: Option<u64>,
    /// The upstream's response head is there.
    pub(crate) answered: Option<u64>,
}

impl Session {
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self {
            exchange: Exchange::new(),
            upload: Pump::default(),
            download: Pump::default(),
            response_head: ResponseHead::default(),
            excluded: Vec::new(),
            excluded_of: 0,
            role: Role::Only,
            active: Vec::new(),
            wanted: Needs::default(),
            deadline,
            times: Times::default(),
            scratch: String::new(),
            received_bytes: 0,
            upstream_status: None,
            peer: Vec::new(),
            direct: Vec::new(),
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            call: None,
            route: None,
            persistence: Persistence::Close,
            upgrade: None,
            course: RefCell::default(),
            returns: RefCell::default(),
            streams: false,
            held_back: Vec::new(),
            held_up: Vec::new(),
        }
    }

    /// Forget the last request, keep the client's bytes that are not dealt with.
    pub(crate) fn begin(&mut self) {
        self.exchange.reset();
        self.download.input.reset();
        self.download.output.clear();
        self.download.sent_bytes = 0;
        self.download.head_bytes = 0;
        self.excluded.clear();
        self.active.clear();
        self.wanted = Needs::default();
        self.times = Times::default();
        self.received_bytes = 0;
        self.upstream_status = None;
        self.call = None;
        self.route = None;
        self.upgrade = None;
        if self.streams || self.returns.get_mut().is_begun() || self.course.get_mut().is_begun() {
            self.course.get_mut().reset();
            self.returns.get_mut().reset();
            self.streams = false;
        }
        self.held_back = Vec::new();
        self.held_up = Vec::new();
    }
}

/// Sessions not in use.
#[derive(Default)]
pub(crate) struct Spare {
    #[expect(clippy::vec_box, reason = "a session changes hands often and is large")]
    sessions: Vec<Box<Session>>,
}

impl Spare {
    pub(crate) fn take(&mut self) -> Option<Box<Session>> {
        self.sessions.pop()
    }

    /// Keep `session`, without what an unusual request left in it.
    pub(crate) fn give(&mut self, mut session: Box<Session>) {
        if self.sessions.len() >= SPARE_SESSIONS {
            return;
        }
        session.begin();
        session.upload.forget();
        body::retire(&mut session.upload.output);
        body::retire(&mut session.download.output);
        let headers = [
            &mut session.exchange.request.headers,
            &mut session.response_head.headers,
            &mut session.exchange.response.headers,
        ];
        for headers in headers {
            if headers.capacity_bytes() > HEADERS_KEPT {
                *headers = gateward_http::Headers::default();
            }
        }
        self.sessions.push(session);
    }
}
