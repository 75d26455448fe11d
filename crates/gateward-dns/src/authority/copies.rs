//! Zones whose content is not made here: copies of a primary's zones, and catalogs that the server writes. Nobody else changes them: neither
//! the API, nor updates, nor the zone's file, which is the server's alone.

use std::fmt::Write as _;
use std::time::SystemTime;

use gateward_zone::{Name, Problem, ZoneText, ZoneView, parse_zone, render_zone};

use super::line::{Info, Kind, Line, State};
use super::load::{Loaded, file_name, unreadable};
use super::proposal::{Actor, Base, Refused};
use super::{Authority, digest, problem};
use crate::folder::{Stamp, read_stamped, remove_durably};
use crate::sources::{Provenance, Role, Sources};
use crate::store::Zone;

/// How the file of a copy begins; the digest of its content follows, and the serial, which the digest leaves out.
const HEAD: &str = "; A copy that gateward dns keeps: what is edited here is not taken. Content ";

/// The file of a copy.
pub(super) fn file_text(zone: &Zone) -> Vec<u8> {
    let mut text = String::from(HEAD);
    writeln!(text, "{}", content_of(zone)).expect("strings take everything");
    text.push_str(&render_zone(zone));
    text.into_bytes()
}

/// Whether the file of a copy is as the server wrote it.
fn is_as_written(text: &[u8], zone: &ZoneText) -> bool {
    let head = text.split(|octet| *octet == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let stated = head.and_then(|line| line.strip_prefix(HEAD));
    stated == Some(&content_of(zone))
}

fn content_of(zone: &dyn ZoneView) -> String {
    format!("{:032x} {}", digest::of_zone(zone), zone.serial())
}

pub(super) fn edited(file: &str) -> Problem {
    problem(
        "copy",
        format!("{file} was edited or removed, but the zone is a copy: the server writes the file anew"),
        "make the change at the zone's primary",
    )
}

impl Authority {
    /// Where zones come from that are not the operator's own.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What a zone is.
    pub(super) fn kind_of(&self, origin: &Name) -> Kind {
        match self.sources.of(origin).as_deref() {
            None => Kind::Primary,
            Some(Provenance { role: Role::Secondary | Role::Member { .. }, .. }) => Kind::Secondary,
            Some(Provenance { role: Role::Catalog | Role::Produced, .. }) => Kind::Catalog,
        }
    }

    /// What is known of a zone before its files are read.
    pub(super) fn first_info(&self, origin: &Name) -> Info {
        Info { kind: self.kind_of(origin), ..Info::default() }
    }

    /// A zone comes from there from now on, and nobody else changes it; durable when it returns.
    ///
    /// # Errors
    /// [`Refused`]: it is a zone of the server's own, or this cannot be written.
    pub async fn copy(&self, origin: &Name, provenance: Provenance) -> Result<(), Refused> {
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            // A file that was not read yet is somebody's work, too.
            let is_here = state.is_here() || authority.folder.zone_file(&line.origin).exists();
            if is_here && authority.kind_of(&line.origin) == Kind::Primary {
                let message = format!("{} is a zone of its own here", line.origin);
                return Err(Refused::rule(
                    "own-zone",
                    message,
                    "take the zone away first: delete it, or move its file",
                ));
            }
            let put = authority.sources.put(&line.origin, provenance);
            put.map_err(|error| Refused::failed(format_args!("where {} comes from: {error}", line.origin)))?;
            let kind = authority.kind_of(&line.origin);
            line.info.rcu(|info| Info { kind, ..Info::clone(info) });
            Authority::show(line, state);
            Ok(())
        };
        self.ask_in_turn(origin, work).await
    }

    /// A copy goes, with its files and where it came from.
    ///
    /// # Errors
    /// [`Refused`]: it is still there, at least in part.
    pub async fn drop_copy(&self, origin: &Name, actor: Actor) -> Result<(), Refused> {
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            if authority.kind_of(&line.origin) == Kind::Primary {
                return Err(Refused::rule("own-zone", format!("{} is no copy", line.origin), "delete it by the API"));
            }
            if state.zone.is_some() {
                authority.take_away(line, state, Base::Any, &actor, None, SystemTime::now())?;
            } else {
                authority.clear_away(&line.origin, state).map_err(Refused::failed)?;
            }
            remove_durably(&authority.folder.confirmed_file(&line.origin)).map_err(Refused::failed)?;
            authority.sources.remove(&line.origin).map_err(Refused::failed)?;
            // A copy that never came has nothing but the place that was held for it.
            authority.let_go(line, state);
            Ok(())
        };
        self.ask_in_turn(origin, work).await
    }

    /// Puts away the files of a copy of which no version could be read: left there, they would pass for a zone of the server's own.
    fn clear_away(&self, origin: &Name, state: &mut State) -> std::io::Result<()> {
        self.put_edit_away(origin)?;
        self.sweep_removed(origin, state)
    }

    /// The records of a copy's file; `Ok(None)` when there is none. What was edited is not taken.
    pub(super) fn read_copy(&self, origin: &Name, state: &mut State) -> Result<Option<ZoneText>, Vec<Problem>> {
        let (path, name) = (self.folder.zone_file(origin), file_name(origin, self));
        state.seen = None;
        let (text, stamp) = match read_stamped(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(vec![unreadable(&name, &error)]),
            Ok(read) => read,
        };
        // The primary answers for what is in it: there is nothing to lint.
        match parse_zone(&text, origin, &name, &|_| Err("copies include nothing".to_owned())) {
            Ok(zone) if is_as_written(&text, &zone) => {
                state.seen = Some(stamp);
                Ok(Some(zone))
            }
            _ => Err(vec![edited(&name)]),
        }
    }

    /// After the file of a copy was found to be somebody else's, or gone: it is written as the last version that is known. If none is, the whole
    /// zone is fetched again.
    pub(super) fn mend_copy(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        state.bad_file.clear();
        state.is_unjudged = false;
        state.file_serial = None;
        if let Err(error) = self.merge(line, state) {
            let message = format!("the file of the copy cannot be written: {error}");
            loaded.problems.push(problem("not-stored", message, "it is tried again; look at the disk if this stays"));
            loaded.again = true;
        }
        Authority::show(line, state);
    }

    /// A second look at the file of a copy that is there: what others did to it is undone.
    pub(super) fn look_at_copy(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        let stamp = Stamp::of(&self.folder.zone_file(&line.origin));
        if stamp.is_some() && stamp == state.seen {
            return;
        }
        loaded.problems.push(edited(&file_name(&line.origin, self)));
        self.mend_copy(line, state, loaded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_copy_says_whether_it_was_edited() {
        let origin: Name = "example.com".parse().expect("a name");
        let read = |text: &[u8]| parse_zone(text, &origin, "z", &|_| Err(String::new())).expect("a zone");
        let zone = read(b"@ 60 SOA a b 7 1 2 3 4\n@ 60 NS a\n@ 60 TXT \"a b\"\n");
        let zone = Zone::build(&origin, zone.into_records()).expect("a zone");
        let text = file_text(&zone);
        assert!(is_as_written(&text, &read(&text)));
        let mut edited = text.clone();
        edited.extend(b"www 60 A 192.0.2.1\n");
        assert!(!is_as_written(&edited, &read(&edited)));
        let renumbered = String::from_utf8(text.clone())
            .expect("text")
            .replace("7          ; serial", "8          ; serial")
            .into_bytes();
        assert_ne!(renumbered, text);
        assert!(!is_as_written(&renumbered, &read(&renumbered)));
        assert!(!is_as_written(b"", &read(&text)));
        assert!(!is_as_written(&render_zone(&zone).into_bytes(), &read(&text)));
    }
}
