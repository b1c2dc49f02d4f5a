//! The group's consumer on a thread of its own. librdkafka's callbacks and messages become [`Event`]s and inbox
//! entries; what partitions ask for comes as commands, so commits and rebalances never overlap.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use footfall_schemas::{connect::KafkaSettings, topics};
use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    driver::WallClock,
    error::{Error, LogError},
    outlet::client,
    ports::{Committed, Input, Log, RawRecord},
    status::Status,
    trace,
};

/// The consumer group.
pub const GROUP: &str = "footfall-aggregator";
/// How long a command may wait behind the wait for messages.
const POLL: Duration = Duration::from_millis(5);
/// One request to the cluster must be answered within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to the group.
pub(crate) enum Event {
    Assigned(Assignment),
    /// Answer on the channel once nothing is written any more for these partitions.
    Revoked(Vec<i32>, Sender<()>),
    Fault(Error),
}

pub(crate) struct Assignment {
    pub(crate) partition: i32,
    /// When it was assigned (ms since 1970); grows with every assignment.
    pub(crate) epoch: u64,
    pub(crate) log: PartitionLog,
    pub(crate) inbox: UnboundedReceiver<Input>,
}

/// [`Log`] of one assignment.
pub(crate) struct PartitionLog {
    partition: i32,
    epoch: u64,
    commands: Sender<Command>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Command {
    partition: i32,
    epoch: u64,
    what: What,
}

enum What {
    Committed(oneshot::Sender<Result<Option<Committed>, LogError>>),
    Bounds(oneshot::Sender<Result<(i64, i64), LogError>>),
    Start(i64, oneshot::Sender<Result<(), LogError>>),
    Commit(i64, String, oneshot::Sender<Result<(), LogError>>),
}

/// The running thread.
pub(crate) struct Source {
    pub(crate) events: UnboundedReceiver<Event>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Source {
    pub(crate) fn spawn(
        kafka: &KafkaSettings,
        config: &Config,
        member: &str,
        status: Arc<Status>,
        wall: WallClock,
    ) -> Result<Self, Error> {
        let mut settings = client(kafka, &format!("footfall-aggregator-{member}"));
        settings
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", config.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (config.session_timeout_ms / 5).min(3_000).to_string())
            // A partition is always started at an offset of ours; if the log does not have it, we stop.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.max.messages.kbytes", "32768")
            .set("statistics.interval.ms", "5000");
        if config.static_membership {
            settings.set("group.instance.id", member);
        }
        let (send_events, events) = unbounded_channel();
        let (send_commands, commands) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let group = Group {
            events: send_events,
            send_commands,
            commands: Mutex::new(commands),
            assigned: Mutex::new(HashMap::new()),
            epoch: Mutex::new(0),
            stop: stop.clone(),
            revoke: Duration::from_millis(config.revoke_ms),
            inbox_bytes: config.inbox_bytes,
            status,
            wall,
        };
        let made = |source| Error::Kafka { client: "consumer of events", source };
        let consumer: BaseConsumer<Group> = settings.create_with_context(group).map_err(made)?;
        consumer.subscribe(&[topics::EVENTS]).map_err(made)?;
        let thread = std::thread::Builder::new()
            .name("footfall-source".into())
            .spawn(move || poll(&consumer))
            .map_err(|error| Error::Log(format!("no thread for the consumer: {error}")))?;
        Ok(Self { events, stop, thread })
    }

    /// Leaves the group. Call it when nothing is written any more.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let left = tokio::task::spawn_blocking(move || self.thread.join());
        if tokio::time::timeout(PATIENCE, left).await.is_err() {
            warn!("the group was not left in time; it notices by itself");
        }
    }
}

/// Runs until it is told to stop; then the consumer is dropped, which leaves the group.
fn poll(consumer: &BaseConsumer<Group>) {
    let group = consumer.context().clone();
    while !group.stop.load(Ordering::Relaxed) {
        group.serve(consumer);
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let raw = RawRecord {
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or(0),
                    value: message.payload().unwrap_or_default().to_vec(),
                    trace: trace::parent_of(&message),
                };
                group.deliver(consumer, message.partition(), raw);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(assigned) =
                    group.assigned().get(&partition).filter(|assigned| assigned.next.is_some())
                {
                    let _ = assigned.inbox.send(Input::End);
                }
            }
            Some(Err(error)) => group.failed(error),
        }
    }
}

/// The consumer's context: state shared by the loop and the callbacks, both on the one thread.
struct Group {
    events: UnboundedSender<Event>,
    send_commands: Sender<Command>,
    commands: Mutex<Receiver<Command>>,
    assigned: Mutex<HashMap<i32, Assigned>>,
    epoch: Mutex<u64>,
    stop: Arc<AtomicBool>,
    revoke: Duration,
    inbox_bytes: usize,
    status: Arc<Status>,
    wall: WallClock,
}

