//! Signatures. What the library does not sign or verify with is refused by name.

use super::bounded;
use super::key::{Key, Kind, Private, half};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self as s, EcdsaKeyPair, EcdsaSigningAlgorithm, RsaEncoding, RsaPssSaltLength, VerificationAlgorithm,
};

/// How a signature is made of a digest and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// RSA's of PKCS #1 1.5.
    Pkcs1,
    /// RSA-PSS with a salt as long as the digest.
    Pss,
    /// RSA-PSS with the longest salt.
    PssMax,
    /// ECDSA's two numbers in DER.
    Der,
    /// ECDSA's two numbers one behind the other.
    Raw,
    /// Ed25519's, which has no choice.
    Whole,
}

impl Scheme {
    /// By the name that Lua gives.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "pkcs1" => Self::Pkcs1,
            "pss" => Self::Pss,
            "pss-max" => Self::PssMax,
            "der" => Self::Der,
            "raw" => Self::Raw,
            "whole" => Self::Whole,
            _ => return None,
        })
    }
}

impl Key {
    /// The signature of `text`.
    pub(crate) fn sign(&self, text: &[u8], digest: &str, scheme: Scheme) -> Result<Vec<u8>, String> {
        bounded(text)?;
        let refused =
            || format!("signing with {} and {digest} is not there for {} keys", named(scheme), self.kind.name());
        let failed = |_| "the text could not be signed".to_owned();
        match self.private.as_ref().ok_or_else(half)? {
            Private::Rsa(pair) => {
                let encoding = rsa_signing(digest, scheme).ok_or_else(refused)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), text, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Private::Ec(pkcs8) => {
                let algorithm = ec_signing(self.kind, digest, scheme).ok_or_else(refused)?;
                let pair =
                    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).map_err(|_| "the key cannot be used".to_owned())?;
                pair.sign(&SystemRandom::new(), text).map(|made| made.as_ref().to_vec()).map_err(failed)
            }
            Private::Ed25519(pair) if scheme == Scheme::Whole => {
                pair.try_sign(text).map(|made| made.as_ref().to_vec()).map_err(failed)
            }
            Private::Ed25519(_) => Err(refused()),
        }
    }

    /// Whether `signature` is this key's of `text`.
    pub(crate) fn verify(&self, signature: &[u8], text: &[u8], digest: &str, scheme: Scheme) -> Result<bool, String> {
        bounded(text)?;
        let algorithm = match self.kind {
            Kind::Rsa => rsa_verifying(digest, scheme),
            Kind::Ed25519 => (scheme == Scheme::Whole).then_some(&s::ED25519 as &dyn VerificationAlgorithm),
            Kind::P256 | Kind::P384 | Kind::P521 => ec_verifying(self.kind, digest, scheme),
        };
        let algorithm = algorithm.ok_or_else(|| {
            format!("verifying with {} and {digest} is not there for {} keys", named(scheme), self.kind.name())
        })?;
        Ok(s::UnparsedPublicKey::new(algorithm, &self.public).verify(text, signature).is_ok())
    }
}

fn named(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Pkcs1 => "PKCS #1 padding",
        Scheme::Pss | Scheme::PssMax => "PSS padding",
        Scheme::Der => "signatures in DER",
        Scheme::Raw => "raw signatures",
        Scheme::Whole => "no padding",
    }
}

fn rsa_signing(digest: &str, scheme: Scheme) -> Option<&'static dyn RsaEncoding> {
    Some(match (scheme, digest) {
        (Scheme::Pkcs1, "sha256") => &s::RSA_PKCS1_SHA256,
        (Scheme::Pkcs1, "sha384") => &s::RSA_PKCS1_SHA384,
        (Scheme::Pkcs1, "sha512") => &s::RSA_PKCS1_SHA512,
        (Scheme::Pss, "sha256") => &s::RSA_PSS_SHA256,
        (Scheme::Pss, "sha384") => &s::RSA_PSS_SHA384,
        (Scheme::Pss, "sha512") => &s::RSA_PSS_SHA512,
        (Scheme::PssMax, "sha256") => &const { s::RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max) },
        (Scheme::PssMax, "sha384") => &const { s::RSA_PSS_SHA384.with_pss_salt_length(RsaPssSaltLength::Max) },
        (Scheme::PssMax, "sha512") => &const { s::RSA_PSS_SHA512.with_pss_salt_length(RsaPssSaltLength::Max) },
        _ => return None,
    })
}

