//! Zone files as texts: reading them with all their problems, and giving them another serial without touching the rest.

use std::cell::RefCell;

use gateward_zone::{Name, Problem, Rtype, ZoneText, ZoneView, parse_zone};

use crate::folder::{Folder, Included, Stamp};
use crate::store::Zone;

/// A zone file that was read.
#[derive(Debug)]
pub struct Parsed {
    /// What it says; no errors among its problems.
    pub zone: ZoneText,
    /// What is odd: while reading, and between records.
    pub warnings: Vec<Problem>,
    /// Files that it includes.
    pub includes: Vec<Included>,
}

/// Reads a zone file and looks for everything that is wrong with it. `file` names it in problems.
///
/// # Errors
/// All problems, warnings too, and the files that it includes or would include, when the zone must not be served.
pub fn parse(text: &[u8], origin: &Name, file: &str, folder: &Folder) -> Result<Parsed, (Vec<Problem>, Vec<Included>)> {
    let includes = RefCell::new(Vec::new());
    let include = |name: &str| {
        // One that is not there counts, too: it may come. Links count by what they lead to.
        let path = folder.included(name);
        let stamp = Stamp::of(&path);
        includes.borrow_mut().push((path, stamp));
        folder.include(name)
    };
    match parse_zone(text, origin, file, &include) {
        Err(problems) => Err((problems, includes.into_inner())),
        Ok(zone) => {
            let mut warnings = zone.warnings().to_vec();
            warnings.extend(gateward_zone::lint(&zone));
            if warnings.iter().any(Problem::is_error) {
                return Err((warnings, includes.into_inner()));
            }
            Ok(Parsed { zone, warnings, includes: includes.into_inner() })
        }
    }
}

/// The text with the serial of `zone`, whose content it has; `None` when that cannot be done by changing one number.
pub(super) fn with_serial_of(text: &[u8], origin: &Name, zone: &Zone, folder: &Folder) -> Option<Vec<u8>> {
    let read_text = read(text, origin, folder)?;
    if read_text.serial() == zone.serial() {
        return Some(text.to_vec());
    }
    let (file, line) = read_text.place(origin, Rtype::SOA);
    if *file != *FILE {
        return None;
    }
    let serial = serial_at(text, line)?;
    let mut changed = text[..serial.start].to_vec();
    changed.extend(zone.serial().to_string().bytes());
    changed.extend(&text[serial.end..]);
    (read(&changed, origin, folder)?.serial() == zone.serial()).then_some(changed)
}

/// Names the main file where only its serial matters.
const FILE: &str = "\0main";

fn read(text: &[u8], origin: &Name, folder: &Folder) -> Option<ZoneText> {
    parse_zone(text, origin, FILE, &|name| folder.include(name)).ok()
}

/// Where the serial of the SOA record that begins at `line` (from 1) stands: the third word behind `SOA`.
fn serial_at(text: &[u8], line: u32) -> Option<std::ops::Range<usize>> {
    let mut breaks = text.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at + 1);
    let skip = usize::try_from(line).ok()?.checked_sub(1)?;
    let mut at = if skip == 0 { 0 } else { breaks.nth(skip - 1)? };
    let mut behind_soa = None;
    loop {
        let word = next_word(text, &mut at)?;
        behind_soa = match behind_soa {
            None if text[word.clone()].eq_ignore_ascii_case(b"SOA") => Some(0),
            Some(2) => return Some(word),
            count => count.map(|count: u32| count + 1),
        };
    }
}

/// The next word of a zone file, comments and brackets left out.
fn next_word(text: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    loop {
        match text.get(*at)? {
            b';' => *at += text[*at..].iter().position(|octet| *octet == b'\n')?,
            b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' => *at += 1,
            _ => break,
        }
    }
    let start = *at;
    let ends = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' | b';');
    *at = text[start..].iter().position(ends).map_or(text.len(), |len| start + len);
    Some(start..*at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_is_the_third_word_behind_soa() {
        for (text, line, serial) in [
            ("$ORIGIN a.\n@ 60 IN SOA ns hm 7 1 2 3 4\n", 2, "7"),
            ("@ soa ns. hm. ( ; 12 is not it\n 42 ; serial\n 1 2 3 4)\n", 1, "42"),
            ("SOA SOA SOA ns (hm\n9)", 1, "ns"),
        ] {
            assert_eq!(serial_at(text.as_bytes(), line).map(|range| &text[range]), Some(serial), "{text}");
        }
        assert_eq!(serial_at(b"@ SOA a b", 1), None);
        assert_eq!(serial_at(b"", 1), None);
        assert_eq!(serial_at(b"\n", 5), None);
    }
}
