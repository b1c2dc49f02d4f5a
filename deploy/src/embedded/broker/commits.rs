//! OffsetCommit and OffsetFetch.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::connection::Caller;
use super::member::Speaker;
use super::node::Node;
use super::offsets::{Commit, Committed, GroupOffsets};

/// As Kafka's `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4_096;

pub(super) async fn commit(node: &Arc<Node>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut commits = Vec::new();
    for topic in &request.topics {
        for part in &topic.partitions {
            if refusal(node, &topic.name, part).is_none() {
                commits.push(Commit {
                    group: request.group_id.to_string(),
                    topic: topic.name.to_string(),
                    partition: part.partition_index,
                    committed: Some(Committed {
                        offset: part.committed_offset,
                        leader_epoch: part.committed_leader_epoch,
                        metadata: part
                            .committed_metadata
                            .as_ref()
                            .map(ToString::to_string)
                            .unwrap_or_default(),
                    }),
                });
            }
        }
    }
    let outcome = write(node, &request, commits).await;
    let topics = request.topics.iter().map(|topic| {
        let partition = |part: &OffsetCommitRequestPartition| {
            let reason = refusal(node, &topic.name, part).or(outcome.err());
            OffsetCommitResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(reason.map_or(0, |reason| reason.code()))
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn refusal(node: &Node, topic: &str, part: &OffsetCommitRequestPartition) -> Option<ResponseError> {
    if node.topics.partition(topic, part.partition_index).is_none() {
        return Some(ResponseError::UnknownTopicOrPartition);
    }
    let length = part.committed_metadata.as_ref().map_or(0, |metadata| metadata.len());
    (length > MAX_METADATA_BYTES).then_some(ResponseError::OffsetMetadataTooLarge)
}

async fn write(
    node: &Node,
    request: &OffsetCommitRequest,
    commits: Vec<Commit>,
) -> Result<(), ResponseError> {
    let speaker = Speaker {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let place = node.offsets.place().await?;
    let answered = node.groups.commit(&request.group_id, speaker, commits, place)?;
    answered.await.unwrap_or(Err(ResponseError::CoordinatorNotAvailable))
}

/// Which partitions are asked for: `None` means all that have a commit.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;

pub(super) async fn fetch(
    node: &Arc<Node>,
    caller: &Caller,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if caller.version >= 8 {
        let mut groups = Vec::new();
        for group in request.groups {
            let topics = group
                .topics
                .map(|all| all.into_iter().map(|one| (one.name, one.partition_indexes)).collect());
            groups.push(fetch_group(node, group.group_id, topics).await);
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let topics =
        request.topics.map(|all| all.into_iter().map(|one| (one.name, one.partition_indexes)).collect());
    let group = fetch_group(node, request.group_id, topics).await;
    let topics = group.topics.into_iter().map(|topic| {
        let partition = |one: OffsetFetchResponsePartitions| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(one.partition_index)
                .with_committed_offset(one.committed_offset)
                .with_committed_leader_epoch(one.committed_leader_epoch)
                .with_metadata(one.metadata)
                .with_error_code(one.error_code)
        };
        let partitions = topic.partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect()).with_error_code(group.error_code)
}

async fn fetch_group(node: &Node, group_id: GroupId, wanted: Wanted) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default();
    let offsets = match node.offsets.read(&group_id).await {
        Ok(offsets) => offsets,
        Err(reason) => return response.with_group_id(group_id).with_error_code(reason.code()),
    };
    let wanted = wanted.unwrap_or_else(|| all_of(&offsets));
    let topics = wanted.into_iter().map(|(name, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let committed = offsets.get(&(name.to_string(), index));
            let part = OffsetFetchResponsePartitions::default().with_partition_index(index);
            match committed {
                Some(committed) => part
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(StrBytes::from_string(committed.metadata.clone()))),
                None => part
                    .with_committed_offset(-1)
                    .with_committed_leader_epoch(-1)
                    .with_metadata(Some(StrBytes::default())),
            }
        });
        OffsetFetchResponseTopics::default().with_partitions(partitions.collect()).with_name(name)
    });
    response.with_topics(topics.collect()).with_group_id(group_id)
}

fn all_of(offsets: &GroupOffsets) -> Vec<(TopicName, Vec<i32>)> {
    let mut all: Vec<(TopicName, Vec<i32>)> = Vec::new();
    for (topic, partition) in offsets.keys() {
        match all.last_mut() {
            Some((name, partitions)) if name.as_str() == topic => partitions.push(*partition),
            _ => all.push((TopicName(StrBytes::from_string(topic.clone())), vec![*partition])),
        }
    }
    all
}
