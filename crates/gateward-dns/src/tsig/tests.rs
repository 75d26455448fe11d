//! Signatures against messages of another implementation (dnspython 2.3), against the `domain` crate's, and against RFC 8945's rules.

use std::sync::Arc;

use gateward_zone::{Name, Rcode};

use super::*;
use crate::wire::{Header, Reader};

const NOW: u64 = 1_700_000_000;
const SECRET: &str = "Z2F0ZXdhcmQtdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn key(algorithm: Algorithm) -> Key {
    Key::from_base64(name("key.example"), algorithm, SECRET).expect("a key")
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex")).collect()
}

fn query() -> Vec<u8> {
    octets("12340000000100000000000003777777076578616d706c6503636f6d0000010001")
}

fn answer() -> Vec<u8> {
    octets("12348000000100000000000003777777076578616d706c6503636f6d0000010001")
}

/// Authentication codes that dnspython makes of `query` and of `answer` to it.
const VECTORS: [(Algorithm, &str, &str); 6] = [
    (Algorithm::HmacMd5, "c32ba48bc09c6878f499481feac9cc61", "9f9ef22c0b6b588dda999c05ba4e323f"),
    (Algorithm::HmacSha1, "0ceabd195436c3e93bdbbada20a8b38e78a9c537", "c67e60d87e4691bdbfd0ac5d4b6c41d9d3147358"),
    (
        Algorithm::HmacSha224,
        "265c67798e0c98b8a0bc6d388de21675c8d0a522af8b3d879381fc2c",
        "63878284f153e8d73d9c5407bef558386ad7904132e42a4bee92fa08",
    ),
    (
        Algorithm::HmacSha256,
        "7d158ad45b70e2dfae0fe2758a828b49e6969b47c9edce4941ca0a9f2862951f",
        "c3b9ffc2787f3379fd8a78ec67d9c17560f702b6b598d6ad2b90499ce9d33da3",
    ),
    (
        Algorithm::HmacSha384,
        "2dc696dd3b01dc267e75ff576203cfa785414df379dceafbe953138f04a080b736c5b796c535581c241f8bde91baafb9",
        "811447462a014f5ef6f2aebd78e8ac1b50f55f9e42e1099ac917629f349f01b9ef330423977553b0bdb51d6b9568a73d",
    ),
    (
        Algorithm::HmacSha512,
        "04f4383900a5d116471f3fa535e731a7507296a2f0c253e32158027263d94bd058fdaac79c648af0f7f8283e95b40fafec4cf2cb251cab4ef3e4d8591d2bf837",
        "ad2c15310fc30fd61039c3f99b880306edcf3e422c2561b1276aa3047e454c67007ff33f3e3d53eced265b1548971990646f756dcdc5d4585a6542ace189b95e",
    ),
];

#[test]
fn every_algorithm_makes_the_codes_that_dnspython_makes() {
    for (algorithm, of_query, of_answer) in VECTORS {
        let key = Arc::new(key(algorithm));
        let mut request = query();
        let mut client = sign_request(&key, &mut request, NOW);
        let found = record::Found::read(&request).expect("well-formed").expect("signed");
        assert_eq!(found.mac, octets(of_query), "{algorithm}");
        assert!(request.len() - query().len() <= key.signature_len());

        let keys = Keys::from_iter([Key::clone(&key)]);
        let signed = verify_request(&request, &keys, NOW).expect("authentic").expect("signed");
        assert_eq!(signed.unsigned(&request), query());
        let mut response = answer();
        signed.signer().sign(&mut response, NOW);
        let found = record::Found::read(&response).expect("well-formed").expect("signed");
        assert_eq!(found.mac, octets(of_answer), "{algorithm}");
        assert_eq!(client.verify(&response, NOW), Ok(true), "{algorithm}");
    }
}

/// RFC 8945, 5.3.1: later messages are chained to the one before, and have only times as variables.
#[test]
fn many_messages_are_a_chain() {
    let key = Arc::new(key(Algorithm::HmacSha256));
    let keys = Keys::from_iter([Key::clone(&key)]);
    let mut request = query();
    let client = sign_request(&key, &mut request, NOW);
    let mut signer = verify_request(&request, &keys, NOW).expect("authentic").expect("signed").signer();
    let mut messages = vec![answer(); 5];
    messages.iter_mut().for_each(|message| signer.sign(message, NOW));

    let mut whole = client.clone();
    for message in &messages {
        assert_eq!(whole.verify(message, NOW), Ok(true));
    }
    let mut swapped = client.clone();
    assert_eq!(swapped.verify(&messages[0], NOW), Ok(true));
    assert_eq!(swapped.verify(&messages[2], NOW), Err(VerifyError::Mine(Error::BadSig)));
    let mut started_late = client.clone();
    assert_eq!(started_late.verify(&messages[1], NOW), Err(VerifyError::Mine(Error::BadSig)));
    let mut slow = client;
    assert_eq!(slow.verify(&messages[0], NOW + 300), Ok(true));
    assert_eq!(slow.verify(&messages[1], NOW + 301), Err(VerifyError::Mine(Error::BadTime)));
}