struct Assigned {
    epoch: u64,
    inbox: UnboundedSender<Input>,
    /// Offset of the next record that the owner is to get. `None`: it has not chosen where to start.
    next: Option<i64>,
    /// Where records seemed to be missing and were asked for again.
    looked_again_at: Option<i64>,
    paused: bool,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Group {
    fn assigned(&self) -> MutexGuard<'_, HashMap<i32, Assigned>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, consumer: &BaseConsumer<Self>, partition: i32, raw: RawRecord) {
        let mut assigned = self.assigned();
        let Some(assigned) = assigned.get_mut(&partition) else { return };
        let Some(next) = assigned.next.filter(|next| raw.offset >= *next) else { return };
        // Offsets without a record are the log's own; a client that has lost its place looks the same, once.
        if raw.offset > next && assigned.looked_again_at != Some(next) {
            warn!(partition, expected = next, found = raw.offset, "records are missing; reading again");
            assigned.looked_again_at = start(consumer, partition, next).is_ok().then_some(next);
            return;
        }
        assigned.next = Some(raw.offset + 1);
        let bytes = raw.value.len();
        let waiting = assigned.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let _ = assigned.inbox.send(Input::Record(raw));
        if waiting > self.inbox_bytes && !assigned.paused {
            // librdkafka drops what it has fetched ahead, and fetches it again after the pause.
            assigned.paused = consumer.pause(&one(partition)).is_ok();
        }
    }

    /// Does what partitions ask for, commits together.
    fn serve(&self, consumer: &BaseConsumer<Self>) {
        let commands: Vec<Command> =
            self.commands.lock().unwrap_or_else(PoisonError::into_inner).try_iter().collect();
        let mut commits = Vec::new();
        for Command { partition, epoch, what } in commands {
            let gone = self.assigned().get(&partition).is_none_or(|assigned| assigned.epoch != epoch);
            match what {
                What::Commit(_, _, reply) if gone => drop(reply.send(Err(LogError::Gone))),
                What::Committed(reply) if gone => drop(reply.send(Err(LogError::Gone))),
                What::Bounds(reply) if gone => drop(reply.send(Err(LogError::Gone))),
                What::Start(_, reply) if gone => drop(reply.send(Err(LogError::Gone))),
                What::Commit(offset, metadata, reply) => commits.push((partition, offset, metadata, reply)),
                What::Committed(reply) => drop(reply.send(committed(consumer, partition))),
                What::Bounds(reply) => {
                    let bounds = consumer.fetch_watermarks(topics::EVENTS, partition, PATIENCE);
                    drop(reply.send(bounds.map_err(again)));
                }
                What::Start(offset, reply) => {
                    let started = start(consumer, partition, offset);
                    if let (Ok(()), Some(assigned)) = (&started, self.assigned().get_mut(&partition)) {
                        assigned.next = Some(offset);
                        assigned.paused = false;
                    }
                    drop(reply.send(started));
                }
            }
        }
        if !commits.is_empty() {
            commit(consumer, commits);
        }
        for (partition, assigned) in self.assigned().iter_mut().filter(|(_, assigned)| assigned.paused) {
            let waiting = assigned.waiting_bytes.load(Ordering::Relaxed);
            if assigned.next.is_some() && waiting <= self.inbox_bytes / 2 {
                assigned.paused = consumer.resume(&one(*partition)).is_err();
            }
        }
    }

