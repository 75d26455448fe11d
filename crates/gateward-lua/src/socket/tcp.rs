//! One stream socket: `ngx.socket.tcp`.

use super::pool::SIZE;
use super::read::{What, find};
use super::{Connection, Failure, Sockets, Wire, within, words};
use gateward_net::tls::{ClientOptions, Offer};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// OpenResty's lua_socket_*_timeout.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of one receive.
const MOST: usize = 32 << 20;
/// Bytes of one read.
const PIECE: usize = 16 << 10;

/// A socket, connected or not.
pub(crate) struct Tcp {
    connection: RefCell<Option<Connection>>,
    /// What was read and not asked for yet.
    ahead: RefCell<Vec<u8>>,
    reading: Cell<bool>,
    writing: Cell<bool>,
    /// For connecting, sending and reading.
    pub(crate) timeouts: Cell<[Duration; 3]>,
    /// Name and size of the pool it goes to.
    pool: RefCell<(String, usize)>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            connection: RefCell::default(),
            ahead: RefCell::default(),
            reading: Cell::default(),
            writing: Cell::default(),
            timeouts: Cell::new([TIMEOUT; 3]),
            pool: RefCell::default(),
        }
    }
}

/// Where to connect.
pub(crate) struct Wanted {
    /// A name, an address, or `unix:PATH`.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Name of the pool, if the plugin says one.
    pub(crate) pool: Option<String>,
    pub(crate) pool_size: Option<usize>,
}

/// What a receive came to.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// Why it is not what was asked for.
    pub(crate) failure: Option<Failure>,
    /// For [`What::Until`].
    pub(crate) reached: bool,
}

/// Which way bytes go.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// Somebody reads or writes, from the call on and until it ends in whatever way.
struct Busy(Rc<Tcp>, Way);

impl Busy {
    fn new(tcp: &Rc<Tcp>, way: Way) -> Result<Self, Failure> {
        if tcp.busy(way).replace(true) {
            return Err(match way {
                Way::In => "socket busy reading".into(),
                Way::Out => "socket busy writing".into(),
            });
        }
        Ok(Self(tcp.clone(), way))
    }

