//! Produce and InitProducerId.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use tokio::sync::oneshot;

use super::batch::{self, BadBatch, BatchHeader};
use super::config::TopicConfig;
use super::connection::Answer;
use super::node::Node;
use super::partition::{AppendResult, Partition, Placed, now_ms};

/// Records may not claim to be from later than this, in ms from now.
const MAX_FUTURE_MS: i64 = 3_600_000;

/// A partition's part of a request: refused, or queued.
struct Queued {
    index: i32,
    partition: Option<Arc<Partition>>,
    outcome: Result<oneshot::Receiver<AppendResult>, ResponseError>,
}

/// Queues every batch; the answer comes when all are durable.
pub(super) async fn begin(node: &Arc<Node>, request: ProduceRequest) -> Answer {
    let refusal = match request.acks {
        // This broker refuses transactions as one refuses a client that has no right to them: for good.
        _ if request.transactional_id.is_some() => Some(ResponseError::TransactionalIdAuthorizationFailed),
        -1..=1 => None,
        _ => Some(ResponseError::InvalidRequiredAcks),
    };
    let wants_answer = request.acks != 0;
    let mut topics: Vec<(TopicName, Vec<Queued>)> = Vec::new();
    for topic in request.topic_data {
        let mut queued = Vec::new();
        for part in topic.partition_data {
            let index = part.index;
            let partition = node.topics.partition(&topic.name, index);
            let outcome = match (refusal, &partition) {
                (Some(reason), _) => Err(reason),
                (None, None) => Err(ResponseError::UnknownTopicOrPartition),
                (None, Some(partition)) => queue(partition, part).await,
            };
            queued.push(Queued { index, partition, outcome });
        }
        topics.push((topic.name, queued));
    }
    Box::pin(async move {
        let mut responses = Vec::new();
        for (name, queued) in topics {
            let mut parts = Vec::new();
            for one in queued {
                parts.push(landed(one).await);
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(parts));
        }
        wants_answer.then(|| ProduceResponse::default().with_responses(responses).into())
    })
}

async fn queue(
    partition: &Partition,
    part: PartitionProduceData,
) -> Result<oneshot::Receiver<AppendResult>, ResponseError> {
    let batch = part.records.unwrap_or_default();
    let header = admit(&partition.config(), &batch)?;
    Ok(partition.append(header, batch).await)
}

/// Checks a batch by itself and against its topic's settings.
fn admit(config: &TopicConfig, bytes: &Bytes) -> Result<BatchHeader, ResponseError> {
    let header = batch::verify_produced(bytes).map_err(|bad| match bad {
        BadBatch::Short | BadBatch::Checksum => ResponseError::CorruptMessage,
        BadBatch::OldFormat(_) => ResponseError::UnsupportedForMessageFormat,
        BadBatch::Malformed(_) => ResponseError::InvalidRecord,
    })?;
    if bytes.len() > config.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    if header.is_transactional() {
        return Err(ResponseError::TransactionalIdAuthorizationFailed);
    }
    if !config.log_append_time && header.max_timestamp > now_ms() + MAX_FUTURE_MS {
        return Err(ResponseError::InvalidTimestamp);
    }
    if config.compact {
        let records = batch::records(&header, bytes).map_err(|_| ResponseError::InvalidRecord)?;
        if records.iter().any(|record| record.key.is_none()) {
            return Err(ResponseError::InvalidRecord);
        }
    }
    Ok(header)
}

async fn landed(queued: Queued) -> PartitionProduceResponse {
    let outcome = match queued.outcome {
        // The queue was dropped with the partition.
        Ok(answer) => answer.await.unwrap_or(Err(ResponseError::UnknownTopicOrPartition)),
        Err(reason) => Err(reason),
    };
    let response = PartitionProduceResponse::default().with_index(queued.index);
    match outcome {
        Ok(Placed { base_offset, append_time_ms }) => {
            let start = queued.partition.map_or(-1, |partition| partition.offsets().0);
            response
                .with_base_offset(base_offset)
                .with_log_append_time_ms(append_time_ms)
                .with_log_start_offset(start)
        }
        Err(reason) => {
            tracing::debug!(partition = queued.index, %reason, "refused a batch");
            response
                .with_error_code(reason.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
        }
    }
}

/// A fresh producer id with epoch 0, whatever id the producer had before.
pub(super) async fn init_producer_id(
    node: &Arc<Node>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |reason: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(reason.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let owner = Arc::clone(node);
    match tokio::task::spawn_blocking(move || owner.identity.next_producer_id()).await {
        Ok(Ok(id)) => {
            InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot reserve producer ids");
            refused(ResponseError::CoordinatorNotAvailable)
        }
        Err(_) => refused(ResponseError::CoordinatorNotAvailable),
    }
}
