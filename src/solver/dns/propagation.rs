//! Waiting until every server of a zone shows a value. A CA asks any of them, and from several places of the world: one that lags
//! behind is enough for a refusal, which counts against the CA's limits.

use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep, timeout_at};

use super::question::{Asked, Unanswered, ask, texts};
use super::zone::{Place, Resolver, Server, shown};
use crate::solver::SolverError;
use crate::system::error_chain::in_full;
use crate::system::text::printable;

/// The first pause between two looks; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How many characters of somebody's record are shown.
const SHOWN_CHARS: usize = 100;

/// What one server had to say at the last look.
enum Sight {
    There,
    Not(Vec<String>),
    Unanswered(Unanswered),
}

/// Returns once every server of the zone shows `value` at `place`. At `patience` it is told which do not, and what they show instead.
pub(super) async fn wait(resolver: &Resolver, place: &Place, value: &str, patience: Duration) -> Result<(), SolverError> {
    let deadline = Instant::now() + patience;
    let servers = resolver.servers(&place.zone).await?;
    let mut sights = Vec::new();
    let looking = async {
        let mut pause = FIRST_PAUSE;
        loop {
            sights = join_all(servers.iter().map(|server| look(server, place, value))).await;
            if all_there(&sights) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    };
    match timeout_at(deadline, looking).await {
        Ok(()) => Ok(()),
        Err(_) => Err(behind(&servers, &sights, place, patience)),
    }
}

async fn look(server: &Server, place: &Place, value: &str) -> Sight {
    match ask(server.address, &place.record, RecordType::TXT, Asked::Authority).await {
        Err(error) => Sight::Unanswered(error),
        Ok(answer) => {
            let shown = texts(&answer, &place.record);
            if shown.iter().any(|text| text == value) { Sight::There } else { Sight::Not(shown) }
        }
    }
}

/// Addresses that nobody here can reach say nothing, as long as others do.
fn all_there(sights: &[Sight]) -> bool {
    let silent = |sight: &Sight| matches!(sight, Sight::Unanswered(Unanswered::NoRoute(_)));
    sights.iter().all(|sight| matches!(sight, Sight::There) || silent(sight)) && !sights.iter().all(silent)
}

fn behind(servers: &[Server], sights: &[Sight], place: &Place, patience: Duration) -> SolverError {
    let told = |(server, sight): (&Server, &Sight)| match sight {
        Sight::There => None,
        Sight::Not(texts) if texts.is_empty() => Some(format!("{server} shows no TXT record there")),
        Sight::Not(texts) => {
            let texts: String = texts.iter().map(|text| format!("{:?}", printable(text))).collect::<Vec<_>>().join(", ");
            Some(format!("{server} shows {} instead", texts.chars().take(SHOWN_CHARS).collect::<String>()))
        }
        Sight::Unanswered(error) => Some(format!("{}: {}", shown(&server.name), in_full(error))),
    };
    let told: Vec<_> = servers.iter().zip(sights).filter_map(told).collect();
    let told = if told.is_empty() { "no server answered in time".to_owned() } else { told.join("; ") };
    SolverError {
        what: format!(
            "the value at {} has not reached every server of the zone {} within {}: {told}",
            shown(&place.record),
            shown(&place.zone),
            humantime::format_duration(patience),
        ),
        hint: "see why these servers lag or are silent; where they only need longer, set propagation_timeout".to_owned(),
        source: None,
    }
}
