//! `gateward quickstart`: the gateway with the example configuration and two echo backends, and the example's names.

use crate::cli::{FAILURE, complain, echo, gateway, print, usage};
use crate::control::Addresses;
use crate::dns::example;
use crate::logging;
use crate::run::{self, Ended, Running};
use crate::settings::{Flags, Given, Options, resolve};
use anyhow::{Context, Result};
use gateward_telemetry::{Gauge, Live, Telemetry};
use std::fmt::Write;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The example, for when the command runs outside the repository.
const EXAMPLE: &str = include_str!("../../../../examples/quickstart/kong.yml");
/// Where it is in the repository: read from there it is watched, so that editing it shows.
const EXAMPLE_PATH: &str = "examples/quickstart/kong.yml";
/// The backends that the example names.
const BACKENDS: [(&str, &str); 2] = [("echo-a", "127.0.0.1:9101"), ("echo-b", "127.0.0.1:9102")];
/// Between two lines where they are not rewritten.
const PLAIN_LINE_EVERY: u64 = 10;

pub(crate) const AFTER_HELP: &str = "\
Here the default of --config is examples/quickstart/kong.yml, of --proxy-listen 127.0.0.1:8000, of --shutdown-grace 0
and of --shutdown-timeout 5. The echo backends listen on 127.0.0.1:9101 and 127.0.0.1:9102,
the names of examples/domains are served on 127.0.0.1:5300.
Exit codes: 0 stopped by Ctrl-C; 1 failure; 2 wrong usage.";

/// Flags of `gateward quickstart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

/// Run until Ctrl-C.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let mut given = Given::new(arguments.flags, gateway::variables())
        .default_to("proxy-listen", "127.0.0.1:8000")
        // Nobody balances load over this node, so nobody has to notice that it ends.
        .default_to("shutdown-grace", "0")
        .default_to("shutdown-timeout", "5");
    given = match Path::new(EXAMPLE_PATH).is_file() {
        true => given.default_to("config", EXAMPLE_PATH),
        false => given.default_to("config-string", EXAMPLE),
    };
    let options = match resolve(&given) {
        Ok(options) => options,
        Err(errors) => return usage(&errors),
    };
    let terminal = std::io::stdout().is_terminal();
    let log = logging::init(options.format, options.log_level, terminal);
    let started = ports_are_free(&options)
        .and_then(|()| start_backends())
        .and_then(|backends| Ok((run::start(options, log).map_err(|error| anyhow::anyhow!("{error}"))?, backends)));
    let (running, _backends) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("{error:#}"));
            return ExitCode::from(FAILURE);
        }
    };
    serve(running, terminal)
}

fn serve(running: Running, terminal: bool) -> ExitCode {
    let names = {
        let _entered = running.runtime().enter();
        example::start()
    };
    print(&introduction(running.addresses()));
    print(&match &names {
        Ok(_) => introduction_to_names(),
        // A laptop may have something else there (multicast DNS); the gateway is what was asked for.
        Err(error) => format!("  The example's names are not served: {}: {error:#}\n\n", example::ADDRESS),
    });
    let telemetry = running.control.node().telemetry.clone();
    running.runtime().spawn(live_line(telemetry.clone(), terminal));
    let started = Instant::now();
    let ended = running.until_stopped();
    print(&summary(&telemetry, started.elapsed(), terminal));
    match ended {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::WorkerLost => ExitCode::from(FAILURE),
    }
}

/// Listeners share their port with others of the same user, so a second gateway would start and get half of the
/// requests. A plain socket tells.
fn ports_are_free(options: &Options) -> Result<()> {
    let groups =
        [(&options.proxy, "proxy-listen"), (&options.admin, "admin-listen"), (&options.status, "status-listen")];
    for (listens, flag) in groups {
        for listen in listens {
            let address = listen.address;
            std::net::TcpListener::bind(address)
                .with_context(|| format!("{address} is not free; choose another address with --{flag} IP:PORT"))?;
        }
    }
    Ok(())
}

fn start_backends() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("echo")
        .enable_all()
        .build()
        .context("cannot start the echo backends")?;
    for (name, address) in BACKENDS {
        let address: SocketAddr = address.parse().context("an echo backend has no valid address")?;
        std::net::TcpListener::bind(address).with_context(|| {
            format!(
                "{address} is not free, and the example sends its requests there; stop what listens on it, or copy \
                 {EXAMPLE_PATH}, change its addresses, and use 'gateward echo --listen' and 'gateward gateway --config'"
            )
        })?;
        let nature = echo::Nature { name: Some(name.to_owned()), ..echo::Nature::default() };
        echo::start(&runtime, address, nature)?;
    }
    Ok(runtime)
}