    fn both(tcp: &Rc<Tcp>) -> Result<(Self, Self), Failure> {
        Ok((Self::new(tcp, Way::In)?, Self::new(tcp, Way::Out)?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy(self.1).set(false);
    }
}

impl Tcp {
    fn busy(&self, way: Way) -> &Cell<bool> {
        match way {
            Way::In => &self.reading,
            Way::Out => &self.writing,
        }
    }

    fn wire(&self) -> Result<Rc<Wire>, Failure> {
        self.connection.borrow().as_ref().map(|connection| connection.wire.clone()).ok_or("closed".into())
    }

    /// Connect, or take a connection from the pool.
    pub(crate) fn connect(
        self: &Rc<Self>,
        sockets: Rc<Sockets>,
        wanted: Wanted,
    ) -> impl Future<Output = Result<(), Failure>> + use<> {
        let (own, busy) = (self.clone(), Busy::both(self));
        async move {
            let _busy = busy?;
            own.dial(&sockets, wanted).await
        }
    }

    async fn dial(&self, sockets: &Sockets, wanted: Wanted) -> Result<(), Failure> {
        self.drop_connection();
        let Wanted { host, port, pool, pool_size } = wanted;
        let is_unix = host.starts_with("unix:");
        let pool = pool.unwrap_or_else(|| if is_unix { host.clone() } else { format!("{host}:{port}") });
        let kept = sockets.pools.take(&pool);
        *self.pool.borrow_mut() = (pool, pool_size.unwrap_or(SIZE));
        let connection = match kept {
            Some(connection) => connection,
            None => within(self.timeouts.get()[0], sockets.connect(&host, port)).await?,
        };
        *self.connection.borrow_mut() = Some(connection);
        Ok(())
    }

    /// Do the TLS handshake, unless the connection had it already.
    pub(crate) fn handshake(
        self: &Rc<Self>,
        sockets: Rc<Sockets>,
        name: Option<String>,
        verify: bool,
    ) -> impl Future<Output = Result<(), Failure>> + use<> {
        let (own, busy) = (self.clone(), Busy::both(self));
        async move {
            let _busy = busy?;
            own.secure(&sockets, name, verify).await
        }
    }

    async fn secure(&self, sockets: &Sockets, name: Option<String>, verify: bool) -> Result<(), Failure> {
        let options = ClientOptions { verify: Some(verify), ..ClientOptions::default() };
        let client = sockets.tls()?.client(options).map_err(|error| Failure::from(error.to_string()))?;
        let connection = self.connection.borrow_mut().take().ok_or("closed")?;
        if connection.secure {
            *self.connection.borrow_mut() = Some(connection);
            return Ok(());
        }
        let Connection { wire, reused, _open, .. } = connection;
        let Ok(Wire::Tcp(stream, ip)) = Rc::try_unwrap(wire) else {
            return Err("TLS needs a connection over TCP".into());
        };
        let name = name.unwrap_or_else(|| ip.to_string());
        let negotiated = async {
            let negotiated = stream.negotiate_tls(&client, ip, &name, Offer::Nothing).await;
            negotiated.map_err(|error| words(&error))
        };
        let stream = within(self.timeouts.get()[0], negotiated).await?;
        *self.connection.borrow_mut() =
            Some(Connection { wire: Rc::new(Wire::Tcp(stream, ip)), secure: true, reused, _open });
        Ok(())
    }

    /// Write all of `bytes`; how many they are. A failure closes the connection.
    pub(crate) fn send(self: &Rc<Self>, bytes: Vec<u8>) -> impl Future<Output = Result<usize, Failure>> + use<> {
        let (own, busy) = (self.clone(), Busy::new(self, Way::Out));
        async move {
            let _busy = busy?;
            own.write(&bytes).await
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<usize, Failure> {
        let wire = self.wire()?;
        let writing = async {
            let mut rest = bytes;
            while !rest.is_empty() {
                let wrote = wire.write(rest).await.map_err(|error| words(&error))?;
                rest = &rest[wrote..];
            }
            Ok(bytes.len())
        };
        let sent = within(self.timeouts.get()[1], writing).await;
        if sent.is_err() {
            self.drop_connection();
        }
        sent
    }

    /// What is asked for, if it is there already.
    pub(crate) fn at_hand(&self, what: &What) -> Option<Received> {
        if self.reading.get() || self.connection.borrow().is_none() {
            return None;
        }
        let answer = find(what, &mut self.ahead.borrow_mut(), false)?;
        Some(Received { bytes: answer.bytes, failure: None, reached: answer.reached })
    }

    /// Read until what is asked for is there. A failure comes with what arrived, and closes the connection unless it is
    /// for lack of time.
    pub(crate) fn receive(self: &Rc<Self>, what: What) -> impl Future<Output = Received> + use<> {
        let (own, busy) = (self.clone(), Busy::new(self, Way::In));
        async move {
            match busy {
                Ok(_busy) => own.read(&what).await,
                Err(failure) => Received { bytes: Vec::new(), failure: Some(failure), reached: false },
            }
        }
    }

    async fn read(&self, what: &What) -> Received {
        let failed = |failure| Received { bytes: Vec::new(), failure: Some(failure), reached: false };
        let wire = match self.wire() {
            Ok(wire) => wire,
            Err(failure) => return failed(failure),
        };
        match within(self.timeouts.get()[2], self.read_until(&wire, what)).await {
            Ok(received) => received,
            Err(failure) => {
                let bytes = self.ahead.take();
                if failure != "timeout" {
                    self.drop_connection();
                }
                Received { bytes, failure: Some(failure), reached: false }
            }
        }
    }

    async fn read_until(&self, wire: &Wire, what: &What) -> Result<Received, Failure> {
        let mut piece = vec![0; PIECE];
        let mut closed = false;
        loop {
            if let Some(answer) = find(what, &mut self.ahead.borrow_mut(), closed) {
                return Ok(Received { bytes: answer.bytes, failure: None, reached: answer.reached });
            }
            if closed {
                return Err("closed".into());
            }
            if self.ahead.borrow().len() >= MOST {
                return Err(format!("more than {MOST} bytes in one receive").into());
            }
            tokio::task::coop::consume_budget().await;
            let read = match wire.read(&mut piece).await {
                // An end without close_notify is an end.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                read => read.map_err(|error| words(&error))?,
            };
            closed = read == 0;
            self.ahead.borrow_mut().extend_from_slice(&piece[..read]);
        }
    }

    /// Give the connection to the pool; zero: without end.
    pub(crate) fn keep(&self, sockets: &Sockets, time: Duration, size: Option<usize>) -> Result<(), Failure> {
        if self.reading.get() {
            return Err("socket busy reading".into());
        }
        if self.writing.get() {
            return Err("socket busy writing".into());
        }
        let connection = self.connection.borrow_mut().take().ok_or("closed")?;
        if !self.ahead.take().is_empty() {
            return Err("unread data in buffer".into());
        }
        if !connection.wire.is_silent() {
            return Err("connection in dubious state".into());
        }
        let (pool, own) = self.pool.borrow().clone();
        sockets.pools.put(pool, connection, time, size.unwrap_or(own));
        Ok(())
    }

    /// Close it; an error without a connection.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        if self.connection.borrow().is_none() {
            return Err("closed".into());
        }
        self.drop_connection();
        Ok(())
    }

    /// How often the connection was used before.
    pub(crate) fn reused(&self) -> Result<u32, Failure> {
        self.connection.borrow().as_ref().map(|connection| connection.reused).ok_or("closed".into())
    }

    fn drop_connection(&self) {
        self.ahead.borrow_mut().clear();
        if let Some(Connection { wire, secure: true, .. }) = self.connection.take()
            && let Wire::Tcp(stream, _) = &*wire
        {
            // Says goodbye in TLS' own words; whether it arrives does not matter.
            let _ = stream.finish();
        }
    }
}
