//! The consumer of `footfall.live`: one partition, one group, so exactly one member evaluates.

use std::sync::Arc;

use footfall_schemas::{connect::KafkaSettings, topics};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol, StreamConsumer},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

use crate::{
    config::Config,
    error::{Error, LogError},
    outlet::{again, client},
    source::complain,
};

const GROUP: &str = "footfall-alerts";

pub(crate) struct Follower {
    pub(crate) consumer: Arc<StreamConsumer<Membership>>,
    pub(crate) duties: UnboundedReceiver<Duty>,
}

/// Whether this member is the one that evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    Taken,
    Lost,
}

impl Follower {
    pub(crate) fn new(kafka: &KafkaSettings, config: &Config, member: &str) -> Result<Self, Error> {
        let made = |source| Error::Kafka { client: "consumer of live windows", source };
        let (send, duties) = unbounded_channel();
        let consumer: StreamConsumer<Membership> = client(kafka, &format!("footfall-alerts-{member}"))
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", config.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (config.session_timeout_ms / 5).min(3_000).to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Membership { duties: send })
            .map_err(made)?;
        Ok(Self { consumer: Arc::new(consumer), duties })
    }

    /// From now on this member may be given the duty.
    pub(crate) fn join(&self) -> Result<(), KafkaError> {
        self.consumer.subscribe(&[topics::LIVE])
    }

    /// Fails when the group has given the duty to another member: whoever was away cannot write. `offset` is only a
    /// place in the log; nobody reads on from it.
    pub(crate) async fn confirm(&self, offset: i64) -> Result<(), LogError> {
        let consumer = self.consumer.clone();
        let commit = move || {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(topics::LIVE, 0, Offset::Offset(offset))?;
            consumer.commit(&offsets, CommitMode::Sync)
        };
        let committed = tokio::task::spawn_blocking(commit).await;
        committed.map_err(|error| LogError::Retry(error.to_string()))?.map_err(again)
    }
}

/// The consumer's context.
pub(crate) struct Membership {
    duties: UnboundedSender<Duty>,
}

impl ClientContext for Membership {
    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let is_taken = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let done = if is_taken {
            // From the end: whole windows come every few seconds.
            partitions.set_all_offsets(Offset::End).and_then(|()| consumer.incremental_assign(partitions))
        } else {
            match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
                _ => consumer.unassign(),
            }
        };
        if let Err(error) = done {
            warn!(%error, "the live windows cannot be taken or let go");
        }
        // A member without the duty takes part in rebalances, too.
        if partitions.count() > 0 {
            // Nobody listens any more when it stops.
            let _ = self.duties.send(if is_taken { Duty::Taken } else { Duty::Lost });
        }
    }
}
