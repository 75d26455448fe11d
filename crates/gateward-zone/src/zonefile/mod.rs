//! Zone files (RFC 1035, 5; RFC 2308, 4; RFC 3597, 5; BIND's `$GENERATE`): text to records, every error with its place.
//!
//! Reading goes on behind an error, so that one run shows them all. Files are opened by the caller's function, which decides
//! what may be included.

mod generate;
mod text;

use std::sync::Arc;

use domain::base::iana::Rtype;

use crate::lexer::{Entry, Fault, Lexer, Token};
use crate::name::Name;
use crate::presentation::{Scope, read_record, syntax};
use crate::problem::{Problem, Severity};
use crate::rdata::Cursor;
use crate::record::Record;
use crate::ttl::parse_ttl;

pub use text::{Place, ZoneText};

/// Bounds on what one zone may ask of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneLimits {
    /// Octets of all files together, and of the lines that `$GENERATE` makes.
    pub text_bytes: usize,
    /// Files that include one another.
    pub include_depth: usize,
    /// Records of all `$GENERATE` lines together.
    pub generated_records: usize,
    /// Errors after which reading stops.
    pub problems: usize,
}

impl Default for ZoneLimits {
    fn default() -> Self {
        ZoneLimits { text_bytes: 1 << 30, include_depth: 8, generated_records: 1 << 20, problems: 1_000 }
    }
}

/// Reads the zone `origin` from `text`, which `file` names in errors. `include` returns the content of a file by the name
/// after `$INCLUDE`; it is where a caller keeps files outside its folder out.
///
/// Names are relative to `origin` until `$ORIGIN` says otherwise. `Ok` may hold warnings.
///
/// # Errors
/// Everything that is wrong, in the order of the text, up to the bound of [`ZoneLimits`]; warnings too.
pub fn parse_zone(
    text: &[u8],
    origin: &Name,
    file: &str,
    include: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<ZoneText, Vec<Problem>> {
    parse_zone_within(text, origin, file, include, ZoneLimits::default())
}

/// As [`parse_zone`], with bounds of the caller's.
///
/// # Errors
/// As for [`parse_zone`].
pub fn parse_zone_within(
    text: &[u8],
    origin: &Name,
    file: &str,
    include: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    limits: ZoneLimits,
) -> Result<ZoneText, Vec<Problem>> {
    let mut reader = Reader {
        zone: origin,
        include,
        limits,
        records: Vec::new(),
        files: Vec::new(),
        problems: Vec::new(),
        text_bytes: 0,
        generated: 0,
        scratch: Vec::new(),
    };
    let mut scope = Scope { origin: origin.clone(), owner: None, dollar_ttl: None, last_ttl: None };
    _ = reader.file(text, file, &mut scope, 0, 1);
    if reader.problems.iter().any(Problem::is_error) {
        return Err(reader.problems);
    }
    Ok(ZoneText::new(origin.clone(), reader.records, reader.files, scope.dollar_ttl, reader.problems))
}

/// Reading stops: there are too many problems.
struct Stop;

struct Reader<'a> {
    zone: &'a Name,
    include: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    limits: ZoneLimits,
    records: Vec<(Record, Place)>,
    files: Vec<Arc<str>>,
    problems: Vec<Problem>,
    text_bytes: usize,
    generated: usize,
    /// For data that is being read.
    scratch: Vec<u8>,
}

