//! Metadata, DescribeCluster and FindCoordinator: what there is and where; always here.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::connection::Caller;
use super::node::{LEADER_EPOCH, NODE_ID, Node};
use super::topics::{Refusal, Topic};

/// "Not asked for", in Kafka's words.
pub(super) const NO_OPERATIONS: i32 = i32::MIN;
/// A key that names a consumer group.
const GROUP_KEY: i8 = 0;

pub(super) async fn metadata(
    node: &Arc<Node>,
    caller: &Caller,
    request: MetadataRequest,
) -> MetadataResponse {
    let (host, port) = node.endpoint(caller.local);
    let broker = MetadataResponseBroker::default().with_node_id(NODE_ID).with_host(host).with_port(port);
    // Version 0 has no null: there, an empty list asks for all.
    let wanted = request.topics.filter(|topics| caller.version > 0 || !topics.is_empty());
    let may_create =
        node.config.auto_create_topics && (request.allow_auto_topic_creation || caller.version < 4);
    let mut topics = Vec::new();
    match wanted {
        None => topics.extend(node.topics.all().iter().map(|topic| describe(topic))),
        Some(wanted) => {
            for topic in wanted {
                topics.push(look_up(node, topic, may_create).await);
            }
        }
    }
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(node.identity.cluster_id.clone())))
        .with_controller_id(NODE_ID)
        .with_topics(topics)
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

async fn look_up(node: &Arc<Node>, wanted: MetadataRequestTopic, may_create: bool) -> MetadataResponseTopic {
    let refused = |name: Option<TopicName>, reason: ResponseError| {
        MetadataResponseTopic::default()
            .with_error_code(reason.code())
            .with_name(name)
            .with_topic_id(wanted.topic_id)
            .with_topic_authorized_operations(NO_OPERATIONS)
    };
    let Some(name) = wanted.name.clone() else {
        return match node.topics.by_id(wanted.topic_id) {
            Some(topic) => describe(&topic),
            None => refused(None, ResponseError::UnknownTopicId),
        };
    };
    if let Some(topic) = node.topics.get(&name) {
        return describe(&topic);
    }
    if !may_create {
        return refused(Some(name), ResponseError::UnknownTopicOrPartition);
    }
    let (topics, partitions, created) =
        (Arc::clone(&node.topics), node.config.default_partitions, name.to_string());
    let creating = move || topics.create(&created, usize::from(partitions), BTreeMap::new(), false);
    match tokio::task::spawn_blocking(creating).await {
        Ok(Ok(topic)) => describe(&topic),
        Ok(Err(Refusal(reason, _))) => refused(Some(name), reason),
        Err(_) => refused(Some(name), ResponseError::UnknownServerError),
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE_ID)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE_ID])
            .with_isr_nodes(vec![NODE_ID])
    };
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions((0..count).map(partition).collect())
        .with_topic_authorized_operations(NO_OPERATIONS)
}

pub(super) fn describe_cluster(node: &Node, caller: &Caller) -> DescribeClusterResponse {
    let (host, port) = node.endpoint(caller.local);
    DescribeClusterResponse::default()
        .with_endpoint_type(1)
        .with_cluster_id(StrBytes::from_string(node.identity.cluster_id.clone()))
        .with_controller_id(NODE_ID)
        .with_brokers(vec![
            DescribeClusterBroker::default().with_broker_id(NODE_ID).with_host(host).with_port(port),
        ])
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

pub(super) fn find_coordinator(
    node: &Node,
    caller: &Caller,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (host, port) = node.endpoint(caller.local);
    let refusal =
        (request.key_type != GROUP_KEY).then_some(ResponseError::TransactionalIdAuthorizationFailed);
    let found = |key: StrBytes| match refusal {
        Some(reason) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(reason.code()),
        None => {
            Coordinator::default().with_key(key).with_node_id(NODE_ID).with_host(host.clone()).with_port(port)
        }
    };
    if caller.version >= 4 {
        return FindCoordinatorResponse::default()
            .with_coordinators(request.coordinator_keys.into_iter().map(found).collect());
    }
    let one = found(request.key);
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}
