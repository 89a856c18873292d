//! One order, from wherever it stands to the bundle.

use std::time::Duration;

use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType, Error, OrderStatus};

use super::answers::Answers;
use super::attempts::{Attempts, Pace};
use super::refusal::{Step, chain, clip, explain, hint, is_gone, is_of_kind, is_passing, kind_of, problem_text};
use super::{AcmeIssuer, has_another_profile, list, no_key, protests};
use crate::domain::bundle::Bundle;
use crate::domain::pem;
use crate::domain::private_key::PrivateKey;
use crate::issuer::{IssueError, Lease, Request, new_key};
use crate::solver::{Challenge, ChallengeKind};

/// The first pause before a look at an order that the CA works on.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// A CA that has not looked by then may not look at all (it may have validated the name before), or is slow: it is asked anyway.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How often an order is finalized: again only where the CA takes back that it is ready, or has nothing to show for it.
const FINALIZATIONS: u32 = 3;

/// The longest token that is accepted, in characters; CAs use 43 (RFC 8555 section 8.3 asks for 128 bits, 22 characters).
const LONGEST_TOKEN_CHARS: usize = 128;

/// One order being worked on.
pub(super) struct Work<'a> {
    pub(super) issuer: &'a AcmeIssuer,
    pub(super) request: &'a Request,
    pub(super) lease: &'a dyn Lease,
    pub(super) answers: &'a mut Answers,
    pub(super) order: instant_acme::Order,
    pub(super) key: PrivateKey,
}

/// Why an order did not lead to a bundle.
pub(super) enum Setback {
    /// This order cannot, but a fresh one may.
    Useless(IssueError),
    /// A fresh one would fail as well, or must not be placed now.
    Failed(IssueError),
}

impl Setback {
    pub(super) fn into_error(self) -> IssueError {
        match self {
            Self::Useless(error) | Self::Failed(error) => error,
        }
    }
}

impl<E: Into<IssueError>> From<E> for Setback {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A challenge to be answered, and where it stands in the order.
struct Chosen {
    authorization: usize,
    challenge: Challenge,
    /// The CA was told before that the answer is there.
    told: bool,
}

impl Work<'_> {
    /// Whether the order, one that was placed before, is for what is wanted now and can still come to something. (A valid one is judged
    /// by its certificate: CAs may have forgotten its authorizations.)
    pub(super) async fn is_for_request(&mut self) -> Result<bool, IssueError> {
        let state = self.order.state();
        match state.status {
            OrderStatus::Invalid => return Ok(false),
            OrderStatus::Valid => return Ok(true),
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
        }
        // Where none is wanted, the CA may have chosen one and say so.
        if has_another_profile(state, self.request) {
            return Ok(false);
        }
        let mut attempts = Attempts::default();
        let mut named = loop {
            match self.named().await {
                Ok(named) => break named,
                Err(error) => match attempts.again(error).await {
                    Ok(()) => {}
                    Err(error) if is_gone(&error) => return Ok(false),
                    Err(error) => return Err(self.refused(Step::Authorization, &error)),
                },
            }
        };
        let mut wanted: Vec<_> = self.request.identifiers.iter().map(ToString::to_string).collect();
        named.sort();
        wanted.sort();
        wanted.dedup();
        Ok(named == wanted)
    }

    async fn named(&mut self) -> Result<Vec<String>, Error> {
        let mut named = Vec::new();
        let mut identifiers = self.order.identifiers();
        while let Some(identifier) = identifiers.next().await {
            named.push(identifier?.to_string());
        }
        Ok(named)
    }

    /// Brings the order to its end.
    pub(super) async fn finish(&mut self) -> Result<Bundle, Setback> {
        let mut told = false;
        let mut finalizations = 0;
        let mut pace = Pace::new(FIRST_PAUSE);
        loop {
            match self.order.state().status {
                OrderStatus::Pending if !told => {
                    self.answer().await?;
                    told = true;
                    pace = Pace::new(FIRST_PAUSE);
                    self.look(Step::Validation).await?;
                }
                OrderStatus::Pending => self.wait(&mut pace, Step::Validation).await?,
                OrderStatus::Ready if finalizations == FINALIZATIONS => {
                    return Err(protests("it takes the signing request again and again, and nothing comes of it").into());
                }
                OrderStatus::Ready => {
                    finalizations += 1;
                    self.answers.take_away(self.lease).await;
                    self.finalize().await?;
                    pace = Pace::new(FIRST_PAUSE);
                }
                OrderStatus::Processing => self.wait(&mut pace, Step::Finalize).await?,
                OrderStatus::Valid => return self.download().await,
                // One that was placed before may have been spoilt long ago, by an answer that was not there at the time.
                OrderStatus::Invalid if finalizations == 0 => return Err(Setback::Useless(self.invalid(Step::Validation).await)),
                OrderStatus::Invalid => return Err(Setback::Failed(self.invalid(Step::Finalize).await)),
            }
        }
    }

