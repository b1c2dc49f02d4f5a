//! Creating, changing and removing topics and records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::node::{NODE_ID, Node};
use super::topics::{Refusal, Topic};

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
/// Where a setting comes from, in Kafka's numbers.
const SET_ON_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

/// Runs what touches the disk away from the threads that serve sockets.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| Err(Refusal(ResponseError::UnknownServerError, "the broker is stopping".to_owned()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

pub(super) async fn create_topics(node: &Arc<Node>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<TopicName> = request
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .filter(|name| !seen.insert(name.clone()))
        .collect();
    let mut results = Vec::new();
    for topic in request.topics {
        let name = topic.name.clone();
        let created = if twice.contains(&name) {
            Err(Refusal(ResponseError::InvalidRequest, "the topic is named twice in this request".to_owned()))
        } else {
            create(node, topic, request.validate_only).await
        };
        let result = CreatableTopicResult::default().with_name(name);
        results.push(match created {
            Ok((topic, partitions)) => result
                .with_topic_id(topic.id)
                .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
                .with_replication_factor(1)
                .with_configs(Some(created_configs(&topic))),
            Err(Refusal(reason, words)) => result
                .with_error_code(reason.code())
                .with_error_message(Some(StrBytes::from_string(words)))
                .with_num_partitions(-1)
                .with_replication_factor(-1),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(
    node: &Arc<Node>,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<(Arc<Topic>, usize), Refusal> {
    if !matches!(topic.replication_factor, -1 | 1) {
        let reason =
            format!("replication factor {} needs as many brokers; there is 1", topic.replication_factor);
        return Err(Refusal(ResponseError::InvalidReplicationFactor, reason));
    }
    let elsewhere = |brokers: &[kafka_protocol::messages::BrokerId]| brokers != [NODE_ID];
    if topic.assignments.iter().any(|one| elsewhere(&one.broker_ids)) {
        let reason = format!("the only broker is {}", NODE_ID.0);
        return Err(Refusal(ResponseError::InvalidReplicaAssignment, reason));
    }
    let partitions = match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::from(node.config.default_partitions),
        count => usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            Refusal(
                ResponseError::InvalidPartitions,
                "Number of partitions must be larger than 0.".to_owned(),
            )
        })?,
    };
    let mut settings = BTreeMap::new();
    for setting in topic.configs {
        let null = || Refusal(ResponseError::InvalidConfig, format!("{} has no value", setting.name));
        settings.insert(setting.name.to_string(), setting.value.ok_or_else(null)?.to_string());
    }
    let topics = Arc::clone(&node.topics);
    let created = blocking(move || topics.create(&topic.name, partitions, settings, validate_only)).await?;
    Ok((created, partitions))
}

fn created_configs(topic: &Topic) -> Vec<CreatableTopicConfigs> {
    let config = |(name, value): (&'static str, String)| {
        let source = if topic.settings.contains_key(name) { SET_ON_TOPIC } else { DEFAULT };
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_config_source(source)
    };
    topic.config.entries().into_iter().map(config).collect()
}

pub(super) async fn delete_topics(node: &Arc<Node>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name =
        request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut responses = Vec::new();
    for wanted in by_name.chain(request.topics) {
        let name = match &wanted.name {
            Some(name) => Some(name.to_string()),
            None => node.topics.by_id(wanted.topic_id).map(|topic| topic.name.clone()),
        };
        let deleted = match name {
            Some(name) => delete_topic(node, name).await,
            None => Err(Refusal(ResponseError::UnknownTopicId, String::new())),
        };
        let result = DeletableTopicResult::default().with_name(wanted.name).with_topic_id(wanted.topic_id);
        responses.push(match deleted {
            Ok(topic) => result
                .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
                .with_topic_id(topic.id),
            Err(Refusal(reason, words)) => {
                result.with_error_code(reason.code()).with_error_message(Some(StrBytes::from_string(words)))
            }
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_topic(node: &Arc<Node>, name: String) -> Result<Arc<Topic>, Refusal> {
    let topics = Arc::clone(&node.topics);
    let topic = blocking(move || topics.remove(&name)).await?;
    for partition in &topic.partitions {
        partition.close().await;
    }
    if let Err(reason) = node.offsets.drop_topic(&topic.name).await {
        tracing::warn!(topic = topic.name, %reason, "the deleted topic's committed offsets are still there");
    }
    let (topics, gone) = (Arc::clone(&node.topics), Arc::clone(&topic));
    blocking(move || {
        topics.erase(&gone);
        Ok(())
    })
    .await?;
    Ok(topic)
}

pub(super) async fn create_partitions(
    node: &Arc<Node>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::new();
    for topic in request.topics {
        let (topics, name) = (Arc::clone(&node.topics), topic.name.to_string());
        let (count, validate_only) = (usize::try_from(topic.count).unwrap_or(0), request.validate_only);
        let grown = blocking(move || topics.grow(&name, count, validate_only)).await;
        let (code, words) = outcome(grown);
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(words),
        );
    }
    CreatePartitionsResponse::default().with_results(results)
}

fn outcome(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (0, None),
        Err(Refusal(reason, words)) => (reason.code(), Some(StrBytes::from_string(words))),
    }
}

pub(super) async fn delete_records(node: &Arc<Node>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for wanted in topic.partitions {
            let deleted = delete_before(node, &topic.name, &wanted).await;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(wanted.partition_index);
            partitions.push(match deleted {
                Ok(start) => result.with_low_watermark(start),
                Err(reason) => result.with_low_watermark(-1).with_error_code(reason.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_before(
    node: &Node,
    topic: &str,
    wanted: &DeleteRecordsPartition,
) -> Result<i64, ResponseError> {
    let partition = node.topics.partition(topic, wanted.partition_index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    if !partition.config().delete {
        return Err(ResponseError::PolicyViolation);
    }
    let offset = wanted.offset;
    let deleting = tokio::task::spawn_blocking(move || partition.delete_records(offset));
    deleting.await.unwrap_or(Err(ResponseError::UnknownServerError))
}

pub(super) fn describe_configs(node: &Node, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let describe = |resource: DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let entries = match resource.resource_type {
            TOPIC_RESOURCE => node.topics.get(&resource.resource_name).map(|topic| topic_entries(&topic)),
            BROKER_RESOURCE => Some(broker_entries(node)),
            _ => None,
        };
        let Some(entries) = entries else {
            let reason = match resource.resource_type {
                TOPIC_RESOURCE => ResponseError::UnknownTopicOrPartition,
                _ => ResponseError::InvalidRequest,
            };
            return result
                .with_error_code(reason.code())
                .with_error_message(Some(StrBytes::from_string(reason.to_string())));
        };
        let wanted = |name: &str| {
            resource
                .configuration_keys
                .as_ref()
                .is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key == name))
        };
        let configs = entries.into_iter().filter(|(name, ..)| wanted(name)).map(|(name, value, source)| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_config_source(source)
                .with_read_only(resource.resource_type == BROKER_RESOURCE)
        });
        result.with_configs(configs.collect())
    };
    DescribeConfigsResponse::default().with_results(request.resources.into_iter().map(describe).collect())
}

type Entry = (&'static str, String, i8);

fn topic_entries(topic: &Topic) -> Vec<Entry> {
    let source = |name: &str| if topic.settings.contains_key(name) { SET_ON_TOPIC } else { DEFAULT };
    topic.config.entries().into_iter().map(|(name, value)| (name, value, source(name))).collect()
}

fn broker_entries(node: &Node) -> Vec<Entry> {
    let config = &node.config;
    let millis = |duration: std::time::Duration| duration.as_millis().to_string();
    let entries = [
        ("auto.create.topics.enable", config.auto_create_topics.to_string()),
        ("broker.id", NODE_ID.0.to_string()),
        ("default.replication.factor", "1".to_owned()),
        ("group.max.session.timeout.ms", millis(config.session_timeout.1)),
        ("group.min.session.timeout.ms", millis(config.session_timeout.0)),
        ("log.dirs", config.data_dir.display().to_string()),
        ("num.partitions", config.default_partitions.to_string()),
        ("socket.request.max.bytes", config.max_frame_bytes.to_string()),
    ];
    entries.into_iter().map(|(name, value)| (name, value, DEFAULT)).collect()
}

pub(super) async fn alter_configs(
    node: &Arc<Node>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let (code, words) = outcome(alter(node, &resource, request.validate_only).await);
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code)
                .with_error_message(words),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    node: &Arc<Node>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let invalid = |words: String| Refusal(ResponseError::InvalidRequest, words);
    if resource.resource_type != TOPIC_RESOURCE {
        return Err(invalid(
            "only topics can be configured; the broker's own settings are in its config file".to_owned(),
        ));
    }
    let name = resource.resource_name.to_string();
    let Some(topic) = node.topics.get(&name) else {
        return Err(Refusal(
            ResponseError::UnknownTopicOrPartition,
            format!("The topic '{name}' does not exist."),
        ));
    };
    let mut settings = topic.settings.clone();
    for change in &resource.configs {
        match (change.config_operation, &change.value) {
            (0, Some(value)) => settings.insert(change.name.to_string(), value.to_string()),
            (1, _) => settings.remove(change.name.as_str()),
            _ => return Err(invalid(format!("{} can only be set or deleted", change.name))),
        };
    }
    let topics = Arc::clone(&node.topics);
    blocking(move || topics.configure(&name, settings, validate_only)).await
}
