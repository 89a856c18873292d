//! The fleet's account at the CA: shown, changed, given a new key, given up.

use super::*;

/// A CA with a front before it, and an account that the fleet keeps.
async fn world() -> (Pebble, CaFront, Arc<SharedAccount>) {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let accounts = Arc::new(SharedAccount::default());
    issue(&machine(&pebble, &front, &accounts), &["www.example.com"]).await.expect("a bundle");
    (pebble, front, accounts)
}

/// Another machine of the fleet: nothing but what is kept is shared.
fn machine(pebble: &Pebble, front: &CaFront, accounts: &Arc<SharedAccount>) -> AcmeIssuer {
    let accounts = Arc::<SharedAccount>::clone(accounts);
    AcmeIssuer::new(AcmeOptions { accounts, ..options(front.directory_url(), front.root_pem(), standalone(pebble)) }).expect("good options")
}

async fn thumbprint(machine: &AcmeIssuer) -> String {
    machine.account_view().await.expect("an answer").expect("an account").thumbprint
}

#[tokio::test]
async fn it_is_shown_and_told_the_configured_address() {
    let (pebble, front, accounts) = world().await;
    let shown = machine(&pebble, &front, &accounts).account_view().await.expect("an answer").expect("an account");
    assert_eq!((shown.status.as_str(), shown.contact.as_slice()), ("valid", &["mailto:ops@example.com".to_owned()][..]));
    assert!(shown.url.starts_with("https://") && shown.thumbprint.len() == 43, "{shown:?}");

    let moved = AcmeOptions {
        contact: Some("new@example.com".to_owned()),
        accounts: Arc::<SharedAccount>::clone(&accounts),
        ..options(front.directory_url(), front.root_pem(), standalone(&pebble))
    };
    AcmeIssuer::new(moved).expect("good options").update_account().await.expect("an answer");
    let shown = machine(&pebble, &front, &accounts).account_view().await.expect("an answer").expect("an account");
    assert_eq!(shown.contact, ["mailto:new@example.com"]);

    let none = machine(&pebble, &front, &Arc::default());
    assert_eq!(none.account_view().await.expect("an answer"), None);
    assert_eq!(none.roll_over().await.expect("an answer"), None);
    assert_eq!(front.count(Resource::NewAccount), 1, "no account is opened for it");
}

#[tokio::test]
async fn a_new_key_is_the_accounts_on_every_machine() {
    let (pebble, front, accounts) = world().await;
    let [one, other] = [0, 1].map(|_| machine(&pebble, &front, &accounts));
    let before = one.account_view().await.expect("an answer").expect("an account");
    let after = one.roll_over().await.expect("an answer").expect("an account");
    assert_eq!((after.url.as_str(), after.status.as_str()), (before.url.as_str(), "valid"));
    assert_ne!(after.thumbprint, before.thumbprint);
    assert_eq!(thumbprint(&other).await, after.thumbprint);
    issue(&other, &["other.example.com"]).await.expect("a bundle");
    // And again: the number goes on.
    other.roll_over().await.expect("an answer").expect("an account");
    assert_ne!(thumbprint(&one).await, after.thumbprint);
    assert_eq!(lock(&accounts.1).len(), 2);
}

/// Cut off before the CA has heard of the new key, or after it has and before that was kept.
#[tokio::test]
async fn a_change_of_key_that_was_cut_off_loses_nothing_and_is_finished() {
    for (fault, known) in [(Fault::Unheard, false), (Fault::Swallowed, true)] {
        let (pebble, front, accounts) = world().await;
        let before = thumbprint(&machine(&pebble, &front, &accounts)).await;
        let (url, kept) = (before.clone(), lock(&accounts.0).clone());
        front.inject(Resource::KeyChange, 9, fault);
        // Where the CA has changed the key, that is found out.
        assert_eq!(machine(&pebble, &front, &accounts).roll_over().await.is_ok(), known);
        front.clear_faults();
        // As if the machine had died before it could keep what it found out.
        *lock(&accounts.0) = kept;

        issue(&machine(&pebble, &front, &accounts), &["after.example.com"]).await.expect("a bundle");
        assert_eq!(thumbprint(&machine(&pebble, &front, &accounts)).await != url, known);
        machine(&pebble, &front, &accounts).roll_over().await.expect("an answer").expect("an account");
        assert_ne!(thumbprint(&machine(&pebble, &front, &accounts)).await, before);
        assert_eq!(lock(&accounts.1).len(), if known { 2 } else { 1 }, "what was begun is finished, not begun anew");
        issue(&machine(&pebble, &front, &accounts), &["later.example.com"]).await.expect("a bundle");
    }
}

#[tokio::test]
async fn changes_of_key_at_once_end_with_one_key_that_the_ca_knows() {
    let (pebble, front, accounts) = world().await;
    let machines: Vec<_> = (0..4).map(|_| machine(&pebble, &front, &accounts)).collect();
    let changed = futures_util::future::join_all(machines.iter().map(AcmeIssuer::roll_over)).await;
    assert!(changed.iter().any(Result::is_ok), "{changed:?}");
    issue(&machine(&pebble, &front, &accounts), &["after.example.com"]).await.expect("a bundle");
    assert_eq!(front.count(Resource::NewOrder), 2);
}

#[tokio::test]
async fn one_that_was_given_up_is_forgotten_and_the_next_order_opens_another() {
    let (pebble, front, accounts) = world().await;
    // Its earlier keys, which the CA still remembers, are not taken for the next one's.
    machine(&pebble, &front, &accounts).roll_over().await.expect("an answer");
    let gone = machine(&pebble, &front, &accounts).deactivate_account().await.expect("an answer").expect("an account");
    assert_eq!((gone.status.as_str(), lock(&accounts.0).is_none()), ("deactivated", true));
    issue(&machine(&pebble, &front, &accounts), &["after.example.com"]).await.expect("a bundle");
    let shown = machine(&pebble, &front, &accounts).account_view().await.expect("an answer").expect("an account");
    assert_ne!(shown.url, gone.url);
    machine(&pebble, &front, &accounts).roll_over().await.expect("an answer").expect("an account");
    issue(&machine(&pebble, &front, &accounts), &["later.example.com"]).await.expect("a bundle");
}

#[tokio::test]
async fn one_that_was_deactivated_elsewhere_is_told_of() {
    let (pebble, front, accounts) = world().await;
    let kept = lock(&accounts.0).clone();
    machine(&pebble, &front, &accounts).deactivate_account().await.expect("an answer");
    *lock(&accounts.0) = kept;
    let Err(IssueError::Refused { reason, hint, .. }) = issue(&machine(&pebble, &front, &accounts), &["after.example.com"]).await else {
        panic!("it was issued")
    };
    assert!(reason.contains("unauthorized") && hint.contains("accounts/pebble"), "{reason}: {hint}");
    // Giving it up again only forgets it.
    machine(&pebble, &front, &accounts).deactivate_account().await.expect("an answer").expect("an account");
    assert!(lock(&accounts.0).is_none());
}
