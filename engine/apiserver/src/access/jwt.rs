//! Signed tokens: what one says, how it is signed (ES256) and how its signature is checked; and what others need to check
//! it themselves. It does not know whether what a token speaks of still exists.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use rcgen::PublicKeyData;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ISSUER;
use crate::body::Body;
use crate::error::ApiError;
use crate::{pki, reply};

/// The longest token that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// What service account tokens are signed with.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    /// Names the key in tokens: a digest of its public half.
    id: String,
    random: SystemRandom,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) bound: Bound,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// What a token is bound to: it holds as long as all of it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// One object of its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

impl TokenKey {
    /// Opens `sa.key` in a folder, or makes it.
    pub fn open(dir: &Path) -> Result<Self, ApiError> {
        pki::token_key(dir).and_then(|key| Self::of(&key))
    }

    /// A key that is kept nowhere.
    pub(crate) fn passing() -> Result<Self, ApiError> {
        let failed = |error: rcgen::Error| ApiError::Internal(format!("cannot make a key: {error}"));
        Self::of(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?)
    }

    fn of(key: &rcgen::KeyPair) -> Result<Self, ApiError> {
        let random = SystemRandom::new();
        let failed = |error: ring::error::KeyRejected| ApiError::Internal(format!("the key of tokens: {error}"));
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random)
            .map_err(failed)?;
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &key.subject_public_key_info()));
        Ok(Self { pair, id, random })
    }

    /// A signed token.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, ApiError> {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "kid": self.id})), part(json!(claims)));
        let signature = self.pair.sign(&self.random, signed.as_bytes());
        let signature = signature.map_err(|_| ApiError::Internal("a token could not be signed".into()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if this key has signed it in this way.
    pub(crate) fn open_token(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= LONGEST)?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.alg != "ES256" || header.kid.is_some_and(|id| id != self.id) {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }
}

/// `GET /openid/v1/jwks`
pub(crate) fn key_set(key: &TokenKey) -> Response<Body> {
    // An uncompressed point: a byte 4 and the two coordinates.
    let (x, y) = key.pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    let own = json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y});
    reply::bytes(StatusCode::OK, "application/jwk-set+json", json!({"keys": [own]}).to_string())
}

/// `GET /.well-known/openid-configuration`
pub(crate) fn discovery(address: std::net::SocketAddr) -> Response<Body> {
    let document = json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    reply::value(StatusCode::OK, &document, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_with_its_own_key_and_unchanged_only() {
        let (key, other) = (TokenKey::passing().unwrap(), TokenKey::passing().unwrap());
        let claims = Claims { sub: "system:serviceaccount:a:b".into(), exp: 5, ..Claims::default() };
        let token = key.sign(&claims).unwrap();
        assert_eq!(key.open_token(&token), Some(claims.clone()));
        assert_eq!(other.open_token(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let forged = part(json!(Claims { sub: "system:admin".into(), ..claims }));
        let none = part(json!({"alg": "none"}));
        for wrong in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{forged}."),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            "x".repeat(LONGEST + 1),
            String::new(),
        ] {
            assert_eq!(key.open_token(&wrong), None, "{wrong}");
        }
    }
}
