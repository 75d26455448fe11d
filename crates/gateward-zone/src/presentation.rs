//! Records as text, and text as records.

use std::fmt::{self, Write};

use domain::base::iana::{Class, Rtype};

use crate::lexer::{Entry, Fault, Lexer, Token};
use crate::name::{Name, push_text, write_label};
use crate::problem::{Problem, Severity};
use crate::rdata::{self, Cursor};
use crate::record::{Rdata, Record};
use crate::soa::Soa;
use crate::ttl::parse_ttl;
use crate::view::ZoneView;

/// A record as one line without a line break: `www 300 IN A 192.0.2.1`. The owner is relative to `origin` when it is in it,
/// names in the data are absolute. [`parse_record`] with the same origin reads it back.
#[must_use]
pub fn to_text(record: &Record, origin: &Name) -> String {
    let mut line = String::new();
    write_owner(&record.owner, origin, &mut line).expect("strings take everything");
    write!(line, " {} IN {} ", record.ttl, record.rtype).expect("strings take everything");
    rdata::write(record.rtype, record.rdata.as_wire(), &mut line).expect("strings take everything");
    if line.ends_with(' ') {
        line.pop();
    }
    line
}

/// A record's data as text; names are absolute.
#[must_use]
pub fn rdata_to_text(rtype: Rtype, data: &Rdata) -> String {
    let mut text = String::new();
    rdata::write(rtype, data.as_wire(), &mut text).expect("strings take everything");
    text
}

/// One record from text, with its owner; names without a last dot are relative to `origin`.
///
/// # Errors
/// What is wrong with it; `default_ttl` is `None` and the text has no TTL either; it is more or less than one record.
pub fn parse_record(text: &str, origin: &Name, default_ttl: Option<u32>) -> Result<Record, Problem> {
    let problem = |fault: Fault| syntax("".into(), fault);
    let missing = || Fault { line: 1, message: "there is no record".to_owned(), remedy: None };
    let mut lexer = Lexer::new(text.as_bytes(), 1);
    let (mut tokens, mut more) = (Vec::new(), Vec::new());
    let entry = lexer.next_entry(&mut tokens).map_err(problem)?.ok_or_else(|| problem(missing()))?;
    let mut scope = Scope { origin: origin.clone(), owner: None, dollar_ttl: default_ttl, last_ttl: None };
    let record = read_record(entry, &tokens, &mut scope, &mut Vec::new()).map_err(problem)?;
    match lexer.next_entry(&mut more).map_err(problem)? {
        None => Ok(record),
        Some(entry) => {
            Err(problem(Fault { line: entry.line, message: "there is more than one record".to_owned(), remedy: None }))
        }
    }
}

/// The data of a record from text, as [`parse_record`] reads it behind the type.
///
/// # Errors
/// What is wrong with it.
pub fn parse_rdata(rtype: Rtype, text: &str, origin: &Name) -> Result<Rdata, Problem> {
    let mut tokens = Vec::new();
    Lexer::new(text.as_bytes(), 1)
        .next_entry(&mut tokens)
        .and_then(|_| {
            let mut octets = Vec::new();
            rdata::read(rtype, &mut Cursor::new(&tokens, 1), origin, &mut octets)?;
            Ok(Rdata::from_wire(octets))
        })
        .map_err(|fault| syntax("".into(), fault))
}

