//! "Did you mean": the closest known name, by edit distance.

use crate::limits;

/// ` - did you mean 'x'?`, or nothing when no candidate is close.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, candidates).map_or_else(String::new, |name| format!(" - did you mean '{name}'?"))
}

/// The candidate with the fewest edits, at most a third of the word's length.
fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 128;
    if word.len() > LONGEST {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let most = (word.len() / 3).max(1);
    let near = |candidate: &&str| candidate.len() <= LONGEST && candidate.len() + most >= word.len();
    let scored = candidates.into_iter().take(limits::SUGGESTION_CANDIDATES).filter(near).filter_map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        let edits = distance(&word, &letters);
        (edits <= most).then_some((edits, candidate))
    });
    scored.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: &str) {
        assert_eq!(did_you_mean(word, ["protocol", "port", "path", "strip_path", "hosts"]), expected);
    }

    #[test]
    fn finds_the_closest() {
        check("protcol", " - did you mean 'protocol'?");
        check("prot", " - did you mean 'port'?");
        check("strip-path", " - did you mean 'strip_path'?");
        check("Hosts", " - did you mean 'hosts'?");
        check("zzz", "");
        check(&"x".repeat(100_000), "");
    }
}
