//! The good copy of a zone: what is served when its zone file cannot be used, and what an edit of the file is held against that was made
//! while the server was down.
//!
//! It is a zone file whose first line, a comment, says what the real zone file held when the copy was made. The copy is one of the versions that the
//! journal knows; once the journal was turned over, it is the version that the journal ended with.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use gateward_zone::{Name, ZoneView, parse_zone, render_zone};

use super::line::State;
use super::load::{build, replay};
use super::{Authority, digest};
use crate::folder::{PUBLIC, make_folder, read_bounded, write_durably};
use crate::journal::{Delta, Journal, position};
use crate::store::Zone;

/// Begins the first line.
const MARK: &str = "; gateward-good 1";
/// Longest first line, octets.
const LINE: u64 = 128;

/// What the first line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// The digest of what the zone file held.
    pub(super) digest: u128,
    /// The serial that it said.
    pub(super) serial: u32,
    /// Changes of the copy that the zone file did not have.
    pub(super) steps: u64,
    /// The serial of the copy.
    pub(super) version: u32,
}

/// The last version of a zone, from the good copy and the journal.
pub(super) struct Last {
    pub(super) zone: Arc<Zone>,
    pub(super) digest: u128,
    pub(super) kept: Kept,
    /// Steps of the journal behind the copy.
    pub(super) since: u64,
}

impl Kept {
    fn line(&self) -> String {
        let Kept { digest, serial, steps, version } = self;
        format!("{MARK} {digest:032x} {serial} {steps} {version}\n")
    }

    fn read(text: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(text.split(|octet| *octet == b'\n').next()?).ok()?;
        let mut words = line.strip_prefix(MARK)?.split_ascii_whitespace();
        let kept = Kept {
            digest: u128::from_str_radix(words.next()?, 16).ok()?,
            serial: words.next()?.parse().ok()?,
            steps: words.next()?.parse().ok()?,
            version: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(kept)
    }

    /// What the copy would say of the zone as it is.
    fn of(state: &mut State) -> Option<Self> {
        let now = state.position()?;
        let of_file = state.file_digest.filter(|_| state.unmerged > 0);
        Some(Kept {
            digest: of_file.unwrap_or(now.digest),
            serial: state.file_serial.unwrap_or(now.serial),
            steps: state.unmerged,
            version: now.serial,
        })
    }
}

impl Authority {
    /// Makes the zone as it is the good copy.
    ///
    /// # Errors
    /// The one from before is still there.
    pub(super) fn keep_good(&self, state: &mut State) -> io::Result<()> {
        let (Some(kept), Some(zone)) = (Kept::of(state), state.zone.clone()) else { return Ok(()) };
        let path = self.folder.good_file(zone.origin());
        make_folder(&self.folder.versions_dir(zone.origin()))?;
        write_durably(&path, (kept.line() + &render_zone(&*zone)).as_bytes(), PUBLIC)
    }

    /// As [`Self::keep_good`], where the copy is of use later only.
    pub(super) fn keep_good_or_say(&self, state: &mut State) {
        if let Err(error) = self.keep_good(state) {
            let zone = state.zone.as_ref().map(|zone| zone.origin().to_string());
            tracing::warn!(zone, %error, "no good copy of the zone could be kept");
        }
    }

    /// Makes the zone as it is the good copy, unless the one that is there says the same. Waits for the zone's turn.
    pub fn keep_good_copy(&self, origin: &Name) {
        if self.known(origin).is_none() {
            return;
        }
        self.in_turn_blocking(origin, |authority, line, state| {
            if state.bad_file.is_empty() && state.damaged.is_empty() {
                authority.refresh_good(&line.origin, state);
            }
        });
    }

    pub(super) fn refresh_good(&self, origin: &Name, state: &mut State) {
        let now = Kept::of(state);
        if now.is_some() && self.kept(origin) != now {
            self.keep_good_or_say(state);
        }
    }

    /// What the good copy says of the zone file, without reading all of it.
    pub(super) fn kept(&self, origin: &Name) -> Option<Kept> {
        let mut line = Vec::new();
        File::open(self.folder.good_file(origin)).ok()?.take(LINE).read_to_end(&mut line).ok()?;
        Kept::read(&line)
    }

    /// The last version that was served; `None` when there is no good copy, or it does not lead there.
    pub(super) fn recall(&self, origin: &Name, journal: Option<&(Journal, Vec<Delta>)>) -> Option<Last> {
        let text = read_bounded(&self.folder.good_file(origin)).ok()?;
        let copy = parse_zone(&text, origin, "good.zone", &|_| Err(String::new())).ok()?;
        let (of_copy, serial) = (digest::of_zone(&copy), copy.serial());
        let kept = Kept::read(&text).unwrap_or(Kept { digest: of_copy, serial, steps: 0, version: serial });
        let Some((journal, deltas)) = journal else {
            let zone = build(copy).ok()?;
            return Some(Last { zone, digest: of_copy, kept, since: 0 });
        };
        let Some(at) = position(journal.base(), deltas, of_copy) else {
            tracing::error!(zone = %origin, "the good copy is not one of the versions that the journal knows");
            return None;
        };
        let zone = replay(copy, journal, deltas, at).ok()?;
        Some(Last { zone, digest: journal.state().digest, kept, since: (deltas.len() - at) as u64 })
    }
}

impl State {
    /// The last version is served, and the zone file is what it was known to be.
    pub(super) fn take_last(&mut self, last: Last) {
        self.zone = Some(last.zone);
        self.digest = Some(last.digest);
        self.unmerged = last.kept.steps + last.since;
        self.file_serial = Some(last.kept.serial);
        self.file_digest = Some(last.kept.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_the_file_held() {
        let kept = Kept { digest: 7, serial: u32::MAX, steps: 3, version: 2 };
        let line = kept.line();
        assert!(
            line.len() as u64 <= LINE
                && Kept { digest: u128::MAX, steps: u64::MAX, ..kept }.line().len() as u64 <= LINE
        );
        assert_eq!(Kept::read((line + "$TTL 60\n").as_bytes()), Some(kept));
        for other in [
            "",
            "$TTL 60\n",
            "; gateward-good 1 7 8\n",
            "; gateward-good 2 7 8 9 10\n",
            "; gateward-good 1 7 8 9 10 11\n",
        ] {
            assert_eq!(Kept::read(other.as_bytes()), None, "{other}");
        }
    }
}
