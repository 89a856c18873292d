//! An S3 server inside the test process: exact (one locked map), counting, and faulty on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use bytes::Bytes;
use certfleet::domain::certificate::hex;
use futures_util::StreamExt as _;
use http::Method;
use rustls::ServerConfig;
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use tempfile::NamedTempFile;

use super::bucket::Bucket;
use super::server::HttpServer;

mod front;

use front::Front;

/// The one bucket there is.
pub const BUCKET: &str = "fleet";
/// Who may use it.
pub const ACCESS_KEY: &str = "AKIDINPROCESS";
/// Their secret.
pub const SECRET_KEY: &str = "secret-of-the-in-process-server";
/// The domain under which the bucket is addressed as a virtual host, for requests that come as to a proxy.
pub const DOMAIN: &str = "s3.fleet.test";

/// A request as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// `GET` (of an object, or a listing where `key` is empty), `PUT`, `DELETE`.
    pub method: Method,
    /// The `Host` it was sent to.
    pub host: String,
    /// The object, as in the bucket; empty for a listing.
    pub key: String,
    /// The query, undecoded.
    pub query: String,
    /// Whether the object may not exist yet (`If-None-Match: *`).
    pub create: bool,
    /// What kind of encryption was asked for.
    pub server_side_encryption: Option<String>,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this status and S3 error code; nothing is done.
    Refuse(u16, &'static str),
    /// Done, and then answered like that.
    DoThenRefuse(u16, &'static str),
    /// Nothing is done, and the connection closed.
    DropBefore,
    /// Done, and the connection closed without an answer.
    DropAfter,
    /// Done, and the body of the answer breaks off in the middle.
    Truncate,
    /// Answered only after this time.
    Delay(Duration),
    /// Nothing is done, but success is answered.
    Pretend,
    /// `If-None-Match` is not looked at.
    IgnoreCondition,
    /// Done; afterwards the store's clock is this much ahead of what it was.
    Advance(Duration),
}

/// Marks a request whose condition is not to be looked at.
#[derive(Clone)]
struct Unconditional;

type Matcher = Box<dyn Fn(&Seen) -> bool + Send>;

/// See the module.
#[derive(Debug)]
pub struct InProcessS3 {
    server: HttpServer,
    store: Store,
    root_file: Option<NamedTempFile>,
}

impl InProcessS3 {
    /// An empty bucket behind plain HTTP.
    pub fn start() -> Self {
        Self::serve(None, None)
    }

    /// The same behind TLS, with a certificate for 127.0.0.1 of a CA that nobody knows.
    pub fn start_tls() -> Self {
        let (config, root) = super::tls::server_config(&["127.0.0.1".to_owned()]);
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), root).expect("a file");
        Self::serve(Some(config), Some(file))
    }

    fn serve(tls: Option<Arc<ServerConfig>>, root_file: Option<NamedTempFile>) -> Self {
        let store = Store::default();
        let mut service = S3ServiceBuilder::new(store.clone());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_host(SingleDomain::new(DOMAIN).expect("a domain"));
        // Clients sign with the store's time, which `advance` moves away from the one that is checked.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        service.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let service = Front { store: store.clone(), s3: service.build() };
        Self { server: HttpServer::start(service, tls), store, root_file }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.root_file.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.server.address)
    }

    /// Its bucket, with the root that its certificate leads to where it speaks TLS.
    pub fn bucket(&self) -> Bucket {
        Bucket {
            endpoint: self.endpoint(),
            name: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            ca_file: self.root_file.as_ref().map(|file| file.path().to_owned()),
        }
    }

    /// Every request so far, those that were then dropped or refused included.
    pub fn requests(&self) -> Vec<Seen> {
        self.store.state().requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.store.state().requests.clear();
    }

    /// The bucket behind the clients' back.
    pub fn objects(&self) -> Objects<'_> {
        Objects(&self.store)
    }

    /// The next request that `matcher` picks suffers `fault`. Faults are tried in the order they were set; each happens once.
    pub fn fault(&self, fault: Fault, matcher: impl Fn(&Seen) -> bool + Send + 'static) {
        self.store.state().faults.push(Planned { fault, matcher: Box::new(matcher), once: true });
    }

    /// Every request that `matcher` picks suffers `fault`, until [`InProcessS3::clear_faults`].
    pub fn fault_always(&self, fault: Fault, matcher: impl Fn(&Seen) -> bool + Send + 'static) {
        self.store.state().faults.push(Planned { fault, matcher: Box::new(matcher), once: false });
    }

    /// From now on nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.store.state().faults.clear();
    }

    /// Puts the store's clock forward: its `Date`, and the times of objects stored from now on.
    pub fn advance(&self, by: Duration) {
        self.store.state().ahead += by;
    }

    /// A listing yields no more than this many keys per page; 1000 at first, as on AWS.
    pub fn set_page_size(&self, keys: usize) {
        self.store.state().page_size = keys;
    }
}

