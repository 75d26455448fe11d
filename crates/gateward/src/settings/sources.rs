//! What was said: flags, variables and the order in which they count.

use crate::settings::table::{SETTINGS, Setting, setting};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;

/// Flags of the settings, by name, as clap found them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(BTreeMap<&'static str, String>);

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| command.arg(argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<String>(setting.flag) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.0.insert(setting.flag, values.join(","));
            }
        }
        Ok(())
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let mut long = format!("{}\n[variables: {}", setting.meaning, setting.variable());
    setting.kong.iter().for_each(|name| {
        long.push_str(", ");
        long.push_str(name);
    });
    long.push(']');
    if !setting.default.is_empty() {
        long.push_str(&format!("\n[default: {}]", setting.default));
    }
    Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value)
        .help(setting.meaning)
        .long_help(long)
        .action(ArgAction::Append)
        .allow_hyphen_values(false)
}

/// Everything that was said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    flags: Flags,
    environment: BTreeMap<String, String>,
    /// Defaults of a command that differ from the table's.
    defaults: BTreeMap<&'static str, String>,
}

/// A setting's text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// The text.
    pub(crate) text: String,
    /// For messages: `--workers`, `KONG_PROXY_LISTEN`; `None` for a default.
    pub(crate) origin: Option<String>,
}

impl Given {
    /// Flags and variables; variables that are empty count as not set.
    pub(crate) fn new(flags: Flags, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let relevant = |name: &str| name.starts_with("GATEWARD_") || name.starts_with("KONG_");
        let environment = environment.into_iter().filter(|(name, value)| relevant(name) && !value.is_empty());
        Self { flags, environment: environment.collect(), defaults: BTreeMap::new() }
    }

    /// With another default for a setting.
    pub(crate) fn default_to(mut self, flag: &'static str, text: impl Into<String>) -> Self {
        self.defaults.insert(setting(flag).flag, text.into());
        self
    }

    /// Flag, then `GATEWARD_*`, then `KONG_*`, then the default; an empty default is `None`.
    pub(crate) fn value(&self, flag: &str) -> Option<Value> {
        let setting = setting(flag);
        if let Some(text) = self.flags.0.get(flag) {
            return Some(Value { text: text.clone(), origin: Some(format!("--{flag}")) });
        }
        let own = setting.variable();
        for name in std::iter::once(own.as_str()).chain(setting.kong.iter().copied()) {
            if let Some(text) = self.environment.get(name) {
                return Some(Value { text: text.clone(), origin: Some(name.to_owned()) });
            }
        }
        let default = self.defaults.get(flag).map_or(setting.default, String::as_str);
        (!default.is_empty()).then(|| Value { text: default.to_owned(), origin: None })
    }

    /// A variable as it is set.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Names of the variables that are set.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.environment.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn of(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Self {
        let flags = Flags(flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        Self::new(flags, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_own_variables_over_kongs_over_defaults() {
        let flags = [("workers", "1")];
        let own = ("GATEWARD_WORKERS", "2");
        let kong = ("KONG_NGINX_WORKER_PROCESSES", "3");
        for (given, text, origin) in [
            (Given::of(&flags, &[own, kong]), "1", Some("--workers")),
            (Given::of(&[], &[own, kong]), "2", Some("GATEWARD_WORKERS")),
            (Given::of(&[], &[kong]), "3", Some("KONG_NGINX_WORKER_PROCESSES")),
            (Given::of(&[], &[("GATEWARD_WORKERS", "")]), "auto", None),
            (Given::of(&[], &[]).default_to("workers", "7"), "7", None),
        ] {
            let expected = Value { text: text.to_owned(), origin: origin.map(str::to_owned) };
            assert_eq!(given.value("workers"), Some(expected));
        }
        assert_eq!(Given::default().value("config"), None);
    }

    #[test]
    fn repeated_flags_are_a_list() {
        let command = <Flags as clap::Args>::augment_args(Command::new("x"));
        let matches = command.get_matches_from(["x", "--proxy-listen", "a:1", "--proxy-listen", "b:2"]);
        let flags = <Flags as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        assert_eq!(Given::new(flags, []).value("proxy-listen").unwrap().text, "a:1,b:2");
    }
}
