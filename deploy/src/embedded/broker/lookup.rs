//! ListOffsets and OffsetForLeaderEpoch.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::fetch::check_epoch;
use super::node::{LEADER_EPOCH, Node};
use super::partition::Partition;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST_BY_TIME: i64 = -3;

pub(super) async fn list_offsets(node: &Arc<Node>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let owner = Arc::clone(node);
    let searching = tokio::task::spawn_blocking(move || {
        let topic = |topic: kafka_protocol::messages::list_offsets_request::ListOffsetsTopic| {
            let partition =
                |wanted| search(owner.topics.partition(&topic.name, partition_of(wanted)), wanted);
            let partitions = topic.partitions.iter().map(partition).collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        };
        request.topics.into_iter().map(topic).collect()
    });
    ListOffsetsResponse::default().with_topics(searching.await.unwrap_or_default())
}

fn partition_of(wanted: &ListOffsetsPartition) -> i32 {
    wanted.partition_index
}

fn search(partition: Option<Arc<Partition>>, wanted: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
    let found = partition.ok_or(ResponseError::UnknownTopicOrPartition).and_then(|partition| {
        check_epoch(wanted.current_leader_epoch)?;
        let (start, end) = partition.offsets();
        let read = match wanted.timestamp {
            LATEST => Ok(Some((-1, end))),
            EARLIEST => Ok(Some((-1, start))),
            NEWEST_BY_TIME => partition.newest_by_time(),
            timestamp => partition.offset_at_time(timestamp),
        };
        read.map_err(|error| {
            tracing::error!(partition = wanted.partition_index, %error, "cannot search the log");
            ResponseError::KafkaStorageError
        })
    });
    let response = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
    match found {
        Ok(Some((timestamp, offset))) => {
            response.with_timestamp(timestamp).with_offset(offset).with_leader_epoch(LEADER_EPOCH)
        }
        Ok(None) => response.with_timestamp(-1).with_offset(-1).with_leader_epoch(-1),
        Err(reason) => {
            response.with_error_code(reason.code()).with_timestamp(-1).with_offset(-1).with_leader_epoch(-1)
        }
    }
}

/// There is one epoch, and it ends where the log ends.
pub(super) fn offset_for_leader_epoch(
    node: &Node,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partition = |wanted: &OffsetForLeaderPartition| {
            let end = EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            match node.topics.partition(&topic.topic, wanted.partition) {
                None => end.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Some(_) if check_epoch(wanted.current_leader_epoch).is_err() => {
                    end.with_error_code(ResponseError::UnknownLeaderEpoch.code())
                }
                Some(partition) if wanted.leader_epoch == LEADER_EPOCH => {
                    end.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.offsets().1)
                }
                Some(_) => end,
            }
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
