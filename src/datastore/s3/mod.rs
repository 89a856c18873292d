//! A prefix of an S3 bucket, on AWS or on any server that speaks its protocol.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, DateTimeFormat};
use aws_sdk_s3::types::{Object, ServerSideEncryption};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use self::failure::{Cause, Place};
use super::{Datastore, DatastoreError, Entry, Listing, Put, PutMode};
use crate::domain::object_key::ObjectKey;

pub mod connection;
mod failure;

use connection::ATTEMPTS;

pub use connection::{Addressing, Credentials, Encryption, S3Options, Timeouts};

/// See the module. Cheap to make: nothing is sent, and nothing is looked up, before the first call.
pub struct S3Datastore {
    client: Client,
    place: Place,
    encryption: Encryption,
    deadline: Duration,
}

impl S3Datastore {
    /// A datastore for `options`. Sends nothing; it fails only where the options cannot be right (a CA file, a proxy's URL).
    pub async fn connect(options: S3Options) -> Result<Self, DatastoreError> {
        let place = Place::new(&options);
        let client = connection::client(&options).await.map_err(|cause| place.failed("use", "", cause))?;
        Ok(Self { client, place, encryption: options.server_side_encryption, deadline: options.timeouts.operation })
    }

    async fn get_once(&self, key: &ObjectKey) -> Result<Option<Bytes>, Cause> {
        let request = self.client.get_object().bucket(&self.place.bucket).key(self.place.object(key));
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => return Ok(None),
            Err(error) => return Err(Cause::from_sdk(&error)),
        };
        let body = output.body.collect().await.map_err(|error| Cause::Broken(failure::innermost(&error)))?;
        Ok(Some(body.into_bytes()))
    }

    async fn page(&self, prefix: &str, position: &Position) -> Result<(ListObjectsV2Output, DateTime<Utc>), Cause> {
        let seen = SeenPage::default();
        let mut request = self.client.list_objects_v2().bucket(&self.place.bucket);
        if !prefix.is_empty() {
            request = request.prefix(prefix);
        }
        request = match position {
            Position::Start => request,
            Position::After(key) => request.start_after(key),
            Position::Continued(token) => request.continuation_token(token),
        };
        let page = request.customize().interceptor(seen.clone()).send().await.map_err(|error| Cause::from_sdk(&error))?;
        let answer = *seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !answer.is_whole {
            return Err(Cause::Cut);
        }
        Ok((page, answer.date.ok_or(Cause::NoDate)?))
    }

    async fn pages(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, Cause> {
        let prefix = format!("{}{prefix}", self.place.prefix);
        let mut position = start_after.map_or(Position::Start, |after| Position::After(format!("{}{after}", self.place.prefix)));
        let mut entries = Vec::new();
        let mut listed_at = None;
        loop {
            let (page, now) = self.page(&prefix, &position).await?;
            for object in page.contents() {
                entries.extend(self.entry(object)?);
            }
            // The first answer's time stands for all: with a later one an object of the first page would seem older than it was
            // when it was listed, and a lease that is being refreshed would seem abandoned.
            listed_at.get_or_insert(now);
            position = match (page.is_truncated(), page.next_continuation_token) {
                (Some(true), Some(token)) => Position::Continued(token),
                (Some(true), None) => return Err(Cause::NoToken),
                _ => break,
            };
        }
        // Some servers sort by other rules than AWS, which sorts by the bytes of the keys.
        entries.sort_by(|one: &Entry, other| one.key.cmp(&other.key));
        listed_at.map(|now| Listing { entries, now }).ok_or(Cause::NoDate)
    }

    /// `None` for objects that are not ours. One of ours is never left out: what is not listed would be made anew.
    fn entry(&self, object: &Object) -> Result<Option<Entry>, Cause> {
        let below = object.key().and_then(|key| key.strip_prefix(&self.place.prefix));
        let Some(key) = below.and_then(ObjectKey::from_listing) else { return Ok(None) };
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let (Some(size_bytes), Some(last_modified)) = (size, object.last_modified().and_then(to_chrono)) else {
            return Err(Cause::Unintelligible(format!("it lists {key} without size and time")));
        };
        // Some servers leave it out of listings.
        let etag = object.e_tag().unwrap_or_default().trim_matches('"').to_owned();
        Ok(Some(Entry { key, etag, size_bytes, last_modified }))
    }
}

#[async_trait]
impl Datastore for S3Datastore {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match self.get_once(key).await {
                    // The SDK repeats requests, but not the reading of a body that breaks off.
                    Err(Cause::Broken(_)) if attempt < ATTEMPTS => attempt += 1,
                    result => return result,
                }
            }
        };
        // The SDK's own deadline ends where the body begins.
        let result = tokio::time::timeout(self.deadline, attempts).await.unwrap_or(Err(Cause::TimedOut));
        result.map_err(|cause| self.place.failed("get", key.as_str(), cause))
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        let mut request = self.client.put_object().bucket(&self.place.bucket).key(self.place.object(key)).body(ByteStream::from(body));
        request = match &self.encryption {
            Encryption::None => request,
            Encryption::Aes256 => request.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Kms { key_id } => request.server_side_encryption(ServerSideEncryption::AwsKms).set_ssekms_key_id(key_id.clone()),
        };
        let verb = match mode {
            PutMode::Create => {
                request = request.if_none_match("*");
                "create"
            }
            PutMode::Overwrite => "put",
        };
        match request.send().await {
            Ok(_) => Ok(Put::Stored),
            Err(error) => match Cause::from_sdk(&error) {
                Cause::Answer(answer) if answer.status == 412 && mode == PutMode::Create => Ok(Put::Exists),
                cause => Err(self.place.failed(verb, key.as_str(), cause)),
            },
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        self.pages(prefix, start_after).await.map_err(|cause| self.place.failed("list", prefix, cause))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        let request = self.client.delete_object().bucket(&self.place.bucket).key(self.place.object(key));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match Cause::from_sdk(&error) {
                // AWS answers 204 for what is not there; some servers do not.
                Cause::Answer(answer) if answer.code == "NoSuchKey" => Ok(()),
                cause => Err(self.place.failed("delete", key.as_str(), cause)),
            },
        }
    }
}

impl fmt::Debug for S3Datastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Datastore({})", self.place.url(""))
    }
}

/// Where a page of a listing begins.
enum Position {
    Start,
    After(String),
    Continued(String),
}

/// What is not in a parsed page.
#[derive(Clone, Copy, Debug, Default)]
struct PageAnswer {
    /// Its `Date` (RFC 9110 section 6.6.1). It has a resolution of one second, as the times of listed objects have on most stores: an age
    /// can come out up to one second too high.
    date: Option<DateTime<Utc>>,
    /// Whether its document ends. The SDK takes one that was cut off for a shorter one, and what is not listed would be made anew, or
    /// deleted as nobody's need.
    is_whole: bool,
}

/// Sees the last response to a request.
#[derive(Clone, Debug, Default)]
struct SeenPage(Arc<Mutex<PageAnswer>>);

impl Intercept for SeenPage {
    fn name(&self) -> &'static str {
        "SeenPage"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|text| aws_sdk_s3::primitives::DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = PageAnswer { date: date.as_ref().and_then(to_chrono), is_whole: false };
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default().trim_ascii_end();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_whole = body.ends_with(b"ListBucketResult>");
        Ok(())
    }
}

fn to_chrono(time: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}
