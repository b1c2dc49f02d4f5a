//! Fetch: reads what is there, or waits until something is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::sync::watch;
use tokio::time::Instant;

use super::node::{LEADER_EPOCH, Node};
use super::segment::Span;
use super::topics::Topic;

/// Longest wait a client can ask for.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// A partition to read: what is known before the files are touched.
struct Planned {
    response: PartitionData,
    offset: i64,
    max_bytes: usize,
    span: Option<Span>,
}

pub(super) async fn fetch(node: &Arc<Node>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        // Sessions are never begun, so clients always state all their partitions.
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(node.config.max_frame_bytes);
    loop {
        let mut ends = Vec::new();
        let topics: Vec<_> =
            request.topics.iter().map(|topic| (topic, plan(node, topic, &mut ends))).collect();
        let planned = || topics.iter().flat_map(|(_, parts)| parts);
        let refused = planned().any(|part| part.response.error_code != 0);
        let readable = planned().any(|part| part.span.is_some());
        let late = min_bytes == 0 || ends.is_empty() || Instant::now() >= deadline;
        if refused || readable || late {
            let (responses, bytes) = read(topics, max_bytes).await;
            if refused || late || bytes >= min_bytes {
                return FetchResponse::default().with_responses(responses);
            }
        }
        let appended = select_all(ends.iter_mut().map(|end| Box::pin(end.changed())));
        let _ = tokio::time::timeout_at(deadline, appended).await;
    }
}

/// Looks up a topic's partitions. What is appended from here on shows in `ends`.
fn plan(node: &Node, topic: &FetchTopic, ends: &mut Vec<watch::Receiver<i64>>) -> Vec<Planned> {
    let known = if topic.topic_id.is_nil() {
        node.topics.get(&topic.topic)
    } else {
        node.topics.by_id(topic.topic_id)
    };
    let unknown = if topic.topic_id.is_nil() {
        ResponseError::UnknownTopicOrPartition
    } else {
        ResponseError::UnknownTopicId
    };
    topic
        .partitions
        .iter()
        .map(|wanted| plan_partition(known.as_deref().ok_or(unknown), wanted, ends))
        .collect()
}

fn plan_partition(
    topic: Result<&Topic, ResponseError>,
    wanted: &FetchPartition,
    ends: &mut Vec<watch::Receiver<i64>>,
) -> Planned {
    let response = PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_preferred_read_replica(BrokerId(-1))
        .with_aborted_transactions(None)
        .with_records(Some(Bytes::new()));
    let found = topic.and_then(|topic| {
        let partition = topic.partition(wanted.partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
        check_epoch(wanted.current_leader_epoch)?;
        ends.push(partition.watch_end());
        partition.span_at(wanted.fetch_offset)
    });
    let (response, span) = match found {
        Ok((start, end, span)) => {
            let bounds =
                response.with_high_watermark(end).with_last_stable_offset(end).with_log_start_offset(start);
            (bounds, span)
        }
        Err(reason) => {
            let refused = response.with_error_code(reason.code()).with_high_watermark(-1);
            (refused.with_last_stable_offset(-1).with_log_start_offset(-1), None)
        }
    };
    let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
    Planned { response, offset: wanted.fetch_offset, max_bytes, span }
}

/// Clients state the leader epoch they believe in, or -1.
pub(super) fn check_epoch(epoch: i32) -> Result<(), ResponseError> {
    if epoch > LEADER_EPOCH { Err(ResponseError::UnknownLeaderEpoch) } else { Ok(()) }
}

/// Reads up to `max_bytes`, in the order asked for; the first batch comes even where it alone is larger.
async fn read(
    topics: Vec<(&FetchTopic, Vec<Planned>)>,
    max_bytes: usize,
) -> (Vec<FetchableTopicResponse>, usize) {
    let mut responses: Vec<_> = topics
        .iter()
        .map(|(topic, _)| {
            FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_topic_id(topic.topic_id)
        })
        .collect();
    let plans: Vec<Vec<Planned>> = topics.into_iter().map(|(_, parts)| parts).collect();
    let reading = tokio::task::spawn_blocking(move || {
        let mut left = max_bytes;
        let mut total = 0;
        let mut parts = Vec::new();
        for plan in plans {
            parts.push(
                plan.into_iter().map(|part| read_partition(part, &mut left, &mut total)).collect::<Vec<_>>(),
            );
        }
        (parts, total)
    });
    // A panic in there, or a runtime that is going away: the client gets an empty answer and asks again.
    let (parts, total) = reading.await.unwrap_or_default();
    for (response, partitions) in responses.iter_mut().zip(parts) {
        response.partitions = partitions;
    }
    (responses, total)
}

fn read_partition(mut planned: Planned, left: &mut usize, total: &mut usize) -> PartitionData {
    let Some(span) = planned.span.take() else { return planned.response };
    match span.read(planned.offset, planned.max_bytes.min(*left), *total == 0) {
        Ok(records) => {
            *left = left.saturating_sub(records.len());
            *total += records.len();
            planned.response.with_records(Some(records))
        }
        Err(error) => {
            tracing::error!(partition = planned.response.partition_index, %error, "cannot read the log");
            planned.response.with_error_code(ResponseError::KafkaStorageError.code())
        }
    }
}