/// RFC 8945, 5.3.1: up to 99 messages without a signature between two with one, never the first. NSD sends such answers.
#[test]
fn unsigned_messages_in_between_are_vouched_for_by_the_next_signature() {
    let key = Arc::new(key(Algorithm::HmacSha256));
    let mut request = query();
    let client = sign_request(&key, &mut request, NOW);
    let mac = record::Found::read(&request).expect("well-formed").expect("signed").mac;
    let sign = |code: &mut mac::Code, message: &mut Vec<u8>, only_times: bool| {
        let variables = record::Variables {
            key: name("key.example"),
            algorithm: Algorithm::HmacSha256.name(),
            time: NOW,
            fudge: 300,
            error: None,
            other: Vec::new(),
        };
        variables.digest(code, only_times);
        let mac = code.clone().finish();
        variables.append(message, &mac, 0x1234);
        mac
    };
    let mut code = mac::Code::new(&key);
    code.chain(&mac);
    code.update(&answer());
    let mut first = answer();
    let mac = sign(&mut code, &mut first, false);
    for unsigned in [1, 99, 100] {
        let mut session = client.clone();
        assert_eq!(session.verify(&first, NOW), Ok(true));
        let mut code = mac::Code::new(&key);
        code.chain(&mac);
        for count in 1..=unsigned {
            let expected = if count < 100 { Ok(false) } else { Err(VerifyError::Unsigned) };
            assert_eq!(session.verify(&answer(), NOW), expected, "message {count}");
            code.update(&answer());
        }
        code.update(&answer());
        let mut last = answer();
        sign(&mut code, &mut last, true);
        if unsigned < 100 {
            assert_eq!(session.verify(&last, NOW), Ok(true), "after {unsigned}");
        }
    }
    let mut never = client;
    assert_eq!(never.verify(&answer(), NOW), Err(VerifyError::Unsigned));
}

/// The refusal of a request, its answer, and what the client makes of that.
fn refused(request: &[u8], client: &mut ClientSession, keys: &Keys, now: u64) -> (Error, Vec<u8>, VerifyError) {
    let Err(Rejected::Refused(refusal)) = verify_request(request, keys, now) else { panic!("not refused") };
    let answer = refusal.answer(request, now);
    let header = Header::read(&answer).expect("a header");
    assert_eq!((header.id, header.rcode()), (0x1234, Rcode::NOTAUTH.to_int()));
    assert!(header.is_answer());
    assert_eq!(header.counts, [1, 0, 0, 1]);
    Reader::new(&answer).question().expect("the question comes back");
    let verdict = client.verify(&answer, NOW).expect_err("no answer to use");
    (refusal.error(), answer, verdict)
}

/// RFC 8945, 5.2.1: BADKEY, not signed; for an unknown name and for a known name with another algorithm.
#[test]
fn rfc8945_5_2_1_unknown_keys() {
    for other in
        [Key::new(name("other.example"), Algorithm::HmacSha256, *b"secret").expect("a key"), key(Algorithm::HmacSha512)]
    {
        let mut request = query();
        let mut client = sign_request(&Arc::new(key(Algorithm::HmacSha256)), &mut request, NOW);
        let (error, answer, verdict) = refused(&request, &mut client, &Keys::from_iter([other]), NOW);
        assert_eq!((error, verdict), (Error::BadKey, VerifyError::Peers(Error::BadKey)));
        assert!(record::Found::read(&answer).expect("well-formed").expect("a TSIG record").mac.is_empty());
    }
}

/// RFC 8945, 5.2.2: BADSIG, not signed; whichever octet of the message was changed.
#[test]
fn rfc8945_5_2_2_wrong_codes() {
    let keys = Keys::from_iter([key(Algorithm::HmacSha256)]);
    let mut request = query();
    let mut client = sign_request(&Arc::new(key(Algorithm::HmacSha256)), &mut request, NOW);
    // An octet of the name asked for, one of the time, one of the code.
    for at in [13, query().len() + 13 + 10 + 13 + 5, request.len() - 10] {
        let mut changed = request.clone();
        changed[at] ^= 1;
        let (error, answer, verdict) = refused(&changed, &mut client, &keys, NOW);
        assert_eq!((error, verdict), (Error::BadSig, VerifyError::Peers(Error::BadSig)), "octet {at}");
        assert!(record::Found::read(&answer).expect("well-formed").expect("a TSIG record").mac.is_empty());
    }
}