    /// Puts all answers in place, tells the CA, and waits until it has probably looked.
    async fn answer(&mut self) -> Result<(), IssueError> {
        let chosen = self.choose().await?;
        if chosen.is_empty() {
            return Ok(());
        }
        let subjects: Vec<_> = chosen.iter().map(|chosen| chosen.challenge.identifier.clone()).collect();
        self.lease.progress(&format!("answering the {} challenge for {}", self.issuer.options.solver.kind(), list(&subjects)));
        let presented = self.answers.present(chosen.iter().map(|chosen| chosen.challenge.clone()).collect()).await;
        presented.map_err(|error| IssueError::Refused { reason: chain(&error), hint: error.hint, retry_after: None })?;
        for chosen in chosen.iter().filter(|chosen| !chosen.told) {
            self.tell(chosen.authorization).await?;
        }
        let looked = self.answers.looked_at();
        let _ = tokio::time::timeout(LONGEST_LOOK, looked).await;
        Ok(())
    }

    /// Fetches what is to be proven, and picks the challenge of the solver's kind from each. What is valid already is left out.
    async fn choose(&mut self) -> Result<Vec<Chosen>, IssueError> {
        let mut attempts = Attempts::default();
        let mut chosen = loop {
            match self.choose_once().await {
                Ok(chosen) => break chosen?,
                Err(error) => {
                    attempts.again(error).await.map_err(|error| self.refused(Step::Authorization, &error))?;
                }
            }
        };
        let count = chosen.len();
        for (index, chosen) in chosen.iter_mut().enumerate() {
            chosen.challenge.remaining = count - 1 - index;
        }
        Ok(chosen)
    }

    async fn choose_once(&mut self) -> Result<Result<Vec<Chosen>, IssueError>, Error> {
        let kind = self.issuer.options.solver.kind();
        let mut chosen = Vec::new();
        let mut index = 0;
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let number = index;
            index += 1;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let subject = authorization.identifier().to_string();
            let offered: Vec<_> = authorization.challenges.iter().map(|challenge| type_name(&challenge.r#type).to_owned()).collect();
            let Some(identifier) = self.request.identifiers.iter().find(|wanted| wanted.to_string() == subject) else {
                return Ok(Err(protests(&format!("it asks for proof of {subject:?}, which is not wanted"))));
            };
            let Some(handle) = authorization.challenge(acme_type(kind)) else {
                return Ok(Err(self.issuer.not_offered(identifier, &offered)));
            };
            if !is_token(&handle.token) {
                return Ok(Err(protests(&format!("its token for {subject} is not base64url: {:?}", clip(handle.token.as_bytes())))));
            }
            let key_authorization = handle.key_authorization();
            let challenge = Challenge {
                identifier: identifier.clone(),
                token: handle.token.clone(),
                key_authorization: key_authorization.as_str().to_owned(),
                dns_value: key_authorization.dns_value(),
                remaining: 0,
                all: self.request.identifiers.clone(),
            };
            chosen.push(Chosen { authorization: number, challenge, told: handle.status != ChallengeStatus::Pending });
        }
        Ok(Ok(chosen))
    }

    /// Tells the CA that the answer of one authorization is in place.
    async fn tell(&mut self, authorization: usize) -> Result<(), IssueError> {
        let mut attempts = Attempts::default();
        let mut unheard = false;
        loop {
            let Err(error) = self.tell_once(authorization).await else { return Ok(()) };
            // The CA has its verdict already, or had heard it the first time: the order says what came of it.
            let verdict = matches!(&error, Error::Api(problem) if kind_of(problem) != "badNonce");
            if verdict || (unheard && is_gone(&error)) {
                return Ok(());
            }
            unheard |= is_passing(&error);
            attempts.again(error).await.map_err(|error| self.refused(Step::Validation, &error))?;
        }
    }

    async fn tell_once(&mut self, index: usize) -> Result<(), Error> {
        let kind = acme_type(self.issuer.options.solver.kind());
        let mut authorizations = self.order.authorizations();
        let mut number = 0;
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if number == index
                && let Some(mut challenge) = authorization.challenge(kind.clone())
            {
                return challenge.set_ready().await;
            }
            number += 1;
        }
        Ok(())
    }

