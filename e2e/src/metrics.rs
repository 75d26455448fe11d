//! The exporter's text format, strictly enough to notice a broken line.

use gateward_testkit::{Gateway, http};
use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    text: String,
}

impl Metrics {
    /// Scrapes the status port of `gateway`.
    ///
    /// # Panics
    /// When there is no such page or a line of it is malformed.
    #[track_caller]
    pub fn scrape(gateway: &Gateway) -> Self {
        let response = http(gateway.status(), "GET /metrics", &[], b"");
        assert_eq!(response.status, 200, "{}", response.text());
        let text = response.text();
        match parse(&text) {
            Ok(samples) => Self { samples, text },
            Err(line) => panic!("malformed line of /metrics: {line:?}"),
        }
    }

    /// The sum of all samples of this name whose labels contain each of `labels` (`reason="bare_cr"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matching = self.samples.iter().filter(|(sample, _)| {
            let (sample_name, sample_labels) = sample.split_once('{').unwrap_or((sample, ""));
            sample_name == name && labels.iter().all(|label| sample_labels.contains(label))
        });
        matching.map(|(_, value)| value).sum()
    }

    /// Whether there is a sample of this name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.keys().any(|sample| sample.split('{').next() == Some(name))
    }

    /// The page.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Samples by name and labels, or the first line that is not one.
fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with("# HELP ") || line.starts_with("# TYPE ") || line.starts_with("# EOF") {
            continue;
        }
        let sample = line.rsplit_once(' ').and_then(|(name, value)| Some((name, value.parse::<f64>().ok()?)));
        let Some((name, value)) = sample.filter(|(name, _)| is_sample_name(name)) else {
            return Err(line.to_owned());
        };
        if samples.insert(name.to_owned(), value).is_some() {
            return Err(format!("{line} (twice)"));
        }
    }
    Ok(samples)
}

/// `name` or `name{label="value",..}`.
fn is_sample_name(text: &str) -> bool {
    let (name, labels) = match text.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')),
        None => (text, Some("")),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty()
        && name.bytes().all(plain)
        && labels.is_some_and(|labels| labels.is_empty() || labels.contains("=\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_format_and_nothing_else() {
        let text = "# HELP a b\n# TYPE a counter\na 1\na_total{x=\"y, {z}\",w=\"\"} 2.5e3\nb NaN\n";
        let samples = parse(text).unwrap();
        assert_eq!(samples["a_total{x=\"y, {z}\",w=\"\"}"], 2500.0);
        for bad in ["a", "a b", "a{x} 1", "a{x=\"y\" 1", "-a 1", "a 1\na 2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