    fn failed(&self, error: KafkaError) {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
        let fault = match &error {
            KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => {
                "records were deleted before they were counted; check the retention of footfall.events"
            }
            KafkaError::MessageConsumptionFatal(_) => "the consumer cannot go on",
            _ => {
                // Brokers that are down and the like: librdkafka goes on by itself.
                debug!(%error, "consumer");
                return;
            }
        };
        let _ = self.events.send(Event::Fault(Error::Log(format!("{error}: {fault}"))));
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        // Paused before it is assigned, and again in case it was not known yet: nothing comes before the owner has
        // chosen where to start. And at a number: librdkafka asks brokers where "the end" is, and an answer that comes
        // after the seek makes it ask again and go there, past everything that the seek was for.
        let mut somewhere = partitions.clone();
        let assigned = somewhere
            .set_all_offsets(Offset::Offset(0))
            .and_then(|()| consumer.pause(partitions))
            .and_then(|()| consumer.incremental_assign(&somewhere))
            .and_then(|()| consumer.pause(partitions));
        if let Err(error) = assigned {
            let reason = format!("assigned partitions cannot be taken: {error}");
            let _ = self.events.send(Event::Fault(Error::Log(reason)));
            return;
        }
        for partition in numbers(partitions) {
            let epoch = {
                let mut last = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
                *last = (*last + 1).max(u64::try_from((self.wall)()).unwrap_or(0));
                *last
            };
            let (send, inbox) = unbounded_channel();
            let waiting_bytes = Arc::new(AtomicUsize::new(0));
            let log = PartitionLog {
                partition,
                epoch,
                commands: self.send_commands.clone(),
                waiting_bytes: waiting_bytes.clone(),
            };
            let assigned = Assigned {
                epoch,
                inbox: send,
                next: None,
                looked_again_at: None,
                paused: true,
                waiting_bytes,
            };
            self.assigned().insert(partition, assigned);
            self.status.assigned(partition);
            let _ = self.events.send(Event::Assigned(Assignment { partition, epoch, log, inbox }));
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let numbers: Vec<i32> = numbers(partitions).collect();
        info!(partitions = ?numbers, "partitions taken away");
        for partition in &numbers {
            // From here on every command of this assignment is refused: it cannot commit, so it cannot insert.
            self.assigned().remove(partition);
            self.status.revoked(*partition);
        }
        if !self.stop.load(Ordering::Relaxed) {
            let (done, is_done) = channel();
            let deadline = Instant::now() + self.revoke + Duration::from_millis(500);
            if self.events.send(Event::Revoked(numbers, done)).is_ok() {
                while Instant::now() < deadline {
                    self.serve(consumer);
                    match is_done.recv_timeout(POLL) {
                        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                        _ => break,
                    }
                }
            }
        }
        let released = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        };
        if let Err(error) = released {
            warn!(%error, "partitions cannot be released");
        }
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        for (partition, known) in
            statistics.topics.get(topics::EVENTS).iter().flat_map(|topic| &topic.partitions)
        {
            if known.hi_offset > 0 {
                self.status.end(*partition, known.hi_offset);
            }
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        }
    }
}

/// librdkafka tells the end of a partition as an error, too.
pub(crate) fn complain(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        warn!(%error, reason, "kafka");
    }
}

fn numbers(partitions: &TopicPartitionList) -> impl Iterator<Item = i32> {
    partitions.elements_for_topic(topics::EVENTS).into_iter().map(|element| element.partition())
}

fn one(partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topics::EVENTS, partition);
    list
}

fn again(error: KafkaError) -> LogError {
    LogError::Retry(error.to_string())
}

fn committed(consumer: &BaseConsumer<Group>, partition: i32) -> Result<Option<Committed>, LogError> {
    let list = consumer.committed_offsets(one(partition), PATIENCE).map_err(again)?;
    let element = list
        .find_partition(topics::EVENTS, partition)
        .ok_or_else(|| LogError::Retry("the coordinator did not name the partition".into()))?;
    element.error().map_err(again)?;
    Ok(match element.offset() {
        Offset::Offset(offset) => Some(Committed { offset, metadata: element.metadata().to_owned() }),
        _ => None,
    })
}

fn start(consumer: &BaseConsumer<Group>, partition: i32, offset: i64) -> Result<(), LogError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topics::EVENTS, partition, Offset::Offset(offset)).map_err(again)?;
    let list = consumer.seek_partitions(list, PATIENCE).map_err(again)?;
    for element in list.elements() {
        element.error().map_err(again)?;
    }
    consumer.resume(&one(partition)).map_err(again)
}

type Commit = (i32, i64, String, oneshot::Sender<Result<(), LogError>>);

/// A commit that fails is tried again by its owner; whether it still is the owner is told by the rebalance.
fn commit(consumer: &BaseConsumer<Group>, commits: Vec<Commit>) {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for (partition, offset, metadata, _) in &commits {
        let mut element = list.add_partition(topics::EVENTS, *partition);
        let _ = element.set_offset(Offset::Offset(*offset));
        element.set_metadata(metadata);
    }
    let result = consumer.commit(&list, CommitMode::Sync);
    for (partition, _, _, reply) in commits {
        let element = list.find_partition(topics::EVENTS, partition);
        let own = element.map_or(Ok(()), |element| element.error());
        let _ = reply.send(result.clone().and(own).map_err(again));
    }
}

impl PartitionLog {
    async fn ask<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> What,
    ) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { partition: self.partition, epoch: self.epoch, what: what(reply) };
        self.commands.send(command).map_err(|_| LogError::Gone)?;
        answer.await.map_err(|_| LogError::Gone)?
    }
}

impl Log for PartitionLog {
    async fn committed(&self) -> Result<Option<Committed>, LogError> {
        self.ask(What::Committed).await
    }

    async fn bounds(&self) -> Result<(i64, i64), LogError> {
        self.ask(What::Bounds).await
    }

    async fn start(&self, offset: i64) -> Result<(), LogError> {
        self.ask(|reply| What::Start(offset, reply)).await
    }

    async fn commit(&self, offset: i64, metadata: String) -> Result<(), LogError> {
        self.ask(|reply| What::Commit(offset, metadata, reply)).await
    }

    fn taken(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
