//! From a request to the module that answers it.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, RequestKind, ResponseKind};

use super::api::APIS;
use super::connection::{Answer, Caller};
use super::node::Node;
use super::{admin, commits, fetch, lookup, membership, metadata, produce};

/// Begins a request. A produce request is queued when this returns; all others run when the answer is awaited.
pub(super) async fn begin(node: Arc<Node>, caller: Caller, request: RequestKind) -> Answer {
    match request {
        RequestKind::Produce(request) => produce::begin(&node, request).await,
        request => Box::pin(async move { answer(&node, &caller, request).await }),
    }
}

async fn answer(node: &Arc<Node>, caller: &Caller, request: RequestKind) -> Option<ResponseKind> {
    Some(match request {
        RequestKind::ApiVersions(_) => api_versions(0).into(),
        RequestKind::Fetch(request) => fetch::fetch(node, request).await.into(),
        RequestKind::ListOffsets(request) => lookup::list_offsets(node, request).await.into(),
        RequestKind::OffsetForLeaderEpoch(request) => lookup::offset_for_leader_epoch(node, request).into(),
        RequestKind::Metadata(request) => metadata::metadata(node, caller, request).await.into(),
        RequestKind::DescribeCluster(_) => metadata::describe_cluster(node, caller).into(),
        RequestKind::FindCoordinator(request) => metadata::find_coordinator(node, caller, request).into(),
        RequestKind::InitProducerId(request) => produce::init_producer_id(node, request).await.into(),
        RequestKind::JoinGroup(request) => membership::join(node, caller, request).await.into(),
        RequestKind::SyncGroup(request) => membership::sync(node, request).await.into(),
        RequestKind::Heartbeat(request) => membership::heartbeat(node, &request).into(),
        RequestKind::LeaveGroup(request) => membership::leave(node, caller, request).into(),
        RequestKind::DescribeGroups(request) => membership::describe(node, request).await.into(),
        RequestKind::ListGroups(request) => membership::list(node, &request).await.into(),
        RequestKind::DeleteGroups(request) => membership::delete(node, request).await.into(),
        RequestKind::OffsetCommit(request) => commits::commit(node, request).await.into(),
        RequestKind::OffsetFetch(request) => commits::fetch(node, caller, request).await.into(),
        RequestKind::CreateTopics(request) => admin::create_topics(node, request).await.into(),
        RequestKind::DeleteTopics(request) => admin::delete_topics(node, request).await.into(),
        RequestKind::CreatePartitions(request) => admin::create_partitions(node, request).await.into(),
        RequestKind::DeleteRecords(request) => admin::delete_records(node, request).await.into(),
        RequestKind::DescribeConfigs(request) => admin::describe_configs(node, request).into(),
        RequestKind::IncrementalAlterConfigs(request) => admin::alter_configs(node, request).await.into(),
        // Unreachable: only what `APIS` lists is decoded. Saying nothing is better than a wrong answer.
        _ => return None,
    })
}

fn api_versions(error_code: i16) -> ApiVersionsResponse {
    let key = |api: &super::api::Api| {
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.min).with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(APIS.iter().map(key).collect())
}

pub(super) fn unsupported_api_versions() -> ResponseKind {
    api_versions(ResponseError::UnsupportedVersion.code()).into()
}
