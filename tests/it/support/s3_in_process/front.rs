//! Where faults happen: between the connection and S3.

use std::future::Future;
use std::pin::Pin;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, DATE, HOST, HeaderValue, IF_NONE_MATCH};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::Service;
use s3s::service::S3Service;
use s3s::{Body, HttpResponse};

use super::{BUCKET, Fault, Seen, Store, Unconditional};
use crate::support::server::Dropped;

/// Sees every request before S3 does, and does to it what was planned.
#[derive(Clone)]
pub struct Front {
    pub store: Store,
    pub s3: S3Service,
}

impl Service<http::Request<Incoming>> for Front {
    type Response = HttpResponse;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Dropped>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { front.answer(request).await })
    }
}

impl Front {
    async fn answer(&self, mut request: http::Request<Incoming>) -> Result<HttpResponse, Dropped> {
        let seen = seen(&request);
        let fault = {
            let mut state = self.store.state();
            let fault = state.take_fault(&seen);
            state.requests.push(seen);
            fault
        };
        match fault {
            Some(Fault::Refuse(status, code)) => {
                // Read first, as real servers do: an answer in the middle of a body looks like a broken connection.
                let _ = request.into_body().collect().await;
                Ok(self.dated(refusal(status, code)))
            }
            Some(Fault::DoThenRefuse(status, code)) => {
                self.forward(request).await?;
                Ok(self.dated(refusal(status, code)))
            }
            Some(Fault::DropBefore) => Err(Dropped),
            Some(Fault::DropAfter) => {
                self.forward(request).await?;
                Err(Dropped)
            }
            Some(Fault::Truncate) => Ok(truncated(self.forward(request).await?).await),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.forward(request).await
            }
            Some(Fault::Pretend) => {
                let _ = request.into_body().collect().await;
                Ok(self.dated(HttpResponse::new(Body::empty())))
            }
            Some(Fault::IgnoreCondition) => {
                // The header itself is signed, and has to stay.
                request.extensions_mut().insert(Unconditional);
                self.forward(request).await
            }
            Some(Fault::Advance(by)) => {
                let response = self.forward(request).await?;
                self.store.state().ahead += by;
                Ok(response)
            }
            None => self.forward(request).await,
        }
    }

    async fn forward(&self, request: http::Request<Incoming>) -> Result<HttpResponse, Dropped> {
        let response = self.s3.call(request.map(Body::from)).await.map_err(|_| Dropped)?;
        Ok(self.dated(response))
    }

    fn dated(&self, mut response: HttpResponse) -> HttpResponse {
        let now = chrono::DateTime::<chrono::Utc>::from(self.store.state().now());
        let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert(DATE, HeaderValue::from_str(&date).expect("a date"));
        response
    }
}

fn seen(request: &http::Request<Incoming>) -> Seen {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let path = decode(request.uri().path());
    let path = path.trim_start_matches('/');
    let key = path.strip_prefix(BUCKET).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    Seen {
        method: request.method().clone(),
        host: header(HOST.as_str()).unwrap_or_default(),
        key: key.trim_start_matches('/').to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        create: header(IF_NONE_MATCH.as_str()).as_deref() == Some("*"),
        server_side_encryption: header("x-amz-server-side-encryption"),
    }
}

/// Undoes percent-encoding (RFC 3986 section 2.1).
fn decode(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let code = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).expect("percent-encoding");
        bytes.push(code);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn refusal(status: u16, code: &str) -> HttpResponse {
    let xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>planned by the test</Message></Error>");
    let mut response = HttpResponse::new(Body::from(xml));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// The same headers, `Content-Length` included, with half the body, and then an end of the connection.
async fn truncated(response: HttpResponse) -> HttpResponse {
    let (mut parts, body) = response.into_parts();
    let whole = BodyExt::collect(body).await.expect("a body").to_bytes();
    parts.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let end = async {
        // Lets hyper send what it has before it hears of the end.
        tokio::task::yield_now().await;
        Err(Dropped)
    };
    let frames = stream::iter([Ok(Frame::data(half))]).chain(stream::once(end));
    HttpResponse::from_parts(parts, Body::http_body(StreamBody::new(frames)))
}