/// RFC 8945, 5.5 and 4.2: who passes a request on may number it anew. The answer goes back under that number, and names the original one.
#[test]
fn rfc8945_4_2_requests_that_were_passed_on() {
    let keys = Keys::from_iter([key(Algorithm::HmacSha256)]);
    let mut request = query();
    let mut client = sign_request(&Arc::new(key(Algorithm::HmacSha256)), &mut request, NOW);
    request[0] = 0xff;
    let signed = verify_request(&request, &keys, NOW).expect("authentic").expect("signed");
    let asked = signed.unsigned(&request);
    assert_eq!((asked[0], &asked[1..]), (0xff, &query()[1..]));
    let numbered = |mut message: Vec<u8>| {
        assert_eq!(message[0], 0xff);
        assert_eq!(record::Found::read(&message).expect("well-formed").expect("signed").original_id, 0x1234);
        message[0] = 0x12;
        message
    };
    let mut signer = signed.signer();
    for _ in 0..2 {
        let mut message = answer();
        message[0] = 0xff;
        signer.sign(&mut message, NOW);
        assert_eq!(client.clone().verify(&message, NOW), Ok(true), "the number itself is not authenticated");
        assert_eq!(client.verify(&numbered(message), NOW), Ok(true));
    }
    let mut request = query();
    let client = sign_request(&Arc::new(key(Algorithm::HmacSha256)), &mut request, NOW);
    request[0] = 0xff;
    for (now, error) in [(NOW + 301, Error::BadTime), (NOW, Error::BadKey)] {
        let keys = if error == Error::BadKey { Keys::default() } else { keys.clone() };
        let Err(Rejected::Refused(refusal)) = verify_request(&request, &keys, now) else { panic!("not refused") };
        let message = numbered(refusal.answer(&request, now));
        assert_eq!(client.clone().verify(&message, NOW), Err(VerifyError::Peers(error)));
    }
}

/// RFC 8945, 5.2.3: BADTIME, signed, with the request's time and the server's.
#[test]
fn rfc8945_5_2_3_clocks_that_differ() {
    let keys = Keys::from_iter([key(Algorithm::HmacSha256)]);
    let mut request = query();
    let mut client = sign_request(&Arc::new(key(Algorithm::HmacSha256)), &mut request, NOW);
    for now in [NOW - 300, NOW + 300] {
        assert!(verify_request(&request, &keys, now).is_ok());
    }
    for now in [NOW - 301, NOW + 301] {
        let (error, answer, verdict) = refused(&request, &mut client.clone(), &keys, now);
        assert_eq!((error, verdict), (Error::BadTime, VerifyError::Peers(Error::BadTime)));
        let found = record::Found::read(&answer).expect("well-formed").expect("signed");
        assert_eq!(found.variables.time, NOW);
        assert_eq!(found.variables.other, now.to_be_bytes()[2..]);
        // The answer is authentic: with one octet changed it is not.
        let mut changed = answer;
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert_eq!(client.clone().verify(&changed, NOW), Err(VerifyError::Mine(Error::BadSig)));
    }
    assert!(client.verify(&answer(), NOW).is_err());
}

/// RFC 8945, 5.2.2.1 and 5.2.4: codes cut short.
#[test]
fn rfc8945_5_2_4_codes_cut_short() {
    let whole = key(Algorithm::HmacSha256);
    let mut request = query();
    let mut client = sign_request(&Arc::new(whole.clone()), &mut request, NOW);
    let cut = |len: usize| {
        let found = record::Found::read(&request).expect("well-formed").expect("signed");
        let mut message = query();
        let mut mac = found.mac;
        mac.resize(len, 0);
        found.variables.append(&mut message, &mac, found.original_id);
        message
    };
    let strict = Keys::from_iter([whole.clone()]);
    let lenient = Keys::from_iter([whole.clone().with_shortest_mac(16).expect("half of it")]);
    for len in [0, 9, 15, 33] {
        for keys in [&strict, &lenient] {
            assert!(matches!(verify_request(&cut(len), keys, NOW), Err(Rejected::Malformed(_))), "{len} octets");
        }
    }
    for len in [16, 31] {
        let (error, answer, _) = refused(&cut(len), &mut client, &strict, NOW);
        assert_eq!(error, Error::BadTrunc, "{len} octets");
        assert!(!record::Found::read(&answer).expect("well-formed").expect("signed").mac.is_empty());
        assert!(verify_request(&cut(len), &lenient, NOW).expect("authentic").is_some(), "{len} octets");
    }
    for octets in [15, 33] {
        assert!(whole.clone().with_shortest_mac(octets).is_err());
    }
    assert!(key(Algorithm::HmacMd5).with_shortest_mac(9).is_err());
}

