//! The properties that fuzzing checks: the fuzz target, the replay of the committed corpus and the property tests call
//! the same code. Panics when a property does not hold. Not part of the API.

use super::facts::PeerCertificate;
use super::pem::{KeyPair, TlsError, check_authority};
use rustls::pki_types::CertificateDer;

/// Characters of a line of base64 that an error may repeat of its input by chance.
const BY_CHANCE: usize = 20;

/// Any text as certificate and key, and any bytes as a certificate: no panic, no error that shows what is inside, and a
/// description that fits on one line.
pub fn certificate(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // The same text for both: a file of tools that write certificate and key together.
    let parsed = KeyPair::parse(&text, &text, None);
    match &parsed {
        Ok(pair) => {
            for now in [0, 1_800_000_000, u64::MAX] {
                let lapse = pair.lapse(now).unwrap_or_default();
                assert!(!lapse.contains('\n'), "{lapse:?}");
            }
            assert!(check_authority(&text).is_ok(), "what is a pair begins with a certificate");
            let twice = KeyPair::parse(&text, &text, Some((&text, &text)));
            assert!(matches!(twice, Err(TlsError::SameKind(_))), "{twice:?}");
        }
        Err(error) => tells_nothing(error, &text),
    }
    if let Err(error) = check_authority(&text) {
        tells_nothing(&error, &text);
    }
    let described = PeerCertificate::of(&[CertificateDer::from(data)]).expect("the chain is not empty");
    for name in [&described.subject, &described.issuer, &described.serial] {
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
    assert_eq!(described.fingerprint.len(), 64);
}

fn tells_nothing(error: &TlsError, input: &str) {
    let shown = format!("{error} {error:?}");
    let is_base64 = |line: &&str| line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    for line in input.lines().map(str::trim).filter(is_base64) {
        let begin: String = line.chars().take(BY_CHANCE).collect();
        assert!(begin.chars().count() < BY_CHANCE || !shown.contains(&begin), "{shown} shows {begin}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_corpus_passes() {
        let (mut count, mut pairs) = (0, 0);
        for data in gateward_testkit::corpus("certificate", 10) {
            certificate(&data);
            let text = String::from_utf8_lossy(&data);
            pairs += usize::from(KeyPair::parse(&text, &text, None).is_ok());
            count += 1;
        }
        assert!((2..count).contains(&pairs), "{pairs} pairs in {count} files");
    }

    /// A pair of which a few bytes are others, in its text or within.
    fn changed(text: &str, changes: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn broken_pairs_are_errors_or_pairs(changes in vec((any::<usize>(), any::<u8>()), 1..4)) {
            let text = include_str!("../../../../fuzz/corpus/certificate/good-ecdsa");
            certificate(&changed(text, &changes));
        }

        #[test]
        fn any_bytes_are_described(bytes in vec(any::<u8>(), 0..200)) {
            certificate(&bytes);
        }
    }
}
