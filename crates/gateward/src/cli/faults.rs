//! Faults an echo backend makes on purpose: a script that says what happens to which requests.
//!
//! Requests are counted, not timed or drawn by lot, so that a run can be repeated and its outcome asserted.

use hyper::StatusCode;
use std::str::FromStr;
use std::time::Duration;

/// Rules of a script.
const RULES_MAX: usize = 32;
/// Longest delay: enough for any time-out.
const DELAY_MAX: Duration = Duration::from_secs(3600);

pub(crate) const HELP: &str = "Faults to make, as rules 'FAULT every N [for M] [from K]' separated by ';': of every N requests the first M (1) fail, \
    beginning with the request K (1). Faults: reset, hang, delay=TIME, status=CODE. The first rule that holds counts. \
    Example: 'reset every 50; delay=400ms every 20; status=503 every 400 for 8'";

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset.
    Reset,
    /// Nothing, until the client goes away.
    Hang,
    /// The answer comes later.
    Delay(Duration),
    /// The answer has this status.
    Status(StatusCode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    fault: Fault,
    every: u64,
    length: u64,
    from: u64,
}

/// Rules in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Script {
    rules: Vec<Rule>,
}

impl Script {
    /// What happens to the request of this number, from 1.
    pub(crate) fn fault(&self, number: u64) -> Option<Fault> {
        let holds = |rule: &&Rule| number >= rule.from && (number - rule.from) % rule.every < rule.length;
        self.rules.iter().find(holds).map(|rule| rule.fault)
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        let rules: Vec<Rule> = rules.map(rule).collect::<Result<_, _>>()?;
        if rules.len() > RULES_MAX {
            return Err(format!("{} rules; at most {RULES_MAX} are allowed", rules.len()));
        }
        Ok(Self { rules })
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let mut words = text.split_ascii_whitespace();
    let fault = fault(words.next().unwrap_or_default()).map_err(|error| format!("'{text}': {error}"))?;
    let mut rule = Rule { fault, every: 0, length: 1, from: 1 };
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("'{text}': a number from 1 must follow '{word}'"))?;
        match word {
            "every" => rule.every = number,
            "for" => rule.length = number,
            "from" => rule.from = number,
            _ => return Err(format!("'{text}': '{word}' is none of every, for, from")),
        }
    }
    if rule.every == 0 {
        return Err(format!("'{text}': 'every N' is missing; 'every 1' means all requests"));
    }
    Ok(rule)
}

fn fault(word: &str) -> Result<Fault, String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "reset" => Ok(Fault::Reset),
        "hang" => Ok(Fault::Hang),
        "delay" => {
            let delay = crate::settings::duration(value)?;
            (delay <= DELAY_MAX).then_some(Fault::Delay(delay)).ok_or_else(|| "a delay of more than an hour".to_owned())
        }
        "status" => {
            let status = StatusCode::from_bytes(value.as_bytes()).ok().filter(|status| status.as_u16() >= 200);
            status.map(Fault::Status).ok_or_else(|| format!("'{value}' is no status of an answer, 200 to 999"))
        }
        _ => Err(format!("'{name}' is no fault; use reset, hang, delay=TIME or status=CODE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the first 20 requests to which something happens.
    fn check(script: &str, expected: &[u64]) {
        let script: Script = script.parse().unwrap();
        assert_eq!((1..=20).filter(|number| script.fault(*number).is_some()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rules_say_which_requests() {
        check("", &[]);
        check("reset every 7", &[1, 8, 15]);
        check("reset every 10 for 3 from 5", &[5, 6, 7, 15, 16, 17]);
        check("hang every 20 from 20;  delay=1ms every 10 from 2 ;", &[2, 12, 20]);
    }

    #[test]
    fn the_first_rule_counts() {
        let script: Script = "status=503 every 2; delay=300ms every 1".parse().unwrap();
        assert_eq!(script.fault(1), Some(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(script.fault(2), Some(Fault::Delay(Duration::from_millis(300))));
    }

    #[test]
    fn mistakes_are_said() {
        for wrong in [
            "explode every 2",
            "reset",
            "reset every",
            "reset every 0",
            "reset each 3",
            "status=7 every 1",
            "delay= every 1",
            "status=100 every 1",
        ] {
            assert!(wrong.parse::<Script>().is_err(), "{wrong}");
        }
        assert!("reset every 2;".repeat(RULES_MAX + 1).parse::<Script>().is_err());
    }
}
