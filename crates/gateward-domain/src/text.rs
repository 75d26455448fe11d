//! Zones as text and back.

use std::fmt::Write;

use gateward_zone::{Name, Problem, Record, Rtype, ZoneText, ZoneView, lint, parse_zone, to_text};

/// A zone file: the SOA first, the rest in the order of names.
pub(crate) fn zone_file(origin: &Name, records: &[Record]) -> String {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by(|a, b| (a.rtype != Rtype::SOA).cmp(&(b.rtype != Rtype::SOA)).then_with(|| a.cmp(b)));
    let mut text = format!("$ORIGIN {origin}\n");
    for record in sorted {
        writeln!(text, "{}", to_text(record, origin)).expect("strings take everything");
    }
    text
}

/// The records of a zone file that includes no other.
///
/// # Errors
/// What is wrong with it, each error with its line.
pub(crate) fn records(origin: &Name, text: &[u8]) -> Result<Vec<Record>, String> {
    let include = |_: &str| Err("a zone that is served includes no file".to_owned());
    let zone = parse_zone(text, origin, "", &include).map_err(|problems| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        texts.join("; ")
    })?;
    let mut records = Vec::new();
    zone.for_each_record(&mut |record| records.push(record));
    Ok(records)
}

/// Records as a zone that can be looked at; `None` if they are none.
pub(crate) fn view(origin: &Name, records: &[Record]) -> Option<ZoneText> {
    parsed(origin, records).ok()
}

fn parsed(origin: &Name, records: &[Record]) -> Result<ZoneText, Vec<Problem>> {
    let include = |_: &str| Err("it includes no file".to_owned());
    parse_zone(zone_file(origin, records).as_bytes(), origin, "", &include)
}

/// What makes these records no zone that can be served: `ZONE: MESSAGE (RULE); REMEDY`.
pub(crate) fn problems(origin: &Name, records: &[Record]) -> Vec<String> {
    let problems = match parsed(origin, records) {
        Ok(zone) => lint(&zone),
        Err(problems) => problems,
    };
    problems.iter().filter(|problem| problem.is_error()).map(|problem| format!("{origin}: {problem}")).collect()
}
