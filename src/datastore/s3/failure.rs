//! What a failed S3 call means, in words that help.

use std::error::Error;
use std::path::PathBuf;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

use super::connection::S3Options;
use crate::datastore::{DatastoreError, FailureKind};
use crate::domain::object_key::ObjectKey;

/// A store's message is quoted up to this many characters.
const LONGEST_MESSAGE_CHARS: usize = 300;

/// Where a datastore is, for requests and for messages.
pub(super) struct Place {
    pub(super) bucket: String,
    /// Empty, or ending in a slash.
    pub(super) prefix: String,
    endpoint: String,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub(super) enum Cause {
    #[error("the store answered {}", .0.words())]
    Answer(Answer),
    #[error("no answer in time")]
    TimedOut,
    #[error("the host name of the endpoint is not known: {0}")]
    UnknownHost(String),
    #[error("the endpoint's TLS certificate was refused: {0}")]
    Tls(String),
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("there are no credentials: {0}")]
    Credentials(String),
    #[error("the answer is not that of an S3 server: {0}")]
    Unintelligible(String),
    #[error("the answer has no Date")]
    NoDate,
    #[error("a listing is cut short, without a token to go on with")]
    NoToken,
    #[error("a listing breaks off before its end")]
    Cut,
    #[error("{} cannot be used: {why}", path.display())]
    CaFile { path: PathBuf, why: String },
    #[error("{0}")]
    Options(String),
}

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The S3 error code; empty where there is none.
    pub(super) code: String,
    message: String,
    /// The region that AWS says the bucket is in.
    region: Option<String>,
}

impl Place {
    pub(super) fn new(options: &S3Options) -> Self {
        let prefix = options.prefix.trim_matches('/');
        Self {
            bucket: options.bucket.clone(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            endpoint: options.endpoint.clone().unwrap_or_else(|| "AWS".to_owned()),
        }
    }

    /// A key as the store knows it.
    pub(super) fn object(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A key, or the beginning of one, for people.
    pub(super) fn url(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.bucket, self.prefix)
    }

    pub(super) fn failed(&self, verb: &str, key: &str, cause: Cause) -> DatastoreError {
        DatastoreError { call: format!("{verb} {}", self.url(key)), kind: cause.kind(), hint: self.hint(&cause), source: Box::new(cause) }
    }

    fn hint(&self, cause: &Cause) -> String {
        let Self { bucket, endpoint, .. } = self;
        match cause {
            Cause::Answer(answer) => self.hint_for(answer),
            Cause::TimedOut | Cause::Unreachable(_) | Cause::Broken(_) => {
                format!("check the network, the proxy, and the endpoint ({endpoint}); otherwise try again later")
            }
            Cause::UnknownHost(_) => {
                format!(
                    "check the endpoint ({endpoint}) and the name servers; if the store has no host name per bucket, set path_style = true"
                )
            }
            Cause::Tls(_) => format!("if {endpoint} has a certificate of a CA of your own, name that CA's root in ca_file"),
            Cause::Credentials(_) => {
                "set access_key and secret_key in [datastore], or give credentials the way AWS tools read them (AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, a profile, or a role of this machine)"
                    .to_owned()
            }
            Cause::Unintelligible(_) | Cause::NoDate | Cause::NoToken | Cause::Cut => {
                format!("check that the endpoint ({endpoint}) is that of an S3 server, and that no proxy answers in its place")
            }
            Cause::CaFile { .. } => "name a PEM file with the root certificates that the endpoint's certificate leads to".to_owned(),
            Cause::Options(_) => format!("check the settings of the bucket {bucket}"),
        }
    }

    fn hint_for(&self, answer: &Answer) -> String {
        let Self { bucket, endpoint, .. } = self;
        match (answer.status, answer.code.as_str()) {
            (_, "NoSuchBucket") => format!("create the bucket {bucket}, or check its name, the endpoint ({endpoint}) and the region"),
            (_, "InvalidAccessKeyId" | "InvalidToken" | "NotSignedUp") => {
                format!("the store does not know the access key: check it, and the endpoint ({endpoint})")
            }
            (_, "SignatureDoesNotMatch") => "the secret key does not fit the access key: check secret_key, and the region".to_owned(),
            (_, "ExpiredToken") => "the credentials have expired: get new ones".to_owned(),
            (_, "RequestTimeTooSkewed") => "the clock of this machine is wrong: set it".to_owned(),
            (301 | 307 | 308, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => match &answer.region {
                Some(region) => format!("the bucket is in another region: set region = \"{region}\""),
                None => format!("the bucket is in another region: check region and endpoint ({endpoint})"),
            },
            (401 | 403, _) => {
                format!(
                    "allow these credentials to get, put, list and delete objects in {} (s3:GetObject, s3:PutObject, s3:ListBucket, \
                     s3:DeleteObject)",
                    self.url("")
                )
            }
            (501, _) => {
                "this store does not do what certfleet needs of it, writes on condition (If-None-Match): use another store".to_owned()
            }
            (409, _) => "somebody else is writing the same object: try again".to_owned(),
            (408 | 429 | 500..=599, _) | (_, "RequestTimeout") => "the store is busy or broken: try again later".to_owned(),
            _ => format!("check the bucket ({bucket}), the endpoint ({endpoint}) and the region"),
        }
    }
}

impl Cause {
    pub(super) fn from_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(service) => Self::Answer(Answer::new(service.raw(), service.err())),
            SdkError::TimeoutError(_) => Self::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut,
            SdkError::DispatchFailure(_) => Self::from_transport(error),
            SdkError::ConstructionFailure(_) => Self::Credentials(innermost(error)),
            _ if contains::<hyper::Error>(error) => Self::Broken(innermost(error)),
            _ => Self::Unintelligible(innermost(error)),
        }
    }

