//! What can stand between a machine and its store: a proxy on TCP that delays, breaks, repeats, forges and cuts what passes through it.
//!
//! It serves one request per connection. Which fault a request meets is drawn from a seed, by the request's number; how many meet one is
//! bounded.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::bucket::Bucket;

/// The environment variable that repeats a run: its seed, as it was printed.
pub const SEED: &str = "CERTFLEET_PROXY_SEED";

/// Of a hundred requests, how many meet a fault while there are any left.
const FAULTS_OF_A_HUNDRED: u64 = 35;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It takes a while.
    Latency,
    /// The connection is reset before the store has heard of it.
    ResetBefore,
    /// The store hears half of it; both connections are reset.
    ResetInRequest,
    /// The store does it; the connection is reset without an answer.
    Swallowed,
    /// The store does it; the connection is reset in the middle of the answer.
    ResetInReply,
    /// The store does it; the answer ends in its middle, and says that it is longer.
    Truncated,
    /// The store does it; the answer ends in its middle, and its end looks like one. Only for listings: a cut object is [`Fault::Truncated`].
    Cut,
    /// 500, and nothing is done.
    InternalError,
    /// 503, and nothing is done.
    SlowDown,
    /// 500, and it is done.
    DoneThenInternalError,
    /// Sent to the store twice; the second answer counts.
    Twice,
    /// Some gateway's page with status 200, and nothing is done.
    Garbage,
    /// Some gateway's page with status 200, and it is done.
    DoneThenGarbage,
    /// The `Date` of the answer is that of two hours ago.
    StaleDate,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Latency,
        Self::ResetBefore,
        Self::ResetInRequest,
        Self::Swallowed,
        Self::ResetInReply,
        Self::Truncated,
        Self::Cut,
        Self::InternalError,
        Self::SlowDown,
        Self::DoneThenInternalError,
        Self::Twice,
        Self::Garbage,
        Self::DoneThenGarbage,
        Self::StaleDate,
    ];

    /// Whether whoever is told this can take it for the truth: such a fault may cost an issuance, others may not.
    pub fn is_a_lie(self) -> bool {
        matches!(self, Self::Garbage | Self::DoneThenGarbage | Self::StaleDate)
    }
}

/// What a request met.
#[derive(Clone, Debug)]
pub struct Met {
    /// Its first line.
    request: String,
    pub fault: Fault,
}

/// A running proxy before one server. Dropping it ends every connection.
pub struct HostileProxy {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Every body that a request was truly answered with.
type Answers = Vec<(String, Vec<u8>)>;

struct State {
    upstream: String,
    seed: u64,
    plan: Mutex<Plan>,
    met: Mutex<Vec<Met>>,
    objects: Mutex<Answers>,
}

struct Plan {
    number: u64,
    left: usize,
    always: Option<Fault>,
}

impl HostileProxy {
    /// Starts one before the server of `bucket`, which breaks nothing yet.
    pub fn start(bucket: &Bucket, seed: u64) -> Self {
        let upstream = bucket.endpoint.strip_prefix("http://").expect("a server without TLS").to_owned();
        let plan = Mutex::new(Plan { number: 0, left: 0, always: None });
        let state = Arc::new(State { upstream, seed, plan, met: Mutex::default(), objects: Mutex::default() });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The bucket as it is reached through here.
    pub fn bucket(&self, bucket: &Bucket) -> Bucket {
        Bucket { endpoint: format!("http://{}", self.address), ..bucket.clone() }
    }

    /// Breaks this many requests from now on, and then none.
    pub fn break_some(&self, most: usize) {
        lock(&self.state.plan).left = most;
    }

    /// Has every request meet one fault.
    pub fn break_all(&self, fault: Fault) {
        lock(&self.state.plan).always = Some(fault);
    }

    /// Breaks nothing more.
    pub fn behave(&self) {
        let mut plan = lock(&self.state.plan);
        (plan.left, plan.always) = (0, None);
    }

    /// What was broken so far.
    pub fn met(&self) -> Vec<Met> {
        lock(&self.state.met).clone()
    }

    /// The objects that the store has truly sent: path and content.
    pub fn objects(&self) -> Answers {
        lock(&self.state.objects).clone()
    }
}

impl Drop for HostileProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for HostileProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, broken:", self.state.seed)?;
        self.met().iter().try_for_each(|met| writeln!(f, "{:?}: {}", met.fault, met.request))
    }
}

