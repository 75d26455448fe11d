//! Who an upstream is: its certificate checked as the service says, or taken as it comes (Kong's default).

use super::pem::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The part in which verifiers of servers and of clients are the same: whoever shows a certificate must have its key.
macro_rules! checks_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Checks what upstreams show.
#[derive(Debug)]
pub(crate) struct UpstreamVerifier {
    /// `None`: anything is taken.
    demands: Option<Demands>,
}

#[derive(Debug)]
struct Demands {
    anchors: Vec<TrustAnchor<'static>>,
    /// The same as certificates: an upstream may show one of them itself, being its own authority.
    authorities: Vec<CertificateDer<'static>>,
    /// Most certificates between the upstream's own and the authority (OpenSSL's `X509_VERIFY_PARAM_set_depth`).
    depth: usize,
}

impl UpstreamVerifier {
    pub(crate) fn lenient() -> Self {
        Self { demands: None }
    }

    /// `authorities` that cannot be used as such are passed over, like those of the system.
    pub(crate) fn strict(authorities: Vec<CertificateDer<'static>>, depth: u8) -> Self {
        let anchor = |der: &CertificateDer<'static>| Some(webpki::anchor_from_trusted_cert(der).ok()?.to_owned());
        let anchors = authorities.iter().filter_map(anchor).collect();
        Self { demands: Some(Demands { anchors, authorities, depth: depth.into() }) }
    }
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(demands) = &self.demands {
            demands.check(end_entity, intermediates, server_name, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!();
}

/// Asks clients for a certificate and takes whatever they show, as long as they have its key: what it is worth is for
/// whoever asked (nginx's `ssl_verify_client optional_no_ca`).
#[derive(Debug)]
pub(crate) struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    checks_signatures!();
}

impl Demands {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(end_entity).map_err(|error| refused(&error))?;
        leaf.verify_is_valid_for_subject_name(server_name).map_err(|error| refused(&error))?;
        if self.authorities.iter().any(|authority| authority.as_ref() == end_entity.as_ref()) {
            return valid_now(end_entity, now);
        }
        let short_enough = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            if between <= self.depth { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        let algorithms = provider().signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        let path =
            leaf.verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, Some(&short_enough));
        path.map(drop).map_err(|error| refused(&error))
    }
}

/// Whether a certificate that is trusted by itself is valid at this time.
fn valid_now(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let now = i64::try_from(now.as_secs()).map_err(|_| bad())?;
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

fn refused(error: &webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    /// A chain of `between` intermediates: (authority, intermediates from the leaf on, leaf).
    fn chain(between: usize) -> (CertificateDer<'static>, Vec<CertificateDer<'static>>, CertificateDer<'static>) {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let key = KeyPair::generate().unwrap();
        let params = authority("root");
        let root = params.self_signed(&key).unwrap().der().clone();
        let mut issuer = Issuer::new(params, key);
        let mut intermediates = Vec::new();
        for index in 0..between {
            let (params, key) = (authority(&format!("i{index}")), KeyPair::generate().unwrap());
            intermediates.insert(0, params.signed_by(&key, &issuer).unwrap().der().clone());
            issuer = Issuer::new(params, key);
        }
        let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
        (root, intermediates, leaf)
    }

    fn check(
        verifier: &UpstreamVerifier,
        intermediates: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
        name: &str,
    ) -> bool {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn the_chain_the_name_and_the_depth_count() {
        let (root, intermediates, leaf) = chain(2);
        let strict = |depth| UpstreamVerifier::strict(vec![root.clone()], depth);
        assert!(check(&strict(2), &intermediates, &leaf, "a.test"));
        assert!(!check(&strict(1), &intermediates, &leaf, "a.test"), "too deep");
        assert!(!check(&strict(2), &intermediates, &leaf, "b.test"), "another name");
        assert!(!check(&strict(2), &intermediates[..1], &leaf, "a.test"), "a gap");
        let (other, ..) = chain(0);
        assert!(
            !check(&UpstreamVerifier::strict(vec![other], 2), &intermediates, &leaf, "a.test"),
            "another authority"
        );
        assert!(check(&UpstreamVerifier::lenient(), &[], &leaf, "b.test"));
    }

    #[test]
    fn a_self_signed_certificate_may_be_its_own_authority() {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap().der().clone();
        assert!(check(&UpstreamVerifier::strict(vec![own.clone()], 0), &[], &own, "a.test"));
        assert!(!check(&UpstreamVerifier::strict(vec![own.clone()], 0), &[], &own, "b.test"));
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let old = params.self_signed(&key).unwrap().der().clone();
        assert!(!check(&UpstreamVerifier::strict(vec![old.clone()], 0), &[], &old, "a.test"));
    }
}
