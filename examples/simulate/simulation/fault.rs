//! What can go wrong, and how often it has.

use std::fmt;

macro_rules! faults {
    ($($name:ident: $text:literal,)*) => {
        /// One kind of thing that goes wrong.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Fault { $($name,)* }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    RequestLost: "store: a request is lost",
    ReplyLost: "store: a request is carried out, its reply lost",
    SentTwice: "store: a request is sent twice, the second reply is heard",
    AppliedLate: "store: a write is given up by its caller, and carried out later",
    Throttled: "store: 503 SlowDown, or another 5xx",
    Slow: "store: a request takes up to 40 s",
    CutOff: "store: out of reach of one machine for hours",
    Killed: "process: killed before or after a call",
    KilledOnDisk: "process: killed between two changes of the disk",
    Frozen: "process: frozen for up to 15 minutes",
    Interrupted: "process: asked to end (SIGTERM)",
    StartedTwice: "process: started twice at once on one machine",
    DiskFull: "disk: full for a while",
    DiskLost: "disk: a node loses its installed files",
    ClockOff: "clock: off by up to a month",
    ClockRate: "clock: runs up to 10 % fast or slow",
    CaRefuses: "CA: refuses",
    CaAsksForPatience: "CA: refuses with Retry-After",
    CaStalls: "CA: takes up to 10 minutes",
    CaReplyLost: "CA: does what it was asked, its reply is lost",
    CaDown: "CA: does not answer",
    CaAlreadyReplaced: "CA: 409 alreadyReplaced",
    CaForgetsOrder: "CA: has forgotten an order",
    ServerBroken: "server: its configuration is broken for a night",
    ServerRefuses: "server: its test fails with the new certificate",
    ServerStuck: "server: reloads, and goes on serving the old leaf",
    ServerSlow: "server: takes seconds to serve the new leaf",
    ServerDown: "server: does not run for a while",
    ServerRestarts: "server: restarts at any moment",
    BucketLoses: "bucket: loses the newest bundle",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How often each fault has struck.
#[derive(Clone, Debug)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}

impl Counts {
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }
}