/// The seed of this run: the one of [`SEED`], else a new one. It is printed.
pub fn seed(of: &str) -> u64 {
    let given = std::env::var(SEED).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{SEED} is not a number: {text}")));
    let fresh = || u64::from_str_radix(&certfleet::system::random::name()[..12], 16).expect("digits");
    let seed = given.unwrap_or_else(fresh);
    println!("{of}: {SEED}={seed}");
    seed
}

/// A number that depends on nothing but these two (splitmix64).
fn drawn(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl State {
    fn fault(&self, request: &Message) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        plan.number += 1;
        let draw = drawn(self.seed, plan.number);
        let random = (plan.left > 0 && draw % 100 < FAULTS_OF_A_HUNDRED).then(|| {
            let choice = usize::try_from(draw / 100 % Fault::ALL.len() as u64).expect("an index");
            Fault::ALL[choice]
        });
        // An object without its end is told by its length; a listing can only be told by its last words.
        let fits = |fault: &Fault| *fault != Fault::Cut || request.is_listing();
        let fault = plan.always.or(random).filter(fits)?;
        plan.left = plan.left.saturating_sub(1);
        lock(&self.met).push(Met { request: request.first_line(), fault });
        Some(fault)
    }

    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let Some(request) = read_message(&mut client).await? else { return Ok(()) };
        let Some(fault) = self.fault(&request) else {
            return client.write_all(&self.forward(&request).await?.bytes()).await;
        };
        match fault {
            Fault::Latency => {
                tokio::time::sleep(Duration::from_millis(400)).await;
                client.write_all(&self.forward(&request).await?.bytes()).await
            }
            Fault::ResetBefore => client.set_zero_linger(),
            Fault::ResetInRequest => {
                let mut upstream = TcpStream::connect(&self.upstream).await?;
                let whole = request.bytes();
                upstream.write_all(&whole[..whole.len() - request.body.len().div_ceil(2).max(2)]).await?;
                upstream.set_zero_linger()?;
                client.set_zero_linger()
            }
            Fault::Swallowed => {
                self.forward(&request).await?;
                client.set_zero_linger()
            }
            Fault::ResetInReply => {
                let reply = self.forward(&request).await?;
                client.write_all(&reply.half()).await?;
                client.flush().await?;
                client.set_zero_linger()
            }
            Fault::Truncated => client.write_all(&self.forward(&request).await?.half()).await,
            Fault::Cut => client.write_all(&self.forward(&request).await?.cut_between_objects().bytes()).await,
            Fault::InternalError => client.write_all(&refusal("500 Internal Server Error", "InternalError")).await,
            Fault::SlowDown => client.write_all(&refusal("503 Slow Down", "SlowDown")).await,
            Fault::DoneThenInternalError => {
                self.forward(&request).await?;
                client.write_all(&refusal("500 Internal Server Error", "InternalError")).await
            }
            Fault::Twice => {
                self.forward(&request).await?;
                client.write_all(&self.forward(&request).await?.bytes()).await
            }
            Fault::Garbage => client.write_all(&page()).await,
            Fault::DoneThenGarbage => {
                self.forward(&request).await?;
                client.write_all(&page()).await
            }
            Fault::StaleDate => {
                let reply = self.forward(&request).await?;
                let then = chrono::Utc::now() - chrono::TimeDelta::hours(2);
                client.write_all(&reply.with("date", &then.format("%a, %d %b %Y %H:%M:%S GMT").to_string()).bytes()).await
            }
        }
    }

    /// Has the store do it, and yields its answer with its length.
    async fn forward(&self, request: &Message) -> std::io::Result<Message> {
        let mut upstream = TcpStream::connect(&self.upstream).await?;
        upstream.write_all(&request.with("connection", "close").bytes()).await?;
        let reply = read_message(&mut upstream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if request.is_get_of_an_object() && reply.first_line().contains(" 200 ") {
            lock(&self.objects).push((request.path(), reply.body.clone()));
        }
        Ok(reply.with("connection", "close").with("content-length", &reply.body.len().to_string()))
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let _ = client.set_nodelay(true);
        let state = Arc::clone(&state);
        // Connections that break are what this is for.
        tokio::spawn(async move { state.serve(client).await.ok() });
    }
}

