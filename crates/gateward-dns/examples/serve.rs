//! Serves the zone files of a folder and nothing else: the part that answers, for measuring it alone.
//!
//! `serve ADDRESS FOLDER [WORKERS]`: each file `ORIGIN.zone` is a zone.

use std::sync::Arc;

use gateward_dns::answer::Settings;
use gateward_dns::cookies::CookieKeys;
use gateward_dns::server::{Options, Server, Shared, slow};
use gateward_dns::store::Zone;
use gateward_zone::{Name, parse_zone};

type Failure = Box<dyn std::error::Error>;

fn load(path: &std::path::Path) -> Result<Arc<Zone>, Failure> {
    let file = path.display().to_string();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a file name is not text")?;
    let origin: Name = stem.parse()?;
    let text = std::fs::read(path)?;
    let parsed = parse_zone(&text, &origin, &file, &|_| Err("no includes here".into()))
        .map_err(|problems| format!("{problems:?}"))?;
    Ok(Arc::new(Zone::build(&origin, parsed.into_records())?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve ADDRESS FOLDER [WORKERS]".into());
    };
    let workers = arguments.next().map_or(Ok(1), |workers| workers.parse())?;
    let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new([0; 16], None)));
    let mut zones = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "zone") {
            zones.push(load(&path)?);
        }
    }
    println!("{} zones", zones.len());
    shared.zones.put_all(zones);
    let options = Options { listen: vec![address.parse()?], workers, ..Options::default() };
    let server = Server::start(shared, &options, &(Arc::new(slow::Nothing) as Arc<dyn slow::Slow>))?;
    println!("answering on {:?}", server.addresses());
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}
