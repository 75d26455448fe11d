//! A body's way through the plugins that look at it: each piece through one after the other, each of which may keep it.
//!
//! Two bodies of an exchange may be under way at the same time, and plugins of both work on the one exchange. So what
//! moves bytes does not call plugins: it offers a piece to the [`Course`] and takes what comes out, and the [`Desk`], which
//! has the exchange, serves both courses whenever the task is polled. Nothing here does IO or knows a clock.

use crate::error::ProxyError;
use crate::instance::{Instance, Panicked, fenced};
use crate::leaving::Leaving;
use crate::outcome::Local;
use gateward_http::Headers;
use gateward_plugin::{Exchange, Flow, LocalResponse, Plugin};
use gateward_telemetry::WorkerMetrics;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

/// Which body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Way {
    #[default]
    Request,
    Response,
}

/// State of one body's way. Kept in the session, so that its memory is used again.
#[derive(Default)]
pub(crate) struct Course {
    way: Way,
    gates: Vec<Gate>,
    /// Gates whose plugin has seen the head.
    asked: usize,
    /// The head came through all gates.
    open: bool,
    /// The message has no body.
    bodiless: bool,
    offered: Option<Offer>,
    /// The last piece has gone in.
    full: bool,
    /// What came out and was not taken yet.
    out: Vec<u8>,
    trailers: Headers,
    /// Everything has come out.
    ended: bool,
    /// A plugin's answer in place of the upstream's.
    answer: Option<LocalResponse>,
}

/// One plugin on the way.
struct Gate {
    instance: u32,
    holding: bool,
    /// The last piece has come to it.
    last: bool,
}

struct Offer {
    piece: Vec<u8>,
    last: bool,
    trailers: Headers,
}

/// Who calls the plugins of both bodies.
pub(crate) struct Desk<'a> {
    pub(crate) metrics: &'a WorkerMetrics,
    pub(crate) instances: &'a [Instance],
    pub(crate) request: &'a RefCell<Course>,
    pub(crate) response: &'a RefCell<Course>,
}

impl Course {
    /// Forget the last body.
    pub(crate) fn reset(&mut self) {
        self.gates.clear();
        (self.asked, self.open, self.bodiless, self.full, self.ended) = (0, false, false, false, false);
        self.offered = None;
        self.answer = None;
        self.out = Vec::new();
        self.trailers.clear();
    }

    /// A request's way through `instances`, whose heads are still to be asked.
    pub(crate) fn begin_request(&mut self, instances: impl Iterator<Item = u32>) {
        self.reset();
        self.way = Way::Request;
        self.gates.extend(instances.map(Gate::new));
    }

    /// A response body's way through `instances`, which have seen the head.
    pub(crate) fn begin_response(&mut self, instances: impl Iterator<Item = u32>) {
        self.reset();
        self.way = Way::Response;
        self.gates.extend(instances.map(Gate::new));
        self.asked = self.gates.len();
        self.open = true;
    }

    /// Whether there are plugins on the way.
    pub(crate) fn is_begun(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Whether the head came through.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether all of the body has gone in.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether all of the body has come out.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether there is something to take.
    pub(crate) fn has_news(&self) -> bool {
        self.ended || !self.out.is_empty()
    }

    /// Whether what was offered has been dealt with.
    pub(crate) fn is_served(&self) -> bool {
        self.offered.is_none()
    }

    /// Let a piece in, the `trailers` with the last.
    pub(crate) fn offer(&mut self, piece: Vec<u8>, last: bool, trailers: Headers) {
        debug_assert!(self.offered.is_none() && !self.full, "one piece at a time, up to the last");
        self.full = last;
        self.offered = Some(Offer { piece, last, trailers });
    }

    /// What came out.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The trailers, once everything has come out.
    pub(crate) fn take_trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }

    /// Keep a plugin's answer for who can give it.
    pub(crate) fn stopped_by(&mut self, local: Local) -> ProxyError {
        match local {
            Local::Error(error) => error,
            Local::Plugin(response) => {
                self.answer = Some(response);
                ProxyError::Answered
            }
        }
    }

    /// What the `error` stands for.
    pub(crate) fn local(&mut self, error: ProxyError) -> Local {
        match self.answer.take() {
            Some(response) if error == ProxyError::Answered => Local::Plugin(response),
            _ => Local::Error(error),
        }
    }
}

