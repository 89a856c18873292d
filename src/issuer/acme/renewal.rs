//! Asking a CA when a certificate should be renewed (ARI, RFC 9773). The request is ours: the library takes an answer without `Retry-After`
//! for a failure, and hides what a refusal says.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::Request;
use instant_acme::{BodyWrapper, Error, HttpClient as _};
use serde::Deserialize;

use super::AcmeIssuer;
use super::refusal::{Step, clip, explain};
use crate::domain::certificate::Certificate;
use crate::domain::renewal_window::{RenewalWindow, Suggestion};
use crate::issuer::{IssueError, RenewalAdviser};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    renewal_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    suggested_window: Suggested,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct Suggested {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

#[async_trait]
impl RenewalAdviser for AcmeIssuer {
    async fn suggestion(&self, leaf: &Certificate) -> Result<Suggestion, IssueError> {
        let nothing = Suggestion { window: None, explanation: None, retry_after: None };
        // Asked once a run, also where it does not answer: a thousand sites would each wait for it.
        let base = self.renewal_info.get_or_init(|| self.find_renewal_info()).await;
        let base = base.as_ref().map_err(|reason| refused(reason.clone()))?;
        let (Some(base), Some(id)) = (base, leaf.renewal_id()) else { return Ok(nothing) };
        let url = format!("{}/{id}", base.trim_end_matches('/'));
        let body = self.fetch(&url).await.map_err(|error| explain(&self.options.name, Step::RenewalInfo, &error))?;
        let retry_after = self.client.take_retry_after(&url);
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| refused(format!("its renewal information is unreadable: {error}")))?;
        let Suggested { start, end } = answer.suggested_window;
        if end <= start {
            return Err(refused("it suggests a renewal window that ends before it starts".to_owned()));
        }
        let explanation = answer.explanation_url.map(|url| clip(url.as_bytes()));
        Ok(Suggestion { window: Some(RenewalWindow { start, end }), explanation, retry_after })
    }
}

impl AcmeIssuer {
    /// Where the CA tells; `None` where it does not.
    async fn find_renewal_info(&self) -> Result<Option<String>, String> {
        let body = self.fetch(&self.options.directory).await;
        let body = body.map_err(|error| explain(&self.options.name, Step::Directory, &error).to_string())?;
        let directory: Directory = serde_json::from_slice(&body).map_err(|error| format!("its directory is unreadable: {error}"))?;
        Ok(directory.renewal_info)
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, Error> {
        let body: BodyWrapper<Bytes> = BodyWrapper::default();
        let mut answer = self.client.request(Request::get(url).body(body)?).await?;
        answer.body.into_bytes().await.map_err(Error::Other)
    }
}

fn refused(reason: String) -> IssueError {
    IssueError::Refused { reason, hint: String::new(), retry_after: None }
}
