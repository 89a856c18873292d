//! What solvers have in common that listen at a port of their own, only while there is something to answer.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{ChallengeKind, SolverError};
use crate::system::listener;

/// CAs look from several places at once: when no further look follows the last for this long, they have probably all been.
const QUIET: Duration = Duration::from_millis(15);

/// Listens while there are answers. One listener serves all challenges of the process; it is closed after the last is taken back, and
/// also when this is dropped.
#[derive(Debug)]
pub(super) struct Listening<T> {
    listen: SocketAddr,
    kind: ChallengeKind,
    answers: Arc<Answers<T>>,
    listener: tokio::sync::Mutex<Option<Listener>>,
}

/// What is being answered, by token.
#[derive(Debug)]
pub(super) struct Answers<T>(Mutex<HashMap<String, Answer<T>>>);

#[derive(Debug)]
struct Answer<T> {
    value: T,
    looks: watch::Sender<u64>,
}

impl<T> Answers<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answer<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a token.
    pub(super) fn get(&self, token: &str) -> Option<T>
    where
        T: Clone,
    {
        self.lock().get(token).map(|answer| answer.value.clone())
    }

    /// The first answer that is wanted, with its token.
    pub(super) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<(String, T)>
    where
        T: Clone,
    {
        let answers = self.lock();
        answers.iter().find(|(_, answer)| wanted(&answer.value)).map(|(token, answer)| (token.clone(), answer.value.clone()))
    }

    /// Notes that somebody has seen the answer to a token.
    pub(super) fn looked_at(&self, token: &str) {
        if let Some(answer) = self.lock().get(token) {
            answer.looks.send_modify(|count| *count += 1);
        }
    }
}

/// The accepting task; its connections end with it.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Listening<T> {
    /// Will listen on `listen`. The unspecified IPv6 address serves IPv4 too, and becomes the IPv4 one on a machine without IPv6.
    pub(super) fn new(listen: SocketAddr, kind: ChallengeKind) -> Self {
        Self { listen, kind, answers: Arc::new(Answers(Mutex::default())), listener: tokio::sync::Mutex::default() }
    }

    pub(super) fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Answers a token from now on; whoever connects is served by `serve`.
    pub(super) async fn begin<F, S>(&self, token: &str, value: T, serve: F) -> Result<(), SolverError>
    where
        F: Fn(TcpStream, Arc<Answers<T>>) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let mut listener = self.listener.lock().await;
        if listener.is_none() {
            let bound = self.bind().await?;
            *listener = Some(Listener(tokio::spawn(accept(bound, Arc::clone(&self.answers), serve))));
        }
        self.answers.lock().insert(token.to_owned(), Answer { value, looks: watch::Sender::new(0) });
        Ok(())
    }

    /// Answers it no more. The port is free when this was the last.
    pub(super) async fn end(&self, token: &str) {
        let mut listener = self.listener.lock().await;
        let none_left = {
            let mut answers = self.answers.lock();
            answers.remove(token);
            answers.is_empty()
        };
        if none_left && let Some(mut last) = listener.take() {
            last.0.abort();
            // Only then is the port free again.
            let _ = (&mut last.0).await;
        }
    }

    /// Resolves when the answer to a token was looked at, and nobody follows.
    pub(super) async fn looked_at(&self, token: &str) {
        let looks = self.answers.lock().get(token).map(|answer| answer.looks.subscribe());
        let Some(mut looks) = looks else { return std::future::pending().await };
        if looks.wait_for(|count| *count > 0).await.is_ok() {
            while let Ok(Ok(())) = timeout(QUIET, looks.changed()).await {}
        }
    }

    /// Takes the port.
    pub(super) async fn bind(&self) -> Result<TcpListener, SolverError> {
        let bound = match TcpListener::bind(self.listen).await {
            Err(error) if self.listen.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.listen.port())).await
            }
            bound => bound,
        };
        bound.map_err(|error| self.not_bound(error))
    }

    fn not_bound(&self, error: io::Error) -> SolverError {
        let port = self.listen.port();
        let mut what = format!("cannot listen on port {port} ({}) for {}", self.listen, self.kind);
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let holder = listener::of_port(port);
                what += &holder.map(|holder| format!(", where {holder} listens")).unwrap_or_default();
                let other = match self.kind {
                    ChallengeKind::Http01 => "use a solver with mode = \"webroot\" or \"stateless\"",
                    ChallengeKind::TlsAlpn01 | ChallengeKind::Dns01 => "use one of kind http-01 or dns-01",
                };
                format!("find out which program listens there with: ss -ltnp 'sport = :{port}'; while it is the web server, {other}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("port {port} needs root, or: setcap cap_net_bind_service=+ep on the certfleet binary")
            }
            io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this machine", self.listen.ip()),
            _ => "see the cause".to_owned(),
        };
        SolverError { what, hint, source: Some(Box::new(error)) }
    }
}

/// Whether the machine has no IPv6: the protocol is switched off, or there is no address of it.
fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) || error.kind() == io::ErrorKind::AddrNotAvailable
}

async fn accept<T, F, S>(listener: TcpListener, answers: Arc<Answers<T>>, serve: F)
where
    F: Fn(TcpStream, Arc<Answers<T>>) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&answers)))),
                // Out of descriptors, most likely: some are given back as connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