impl Gate {
    fn new(instance: u32) -> Self {
        Self { instance, holding: false, last: false }
    }
}

impl Desk<'_> {
    /// Show the request's head to the plugins, as far as they let it go on. `end`: no body follows.
    pub(crate) fn head(&self, exchange: &mut Exchange, end: bool) -> Result<(), Local> {
        let course = &mut *self.request.borrow_mut();
        course.bodiless = end;
        course.full = end;
        self.heads(course, exchange)
    }

    /// Show what was offered, as far as the plugins let it go on at once.
    pub(crate) fn pass_offered(&self, exchange: &mut Exchange) -> Result<(), Local> {
        self.take_offer(&mut self.request.borrow_mut(), exchange)?;
        self.take_offer(&mut self.response.borrow_mut(), exchange).map(drop)
    }

    /// Do `work`, and all that it asks of the plugins meanwhile.
    ///
    /// # Errors
    /// A plugin ended the exchange, or the client left while one held something; `work` was dropped.
    pub(crate) async fn beside<T>(
        &self,
        exchange: &mut Exchange,
        mut leaving: Leaving<'_>,
        work: impl Future<Output = T>,
    ) -> Result<T, Local> {
        let mut work = pin!(work);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Ok(done));
                }
                match self.serve(exchange, context) {
                    Ok(true) => {}
                    Ok(false) if self.is_left_waiting(&leaving) => {
                        return leaving.poll(context).map(|()| Err(Local::Error(ProxyError::ClientGone)));
                    }
                    Ok(false) => {
                        leaving.rest();
                        return Poll::Pending;
                    }
                    Err(local) => return Poll::Ready(Err(local)),
                }
            }
        })
        .await
    }

    /// Whether a plugin keeps something while nobody reads from the client.
    fn is_left_waiting(&self, leaving: &Leaving<'_>) -> bool {
        self.holds() && (!leaving.is_read() || self.request.borrow().is_full())
    }

    /// Whether a plugin keeps something.
    fn holds(&self) -> bool {
        [self.request, self.response].iter().any(|course| course.borrow().gates.iter().any(|gate| gate.holding))
    }

    /// Whether anything has moved.
    fn serve(&self, exchange: &mut Exchange, context: &mut Context<'_>) -> Result<bool, Local> {
        let request = self.serve_one(&mut self.request.borrow_mut(), exchange, context)?;
        let response = self.serve_one(&mut self.response.borrow_mut(), exchange, context)?;
        Ok(request || response)
    }

    fn serve_one(
        &self,
        course: &mut Course,
        exchange: &mut Exchange,
        context: &mut Context<'_>,
    ) -> Result<bool, Local> {
        let mut moved = self.take_offer(course, exchange)?;
        for position in 0..course.gates.len() {
            if course.gates[position].holding {
                moved |= self.ask_again(course, position, exchange, context)?;
            }
        }
        Ok(moved)
    }

    /// Whether there was something to show.
    fn take_offer(&self, course: &mut Course, exchange: &mut Exchange) -> Result<bool, Local> {
        let Some(Offer { piece, last, trailers }) = course.offered.take() else { return Ok(false) };
        if last {
            *trailers_of(course.way, exchange) = trailers;
        }
        self.pass(course, 0, piece, last, exchange)?;
        Ok(true)
    }

    /// Show the head to the next plugins, until one holds it.
    fn heads(&self, course: &mut Course, exchange: &mut Exchange) -> Result<(), Local> {
        let end = course.bodiless;
        while let Some(gate) = course.gates.get_mut(course.asked) {
            course.asked += 1;
            gate.last = end;
            let flow = self.call(course.way, gate.instance, Flow::Next, |plugin| plugin.request_head(exchange, end))?;
            if !passes(flow)? {
                gate.holding = true;
                return Ok(());
            }
        }
        course.open = true;
        course.ended = course.bodiless;
        Ok(())
    }

    /// Bring a piece to the plugin at `from` and to those behind it.
    fn pass(
        &self,
        course: &mut Course,
        from: usize,
        mut piece: Vec<u8>,
        last: bool,
        exchange: &mut Exchange,
    ) -> Result<(), Local> {
        let way = course.way;
        let mut position = from;
        while position < course.asked {
            let gate = &mut course.gates[position];
            gate.last |= last;
            let flow = self.call(way, gate.instance, Flow::Next, |plugin| match way {
                Way::Request => plugin.request_piece(exchange, &mut piece, last),
                Way::Response => plugin.response_piece(exchange, &mut piece, last),
            })?;
            if exchange.response.broken {
                return Err(Local::Error(ProxyError::Reset));
            }
            if !passes(flow)? {
                gate.holding = true;
                return Ok(());
            }
            self.released(course, position, exchange)?;
            if piece.is_empty() && !last {
                return Ok(());
            }
            position += 1;
        }
        if course.out.is_empty() {
            course.out = piece;
        } else {
            course.out.append(&mut piece);
        }
        if last {
            course.end(exchange);
        }
        Ok(())
    }

    /// The plugin at `position` holds nothing any more; if it held the head, that goes on.
    fn released(&self, course: &mut Course, position: usize, exchange: &mut Exchange) -> Result<(), Local> {
        let held = std::mem::take(&mut course.gates[position].holding);
        let head = held && !course.open && position + 1 == course.asked;
        if head { self.heads(course, exchange) } else { Ok(()) }
    }

    /// Ask a plugin that holds; whether anything has moved.
    fn ask_again(
        &self,
        course: &mut Course,
        position: usize,
        exchange: &mut Exchange,
        context: &mut Context<'_>,
    ) -> Result<bool, Local> {
        let way = course.way;
        let mut piece = Vec::new();
        let goes_on = Poll::Ready(Flow::Next);
        let polled = self.call(way, course.gates[position].instance, goes_on, |plugin| match way {
            Way::Request => plugin.poll_request(exchange, &mut piece, context),
            Way::Response => plugin.poll_response(exchange, &mut piece, context),
        })?;
        let Poll::Ready(flow) = polled else { return Ok(false) };
        if !passes(flow)? {
            return Ok(false);
        }
        self.released(course, position, exchange)?;
        let last = course.gates[position].last && !course.bodiless;
        if last || !piece.is_empty() {
            self.pass(course, position + 1, piece, last, exchange)?;
        }
        Ok(true)
    }

    /// A plugin that panics ends a request; on a response it loses its say.
    fn call<T>(&self, way: Way, instance: u32, otherwise: T, call: impl FnOnce(&dyn Plugin) -> T) -> Result<T, Local> {
        match fenced(self.metrics, &self.instances[instance as usize], call) {
            Ok(called) => Ok(called),
            Err(Panicked) if way == Way::Response => Ok(otherwise),
            Err(Panicked) => Err(Local::Error(ProxyError::PluginPanic)),
        }
    }
}