/// RFC 8945, 5.1: the record is the last one of the additional section, and there is one.
#[test]
fn rfc8945_5_1_the_record_stands_last() {
    let keys = Keys::from_iter([key(Algorithm::HmacSha256)]);
    let key = Arc::new(key(Algorithm::HmacSha256));
    let mut twice = query();
    sign_request(&key, &mut twice, NOW);
    sign_request(&key, &mut twice, NOW);
    let mut not_last = query();
    sign_request(&key, &mut not_last, NOW);
    not_last.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    not_last[11] = 2;
    let mut as_answer = query();
    sign_request(&key, &mut as_answer, NOW);
    as_answer[7] = 1;
    as_answer[11] = 0;
    let mut trailing = query();
    sign_request(&key, &mut trailing, NOW);
    trailing.push(0);
    let mut other_class = query();
    sign_request(&key, &mut other_class, NOW);
    other_class[query().len() + 16] = 1;
    for message in [twice, not_last, as_answer, trailing, other_class] {
        assert!(matches!(verify_request(&message, &keys, NOW), Err(Rejected::Malformed(_))), "{message:?}");
    }
    assert!(verify_request(&query(), &keys, NOW).expect("well-formed").is_none());
}

/// The `domain` crate's client and our server, our client and its server, over several messages.
#[test]
fn the_domain_crate_agrees() {
    use domain::base::{Message, MessageBuilder, name::FromStrError};
    use domain::rdata::tsig::Time48;
    use domain::tsig as other;
    use std::str::FromStr as _;

    let theirs = |algorithm| -> Result<other::Key, FromStrError> {
        let name = other::KeyName::from_str("key.example")?;
        Ok(other::Key::new(algorithm, b"gateward-test-secret-0123456789", name, None, None).expect("a key"))
    };
    let now = Time48::from_u64(NOW);
    for (ours, algorithm) in [
        (Algorithm::HmacSha1, other::Algorithm::Sha1),
        (Algorithm::HmacSha256, other::Algorithm::Sha256),
        (Algorithm::HmacSha384, other::Algorithm::Sha384),
        (Algorithm::HmacSha512, other::Algorithm::Sha512),
    ] {
        let their_key = theirs(algorithm).expect("a name");
        let our_key = Arc::new(key(ours));
        let built = |message: Vec<u8>| MessageBuilder::from_target(message).expect("room").additional();

        let mut builder = built(Vec::new());
        let mut their_client = other::ClientSequence::request(&their_key, &mut builder, now).expect("room");
        let request = builder.finish();
        let keys = Keys::from_iter([Key::clone(&our_key)]);
        let mut signer = verify_request(&request, &keys, NOW).expect("authentic").expect("signed").signer();
        for _ in 0..3 {
            let mut response = vec![0; 12];
            response[2] = 0x80;
            signer.sign(&mut response, NOW);
            their_client.answer(&mut Message::from_octets(response).expect("a message"), now).expect("authentic");
        }

        let mut request = vec![0; 12];
        let mut our_client = sign_request(&our_key, &mut request, NOW);
        let mut request = Message::from_octets(request).expect("a message");
        let mut their_server =
            other::ServerSequence::request(&their_key, &mut request, now).expect("authentic").expect("signed");
        for _ in 0..3 {
            let mut builder = built(Vec::new());
            their_server.answer(&mut builder, now).expect("room");
            assert_eq!(our_client.verify(&builder.finish(), NOW), Ok(true));
        }
    }
}

#[test]
fn secrets_do_not_show() {
    let key = key(Algorithm::HmacSha256);
    let keys = Keys::from_iter([key.clone()]);
    let shown = format!("{key:?} {keys:?}");
    assert!(!shown.contains("Z2F0") && !shown.contains("gateward-test") && shown.contains("***"), "{shown}");
    let error = Key::from_base64(name("key.example"), Algorithm::HmacSha256, "no base64!").expect_err("not base64");
    assert_eq!(error.to_string(), "the secret of key key.example. is not base64");
    assert!(Key::from_base64(name("key.example"), Algorithm::HmacSha256, "").is_err());
}

#[test]
fn algorithms_have_the_names_of_key_files() {
    for text in ["hmac-md5", "HMAC-MD5.SIG-ALG.REG.INT.", "hmac-sha224", "hmac-sha512."] {
        let algorithm: Algorithm = text.parse().expect(text);
        assert_eq!(Algorithm::from_name(&algorithm.name()), Some(algorithm));
    }
    assert!("hmac-sha3".parse::<Algorithm>().is_err());
}