impl Reader<'_> {
    /// One file and what it includes. `parent` is the index of the file that includes it (its own at depth 1).
    fn file(&mut self, text: &[u8], name: &str, scope: &mut Scope, parent: usize, depth: usize) -> Result<(), Stop> {
        let index = self.files.len();
        self.files.push(name.into());
        if let Err(message) = self.charge(text.len()) {
            return self.add(parent, Fault { line: 1, message, remedy: None });
        }
        let mut lexer = Lexer::new(text, 1);
        let mut tokens = Vec::new();
        loop {
            match lexer.next_entry(&mut tokens) {
                Ok(None) => return Ok(()),
                Ok(Some(entry)) => {
                    let directive = tokens[0].raw.starts_with(b"$") && !entry.indented && !tokens[0].quoted;
                    if directive {
                        self.directive(entry, &tokens, index, scope, depth)?;
                    } else {
                        self.record(entry, &tokens, index, scope)?;
                    }
                }
                Err(fault) => self.add(index, fault)?,
            }
        }
    }

    /// Counts text against the limit of the zone.
    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        if self.text_bytes <= self.limits.text_bytes {
            return Ok(());
        }
        Err(format!("the zone's files and `$GENERATE` lines are larger than {} octets", self.limits.text_bytes))
    }

    fn record(&mut self, entry: Entry, tokens: &[Token<'_>], file: usize, scope: &mut Scope) -> Result<(), Stop> {
        match read_record(entry, tokens, scope, &mut self.scratch) {
            Ok(record) if !record.owner.is_in(self.zone) => {
                let fault = Fault {
                    line: entry.line,
                    message: format!("{} is not in the zone {}", record.owner, self.zone),
                    remedy: None,
                };
                let problem = Problem { rule: "out-of-zone", ..syntax(self.files[file].clone(), fault) };
                self.push(Problem {
                    remedy: Some("remove the record, or put it into the zone it belongs to".to_owned()),
                    ..problem
                })
            }
            Ok(record) => {
                let place = Place { file: u32::try_from(file).unwrap_or(u32::MAX), line: entry.line };
                self.records.push((record, place));
                Ok(())
            }
            Err(fault) => self.add(file, fault),
        }
    }

    fn directive(
        &mut self,
        entry: Entry,
        tokens: &[Token<'_>],
        file: usize,
        scope: &mut Scope,
        depth: usize,
    ) -> Result<(), Stop> {
        let mut words = Cursor::new(&tokens[1..], entry.line);
        let name = tokens[0].raw.to_ascii_uppercase();
        let done = match name.as_slice() {
            b"$ORIGIN" => read_origin(&mut words, &scope.origin).map(|origin| scope.origin = origin),
            b"$TTL" => read_dollar_ttl(&mut words).map(|ttl| scope.dollar_ttl = Some(ttl)),
            b"$INCLUDE" => return self.include(&mut words, file, scope, depth),
            b"$GENERATE" => return self.generate(entry, &mut words, file, scope),
            _ => Err(tokens[0]
                .fault(format!("`{}` is not known", tokens[0].shown()))
                .remedy("there are $ORIGIN, $TTL, $INCLUDE and $GENERATE; a name that begins with a dollar sign is written `\\$`")),
        };
        done.or_else(|fault| self.add(file, fault))
    }

    /// `$INCLUDE file [origin]`: origin and owner are as before afterwards (RFC 1035, 5.1).
    fn include(
        &mut self,
        words: &mut Cursor<'_, '_>,
        file: usize,
        scope: &mut Scope,
        depth: usize,
    ) -> Result<(), Stop> {
        match self.included(words, scope, depth) {
            Err(fault) => self.add(file, fault),
            Ok((name, text, origin)) => {
                let mut inner = Scope { origin, ..scope.clone() };
                self.file(&text, &name, &mut inner, file, depth + 1)?;
                scope.dollar_ttl = inner.dollar_ttl;
                scope.last_ttl = inner.last_ttl;
                Ok(())
            }
        }
    }

    /// The file's name and content, and the origin it begins with.
    fn included(
        &self,
        words: &mut Cursor<'_, '_>,
        scope: &Scope,
        depth: usize,
    ) -> Result<(String, Vec<u8>, Name), Fault> {
        let token = words.need("the name of a file")?;
        let mut name = Vec::new();
        crate::lexer::push_unescaped(token.raw, &mut name).map_err(|error| token.fault(error.to_string()))?;
        let name = String::from_utf8(name).map_err(|_| token.fault("the file's name is not UTF-8"))?;
        let origin = if words.is_empty() { scope.origin.clone() } else { read_origin(words, &scope.origin)? };
        words.finish()?;
        if depth >= self.limits.include_depth {
            return Err(token
                .fault(format!("more than {} files include one another", self.limits.include_depth))
                .remedy("look for a file that includes itself"));
        }
        let text = (self.include)(&name).map_err(|error| token.fault(format!("cannot include `{name}`: {error}")))?;
        Ok((name, text, origin))
    }

    fn generate(
        &mut self,
        entry: Entry,
        words: &mut Cursor<'_, '_>,
        file: usize,
        scope: &mut Scope,
    ) -> Result<(), Stop> {
        let template = match generate::Template::read(words) {
            Ok(template) => template,
            Err(fault) => return self.add(file, fault),
        };
        self.generated = self.generated.saturating_add(template.count());
        if self.generated > self.limits.generated_records {
            let message = format!("`$GENERATE` lines make more than {} records", self.limits.generated_records);
            return self.add(file, Fault { line: entry.line, message, remedy: None });
        }
        let mut line = Vec::new();
        for value in template.values() {
            let before = self.problems.len();
            line.clear();
            let made = template.line(value, &mut line, self.limits.text_bytes.saturating_sub(self.text_bytes));
            match made.and_then(|()| self.charge(line.len())) {
                Err(message) => self.add(file, Fault { line: entry.line, message, remedy: None })?,
                Ok(()) => self.generated_line(&line, entry.line, file, scope)?,
            }
            if self.problems.len() > before {
                // The others would say the same.
                break;
            }
        }
        Ok(())
    }

    fn generated_line(&mut self, line: &[u8], number: u32, file: usize, scope: &mut Scope) -> Result<(), Stop> {
        let mut tokens = Vec::new();
        match Lexer::new(line, number).next_entry(&mut tokens) {
            Ok(Some(entry)) => self.record(entry, &tokens, file, scope),
            Ok(None) => Ok(()),
            Err(fault) => self.add(file, fault),
        }
    }

    fn add(&mut self, file: usize, fault: Fault) -> Result<(), Stop> {
        self.push(syntax(self.files[file].clone(), fault))
    }

    fn push(&mut self, problem: Problem) -> Result<(), Stop> {
        let (file, line) = (problem.file.clone(), problem.line);
        self.problems.push(problem);
        if self.problems.len() < self.limits.problems {
            return Ok(());
        }
        let message = format!("more than {} problems; the rest of the zone was not read", self.limits.problems);
        self.problems.push(Problem { file, line, rule: "syntax", severity: Severity::Error, message, remedy: None });
        Err(Stop)
    }
}

fn read_origin(words: &mut Cursor<'_, '_>, origin: &Name) -> Result<Name, Fault> {
    let token = words.need("a domain name")?;
    let wrong = |why: &str| token.fault(format!("`{}` is not a domain name: {why}", token.shown()));
    let mut wire = Vec::new();
    if token.raw == b"@" {
        return words.finish().map(|()| origin.clone());
    }
    crate::name::push_text(token.raw, origin, &mut wire).map_err(|error| wrong(&error.to_string()))?;
    words.finish()?;
    Ok(Name::from_checked(wire))
}

fn read_dollar_ttl(words: &mut Cursor<'_, '_>) -> Result<u32, Fault> {
    let token = words.need("a time")?;
    let ttl = parse_ttl(token.raw).ok_or_else(|| {
        token.fault(format!("`{}` is not a time in seconds, or in units such as 1h30m", token.shown()))
    })?;
    words.finish().map(|()| ttl)
}

/// Whether the records of a type at one name may differ in their TTL: signatures live as long as what they cover.
pub(crate) fn may_differ_in_ttl(rtype: Rtype) -> bool {
    rtype == Rtype::RRSIG
}

#[cfg(test)]
mod tests;