impl Course {
    /// The last piece has come out.
    fn end(&mut self, exchange: &mut Exchange) {
        self.trailers = std::mem::take(trailers_of(self.way, exchange));
        self.ended = true;
    }
}

/// Whether the message goes on, and does not wait.
fn passes(flow: Flow) -> Result<bool, Local> {
    match flow {
        Flow::Next => Ok(true),
        Flow::Hold => Ok(false),
        Flow::Respond(response) => Err(Local::Plugin(response)),
        Flow::Reset => Err(Local::Error(ProxyError::Reset)),
    }
}

/// Where the exchange keeps the trailers of a message while they pass.
fn trailers_of(way: Way, exchange: &mut Exchange) -> &mut Headers {
    match way {
        Way::Request => &mut exchange.request_trailers,
        Way::Response => &mut exchange.response.trailers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_model::{EntityId, PluginConfig};
    use gateward_plugin::Needs;
    use gateward_telemetry::{Limits, Telemetry};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    /// Notes what it is shown, and holds what it is told to.
    #[derive(Default)]
    struct Noting {
        name: &'static str,
        seen: Arc<Mutex<Vec<String>>>,
        holds_head: bool,
        /// Until a piece ends with this byte.
        until: Option<u8>,
        /// What is held goes on when it is asked again.
        ready: AtomicBool,
        held: Mutex<Vec<u8>>,
    }

    impl Noting {
        fn note(&self, what: &str) {
            self.seen.lock().unwrap().push(format!("{}{what}", self.name));
        }
    }

    impl Plugin for Noting {
        fn needs(&self) -> Needs {
            Needs::default()
        }

        fn request_head(&self, _exchange: &mut Exchange, end: bool) -> Flow {
            self.note(if end { ":head." } else { ":head" });
            if self.holds_head { Flow::Hold } else { Flow::Next }
        }

        fn request_piece(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, last: bool) -> Flow {
            let mut held = self.held.lock().unwrap();
            held.append(piece);
            let end = if last { "." } else { "" };
            self.note(&format!(":{}{end}{}", String::from_utf8_lossy(&held), exchange.request_trailers.len()));
            match self.until {
                Some(until) if held.last() != Some(&until) => Flow::Hold,
                _ if held.starts_with(b"!") => Flow::Respond(LocalResponse::empty(418)),
                _ => {
                    *piece = std::mem::take(&mut held);
                    Flow::Next
                }
            }
        }

        fn poll_request(
            &self,
            _exchange: &mut Exchange,
            piece: &mut Vec<u8>,
            _context: &mut Context<'_>,
        ) -> Poll<Flow> {
            if !self.ready.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            piece.append(&mut self.held.lock().unwrap());
            Poll::Ready(Flow::Next)
        }
    }

    struct Bench {
        plugins: Vec<Arc<Noting>>,
        instances: Vec<Instance>,
        request: RefCell<Course>,
        response: RefCell<Course>,
        exchange: Exchange,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Bench {
        fn new(plugins: Vec<Noting>) -> Self {
            let seen = Arc::default();
            let plugins: Vec<_> =
                plugins.into_iter().map(|plugin| Arc::new(Noting { seen: Arc::clone(&seen), ..plugin })).collect();
            let entity = Arc::new(PluginConfig::new(EntityId::derived("test", "p"), "p", serde_json::Value::Null));
            let instance = |plugin: &Arc<Noting>| Instance {
                plugin: plugin.clone(),
                needs: Needs::default(),
                entity: entity.clone(),
            };
            let instances: Vec<_> = plugins.iter().map(instance).collect();
            let request = RefCell::new(Course::default());
            request.borrow_mut().begin_request(0..instances.len() as u32);
            Self { plugins, instances, request, response: RefCell::default(), exchange: Exchange::new(), seen }
        }

        fn with<T>(&mut self, metrics: &WorkerMetrics, work: impl FnOnce(&Desk<'_>, &mut Exchange) -> T) -> T {
            let (request, response) = (&self.request, &self.response);
            work(&Desk { metrics, instances: &self.instances, request, response }, &mut self.exchange)
        }

        fn head(&mut self, end: bool) {
            let metrics = metrics();
            assert!(self.with(&metrics, |desk, exchange| desk.head(exchange, end)).is_ok());
        }

        /// Offer a piece; what is out then.
        fn offer(&mut self, piece: &str, last: bool) -> Result<String, Local> {
            let metrics = metrics();
            let mut trailers = Headers::default();
            trailers.add("x-sum", "1");
            let trailers = if last { trailers } else { Headers::default() };
            self.request.borrow_mut().offer(piece.into(), last, trailers);
            self.with(&metrics, |desk, exchange| desk.pass_offered(exchange))?;
            Ok(self.out())
        }

        /// Ask those who hold; what is out then.
        fn again(&mut self) -> String {
            let metrics = metrics();
            let mut context = Context::from_waker(Waker::noop());
            while self.with(&metrics, |desk, exchange| desk.serve(exchange, &mut context)).is_ok_and(|moved| moved) {}
            self.out()
        }

        fn out(&self) -> String {
            let mut course = self.request.borrow_mut();
            let out = String::from_utf8(course.take_out()).unwrap();
            if course.is_ended() { out + "." } else { out }
        }

        fn seen(&self) -> String {
            std::mem::take(&mut *self.seen.lock().unwrap()).join(" ")
        }
    }

    fn metrics() -> WorkerMetrics {
        Telemetry::new(1, Limits::default()).worker(0)
    }

    fn named(name: &'static str) -> Noting {
        Noting { name, ..Noting::default() }
    }

    #[test]
    fn heads_go_first_and_pieces_follow_in_order() {
        let mut bench = Bench::new(vec![named("a"), named("b")]);
        bench.head(false);
        assert!(bench.request.borrow().is_open());
        assert_eq!(bench.offer("x", false).ok().as_deref(), Some("x"));
        assert_eq!(bench.offer("", true).ok().as_deref(), Some("."));
        assert_eq!(bench.seen(), "a:head b:head a:x0 b:x0 a:.1 b:.1");
        assert_eq!(bench.request.borrow_mut().take_trailers().len(), 1);
        let mut bench = Bench::new(vec![named("a"), named("b")]);
        bench.head(true);
        assert_eq!((bench.out().as_str(), bench.seen().as_str()), (".", "a:head. b:head."));
    }

    #[test]
    fn who_holds_the_head_keeps_it_from_those_behind_and_not_the_body_from_itself() {
        let holding = Noting { holds_head: true, until: Some(b'!'), ..named("b") };
        let mut bench = Bench::new(vec![named("a"), holding, named("c")]);
        bench.head(false);
        assert_eq!(bench.offer("x", false).ok().as_deref(), Some(""));
        assert!(!bench.request.borrow().is_open());
        assert_eq!(bench.offer("y!", false).ok().as_deref(), Some("xy!"));
        assert!(bench.request.borrow().is_open());
        assert_eq!(bench.seen(), "a:head b:head a:x0 b:x0 a:y!0 b:xy!0 c:head c:xy!0");
    }

    #[test]
    fn what_is_held_goes_on_when_its_plugin_says_so() {
        let mut bench = Bench::new(vec![Noting { until: Some(b'!'), ..named("a") }, named("b")]);
        bench.head(false);
        assert_eq!(bench.offer("x", false).ok().as_deref(), Some(""));
        assert_eq!(bench.again(), "");
        bench.plugins[0].ready.store(true, Ordering::Relaxed);
        assert_eq!(bench.again(), "x");
        bench.plugins[0].ready.store(false, Ordering::Relaxed);
        assert_eq!(bench.offer("y", true).ok().as_deref(), Some(""));
        bench.plugins[0].ready.store(true, Ordering::Relaxed);
        assert_eq!(bench.again(), "y.");
        assert_eq!(bench.seen(), "a:head b:head a:x0 b:x0 a:y.1 b:y.1");
        let mut bench = Bench::new(vec![Noting { holds_head: true, ..named("a") }, named("b")]);
        bench.head(true);
        assert_eq!((bench.again().as_str(), bench.seen().as_str()), ("", "a:head."));
        bench.plugins[0].ready.store(true, Ordering::Relaxed);
        assert_eq!((bench.again().as_str(), bench.seen().as_str()), (".", "b:head."));
    }

    #[test]
    fn an_answer_is_kept_for_who_gives_it() {
        let mut bench = Bench::new(vec![named("a")]);
        bench.head(false);
        let Err(local) = bench.offer("!", false) else { panic!("it answers") };
        let mut course = Course::default();
        let error = course.stopped_by(local);
        assert_eq!(error, ProxyError::Answered);
        assert!(matches!(course.local(error), Local::Plugin(response) if response.status == 418));
        let error = course.stopped_by(Local::Error(ProxyError::Reset));
        assert!(matches!(course.local(error), Local::Error(ProxyError::Reset)));
    }

    #[test]
    fn work_goes_on_as_soon_as_what_it_offered_is_served() {
        let mut bench = Bench::new(vec![named("a")]);
        bench.head(false);
        let polls = Cell::new(0);
        let (metrics, request, response) = (metrics(), &bench.request, &bench.response);
        let desk = Desk { metrics: &metrics, instances: &bench.instances, request, response };
        let work = poll_fn(|_| {
            polls.set(polls.get() + 1);
            let mut course = request.borrow_mut();
            match polls.get() {
                1 => course.offer(b"x".to_vec(), true, Headers::default()),
                _ if course.is_ended() => return Poll::Ready(course.take_out()),
                _ => {}
            }
            Poll::Pending
        });
        let mut done = pin!(desk.beside(&mut bench.exchange, Leaving::nobody(), work));
        let polled = done.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(out)) if out == b"x"));
        assert_eq!(polls.get(), 2);
    }
}