    fn from_transport(error: &(dyn Error + 'static)) -> Self {
        let why = innermost(error);
        if contains::<rustls::Error>(error) {
            Self::Tls(why)
        } else if chain(error).any(|cause| cause.to_string() == "dns error") {
            Self::UnknownHost(why)
        } else if chain(error).any(|cause| cause.to_string().contains("credential")) {
            Self::Credentials(why)
        } else {
            Self::Unreachable(why)
        }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Answer(answer) => answer.kind(),
            Self::TimedOut | Self::UnknownHost(_) | Self::Unreachable(_) | Self::Broken(_) | Self::Cut => FailureKind::Passing,
            Self::Tls(_)
            | Self::Credentials(_)
            | Self::Unintelligible(_)
            | Self::NoDate
            | Self::NoToken
            | Self::CaFile { .. }
            | Self::Options(_) => FailureKind::Lasting,
        }
    }
}

impl Answer {
    fn new(response: &HttpResponse, error: &impl ProvideErrorMetadata) -> Self {
        let message = error.message().unwrap_or_default();
        Self {
            status: response.status().as_u16(),
            code: error.code().unwrap_or_default().to_owned(),
            message: message.chars().filter(|character| !character.is_control()).take(LONGEST_MESSAGE_CHARS).collect(),
            region: response.headers().get("x-amz-bucket-region").map(str::to_owned),
        }
    }

    fn words(&self) -> String {
        let parts = [self.status.to_string(), self.code.clone(), self.message.clone()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn kind(&self) -> FailureKind {
        match (self.status, self.code.as_str()) {
            (501 | 505, _) => FailureKind::Lasting,
            (408 | 409 | 429 | 500..=599, _) | (_, "RequestTimeout") => FailureKind::Passing,
            _ => FailureKind::Lasting,
        }
    }
}

/// What is at the bottom of an error: the layers above it only say that something failed.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn contains<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(<dyn Error>::is::<T>)
}

/// An error and all that is below it. `io::Error::source` passes over the error it wraps; this does not.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}
