//! Every fault once, in an order and with particulars drawn from a seed.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::{
    cluster::{Cluster, PARTITIONS, WITHIN, eventually},
    proxy::{Fault, Held, Stage},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// kill -9 of a member while a block of its is on its way; the block arrives after another has taken over.
    MemberKilled,
    /// SIGSTOP for longer than the session timeout, in the same moment; SIGCONT once another has taken over.
    MemberFrozen,
    /// kill -9 of the engine while it has a block, or half of it.
    EngineKilled,
    /// The engine's address refuses connections.
    Unreachable,
    /// kill -9 of a broker.
    BrokerKilled,
    Answers(Fault),
}

const STAGES: [Stage; 3] = [Stage::Sent, Stage::Half, Stage::Answered];

const ALL: [Trouble; 13] = [
    Trouble::MemberKilled,
    Trouble::MemberFrozen,
    Trouble::MemberFrozen,
    Trouble::EngineKilled,
    Trouble::Unreachable,
    Trouble::BrokerKilled,
    Trouble::Answers(Fault::AnswerLost),
    Trouble::Answers(Fault::ServerError),
    Trouble::Answers(Fault::AnswerCut),
    Trouble::Answers(Fault::LateException),
    Trouble::Answers(Fault::Refused(252)),
    Trouble::Answers(Fault::Refused(241)),
    Trouble::Answers(Fault::Refused(164)),
];

/// What a status page must say while it lasts.
fn reason(fault: Fault) -> &'static str {
    match fault {
        Fault::AnswerLost | Fault::AnswerCut => "ClickHouse cannot be reached",
        Fault::ServerError => "upstream went away",
        Fault::LateException => "code 395",
        Fault::Refused(164) => "lets this user only read (code 164)",
        Fault::Refused(241) => "is out of memory (code 241)",
        Fault::Refused(242) => "has the table read-only (code 242)",
        Fault::Refused(252) => "has too many parts (code 252)",
        Fault::Refused(code) => panic!("no reason for code {code}"),
    }
}

/// A cluster of two members under load, and the troubles it had.
pub(crate) struct Nemesis {
    cluster: Cluster,
    random: StdRng,
    /// How far the block of a member that goes has come: each once.
    stages: Vec<Stage>,
    had: BTreeMap<Trouble, u64>,
}

impl Nemesis {
    pub(crate) async fn run(seed: u64) {
        println!("seed {seed} (FOOTFALL_SEEDS={seed}..{})", seed + 1);
        let cluster = Cluster::start(2).await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut stages = STAGES.to_vec();
        stages.shuffle(&mut random);
        let mut nemesis = Self { cluster, random, stages, had: BTreeMap::new() };
        let load = nemesis.cluster.load(seed);
        nemesis.cluster.until_fresh().await;
        let mut troubles = ALL.to_vec();
        // A replica out of step, or a login without rights: one of them is enough.
        if nemesis.random.random() {
            troubles[12] = Trouble::Answers(Fault::Refused(242));
        }
        troubles.shuffle(&mut nemesis.random);
        for trouble in &troubles {
            nemesis.make(*trouble).await;
            // Sometimes the next comes before this one is over.
            let overlaps = nemesis.random.random_bool(0.3);
            let fresh = if overlaps { Duration::ZERO } else { nemesis.cluster.until_fresh().await };
            println!("seed {seed}: {trouble:?}, fresh events after {} ms", fresh.as_millis());
        }
        nemesis.all_happened(&troubles);
        nemesis.cluster.prove(load).await;
    }

    fn all_happened(&self, troubles: &[Trouble]) {
        for trouble in troubles {
            assert!(self.had.get(trouble).is_some_and(|times| *times > 0), "{trouble:?} never happened");
        }
    }

    async fn make(&mut self, trouble: Trouble) {
        let times = match trouble {
            Trouble::MemberKilled => self.take_down(Signal::KILL).await,
            Trouble::MemberFrozen => self.take_down(Signal::STOP).await,
            Trouble::EngineKilled => self.kill_engine().await,
            Trouble::Unreachable => self.refuse_connections().await,
            Trouble::BrokerKilled => self.kill_broker().await,
            Trouble::Answers(fault) => self.spoil_answers(fault).await,
        };
        *self.had.entry(trouble).or_default() += times;
    }

