//! Deliberate bugs, each switched on alone: a checker that never finds anything proves nothing.
//!
//! Each is put where the code under test meets the world (a store that does not pass the condition on, a disk that loses the spool, a server
//! whose test is not run), and behaves as the code would with that mistake in it.
//!
//! Three mistakes that break other lockers are not here, because nothing comes of them: who does not look again after winning a lease
//! resumes the order of whoever held it before, who takes a lost reply for a refusal reads the object before acting on it, and what is
//! dropped from the spool is fetched again by the order, which is in the lease and on the disk.

macro_rules! bugs {
    ($($name:ident: $word:literal, $seeds:literal, $invariant:literal, $text:literal;)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Bug { $($name,)* }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name on the command line.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Within how many seeds it is found.
            pub fn within(self) -> u64 {
                match self { $(Self::$name => $seeds,)* }
            }

            /// Which invariant does not hold with it.
            pub fn invariant(self) -> &'static str {
                match self { $(Self::$name => $invariant,)* }
            }

            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    LeaseWithoutCondition: "lease-without-condition", 3000, "I4", "leases are written without a condition: two hold one at once";
    PublishByOverwrite: "publish-by-overwrite", 3000, "I3", "bundles are written without a condition: a generation changes";
    OwnClock: "own-clock", 3000, "I4", "ages and due times are judged by the node's clock";
    HeartbeatIgnored: "heartbeat-ignored", 3000, "I4", "a lease is not refreshed while its holder works";
    TwoObjects: "two-objects", 3000, "I3", "key and chain are two objects";
    RetryTimeIgnored: "retry-time-ignored", 3000, "I4", "the recorded time to try again is not obeyed";
    FailureNotRecorded: "failure-not-recorded", 3000, "I4", "a failure is not written down: every node asks the CA";
    NotTested: "not-tested", 3000, "I6", "the server's configuration is not tested";
    ReloadedBeforeTest: "reloaded-before-test", 3000, "I6", "the server is reloaded before its configuration is tested";
    OrderNotRecorded: "order-not-recorded", 3000, "I8", "the order is not written into the lease";
    ServedUnseen: "served-unseen", 3000, "report", "a certificate is reported as served without a look";
    FilesOneByOne: "files-one-by-one", 3000, "I1", "files are replaced one by one where a server reads them";
    StaleListing: "stale-listing", 3000, "I5", "yesterday's listing is used";
    NotSwitchedBack: "not-switched-back", 3000, "I6", "what a server refuses stays in place";
    SecretInTheClear: "secret-in-the-clear", 3000, "I7", "keys are written to the bucket in the clear";
}

impl Bug {
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.word() == word)
    }
}
