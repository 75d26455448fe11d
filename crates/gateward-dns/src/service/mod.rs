//! What messages beyond plain queries bring about: updates, transfers, notifications, and queries that are signed.
//!
//! The pure modules decide (`update`, `transfer`, `notify`, `secondary`, `catalog`); this one does the IO around them. Whoever keeps the zones
//! implements [`Keeper`]; what is signed is verified here and every answer to it is signed.

mod authority;
mod dial;
mod follow;
mod herald;
mod keeper;
mod pace;
mod places;
mod producer;
mod reply;
mod seldom;
mod transfers;
mod updates;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use gateward_zone::{Name, Opcode, Rcode};
use tokio::sync::mpsc;

use crate::answer::{Context, Transport, Verdict, respond};
use crate::notify;
use crate::server::Shared;
use crate::server::slow::{Ask, Slow};
use crate::transfer;
use crate::tsig::{Key, Rejected, Signer, verify_request};
use crate::wire::{Header, MAX_MESSAGE};

pub use authority::{AuthorityKeeper, Exchange, KeySource};
pub use follow::{Followed, Followers};
pub use herald::Herald;
pub use keeper::{Content, Keeper, Later, MakeChange, Permits, Requester};
use places::{Client, Places};
use reply::{Room, reply};
use seldom::Seldom;

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Serves what workers hand over.
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    followers: Arc<Followers>,
    transfers: Places<Client>,
    strangers: Seldom,
}

impl Service {
    /// A service over what is served and who keeps it. Notices go to `followers`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, keeper: Arc<dyn Keeper>, followers: Arc<Followers>) -> Self {
        Service {
            inner: Arc::new(Inner {
                shared,
                keeper,
                followers,
                transfers: Places::out(),
                strangers: Seldom::default(),
            }),
        }
    }
}

impl Slow for Service {
    fn serve(&self, ask: Ask) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Arc::clone(&self.inner).serve(ask))
    }
}

/// A message whose signature, if it has one, is right.
struct Asked {
    /// The message without its signature.
    octets: Vec<u8>,
    key: Option<Arc<Key>>,
    signer: Option<Signer>,
    client: SocketAddr,
    transport: Transport,
    /// The most octets that this side takes and sends in a datagram.
    payload: u16,
    answers: mpsc::Sender<Vec<u8>>,
}

impl Asked {
    fn key_name(&self) -> Option<&Name> {
        self.key.as_ref().map(|key| key.name())
    }

    /// The only answer, signed if the message was.
    async fn answer(mut self, mut message: Vec<u8>) {
        if let Some(signer) = &mut self.signer {
            signer.sign(&mut message, unix_seconds());
        }
        // Whoever asked may be gone.
        let _ = self.answers.send(message).await;
    }

    /// An answer of a response code, with a reason for those who speak EDNS.
    async fn refuse(self, rcode: Rcode, reason: &str) {
        let message = reply(&self.octets, rcode, Some(reason), self.room());
        self.answer(message).await;
    }

    /// The answer that all is well.
    async fn accept(self) {
        let message = reply(&self.octets, Rcode::NOERROR, None, self.room());
        self.answer(message).await;
    }

    fn room(&self) -> Room {
        let signature = self.signer.as_ref().map_or(0, Signer::signature_len);
        Room { payload: self.payload, transport: self.transport, signature }
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, ask: Ask) {
        let Ask { octets, client, transport, answers } = ask;
        let payload = self.shared.answers.load().settings.udp_payload;
        let (octets, signed) = match verify_request(&octets, &self.keeper.keys(), unix_seconds()) {
            Ok(None) => (octets, None),
            Ok(Some(signed)) => (signed.unsigned(&octets), Some(signed)),
            Err(rejected) => {
                let answer = match rejected {
                    Rejected::Malformed(_) => {
                        reply(&octets, Rcode::FORMERR, None, Room { payload, transport, signature: 0 })
                    }
                    Rejected::Refused(refusal) => {
                        if let Some(left_out) = self.strangers.line(unix_seconds()) {
                            let (key, error) = (refusal.key_name(), refusal.error());
                            tracing::info!(%client, %key, %error, left_out, "a signed DNS message is refused");
                        }
                        refusal.answer(&octets, unix_seconds())
                    }
                };
                let _ = answers.send(answer).await;
                return;
            }
        };
        let key = signed.as_ref().map(|signed| Arc::clone(signed.key()));
        let signer = signed.map(crate::tsig::Signed::signer);
        let asked = Asked { octets, key, signer, client, transport, payload, answers };
        let Ok(header) = Header::read(&asked.octets) else { return };
        match header.opcode() {
            opcode if opcode == Opcode::UPDATE.to_int() => updates::serve(&self, asked).await,
            opcode if opcode == Opcode::NOTIFY.to_int() => self.notice(asked).await,
            0 => match transfer::parse_request(&asked.octets) {
                Ok(Some(request)) => transfers::serve(&self, asked, request).await,
                Ok(None) => self.query(asked).await,
                Err(_) => asked.refuse(Rcode::FORMERR, "the message is malformed").await,
            },
            _ => asked.refuse(Rcode::NOTIMP, "no such operation").await,
        }
    }

    /// A query that is signed: answered as any other, and signed.
    async fn query(&self, asked: Asked) {
        let mut out = vec![0; MAX_MESSAGE];
        let len = {
            let (zones, answers) = (self.shared.zones.map(), self.shared.answers.load());
            let context = Context {
                zones: &zones,
                settings: &answers.settings,
                cookies: &answers.cookies,
                now: unix_seconds(),
                client: asked.client.ip(),
                transport: asked.transport,
                room: asked.signer.as_ref().map_or(0, Signer::signature_len),
            };
            match respond(&context, &asked.octets, &mut out) {
                Verdict::Reply(reply) => Some(reply.len),
                Verdict::Silent => return,
                Verdict::Elsewhere => None,
            }
        };
        let Some(len) = len else { return asked.refuse(Rcode::REFUSED, "there is no answer to this").await };
        out.truncate(len);
        asked.answer(out).await;
    }

    /// A primary says that a zone changed.
    async fn notice(&self, asked: Asked) {
        let notice = match notify::parse(&asked.octets) {
            Ok(notice) => notice,
            Err(error) => return asked.refuse(Rcode::FORMERR, &error.to_string()).await,
        };
        let Some(primaries) = self.followers.primaries(&notice.zone) else {
            return asked.refuse(Rcode::NOTAUTH, "the zone is not a secondary here").await;
        };
        let served = self.shared.zones.map().slot(&notice.zone).and_then(|slot| slot.zone());
        let serial = served.map(|zone| gateward_zone::ZoneView::serial(&*zone));
        match notify::judge(&notice, asked.client.ip(), asked.key_name(), &primaries, serial) {
            notify::Verdict::NotAPrimary => {
                if let Some(left_out) = self.strangers.line(unix_seconds()) {
                    let (zone, client) = (&notice.zone, asked.client);
                    tracing::warn!(%zone, %client, left_out, "a NOTIFY comes from none of the zone's primaries");
                }
                return asked.refuse(Rcode::REFUSED, "not from a primary of the zone").await;
            }
            notify::Verdict::Refresh => self.followers.notified(&notice.zone, Some(asked.client)),
            notify::Verdict::Known => {}
        }
        asked.accept().await;
    }
}