    /// The next block of a member, halted on its way.
    async fn halt(&mut self, member: usize, stage: Stage) -> Held {
        let held = self.cluster.proxy.hold(&self.cluster.members[member].name, stage);
        let held = timeout(WITHIN, held).await;
        held.unwrap_or_else(|_| panic!("no block in {WITHIN:?}\n{}", self.cluster.logs())).unwrap()
    }

    /// One of two members is gone or frozen; its block arrives when the other has long written it.
    async fn take_down(&mut self, how: Signal) -> u64 {
        self.cluster.until_shared().await;
        let victim = self.random.random_range(0..2);
        let stage = self.stages.pop().expect("a stage for each member that goes");
        let held = self.halt(victim, stage).await;
        let late = held.insert.clone();
        println!("{} goes, its block is {stage:?}", late.member);
        self.cluster.members[victim].process.signal(how);
        let (victims, others) = (&self.cluster.members[victim], &self.cluster.members[1 - victim]);
        self.cluster.until_owned_by(&[others]).await;
        // Whether it had arrived is what the other one must find out: what came before it is written, and it as well.
        let rows = format!(
            "SELECT count() FROM events WHERE _partition = {} AND _offset >= {} AND _offset < {}",
            late.partition, late.range.0, late.range.1
        );
        let doubled = rows.replace("count()", "toUInt64(count() - uniqExact(_offset, _index))");
        let stored = eventually("the other has written the block", async || {
            let partition = others.partitions().await.remove(&late.partition)?;
            (partition.stored >= late.range.1).then_some(())?;
            Some(self.cluster.number(&rows).await)
        })
        .await;
        assert!(stored > 0, "a block has rows");
        let taken = held.release().await.is_some_and(|status| status == 200);
        // The engine takes for done what it knows by its token. Of a block that is half there it knows nothing while
        // that is short; a long one is a running query, which the other member has stopped.
        assert!(taken || stage == Stage::Half, "{stage:?}");
        assert_eq!(self.cluster.number(&rows).await, stored, "what came late is there already");
        assert_eq!(self.cluster.number(&doubled).await, 0);
        if how == Signal::KILL {
            self.cluster.members[victim].process.kill();
            self.cluster.members[victim].start_again();
        } else {
            victims.process.signal(Signal::CONT);
        }
        self.cluster.until_shared().await;
        1
    }

    async fn kill_engine(&mut self) -> u64 {
        self.cluster.until_shared().await;
        let stage = STAGES[self.random.random_range(0..STAGES.len())];
        let member = self.random.random_range(0..2);
        let held = self.halt(member, stage).await;
        self.cluster.kill_engine();
        let answered = held.release().await;
        assert_eq!(
            answered.is_some(),
            stage == Stage::Answered,
            "what the engine did not get it cannot answer"
        );
        self.cluster.until_told("ClickHouse cannot be reached").await;
        self.cluster.start_engine_again().await;
        1
    }

    async fn refuse_connections(&mut self) -> u64 {
        self.cluster.until_shared().await;
        self.cluster.proxy.refuse();
        let told = self.cluster.until_told("Connection refused").await;
        // Nothing but lag: members keep their partitions, and the log takes events.
        eventually("lag grows and is told", async || {
            let mut lagging = 0;
            for member in &self.cluster.members {
                let partitions = member.partitions().await;
                lagging += partitions.values().filter(|known| known.end > known.stored).count();
            }
            (lagging == PARTITIONS as usize).then_some(())
        })
        .await;
        let mut failing = 0.0;
        for member in &self.cluster.members {
            failing += member.metric("footfall_aggregator_failing").await;
        }
        assert!(failing >= 1.0, "{told}");
        self.cluster.proxy.accept().await;
        1
    }

    async fn spoil_answers(&mut self, fault: Fault) -> u64 {
        self.cluster.proxy.misbehave(fault);
        self.cluster.until_told(reason(fault)).await;
        let felt = eventually("it happens again", async || {
            let felt = self.cluster.proxy.felt(fault);
            (felt >= 3).then_some(felt)
        })
        .await;
        self.cluster.proxy.behave();
        felt
    }

    async fn kill_broker(&mut self) -> u64 {
        let partition = self.random.random_range(0..PARTITIONS as i32);
        let lost = self.cluster.brokers.lose_leader(partition).await;
        self.cluster.until_fresh().await;
        lost.bring_back().await;
        1
    }
}