/// Raw access to the objects, by their whole keys.
#[derive(Debug)]
pub struct Objects<'a>(&'a Store);

impl Objects<'_> {
    /// An object's content.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.0.state().objects.get(key).map(|object| object.body.clone())
    }

    /// Stores an object.
    pub fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.0.state().store(key, body.into());
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        self.0.state().objects.remove(key);
    }

    /// Replaces an object's content by what `change` makes of it.
    pub fn change(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut body = self.get(key).unwrap_or_else(|| panic!("no object {key}")).to_vec();
        change(&mut body);
        self.put(key, body);
    }

    /// Flips one bit in the middle of an object.
    pub fn corrupt(&self, key: &str) {
        self.change(key, |body| {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        });
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        self.0.state().objects.keys().cloned().collect()
    }
}

struct Planned {
    fault: Fault,
    matcher: Matcher,
    once: bool,
}

#[derive(Clone)]
struct StoredObject {
    body: Bytes,
    last_modified: SystemTime,
}

struct State {
    objects: BTreeMap<String, StoredObject>,
    requests: Vec<Seen>,
    faults: Vec<Planned>,
    ahead: Duration,
    page_size: usize,
}

impl State {
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    fn store(&mut self, key: &str, body: Bytes) {
        let last_modified = self.now();
        self.objects.insert(key.to_owned(), StoredObject { body, last_modified });
    }

    fn take_fault(&mut self, seen: &Seen) -> Option<Fault> {
        let index = self.faults.iter().position(|planned| (planned.matcher)(seen))?;
        let planned = &self.faults[index];
        if planned.once { Some(self.faults.remove(index).fault) } else { Some(planned.fault.clone()) }
    }
}

#[derive(Clone)]
struct Store(Arc<Mutex<State>>);

impl Default for Store {
    fn default() -> Self {
        let state = State { objects: BTreeMap::new(), requests: Vec::new(), faults: Vec::new(), ahead: Duration::ZERO, page_size: 1000 };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.state().objects.keys()).finish()
    }
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn etag(body: &[u8]) -> ETag {
    ETag::Strong(hex(&digest::digest(&digest::SHA256, body).as_ref()[..16]))
}

fn check_bucket(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        check_bucket(&request.input.bucket)?;
        let object = self.state().objects.get(&request.input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(object.body.len()).ok(),
            e_tag: Some(etag(&object.body)),
            last_modified: Some(object.last_modified.into()),
            body: Some(StreamingBlob::from(Body::from(object.body))),
            ..GetObjectOutput::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        check_bucket(&request.input.bucket)?;
        let mut body = Vec::new();
        if let Some(mut stream) = request.input.body {
            while let Some(chunk) = stream.next().await {
                body.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
            }
        }
        let unconditional = request.extensions.get::<Unconditional>().is_some();
        let create = !unconditional && matches!(request.input.if_none_match, Some(ETagCondition::Any));
        // Checked and stored under one lock: what makes the create exclusive.
        let mut state = self.state();
        if create && state.objects.contains_key(&request.input.key) {
            return Err(s3_error!(PreconditionFailed));
        }
        let e_tag = Some(etag(&body));
        state.store(&request.input.key, body.into());
        Ok(S3Response::new(PutObjectOutput { e_tag, ..PutObjectOutput::default() }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        check_bucket(&request.input.bucket)?;
        self.state().objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let state = self.state();
        let mut matching = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = matching.by_ref().take(state.page_size).collect();
        let more = matching.next().is_some();
        let next_continuation_token = page.last().filter(|_| more).map(|(key, _)| (*key).clone());
        let contents = page.into_iter().map(|(key, object)| Object {
            key: Some(key.clone()),
            e_tag: Some(etag(&object.body)),
            size: i64::try_from(object.body.len()).ok(),
            last_modified: Some(object.last_modified.into()),
            ..Object::default()
        });
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(contents.collect()),
            is_truncated: Some(more),
            next_continuation_token,
            ..ListObjectsV2Output::default()
        }))
    }
}