/// An HTTP/1.1 request or answer, whole.
#[derive(Clone)]
struct Message {
    /// The first line and the headers.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Message {
    fn first_line(&self) -> String {
        self.head.first().cloned().unwrap_or_default()
    }

    fn path(&self) -> String {
        self.first_line().split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned()
    }

    fn is_listing(&self) -> bool {
        self.first_line().starts_with("GET ") && self.first_line().contains("list-type=2")
    }

    fn is_get_of_an_object(&self) -> bool {
        self.first_line().starts_with("GET ") && !self.is_listing()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().skip(1).filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The same with one header set.
    fn with(&self, name: &str, value: &str) -> Self {
        let mut message = self.clone();
        let other = |line: &String| line.split_once(':').is_none_or(|(found, _)| !found.eq_ignore_ascii_case(name));
        message.head.retain(other);
        message.head.push(format!("{name}: {value}"));
        message
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.head.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Everything but the second half of the body, or of all where there is none.
    fn half(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        let gone = if self.body.is_empty() { bytes.len() / 2 } else { self.body.len().div_ceil(2) };
        bytes.truncate(bytes.len() - gone);
        bytes
    }

    /// A listing that ends after half of its objects, without its last words, and says that this is its length.
    fn cut_between_objects(&self) -> Self {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let ends: Vec<_> = text.match_indices("</Contents>").map(|(at, end)| at + end.len()).collect();
        let kept = if ends.is_empty() { text.len() / 2 } else { ends[(ends.len() - 1) / 2] };
        let cut = Self { body: self.body[..kept.min(self.body.len())].to_vec(), ..self.clone() };
        cut.with("content-length", &cut.body.len().to_string())
    }
}

/// The next message on a connection; `None` where it ends before one begins.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_ends]).lines().map(str::to_owned).collect();
    let mut message = Message { head, body: bytes.split_off(head_ends + 4) };
    let is_request = !message.first_line().starts_with("HTTP/");
    let chunked = message.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length: Option<usize> = message.header("content-length").and_then(|value| value.parse().ok());
    match length {
        None if is_request => {}
        // These have none (RFC 9110 section 15.4.5 and 15.3.5).
        _ if message.first_line().contains(" 204 ") || message.first_line().contains(" 304 ") => {}
        Some(length) => {
            while message.body.len() < length {
                if stream.read_buf(&mut message.body).await? == 0 {
                    return Ok(None);
                }
            }
        }
        None => {
            stream.read_to_end(&mut message.body).await?;
            if chunked {
                message.body = without_chunks(&message.body);
                message.head.retain(|line| !line.to_ascii_lowercase().starts_with("transfer-encoding:"));
            }
        }
    }
    Ok(Some(message))
}

/// The content of a chunked body (RFC 9112 section 7.1).
fn without_chunks(mut chunks: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(String::from_utf8_lossy(&chunks[..end]).trim(), 16).expect("a length");
        let from = end + 2;
        content.extend_from_slice(&chunks[from..from + length]);
        chunks = &chunks[(from + length + 2).min(chunks.len())..];
    }
    content
}

fn refusal(status: &str, code: &str) -> Vec<u8> {
    let body =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>planned by the test</Message></Error>");
    answer(status, "application/xml", &body)
}

fn page() -> Vec<u8> {
    answer("200 OK", "text/html", "<!DOCTYPE html><html><head><title>Welcome</title></head><body>Please accept our terms.</body></html>")
}

fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let now = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ndate: {now}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
