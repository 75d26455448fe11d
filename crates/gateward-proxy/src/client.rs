//! A client while it is busy: its channel, the session of its request, and how old its connection may get.

use crate::channel::Channel;
use crate::session::Session;
use crate::worker::Worker;
use gateward_net::Deadline;
use std::rc::Rc;

/// A client connection with a session attached, while it has something to do.
pub(crate) struct Connection<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    /// The connection, or of an HTTP/2 connection the stream of this request.
    pub(crate) client: Channel<'a>,
    /// Of everything that receives from the client and sends to the upstream.
    pub(crate) deadline: &'a Deadline,
    pub(crate) session: &'a mut Session,
    /// Requests served on this connection before this one.
    pub(crate) served: u32,
    pub(crate) age: Age,
}

impl Connection<'_> {
    /// Whether the client should come again on a new connection, which may lead it to another node.
    pub(crate) fn is_over_age(&self) -> bool {
        self.age.is_over(self.worker)
    }
}

/// How old a client connection may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    retire_at_ms: u64,
}

impl Age {
    /// Of a connection that begins now.
    pub(crate) fn new(worker: &Worker) -> Self {
        match worker.node.settings.max_connection_age_ms {
            0 => Self { retire_at_ms: u64::MAX },
            most_ms => {
                Self { retire_at_ms: worker.deadlines.now_ms().saturating_add(life_ms(most_ms, worker.ids.next())) }
            }
        }
    }

    pub(crate) fn is_over(self, worker: &Worker) -> bool {
        worker.deadlines.now_ms() >= self.retire_at_ms
    }
}

/// Connections that began together must not end together: each gets up to a fifth less, by `random`.
fn life_ms(most_ms: u64, random: u64) -> u64 {
    most_ms - random % (most_ms / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::life_ms;
    use crate::Settings;
    use crate::testing::{local, measured_gateway, read_until};
    use gateward_telemetry::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[test]
    fn lives_differ_by_up_to_a_fifth() {
        let lives: Vec<u64> = (0..10_000).map(|random| life_ms(1_000, random * 7_919)).collect();
        assert_eq!((lives.iter().min(), lives.iter().max()), (Some(&800), Some(&1_000)));
        assert!((800..=1_000).all(|life| lives.contains(&life)), "each length occurs");
        assert_eq!((life_ms(1, u64::MAX), life_ms(4, 3)), (1, 4));
        assert!(life_ms(u64::MAX, u64::MAX) > u64::MAX / 5 * 4 - 5);
    }

    #[test]
    fn an_old_connection_is_closed_with_a_response_and_not_before() {
        local(async {
            let settings = Settings { max_connection_age_ms: 60, ..Settings::default() };
            let (gateway, telemetry) = measured_gateway("_format_version: '3.0'\n", settings);
            let mut client = TcpStream::connect(gateway).await.unwrap();
            let mut kept = 0;
            loop {
                client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                let answer = read_until(&mut client, "\n}").await;
                assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
                if answer.contains("Connection: close\r\n") {
                    break;
                }
                kept += 1;
            }
            assert!(kept > 0 && client.read_u8().await.is_err(), "{kept}");
            drop(client);
            while telemetry.snapshot().counter(Counter::ConnectionsAged) != 1 {
                tokio::task::yield_now().await;
            }
        });
    }
}
