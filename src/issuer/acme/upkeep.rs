//! The fleet's account at the CA: looked at, changed, given a new key, given up (RFC 8555 sections 7.3.2 to 7.3.6).
//!
//! A new key is kept before the CA hears of it, under a number that only one key can ever have. Whatever is cut off after that, and
//! however many machines do it at once, the CA knows one of the keys that are kept, and [`AcmeIssuer::kept`] finds out which.

use instant_acme::{Error, Key};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::AcmeIssuer;
use super::account::ACCOUNT_BYTES;
use super::jws::{SigningKey, base64url};
use super::refusal::{Step, clip, explain, is_of_kind};
use super::signed::{Answer, Signer};
use crate::issuer::IssueError;

/// The account as the CA shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccountView {
    /// Its URL at the CA.
    pub url: String,
    /// `valid`, `deactivated` or `revoked`; empty where the CA does not say.
    pub status: String,
    /// Where the CA writes to, as URLs: `mailto:ops@example.com`.
    pub contact: Vec<String>,
    /// What the CA calls its key by (RFC 7638).
    pub thumbprint: String,
}

#[derive(Default, Deserialize)]
struct Shown {
    #[serde(default)]
    status: String,
    contact: Option<Vec<String>>,
}

/// An account with the key to sign for it.
pub(super) struct Member {
    pub(super) url: String,
    pub(super) key: SigningKey,
    rollover: u32,
}

impl Member {
    pub(super) fn signer(&self) -> Signer<'_> {
        Signer::Account { url: &self.url, key: &self.key }
    }
}

impl AcmeIssuer {
    /// The account as the CA shows it; `None` where the fleet keeps none.
    pub async fn account_view(&self) -> Result<Option<AccountView>, IssueError> {
        self.tell_about_account(Step::Lookup, None).await
    }

    /// Tells the CA the configured address, or that there is none any more. `None` where the fleet keeps no account.
    pub async fn update_account(&self) -> Result<Option<AccountView>, IssueError> {
        let contact: Vec<_> = self.options.contact.iter().map(|address| format!("mailto:{address}")).collect();
        self.tell_about_account(Step::Update, Some(json!({ "contact": contact }))).await
    }

    /// Gives the account up for good, at the CA and here. One that the CA does not let us use any more is only forgotten. `None` where
    /// the fleet keeps none.
    pub async fn deactivate_account(&self) -> Result<Option<AccountView>, IssueError> {
        let Some(member) = self.member().await? else { return Ok(None) };
        let payload = json!({ "status": "deactivated" });
        let view = match self.ask_as(&member, &member.url, Some(&payload)).await {
            Ok(answer) => member.view(&answer),
            Err(error) if is_of_kind(&error, "unauthorized") || is_of_kind(&error, "accountDoesNotExist") => {
                tracing::info!(issuer = self.options.name, %error, "the CA does not know the account any more");
                member.view(&Answer::nothing())
            }
            Err(error) => return Err(explain(&self.options.name, Step::Deactivate, &error)),
        };
        self.options.accounts.forget().await?;
        Ok(Some(view))
    }

    /// Gives the account a new key. One that an earlier run, or another machine, has begun with is finished. `None` where the fleet keeps
    /// no account.
    pub async fn roll_over(&self) -> Result<Option<AccountView>, IssueError> {
        let accounts = &self.options.accounts;
        let Some(member) = self.member().await? else { return Ok(None) };
        let (successor, kept) = loop {
            let kept = accounts.successors(member.rollover).await?;
            let mine = kept.iter().rev().find(|kept| self.read_kept(kept).is_ok_and(|kept| kept.id == member.url));
            let successor = if let Some(begun) = mine {
                begun.clone()
            } else {
                // Those of other accounts, given up since, have their numbers for ever.
                let number = member.rollover + 1 + u32::try_from(kept.len()).unwrap_or(u32::MAX);
                accounts.keep_successor(number, self.new_key_for(&member.url, number)?).await?
            };
            let read = self.read_kept(&successor)?;
            if read.id == member.url {
                break (self.read_member(&successor)?, successor);
            }
        };
        if let Err(error) = self.change_key(&member, &successor).await {
            // It may have been heard all the same, or another machine has done it: then the CA knows the new key.
            if !self.is_known(&kept).await? {
                return Err(explain(&self.options.name, Step::Rollover, &error));
            }
        }
        accounts.replace(kept).await?;
        let answer = self.ask_as(&successor, &successor.url, None).await;
        answer.map(|answer| Some(successor.view(&answer))).map_err(|error| explain(&self.options.name, Step::Lookup, &error))
    }

    async fn tell_about_account(&self, step: Step, payload: Option<Value>) -> Result<Option<AccountView>, IssueError> {
        let Some(member) = self.member().await? else { return Ok(None) };
        let answer = self.ask_as(&member, &member.url, payload.as_ref()).await;
        answer.map(|answer| Some(member.view(&answer))).map_err(|error| explain(&self.options.name, step, &error))
    }

    /// The account that the fleet keeps, ready to sign.
    pub(super) async fn member(&self) -> Result<Option<Member>, IssueError> {
        self.kept().await?.map(|kept| self.read_member(&kept)).transpose()
    }

    fn read_member(&self, kept: &[u8]) -> Result<Member, IssueError> {
        let read = self.read_kept(kept)?;
        Ok(Member { url: read.id, key: self.signing_key(&self.credentials(kept)?)?, rollover: read.rollover })
    }

    pub(super) async fn ask_as(&self, member: &Member, url: &str, payload: Option<&Value>) -> Result<Answer, Error> {
        let directory = self.fetch_directory().await?;
        self.post(&directory, member.signer(), url, payload).await
    }

    async fn change_key(&self, old: &Member, new: &Member) -> Result<(), Error> {
        let directory = self.fetch_directory().await?;
        let url = directory.key_change.as_deref().ok_or(Error::Unsupported("changes of the account's key"))?;
        // Both keys have to agree (RFC 8555 section 7.3.5).
        let inner = Signer::Key(&new.key).sign(url, &json!({ "account": old.url, "oldKey": old.key.public() }))?;
        self.post(&directory, old.signer(), url, Some(&inner)).await.map(drop)
    }

    /// The account with a new key, as it is kept.
    fn new_key_for(&self, url: &str, rollover: u32) -> Result<Zeroizing<Vec<u8>>, IssueError> {
        let (_, pkcs8) = Key::generate_pkcs8().map_err(|error| explain(&self.options.name, Step::Rollover, &error))?;
        let key = Zeroizing::new(base64url(pkcs8.secret_pkcs8_der()));
        let account = json!({ "id": url, "key_pkcs8": *key, "directory": self.options.directory, "rollover": rollover });
        let mut kept = Zeroizing::new(Vec::with_capacity(ACCOUNT_BYTES));
        serde_json::to_writer(&mut *kept, &account).map_err(|error| self.unusable(&format!("it cannot be written down: {error}")))?;
        Ok(kept)
    }
}

impl Member {
    fn view(&self, answer: &Answer) -> AccountView {
        let shown: Shown = serde_json::from_slice(&answer.body).unwrap_or_default();
        AccountView {
            url: clip(self.url.as_bytes()),
            status: clip(shown.status.as_bytes()),
            contact: shown.contact.unwrap_or_default().iter().map(|contact| clip(contact.as_bytes())).collect(),
            thumbprint: self.key.thumbprint(),
        }
    }
}
