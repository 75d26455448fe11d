//! Whether what is registered works: a command, a URL or a port; and how many failures in a row say that it does not.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::client::Client;

/// A check.
pub(super) struct Check {
    what: What,
    timeout: Duration,
}

enum What {
    Command(String),
    Url(Box<Client>, String),
    Tcp(Vec<SocketAddr>),
}

impl Check {
    pub(super) fn command(command: &str, timeout: Duration) -> Self {
        Check { what: What::Command(command.to_owned()), timeout }
    }

    /// # Errors
    /// It is not an `http` URL.
    pub(super) fn url(url: &str, timeout: Duration) -> Result<Self> {
        let (client, path) = Client::of_url(url)?;
        Ok(Check { what: What::Url(Box::new(client), path), timeout })
    }

    pub(super) fn tcp(addresses: Vec<SocketAddr>, timeout: Duration) -> Self {
        Check { what: What::Tcp(addresses), timeout }
    }

    /// Whether it passes, in time.
    pub(super) async fn passes(&self) -> bool {
        tokio::time::timeout(self.timeout, self.try_once()).await.unwrap_or(false)
    }

    async fn try_once(&self) -> bool {
        match &self.what {
            What::Command(command) => {
                let mut command = {
                    let mut shell = Command::new("/bin/sh");
                    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
                    shell
                };
                command.status().await.is_ok_and(|status| status.success())
            }
            What::Url(client, path) => client.answers(path).await,
            What::Tcp(addresses) => TcpStream::connect(&addresses[..]).await.is_ok(),
        }
    }
}

/// Makes a health of checks: bad after some failures in a row, good after one that passes.
pub(super) struct Judge {
    unhealthy_after: u32,
    failures: u32,
    health: Option<bool>,
}

impl Judge {
    pub(super) fn new(unhealthy_after: u32) -> Self {
        Judge { unhealthy_after: unhealthy_after.max(1), failures: 0, health: None }
    }

    /// Takes the outcome of a check; whether the health changed by it.
    pub(super) fn takes(&mut self, passed: bool) -> bool {
        self.failures = if passed { 0 } else { self.failures.saturating_add(1) };
        let health = match self.health {
            // The first check decides: what does not work yet is not registered as if it did.
            None => passed,
            Some(health) => passed || health && self.failures < self.unhealthy_after,
        };
        self.health.replace(health) != Some(health)
    }

    /// Good, as long as nothing else is known.
    pub(super) fn is_healthy(&self) -> bool {
        self.health.unwrap_or(true)
    }

    /// Whether there was a check.
    pub(super) fn is_decided(&self) -> bool {
        self.health.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_failures_in_a_row_make_it_unhealthy() {
        let mut judge = Judge::new(2);
        let health: Vec<bool> = [false, true, false, true, false, false, false, true]
            .iter()
            .map(|passed| {
                judge.takes(*passed);
                judge.is_healthy()
            })
            .collect();
        assert_eq!(health, [false, true, true, true, true, false, false, true]);
    }

    #[tokio::test]
    async fn checks_end_in_time() {
        let soon = Duration::from_millis(200);
        assert!(Check::command("exit 0", Duration::from_secs(10)).passes().await);
        assert!(!Check::command("exit 3", Duration::from_secs(10)).passes().await);
        assert!(!Check::command("sleep 60", soon).passes().await);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(Check::tcp(vec![address], Duration::from_secs(10)).passes().await);
        assert!(!Check::url(&format!("http://{address}/"), soon).unwrap().passes().await, "it never answers");
        drop(listener);
        assert!(!Check::tcp(vec![address], soon).passes().await);
        assert!(Check::url("https://127.0.0.1/", soon).is_err());
    }
}