/// A whole zone as a zone file: SOA first, then by name in canonical order and by type. It parses back to the same zone.
#[must_use]
pub fn render_zone(view: &dyn ZoneView) -> String {
    let origin = view.origin();
    let mut records = Vec::with_capacity(view.record_count());
    view.for_each_record(&mut |record| records.push(record));
    records.sort_by(|a, b| {
        let key = |record: &Record| record.rtype != Rtype::SOA || record.owner != *origin;
        key(a).cmp(&key(b)).then_with(|| a.owner.cmp(&b.owner)).then_with(|| a.rtype.cmp(&b.rtype))
    });
    let mut text = String::with_capacity(records.len() * 64);
    writeln!(text, "$ORIGIN {origin}").expect("strings take everything");
    let mut owner = String::new();
    for record in &records {
        owner.clear();
        write_owner(&record.owner, origin, &mut owner).expect("strings take everything");
        write!(text, "{owner:<23} {:>7} IN {:<7} ", record.ttl, record.rtype.to_string())
            .expect("strings take everything");
        let data = rdata_to_text(record.rtype, &record.rdata);
        match data.split(' ').collect::<Vec<_>>().as_slice() {
            [mname, rname, numbers @ ..] if record.rtype == Rtype::SOA && numbers.len() == SOA_NUMBERS.len() => {
                write_soa(mname, rname, numbers, &mut text)
            }
            _ => text.write_str(&data),
        }
        .expect("strings take everything");
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

const SOA_NUMBERS: [&str; 5] = [
    "serial",
    "refresh: seconds between a secondary's checks",
    "retry: seconds until a failed check is repeated",
    "expire: seconds after which an unrefreshed secondary stops",
    "minimum: seconds that negative answers may be kept",
];

fn write_soa(mname: &str, rname: &str, numbers: &[&str], out: &mut String) -> fmt::Result {
    writeln!(out, "{mname} {rname} (")?;
    for (number, what) in numbers.iter().zip(SOA_NUMBERS) {
        writeln!(out, "{:>40} {number:<10} ; {what}", "")?;
    }
    write!(out, "{:>40} )", "")
}

/// `@`, a name below `origin` without it, or an absolute name.
fn write_owner(owner: &Name, origin: &Name, out: &mut impl Write) -> fmt::Result {
    if !owner.is_in(origin) || origin.is_root() {
        return write!(out, "{owner}");
    }
    let count = owner.label_count() - origin.label_count();
    if count == 0 {
        return out.write_char('@');
    }
    for (index, label) in owner.labels().take(count).enumerate() {
        if index > 0 {
            out.write_char('.')?;
        }
        write_label(label, out)?;
    }
    Ok(())
}

/// A syntax error of a file.
pub(crate) fn syntax(file: std::sync::Arc<str>, fault: Fault) -> Problem {
    let Fault { line, message, remedy } = fault;
    Problem { file, line, rule: "syntax", severity: Severity::Error, message, remedy }
}

/// What an entry takes from those before it.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) origin: Name,
    pub(crate) owner: Option<Name>,
    /// Of the last `$TTL` (RFC 2308, 4).
    pub(crate) dollar_ttl: Option<u32>,
    /// The last one that a record stated (RFC 1035, 5.1).
    pub(crate) last_ttl: Option<u32>,
}

/// Reads the words of an entry as a record.
pub(crate) fn read_record(
    entry: Entry,
    tokens: &[Token<'_>],
    scope: &mut Scope,
    scratch: &mut Vec<u8>,
) -> Result<Record, Fault> {
    let mut words = Cursor::new(tokens, entry.line);
    let owner = match (entry.indented, &scope.owner) {
        (false, _) => read_owner(words.need("a name")?, scope, scratch)?,
        (true, Some(owner)) => owner.clone(),
        (true, None) => {
            let message = "the line begins with white space, but no record before it has a name".to_owned();
            return Err(Fault { line: entry.line, message, remedy: None }
                .remedy("begin the line with the record's name or `@`"));
        }
    };
    // It holds for the following entries even if the rest of this one is wrong.
    scope.owner = Some(owner.clone());
    let (ttl, rtype) = read_head(&mut words)?;
    scratch.clear();
    rdata::read(rtype, &mut words, &scope.origin, scratch)?;
    let rdata = Rdata::from_wire(scratch.as_slice());
    if ttl.is_some() {
        scope.last_ttl = ttl;
    }
    let ttl = ttl.or(scope.dollar_ttl).or(scope.last_ttl).or_else(|| {
        // As BIND does: a SOA record without a TTL lives as long as negative answers do.
        scope.last_ttl = Soa::read(&rdata).ok().filter(|_| rtype == Rtype::SOA).map(|soa| soa.minimum);
        scope.last_ttl
    });
    let ttl = ttl.ok_or_else(|| {
        Fault { line: entry.line, message: "the record has no TTL".to_owned(), remedy: None }
            .remedy("write one before its type, or `$TTL 3600` at the top of the file")
    })?;
    Ok(Record { owner, rtype, ttl, rdata })
}

fn read_owner(token: &Token<'_>, scope: &Scope, scratch: &mut Vec<u8>) -> Result<Name, Fault> {
    if token.raw == b"@" && !token.quoted {
        return Ok(scope.origin.clone());
    }
    scratch.clear();
    push_text(token.raw, &scope.origin, scratch)
        .map_err(|error| token.fault(format!("`{}` is not a domain name: {error}", token.shown())))?;
    Ok(Name::from_checked(scratch.clone()))
}

/// TTL and class in either order, each at most once, then the type.
pub(crate) fn read_head(words: &mut Cursor<'_, '_>) -> Result<(Option<u32>, Rtype), Fault> {
    let (mut ttl, mut class) = (None, false);
    loop {
        let token = words.need("the record's type")?;
        if token.raw.first().is_some_and(u8::is_ascii_digit) {
            let value = parse_ttl(token.raw).ok_or_else(|| {
                token.fault(format!("`{}` is not a TTL in seconds, or in units such as 1h30m", token.shown()))
            })?;
            if ttl.replace(value).is_some() {
                return Err(token.fault("there are two TTLs"));
            }
        } else if let Some(found) = token.ascii().and_then(read_class).filter(|_| !token.quoted) {
            if found != Class::IN {
                return Err(token.fault(format!("class {found} is not served, only IN")));
            }
            if std::mem::replace(&mut class, true) {
                return Err(token.fault("there are two classes"));
            }
        } else {
            return Ok((ttl, rdata::rtype(token)?));
        }
    }
}

/// `ANY` and `NONE` are no classes of records; as a type, `ANY` is refused by the table of types.
fn read_class(text: &str) -> Option<Class> {
    let named = ["IN", "CH", "HS"].iter().any(|name| text.eq_ignore_ascii_case(name));
    let numbered = text.len() > 5
        && text[..5].eq_ignore_ascii_case("CLASS")
        && text[5..].bytes().all(|octet| octet.is_ascii_digit());
    (named || numbered).then(|| text.parse().ok()).flatten()
}
