//! Showing a password's knowledge without sending it: WS-Security's UsernameToken (digest).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY},
    rand::{SecureRandom, SystemRandom},
};

use super::{OnvifError, soap::Credentials, xml::escaped};

const NAMESPACE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity";
const ENCODING: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";
const PROFILE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0";

/// The header for a request that is made at `created`, by the device's own clock.
pub(super) fn header(credentials: &Credentials, created: &str) -> Result<String, OnvifError> {
    let mut nonce = [0_u8; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| OnvifError::Randomness)?;
    let (user, digest) = (escaped(&credentials.username), password_digest(&nonce, created, &credentials.password));
    let nonce = BASE64.encode(nonce);
    Ok(format!(
        "<wsse:Security s:mustUnderstand=\"1\" xmlns:wsse=\"{NAMESPACE}-secext-1.0.xsd\" \
         xmlns:wsu=\"{NAMESPACE}-utility-1.0.xsd\"><wsse:UsernameToken><wsse:Username>{user}</wsse:Username>\
         <wsse:Password Type=\"{PROFILE}#PasswordDigest\">{digest}</wsse:Password>\
         <wsse:Nonce EncodingType=\"{ENCODING}\">{nonce}</wsse:Nonce>\
         <wsu:Created>{created}</wsu:Created></wsse:UsernameToken></wsse:Security>"
    ))
}

fn password_digest(nonce: &[u8], created: &str, password: &str) -> String {
    let mut context = digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in [nonce, created.as_bytes(), password.as_bytes()] {
        context.update(part);
    }
    BASE64.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_onvifs_programmers_guide() {
        let nonce = BASE64.decode("LKqI6G/AikKCQrN0zqZFlg==").unwrap();
        assert_eq!(password_digest(&nonce, "2010-09-16T07:50:45Z", "userpassword"), "tuOSpGlFlIXsozq4HFNeeGeFLEI=");
    }

    #[test]
    fn a_header_does_not_hold_the_password() {
        let credentials = Credentials { username: "a<b".into(), password: "hunter2".into() };
        let header = header(&credentials, "2026-01-31T12:00:00Z").unwrap();
        assert!(!header.contains("hunter2") && header.contains("a&lt;b"), "{header}");
    }
}
