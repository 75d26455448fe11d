//! Which value goes with a server name: exact names, wildcards for the first or the last label, and `*`.
//!
//! The order is Kong's (kong/runloop/certificate.lua): exact, `*.rest`, `name.*`, `*`. A wildcard stands for one label.

use std::collections::HashMap;

/// Values by server name. Look-ups cost up to four hash look-ups, however many names there are.
#[derive(Debug, Clone)]
pub struct NameTable<T> {
    exact: HashMap<String, T>,
    /// `example.com` of `*.example.com`.
    first_wild: HashMap<String, T>,
    /// `www.example` of `www.example.*`.
    last_wild: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), first_wild: HashMap::new(), last_wild: HashMap::new(), any: None }
    }
}

impl<T> NameTable<T> {
    /// Add a name; one that is there already is replaced.
    pub fn insert(&mut self, name: &str, value: T) {
        let name = name.to_ascii_lowercase();
        if name == "*" {
            self.any = Some(value);
        } else if let Some(rest) = name.strip_prefix("*.") {
            self.first_wild.insert(rest.to_owned(), value);
        } else if let Some(rest) = name.strip_suffix(".*") {
            self.last_wild.insert(rest.to_owned(), value);
        } else {
            self.exact.insert(name, value);
        }
    }

    /// The value for the name a client asked for, if there is one.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        let named = name.and_then(|name| {
            let lower;
            let name = name.strip_suffix('.').unwrap_or(name);
            let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                lower = name.to_ascii_lowercase();
                lower.as_str()
            } else {
                name
            };
            let without_first = || self.first_wild.get(name.split_once('.')?.1);
            let without_last = || self.last_wild.get(name.rsplit_once('.')?.0);
            self.exact.get(name).or_else(without_first).or_else(without_last)
        });
        named.or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&'static str]) -> NameTable<&'static str> {
        let mut table = NameTable::default();
        names.iter().for_each(|name| table.insert(name, *name));
        table
    }

    #[test]
    fn the_more_precise_name_wins() {
        let all = table(&["www.example.com", "*.example.com", "www.example.*", "*"]);
        for (asked, expected) in [
            (Some("www.example.com"), "www.example.com"),
            (Some("WWW.Example.COM."), "www.example.com"),
            (Some("api.example.com"), "*.example.com"),
            (Some("www.example.org"), "www.example.*"),
            (Some("other.test"), "*"),
            (None, "*"),
        ] {
            assert_eq!(all.find(asked), Some(&expected), "{asked:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_and_nothing_matches_by_accident() {
        let some = table(&["*.example.com", "www.example.*"]);
        for asked in [
            None,
            Some("example.com"),
            Some("a.b.example.com"),
            Some("www.example.co.uk"),
            Some("www.example"),
            Some(""),
        ] {
            assert_eq!(some.find(asked), None, "{asked:?}");
        }
    }
}