fn introduction(addresses: &Addresses) -> String {
    let first = |list: &[String]| list.first().cloned().unwrap_or_else(|| "off".to_owned());
    let (proxy, admin, status) = (first(&addresses.proxy), first(&addresses.admin), first(&addresses.status));
    let [(a, a_address), (b, b_address)] = BACKENDS;
    format!(
        "
  gateward is running                      (Ctrl-C ends it)

    proxy          http://{proxy}     send requests here
    Admin API      http://{admin}     the configuration, read-only
    status         http://{status}     /status, /status/ready, /metrics
    backend        http://{a_address}     {a}, answers with the request it got
    backend        http://{b_address}     {b}, the same

  Try, in another terminal:

    curl -i http://{proxy}/open                           an open route
    curl -i http://{proxy}/secure                         401: a key is wanted
    curl -i -H 'apikey: demo-key' http://{proxy}/secure   200: and the backend learns who called
    for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{proxy}/limited; done
    curl -s http://{status}/metrics | grep kong_http

"
    )
}

/// From the root down to a service.
fn introduction_to_names() -> String {
    let dig = example::ADDRESS.split_once(':').map(|(ip, port)| format!("dig @{ip} -p {port}")).unwrap_or_default();
    format!(
        "  The names of examples/domains, from the root down:

    {dig} messaging.example NS                            the root of a domain
    {dig} us-east-1.prod.messaging.example NS             a region, in its environment
    {dig} smtp.us-east-1.prod.messaging.example +short    a service there

"
    )
}

/// Rewritten every second on a terminal; elsewhere a line every ten seconds.
async fn live_line(telemetry: Arc<Telemetry>, terminal: bool) {
    let mut before = telemetry.live();
    let mut seconds = 0;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        seconds += 1;
        let every = if terminal { 1 } else { PLAIN_LINE_EVERY };
        if seconds % every != 0 {
            continue;
        }
        let now = telemetry.live();
        let line = figures(&telemetry, before, now, every);
        print(&if terminal { format!("\r\x1b[2K{line}") } else { format!("{line}\n") });
        before = now;
    }
}

fn figures(telemetry: &Telemetry, before: Live, now: Live, seconds: u64) -> String {
    let recent = Live {
        requests_total: now.requests_total - before.requests_total,
        good_total: now.good_total - before.good_total,
        bad_total: now.bad_total - before.bad_total,
        client_faults_total: now.client_faults_total - before.client_faults_total,
    };
    let snapshot = telemetry.snapshot();
    let mut line = format!(
        "  {:>8.1} requests/s   success {:>6.2} %   connections {:>4}   total {}",
        recent.requests_total as f64 / seconds as f64,
        recent.success_ratio() * 100.0,
        snapshot.gauge(Gauge::ConnectionsActive).max(0),
        now.requests_total,
    );
    if let Some(p99) = snapshot.latency.request.quantile_us(0.99) {
        // Writing to a String cannot fail.
        let _ = write!(line, "   p99 {:.2} ms", p99 / 1000.0);
    }
    line
}

fn summary(telemetry: &Telemetry, elapsed: Duration, terminal: bool) -> String {
    let live = telemetry.live();
    let clear = if terminal { "\r\x1b[2K" } else { "" };
    let mut out = format!(
        "{clear}\n  served {} requests in {:.0} s, success rate {:.2} % ({} failed, {} were the client's fault)\n",
        live.requests_total,
        elapsed.as_secs_f64(),
        live.success_ratio() * 100.0,
        live.bad_total,
        live.client_faults_total,
    );
    let latency = telemetry.snapshot().latency.request;
    if let (Some(median), Some(p99)) = (latency.quantile_us(0.5), latency.quantile_us(0.99)) {
        let _ = writeln!(out, "  latency: median {:.2} ms, p99 {:.2} ms", median / 1000.0, p99 / 1000.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_leads_to_the_backends() {
        for (_, address) in BACKENDS {
            assert!(EXAMPLE.contains(address), "{address}");
        }
        let addresses =
            Addresses { proxy: vec!["127.0.0.1:1".into()], status: vec!["127.0.0.1:3".into()], ..Addresses::default() };
        let text = introduction(&addresses);
        assert!(text.contains("curl -i http://127.0.0.1:1/open ") && text.contains("http://off"), "{text}");
    }
}
