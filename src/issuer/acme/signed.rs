//! Requests to a CA that the library does not make: signed here, with fresh nonces.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use instant_acme::{BodyWrapper, Error, HttpClient as _, Problem};
use serde_json::{Value, json};

use super::AcmeIssuer;
use super::attempts::Attempts;
use super::jws::SigningKey;
use super::look::Directory;

/// The media type of signed messages (RFC 8555 section 6.2).
const JOSE: HeaderValue = HeaderValue::from_static("application/jose+json");

/// Who signs a message.
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// An account, by its URL and its key.
    Account { url: &'a str, key: &'a SigningKey },
    /// Whoever has the key, which is shown.
    Key(&'a SigningKey),
}

/// A CA's good answer.
pub(super) struct Answer {
    pub(super) body: Bytes,
}

impl Answer {
    /// One that says nothing.
    pub(super) fn nothing() -> Self {
        Self { body: Bytes::new() }
    }
}

impl Signer<'_> {
    fn key(&self) -> &SigningKey {
        match self {
            Self::Account { key, .. } | Self::Key(key) => key,
        }
    }

    fn header(&self) -> Value {
        match self {
            Self::Account { url, .. } => json!({ "kid": url }),
            Self::Key(key) => json!({ "jwk": key.public() }),
        }
    }

    /// A message within a message, as key changes want them: without a nonce.
    pub(super) fn sign(&self, url: &str, payload: &Value) -> Result<Value, Error> {
        let mut header = self.header();
        header["url"] = url.into();
        self.key().sign(header, Some(payload)).ok_or(Error::Crypto)
    }
}

impl AcmeIssuer {
    /// Sends a signed payload; without one, asks for what is at `url` (POST-as-GET, RFC 8555 section 6.3). It is sent again where no answer
    /// comes: what is sent must bear that.
    pub(super) async fn post(
        &self,
        directory: &Directory,
        signer: Signer<'_>,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Answer, Error> {
        let mut attempts = Attempts::default();
        loop {
            match self.post_once(directory, signer, url, payload).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn post_once(&self, directory: &Directory, signer: Signer<'_>, url: &str, payload: Option<&Value>) -> Result<Answer, Error> {
        let request = Request::head(&directory.new_nonce).body(BodyWrapper::<Bytes>::default())?;
        let fresh = self.client.request(request).await?;
        let nonce = fresh.parts.headers.get("replay-nonce").and_then(|nonce| nonce.to_str().ok()).ok_or(Error::Str("no nonce"))?;
        let mut header = signer.header();
        header["nonce"] = nonce.into();
        header["url"] = url.into();
        let message = signer.key().sign(header, payload).ok_or(Error::Crypto)?;
        let body = BodyWrapper::from(message.to_string().into_bytes());
        let mut answer = self.client.request(Request::post(url).header(CONTENT_TYPE, JOSE).body(body)?).await?;
        let body = answer.body.into_bytes().await.map_err(Error::Other)?;
        // The client passes on what is said about nonces: the message is to be signed again with another.
        if answer.parts.status >= StatusCode::BAD_REQUEST {
            return Err(Error::Api(serde_json::from_slice::<Problem>(&body)?));
        }
        Ok(Answer { body })
    }
}
