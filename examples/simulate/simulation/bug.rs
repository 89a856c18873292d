//! Deliberate bugs, each switched on alone: a checker that never finds anything proves nothing.
//!
//! Each is put where the code under test meets the world (a store that does not pass the condition on, a disk that loses the spool, a server
//! whose test is not run), and behaves exactly as the code would with that mistake in it.

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

            /// Within how many seeds it is found; 0 where it is found among the interleavings.
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
    LeaseWithoutCondition: "lease-without-condition", 200, "I4", "leases are written without a condition: two hold one at once";
    PublishByOverwrite: "publish-by-overwrite", 200, "I3", "bundles are written without a condition: a generation changes";
    NoLookAgain: "no-look-again", 0, "I4", "who wins the lease does not look for the generation again";
    OwnClock: "own-clock", 400, "I4", "ages and due times are judged by the node's clock";
    HeartbeatIgnored: "heartbeat-ignored", 1000, "I4", "a lease is not refreshed while its holder works";
    TwoObjects: "two-objects", 200, "I3", "key and chain are two objects";
    RetryTimeIgnored: "retry-time-ignored", 1000, "I4", "the recorded time to try again is not obeyed";
    FailureNotRecorded: "failure-not-recorded", 1000, "I4", "a failure is not written down: every node asks the CA";
    NotTested: "not-tested", 200, "I6", "the server's configuration is not tested";
    ReloadedBeforeTest: "reloaded-before-test", 200, "I6", "the server is reloaded before its configuration is tested";
    OrderNotRecorded: "order-not-recorded", 1000, "I8", "the order is not written into the lease";
    ServedUnseen: "served-unseen", 400, "report", "a certificate is reported as served without a look";
    FilesOneByOne: "files-one-by-one", 400, "I1", "files are replaced one by one where a server reads them";
    StaleListing: "stale-listing", 400, "I5", "yesterday's listing is used";
    NotSwitchedBack: "not-switched-back", 1000, "I6", "what a server refuses stays in place";
    SecretInTheClear: "secret-in-the-clear", 400, "I7", "keys are written to the bucket in the clear";
}

impl Bug {
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.word() == word)
    }
}
