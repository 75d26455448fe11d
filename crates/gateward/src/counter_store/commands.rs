//! Questions about counters in Redis' language.
//!
//! Deciding is a script, so that looking and counting are one step and one round trip. It goes as EVAL with its text, as
//! Kong's does: that needs no second round trip when Redis has lost its scripts, and no right beyond those a user for
//! Kong has. Besides EVAL the scripts need GET, INCRBY and EXPIRE, reading needs MGET.

use gateward_plugin::{Addition, Ask, Limited};
use redis::{Cmd, Pipeline, RedisResult, Value};

/// Keys and limits; then how long a new key lives. Returns what the counters were.
const TAKE: &str = "\
local used, free = {}, true \
for i = 1, #KEYS do \
  used[i] = tonumber(redis.call('GET', KEYS[i]) or 0) \
  if used[i] >= tonumber(ARGV[i]) then free = false end \
end \
if free then \
  for i = 1, #KEYS do \
    if redis.call('INCRBY', KEYS[i], 1) == 1 then redis.call('EXPIRE', KEYS[i], ARGV[#KEYS + i]) end \
  end \
end \
return used";

/// Keys and amounts; then how long a new key lives. Returns what the counters are then.
const ADD: &str = "\
local total = {} \
for i = 1, #KEYS do \
  total[i] = redis.call('INCRBY', KEYS[i], ARGV[i]) \
  if total[i] == tonumber(ARGV[i]) then redis.call('EXPIRE', KEYS[i], ARGV[#KEYS + i]) end \
end \
return total";

/// Counters of one command, so that no command holds Redis up for long.
const PER_COMMAND: usize = 64;

/// The commands of a question, to be sent together.
pub(super) fn commands(ask: &Ask) -> Pipeline {
    let mut pipeline = redis::pipe();
    match ask {
        Ask::Take(limited) => {
            pipeline.add_command(take(limited));
        }
        Ask::Read(keys) => {
            for keys in keys.chunks(PER_COMMAND) {
                pipeline.cmd("MGET").arg(keys);
            }
        }
        Ask::Add(additions) => {
            for additions in additions.chunks(PER_COMMAND) {
                pipeline.add_command(add(additions));
            }
        }
    }
    pipeline
}

/// How many figures answer it.
pub(super) fn figures(ask: &Ask) -> usize {
    match ask {
        Ask::Take(limited) => limited.len(),
        Ask::Read(keys) => keys.len(),
        Ask::Add(additions) => additions.len(),
    }
}

fn take(limited: &[Limited]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(TAKE).arg(limited.len());
    for counter in limited {
        command.arg(&counter.key);
    }
    for counter in limited {
        command.arg(counter.limit);
    }
    for counter in limited {
        command.arg(counter.ttl_s);
    }
    command
}

fn add(additions: &[Addition]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(ADD).arg(additions.len());
    for addition in additions {
        command.arg(&addition.key);
    }
    for addition in additions {
        command.arg(addition.amount);
    }
    for addition in additions {
        command.arg(addition.ttl_s);
    }
    command
}

/// The figures of the answers; what is below zero or absent is zero.
pub(super) fn read(answers: Vec<Value>, expected: usize) -> Result<Vec<u64>, String> {
    let mut figures = Vec::with_capacity(expected);
    for answer in answers {
        let part: RedisResult<Vec<Option<i64>>> = redis::from_redis_value(answer).map_err(Into::into);
        let part = part.map_err(|error| error.to_string())?;
        figures.extend(part.into_iter().map(|figure| u64::try_from(figure.unwrap_or(0)).unwrap_or(0)));
    }
    if figures.len() != expected {
        return Err(format!("{} figures instead of {expected}", figures.len()));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_one_command_and_a_batch_is_few() {
        let counter = |key: &str| Limited { key: key.into(), limit: 5, ttl_s: 65 };
        let take = commands(&Ask::Take(vec![counter("a"), counter("b")]));
        assert_eq!(take.len(), 1);
        let sent = String::from_utf8(take.get_packed_pipeline()).unwrap();
        assert!(sent.starts_with("*9\r\n$4\r\nEVAL\r\n"), "{sent}");
        assert!(
            sent.ends_with("$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\n5\r\n$1\r\n5\r\n$2\r\n65\r\n$2\r\n65\r\n"),
            "{sent}"
        );
        let addition = Addition { key: b"a".to_vec(), amount: 3, ttl_s: 65 };
        assert_eq!(commands(&Ask::Add(vec![addition; 129])).len(), 3);
        assert_eq!(commands(&Ask::Read(vec![b"a".to_vec(); 64])).len(), 1);
    }

    #[test]
    fn answers_are_figures_or_refused() {
        let array = |figures: &[i64]| Value::Array(figures.iter().map(|figure| Value::Int(*figure)).collect());
        assert_eq!(read(vec![array(&[1, -2]), array(&[7])], 3), Ok(vec![1, 0, 7]));
        let texts = Value::Array(vec![Value::BulkString(b"12".to_vec()), Value::Nil]);
        assert_eq!(read(vec![texts], 2), Ok(vec![12, 0]));
        assert!(read(vec![array(&[1])], 2).unwrap_err().contains("1 figures instead of 2"));
        assert!(read(vec![Value::Array(vec![Value::BulkString(b"x".to_vec())])], 1).is_err());
    }
}
