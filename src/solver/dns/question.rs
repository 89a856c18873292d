//! One question to one DNS server. Nothing is remembered and nobody else is asked: who waits for a record to appear must not see an
//! answer of a minute ago.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one datagram is waited for. A lost one is sent again.
const DATAGRAM: Duration = Duration::from_secs(2);

/// How often a datagram is sent.
const SENDINGS: usize = 2;

/// How long an answer over TCP may take.
const CONNECTION: Duration = Duration::from_secs(5);

/// The longest answer over UDP without EDNS (RFC 1035 section 4.2.1); longer ones are told so, and asked for over TCP.
const LONGEST_DATAGRAM_BYTES: usize = 4096;

/// Who is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// A resolver, which finds the answer elsewhere.
    Resolver,
    /// A server of the zone itself.
    Authority,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Unanswered {
    /// This machine has no way to the address: mostly one of IPv6 on a machine without.
    #[error("{0} cannot be reached from this machine")]
    NoRoute(SocketAddr),
    /// Nothing came back.
    #[error("{0} does not answer")]
    Silent(SocketAddr),
    /// The system refused.
    #[error("cannot ask {server}")]
    System {
        /// Who was asked.
        server: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An answer that says nothing about the question.
    #[error("{server} refuses to answer ({code})")]
    Refused {
        /// Who was asked.
        server: SocketAddr,
        /// With which words.
        code: ResponseCode,
    },
    /// What came back is not DNS.
    #[error("{0} answers with something else than DNS")]
    Garbled(SocketAddr),
}

/// The records that a server has to say about `name`. A name that does not exist is an answer, too.
pub(super) async fn ask(server: SocketAddr, name: &Name, kind: RecordType, asked: Asked) -> Result<Message, Unanswered> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), kind));
    question.metadata.recursion_desired = asked == Asked::Resolver;
    let bytes = question.to_vec().map_err(|_| Unanswered::Garbled(server))?;
    let mut answer = by_datagram(server, &bytes, &question).await?;
    if answer.metadata.truncation {
        answer = timeout(CONNECTION, by_stream(server, &bytes, &question)).await.map_err(|_| Unanswered::Silent(server))??;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(Unanswered::Refused { server, code }),
    }
}

async fn by_datagram(server: SocketAddr, bytes: &[u8], question: &Message) -> Result<Message, Unanswered> {
    let failed = |error| unanswered(server, error);
    let here = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((here, 0)).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    let mut buffer = vec![0; LONGEST_DATAGRAM_BYTES];
    for _ in 0..SENDINGS {
        socket.send(bytes).await.map_err(failed)?;
        let answered = timeout(DATAGRAM, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                // Anything else is a late answer to an earlier sending, or a stranger's.
                if let Some(answer) = answer_to(question, &buffer[..length]) {
                    return Ok(answer);
                }
            }
        });
        if let Ok(answered) = answered.await {
            return answered.map_err(failed);
        }
    }
    Err(Unanswered::Silent(server))
}

async fn by_stream(server: SocketAddr, bytes: &[u8], question: &Message) -> Result<Message, Unanswered> {
    let failed = |error| unanswered(server, error);
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let length = u16::try_from(bytes.len()).map_err(|_| Unanswered::Garbled(server))?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await.map_err(failed)?;
    let mut answer = vec![0; stream.read_u16().await.map_err(failed)?.into()];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    answer_to(question, &answer).ok_or(Unanswered::Garbled(server))
}

fn answer_to(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    (answer.metadata.id == question.metadata.id && answer.queries == question.queries).then_some(answer)
}

fn unanswered(server: SocketAddr, source: io::Error) -> Unanswered {
    match source.kind() {
        // A closed port, and a network that is known not to lead there.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Unanswered::Silent(server),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => Unanswered::NoRoute(server),
        _ if source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => Unanswered::NoRoute(server),
        _ => Unanswered::System { server, source },
    }
}

/// The values of the TXT records at `name`, each with its strings joined.
pub(super) fn texts(answer: &Message, name: &Name) -> Vec<String> {
    let text = |record: &Record| match &record.data {
        RData::TXT(text) if record.name == *name => {
            Some(text.txt_data.iter().map(|piece| String::from_utf8_lossy(piece)).collect::<String>())
        }
        _ => None,
    };
    answer.answers.iter().filter_map(text).collect()
}
