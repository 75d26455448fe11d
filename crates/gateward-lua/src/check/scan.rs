//! What a file of a plugin mentions: modules it requires, functions of the gateway, and what cannot work in it.
//!
//! A look at the text, not a proof: names that are put together while the plugin runs are not seen, and a name that is
//! mentioned need not be called.

use super::lexer::{Placed, Word, words};
use std::collections::{BTreeMap, BTreeSet};

/// Something mentioned, and its first line.
pub(super) type Mentions = BTreeMap<String, usize>;

/// What one file mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Modules.
    pub(super) modules: Mentions,
    /// Modules that are asked for in a way that goes on without them.
    pub(super) tried: Mentions,
    /// Chains of names that begin with `kong` or `ngx`, or with the name of a library.
    pub(super) chains: Mentions,
}

/// Tables whose content is looked up.
const ROOTS: &[&str] = &["debug", "ffi", "io", "jit", "kong", "ndk", "ngx", "os", "package"];

/// Functions that are not there, whoever calls them.
const ALONE: &[&str] = &["dofile", "loadfile"];

/// Look through `text`.
pub(super) fn scan(text: &str) -> Found {
    let words = words(text);
    let aliases = aliases(&words);
    let mut found = Found::default();
    let mut at = 0;
    while at < words.len() {
        let (word, line) = &words[at];
        let Word::Name(name) = word else {
            at += 1;
            continue;
        };
        if *name == "require" {
            let tried = at >= 2 && matches!(words[at - 2].0, Word::Name("pcall" | "xpcall"));
            if let Some(module) = required(&words, at) {
                let into = if tried { &mut found.tried } else { &mut found.modules };
                into.entry(module.to_owned()).or_insert(*line);
            }
            at += 1;
            continue;
        }
        let (chain, next) = chain(&words, at);
        if !is_member(&words, at) && !is_set(&words, next) {
            let known = aliases.get(chain[0]).cloned().flatten();
            let full = match known {
                Some(start) => {
                    std::iter::once(start.as_str()).chain(chain[1..].iter().copied()).collect::<Vec<_>>().join(".")
                }
                None => chain.join("."),
            };
            let root = full.split('.').next().unwrap_or_default();
            let shadowed = matches!(aliases.get(root), Some(None));
            let wanted = (ROOTS.contains(&root) && full.len() > root.len() && !shadowed)
                || (ALONE.contains(&full.as_str()) && !shadowed && is_sign(&words, next, '('));
            if wanted {
                found.chains.entry(full).or_insert(*line);
            }
        }
        at = next.max(at + 1);
    }
    found
}

/// What local names stand for: a chain; nothing when it is something else, or not always the same.
fn aliases(words: &[Placed<'_>]) -> BTreeMap<String, Option<String>> {
    let mut aliases: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut note = |name: &str, value: Option<String>| {
        let known = aliases.get(name).cloned();
        let value = match known {
            None => value,
            Some(earlier) if earlier == value => value,
            Some(_) => None,
        };
        aliases.insert(name.to_owned(), value);
    };
    for at in 0..words.len() {
        match words[at].0 {
            Word::Name("local") if !is_name(words, at + 1, "function") => {
                let (names, next) = names(words, at + 1);
                let values = if is_sign(words, next, '=') { values(words, next + 1) } else { Vec::new() };
                for (index, name) in names.iter().enumerate() {
                    let value = values.get(index).cloned().flatten();
                    // `local kong = kong` changes nothing.
                    if value.as_deref() != Some(*name) {
                        note(name, value);
                    }
                }
            }
            Word::Name("function") => {
                let Some(open) = (at + 1..words.len().min(at + 8)).find(|at| is_sign(words, *at, '(')) else {
                    continue;
                };
                names(words, open + 1).0.into_iter().for_each(|name| note(name, None));
            }
            Word::Name("for") => names(words, at + 1).0.into_iter().for_each(|name| note(name, None)),
            _ => {}
        }
    }
    resolved(&aliases)
}

/// Aliases of aliases.
fn resolved(aliases: &BTreeMap<String, Option<String>>) -> BTreeMap<String, Option<String>> {
    let full = |chain: &str| {
        let mut chain = chain.to_owned();
        let mut seen = BTreeSet::new();
        loop {
            let first = chain.split('.').next().unwrap_or_default().to_owned();
            match aliases.get(&first) {
                Some(Some(start)) if seen.insert(first.clone()) => chain = format!("{start}{}", &chain[first.len()..]),
                _ => return chain,
            }
        }
    };
    aliases.iter().map(|(name, value)| (name.clone(), value.as_deref().map(full))).collect()
}

/// Names separated by commas, and where they end.
fn names<'t>(words: &[Placed<'t>], mut at: usize) -> (Vec<&'t str>, usize) {
    let mut names = Vec::new();
    while let Some((Word::Name(name), _)) = words.get(at) {
        names.push(*name);
        at += 1;
        if !is_sign(words, at, ',') {
            break;
        }
        at += 1;
    }
    (names, at)
}