    async fn finalize(&mut self) -> Result<(), IssueError> {
        self.lease.progress("having the certificate signed");
        let request = new_key::signing_request(&self.key, &self.request.identifiers).map_err(|error| no_key(&error))?;
        let mut attempts = Attempts::default();
        loop {
            self.lease.confirm().await?;
            let Err(error) = self.order.finalize_csr(&request).await else { return Ok(()) };
            let not_ready = is_of_kind(&error, "orderNotReady");
            // Whether the CA has heard it is unknown: the order tells.
            if not_ready || is_passing(&error) {
                self.look(Step::Finalize).await?;
                if not_ready || self.order.state().status != OrderStatus::Ready {
                    return Ok(());
                }
            }
            attempts.again(error).await.map_err(|error| self.refused(Step::Finalize, &error))?;
        }
    }

    async fn wait(&mut self, pace: &mut Pace, step: Step) -> Result<(), IssueError> {
        let asked = self.issuer.client.take_retry_after(self.order.url());
        let finalized = self.issuer.client.take_retry_after(&self.order.state().finalize.clone());
        pace.wait(asked.max(finalized)).await.map_err(|end| IssueError::Refused {
            reason: format!("could not {step}: {end}"),
            hint: "the order stays open: the next run takes it up again".to_owned(),
            retry_after: end.retry_after,
        })?;
        self.look(step).await
    }

    /// Asks for the order's state.
    async fn look(&mut self, step: Step) -> Result<(), IssueError> {
        let mut attempts = Attempts::default();
        loop {
            let Err(error) = self.order.refresh().await else { return Ok(()) };
            attempts.again(error).await.map_err(|error| self.refused(step, &error))?;
        }
    }

    async fn download(&mut self) -> Result<Bundle, Setback> {
        let mut attempts = Attempts::default();
        let text = loop {
            match self.order.certificate().await {
                Ok(text) => break text.unwrap_or_default(),
                Err(error) => match attempts.again(error).await {
                    Ok(()) => {}
                    Err(error) if is_gone(&error) => return Err(Setback::Useless(self.refused(Step::Download, &error))),
                    Err(error) => return Err(self.refused(Step::Download, &error).into()),
                },
            }
        };
        let bundle = self.bundle(&text).map_err(|why| Setback::Useless(protests(&format!("what it issued is not usable: {why}"))))?;
        Ok(self.best_chain(bundle).await)
    }

    pub(super) fn bundle(&self, text: &str) -> Result<Bundle, String> {
        let blocks = pem::blocks(text).map_err(|error| error.to_string())?;
        let chain: Vec<_> = blocks.iter().filter(|block| block.label == "CERTIFICATE").map(|block| &**block.der).collect();
        let bundle = Bundle::new(&chain, self.key.clone()).map_err(|error| super::refusal::chain(&error))?;
        let missing = bundle.leaf().missing(&self.request.identifiers);
        if missing.is_empty() { Ok(bundle) } else { Err(format!("it does not cover {}", list(&missing))) }
    }

    /// What the CA has to say about an order that it has given up: it is written into the challenges (RFC 8555 section 7.1.6).
    async fn invalid(&mut self, step: Step) -> IssueError {
        let mut problems = Vec::new();
        let mut kinds = Vec::new();
        if let Some(problem) = &self.order.state().error {
            problems.push(problem_text("the order", problem));
            kinds.push(kind_of(problem).to_owned());
        }
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            // Fetched here: the state of the order, which said that it is invalid, came without any authorization's.
            let Ok(authorization) = authorization else { continue };
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let subject = authorization.identifier().to_string();
            for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
                problems.push(problem_text(&subject, problem));
                kinds.push(kind_of(problem).to_owned());
            }
        }
        let why = if problems.is_empty() { "the CA has given the order up, and does not say why".to_owned() } else { problems.join("; ") };
        let kind = kinds.last().cloned().unwrap_or_default();
        IssueError::Refused {
            reason: format!("could not {step}: {why}"),
            hint: hint(step, &kind, http::StatusCode::OK).replace("<issuer>", &self.issuer.options.name),
            retry_after: None,
        }
    }

    fn refused(&self, step: Step, error: &Error) -> IssueError {
        explain(&self.issuer.options.name, step, error)
    }
}

/// Whether it is base64url and nothing else (RFC 8555 section 8.3): a token becomes a part of paths and of environments.
fn is_token(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    plain && !text.is_empty() && text.len() <= LONGEST_TOKEN_CHARS
}

fn acme_type(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Dns01 => ChallengeType::Dns01,
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn type_name(challenge: &ChallengeType) -> &str {
    match challenge {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::DeviceAttest01 => "device-attest-01",
        ChallengeType::Unknown(name) => name,
        _ => "another",
    }
}
