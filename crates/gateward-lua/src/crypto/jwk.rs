//! JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037).

use super::key::{Key, Kind};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Bytes of an Ed25519 public key.
const ED25519_BYTES: usize = 32;
/// The first byte of a point that is written whole (SEC 1).
const WHOLE_POINT: u8 = 4;

/// The key in `text`.
pub(super) fn read(text: &[u8]) -> Result<Key, String> {
    // Without the parser's words, which may quote a key.
    let fields: Map<String, Value> = serde_json::from_slice(text).map_err(|_| "not a JSON Web Key: no JSON object")?;
    let word = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    match (word("kty"), word("crv")) {
        ("RSA", _) => rsa(&fields),
        ("EC", "P-256") => ec(&fields, Kind::P256, 32),
        ("EC", "P-384") => ec(&fields, Kind::P384, 48),
        ("EC", "P-521") => ec(&fields, Kind::P521, 66),
        ("OKP", "Ed25519") => ed25519(&fields),
        ("oct", _) => Err("a JSON Web Key of type oct is a secret, not a pair of keys".to_owned()),
        ("EC" | "OKP", _) => Err("a JSON Web Key on another curve than P-256, P-384, P-521 and Ed25519".to_owned()),
        _ => Err("a JSON Web Key of another type (kty) than RSA, EC and OKP".to_owned()),
    }
}

fn bytes(fields: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = fields.get(name).and_then(Value::as_str).ok_or_else(|| format!("the JSON Web Key has no {name}"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} of the JSON Web Key is not base64url"))
}

fn unfit() -> String {
    "the parts of the JSON Web Key do not make a key that is taken here".to_owned()
}

fn rsa(fields: &Map<String, Value>) -> Result<Key, String> {
    let bytes = |name| bytes(fields, name);
    let public_key = PublicKeyComponents { n: bytes("n")?, e: bytes("e")? };
    if !fields.contains_key("d") {
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&public_key).map_err(|_| unfit())?;
        return Key::read(spki.as_ref(), super::key::Form::Der);
    }
    let components = KeyPairComponents {
        public_key,
        d: bytes("d")?,
        p: bytes("p")?,
        q: bytes("q")?,
        dP: bytes("dp")?,
        dQ: bytes("dq")?,
        qInv: bytes("qi")?,
    };
    Key::rsa(KeyPair::from_components(&components).map_err(|_| unfit())?)
}

/// `length` is that of a coordinate on the curve.
fn ec(fields: &Map<String, Value>, kind: Kind, length: usize) -> Result<Key, String> {
    let coordinate = |name| match bytes(fields, name)? {
        bytes if bytes.len() == length => Ok(bytes),
        _ => Err(format!("{name} of the JSON Web Key has not the {length} bytes of {}", kind.name())),
    };
    let point = [&[WHOLE_POINT], coordinate("x")?.as_slice(), coordinate("y")?.as_slice()].concat();
    if !fields.contains_key("d") {
        return Key::parsed(kind, &point).map_err(|_| unfit());
    }
    let algorithm = kind.signing().ok_or_else(unfit)?;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &coordinate("d")?, &point);
    Key::ec(kind, &pair.map_err(|_| unfit())?)
}

fn ed25519(fields: &Map<String, Value>) -> Result<Key, String> {
    let public = bytes(fields, "x")?;
    if public.len() != ED25519_BYTES {
        return Err(unfit());
    }
    if !fields.contains_key("d") {
        return Key::parsed(Kind::Ed25519, &public).map_err(|_| unfit());
    }
    Key::ed25519(Ed25519KeyPair::from_seed_and_public_key(&bytes(fields, "d")?, &public).map_err(|_| unfit())?)
}