/// The values after `=`: those that are chains, until one that cannot be told from what follows.
fn values(words: &[Placed<'_>], mut at: usize) -> Vec<Option<String>> {
    let mut values = Vec::new();
    loop {
        let Some((Word::Name(first), _)) = words.get(at) else { return values };
        if KEYWORDS.contains(first) {
            return values;
        }
        let (chain, next) = chain(words, at);
        let ends = match words.get(next) {
            None => true,
            Some((Word::Sign(sign), _)) => matches!(sign, ',' | ';' | ')' | '}'),
            Some((Word::Name(word), _)) => !matches!(*word, "and" | "or"),
            Some((Word::Text(_), _)) => false,
        };
        values.push(ends.then(|| chain.join(".")));
        if !ends || !is_sign(words, next, ',') {
            return values;
        }
        at = next + 1;
    }
}

const KEYWORDS: &[&str] = &["function", "not", "nil", "true", "false"];

/// The names from `at` on that are joined by dots or, for the last, a colon; and where they end.
fn chain<'t>(words: &[Placed<'t>], mut at: usize) -> (Vec<&'t str>, usize) {
    let mut chain = Vec::new();
    while let Some((Word::Name(name), _)) = words.get(at) {
        chain.push(*name);
        at += 1;
        let joined = is_sign(words, at, '.') || is_sign(words, at, ':');
        if !joined || !matches!(words.get(at + 1), Some((Word::Name(_), _))) {
            break;
        }
        at += 1;
    }
    (chain, at)
}

/// The module of the `require` at `at`: `require "m"`, `require("m")`, `pcall(require, "m")`.
fn required<'t>(words: &[Placed<'t>], at: usize) -> Option<&'t str> {
    let text = |at: usize| match words.get(at) {
        Some((Word::Text(text), _)) => Some(*text),
        _ => None,
    };
    let follows = is_sign(words, at + 1, '(') || is_sign(words, at + 1, ',');
    // What is joined from pieces is not known.
    let whole = |at: usize| !is_sign(words, at + 1, '.');
    text(at + 1).filter(|_| whole(at + 1)).or_else(|| text(at + 2).filter(|_| follows && whole(at + 2)))
}

/// Whether the name at `at` is a field of something, or the key of a table.
fn is_member(words: &[Placed<'_>], at: usize) -> bool {
    let joined = at > 0 && (is_sign(words, at - 1, '.') || is_sign(words, at - 1, ':'));
    // `..` joins texts.
    joined && !(at > 1 && is_sign(words, at - 1, '.') && is_sign(words, at - 2, '.'))
}

/// Whether what ends before `at` is being set.
fn is_set(words: &[Placed<'_>], at: usize) -> bool {
    is_sign(words, at, '=') && !is_sign(words, at + 1, '=')
}

fn is_sign(words: &[Placed<'_>], at: usize, sign: char) -> bool {
    matches!(words.get(at), Some((Word::Sign(found), _)) if *found == sign)
}

fn is_name(words: &[Placed<'_>], at: usize, name: &str) -> bool {
    matches!(words.get(at), Some((Word::Name(found), _)) if *found == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, modules: &[&str], chains: &[&str]) {
        let found = scan(text);
        assert_eq!(found.modules.keys().map(String::as_str).collect::<Vec<_>>(), modules, "{text}");
        assert_eq!(found.chains.keys().map(String::as_str).collect::<Vec<_>>(), chains, "{text}");
    }

    #[test]
    fn what_is_mentioned() {
        check("kong.log.err('x') ngx.say(1)", &[], &["kong.log.err", "ngx.say"]);
        check("local log = kong.log\nlog.err('kong.no')", &[], &["kong.log", "kong.log.err"]);
        check(
            "local a, b = kong.request, ngx.req\na.get_header('x') b:go()",
            &[],
            &["kong.request", "kong.request.get_header", "ngx.req", "ngx.req.go"],
        );
        check(
            "local kong = kong local r = kong.response local e = r.exit e(1)",
            &[],
            &["kong.response", "kong.response.exit"],
        );
        check("kong.ctx.mine = 1 if kong.a == 2 then end", &[], &["kong.a"]);
        check("local log = kong.log or other log.x()", &[], &["kong.log"]);
        check("x.kong.a() local t = { ngx = 1 }", &[], &[]);
        check("local s = 'a' .. ngx.var.x", &[], &["ngx.var.x"]);
        check("local function f(log) log.err() end local log = kong.log", &[], &["kong.log"]);
        check("local kong = require 'mine' kong.a()", &["mine"], &[]);
        check("require('a.b') require \"c\" pcall(require, 'd') require('e' .. x)", &["a.b", "c"], &[]);
        check("local ok, x = pcall(require, 'd')", &[], &[]);
        check("io.open('/x') os.execute('y') dofile('z') local dofile_ = 1", &[], &["dofile", "io.open", "os.execute"]);
    }
}
