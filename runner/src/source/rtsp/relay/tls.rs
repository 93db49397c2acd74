//! TLS to a camera (`rtsps://`).

use std::{io, sync::Arc, time::Duration};

use kadr_shared::settings::Tls;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

use crate::source::SourceError;

/// From the first byte to a connection that is secured.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Secures a connection.
pub(super) async fn secure(connection: TcpStream, url: &Url, tls: Tls) -> Result<TlsStream<TcpStream>, SourceError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| SourceError::Session { what: format!("{host} is no name that a certificate can have") })?;
    // Whom the machine trusts stands in files, which are read anew so that a change counts at the next connection.
    let config = tokio::task::spawn_blocking(move || config(tls));
    let unready = |why: String| SourceError::Session { what: format!("TLS can't be spoken: {why}") };
    let config = config.await.map_err(|error| unready(error.to_string()))?;
    let config =
        config.map_err(|error| unready(format!("{error}; whom this machine trusts stands in ca-certificates")))?;
    let secured = timeout(HANDSHAKE, TlsConnector::from(Arc::new(config)).connect(name, connection)).await;
    let late = SourceError::Silent { what: "agree on TLS", after: HANDSHAKE };
    secured.map_err(|_| late)?.map_err(|error| SourceError::Session { what: explain(&error, host) })
}

fn config(tls: Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match tls {
        Tls::Verify => Arc::new(Verifier::new(provider)?),
        Tls::Any => Arc::new(Any(provider)),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// What a handshake that failed means.
fn explain(error: &io::Error, host: &str) -> String {
    let why = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(why)) => {
            return format!(
                "the certificate of {host} can't be trusted: {}; have this machine know who signed it, or accept it \
                 unseen with source.tls: any (--tls any), inside a network that you trust",
                flaw(why)
            );
        }
        Some(Error::InvalidMessage(_)) => "what it says is no TLS: is it rtsp://?".to_owned(),
        Some(error) => error.to_string(),
        None => error.to_string(),
    };
    let why: String = why.chars().filter(|c| !c.is_control()).take(120).collect();
    format!("{host} does not speak TLS as it should, 1.2 or 1.3 ({why})")
}

fn flaw(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "nobody that this machine knows has signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it was made for another name".to_owned()
        }
        other => other.to_string().chars().filter(|c| !c.is_control()).take(120).collect(),
    }
}

/// Takes every certificate, as its owner has asked for. Who stands between could show one of their own, so that a signature
/// by its key proves nothing; and looking at it would refuse the odd old ones that some cameras have (X.509 version 1).
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