fn rsa_verifying(digest: &str, scheme: Scheme) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (scheme, digest) {
        (Scheme::Pkcs1, "sha1") => &s::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (Scheme::Pkcs1, "sha256") => &s::RSA_PKCS1_2048_8192_SHA256,
        (Scheme::Pkcs1, "sha384") => &s::RSA_PKCS1_2048_8192_SHA384,
        (Scheme::Pkcs1, "sha512") => &s::RSA_PKCS1_2048_8192_SHA512,
        (Scheme::Pss, "sha256") => &s::RSA_PSS_2048_8192_SHA256,
        (Scheme::Pss, "sha384") => &s::RSA_PSS_2048_8192_SHA384,
        (Scheme::Pss, "sha512") => &s::RSA_PSS_2048_8192_SHA512,
        (Scheme::PssMax, "sha256") => {
            &const { s::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max) }
        }
        (Scheme::PssMax, "sha384") => {
            &const { s::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max) }
        }
        (Scheme::PssMax, "sha512") => {
            &const { s::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max) }
        }
        _ => return None,
    })
}

fn ec_signing(kind: Kind, digest: &str, scheme: Scheme) -> Option<&'static EcdsaSigningAlgorithm> {
    Some(match (kind, digest, scheme) {
        (Kind::P256, "sha256", Scheme::Der) => &s::ECDSA_P256_SHA256_ASN1_SIGNING,
        (Kind::P256, "sha256", Scheme::Raw) => &s::ECDSA_P256_SHA256_FIXED_SIGNING,
        (Kind::P384, "sha384", Scheme::Der) => &s::ECDSA_P384_SHA384_ASN1_SIGNING,
        (Kind::P384, "sha384", Scheme::Raw) => &s::ECDSA_P384_SHA384_FIXED_SIGNING,
        (Kind::P521, "sha256", Scheme::Der) => &s::ECDSA_P521_SHA256_ASN1_SIGNING,
        (Kind::P521, "sha256", Scheme::Raw) => &s::ECDSA_P521_SHA256_FIXED_SIGNING,
        (Kind::P521, "sha384", Scheme::Der) => &s::ECDSA_P521_SHA384_ASN1_SIGNING,
        (Kind::P521, "sha384", Scheme::Raw) => &s::ECDSA_P521_SHA384_FIXED_SIGNING,
        (Kind::P521, "sha512", Scheme::Der) => &s::ECDSA_P521_SHA512_ASN1_SIGNING,
        (Kind::P521, "sha512", Scheme::Raw) => &s::ECDSA_P521_SHA512_FIXED_SIGNING,
        _ => return None,
    })
}

fn ec_verifying(kind: Kind, digest: &str, scheme: Scheme) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, digest, scheme) {
        (Kind::P256, "sha1", Scheme::Der) => &s::ECDSA_P256_SHA1_ASN1,
        (Kind::P256, "sha256", Scheme::Der) => &s::ECDSA_P256_SHA256_ASN1,
        (Kind::P256, "sha256", Scheme::Raw) => &s::ECDSA_P256_SHA256_FIXED,
        (Kind::P256, "sha384", Scheme::Der) => &s::ECDSA_P256_SHA384_ASN1,
        (Kind::P256, "sha512", Scheme::Der) => &s::ECDSA_P256_SHA512_ASN1,
        (Kind::P384, "sha256", Scheme::Der) => &s::ECDSA_P384_SHA256_ASN1,
        (Kind::P384, "sha384", Scheme::Der) => &s::ECDSA_P384_SHA384_ASN1,
        (Kind::P384, "sha384", Scheme::Raw) => &s::ECDSA_P384_SHA384_FIXED,
        (Kind::P384, "sha512", Scheme::Der) => &s::ECDSA_P384_SHA512_ASN1,
        (Kind::P521, "sha1", Scheme::Der) => &s::ECDSA_P521_SHA1_ASN1,
        (Kind::P521, "sha256", Scheme::Der) => &s::ECDSA_P521_SHA256_ASN1,
        (Kind::P521, "sha256", Scheme::Raw) => &s::ECDSA_P521_SHA256_FIXED,
        (Kind::P521, "sha384", Scheme::Der) => &s::ECDSA_P521_SHA384_ASN1,
        (Kind::P521, "sha384", Scheme::Raw) => &s::ECDSA_P521_SHA384_FIXED,
        (Kind::P521, "sha512", Scheme::Der) => &s::ECDSA_P521_SHA512_ASN1,
        (Kind::P521, "sha512", Scheme::Raw) => &s::ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}
