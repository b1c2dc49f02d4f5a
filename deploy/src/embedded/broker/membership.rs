//! Joining, staying in and leaving a consumer group, and looking at groups from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::connection::Caller;
use super::group::Group;
use super::member::{Join, Joined, Member, Speaker};
use super::metadata::NO_OPERATIONS;
use super::node::Node;
use super::offsets::{Command, Commit};

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

pub(super) async fn join(node: &Arc<Node>, caller: &Caller, request: JoinGroupRequest) -> JoinGroupResponse {
    let refused = |reason: ResponseError, member_id: StrBytes| {
        let protocol_name = (caller.version < 7).then(StrBytes::default);
        JoinGroupResponse::default()
            .with_error_code(reason.code())
            .with_generation_id(-1)
            .with_protocol_name(protocol_name)
            .with_member_id(member_id)
    };
    let session_timeout = millis(request.session_timeout_ms);
    let (shortest, longest) = node.config.session_timeout;
    if request.group_id.is_empty() {
        return refused(ResponseError::InvalidGroupId, request.member_id);
    }
    if !(shortest..=longest).contains(&session_timeout) {
        return refused(ResponseError::InvalidSessionTimeout, request.member_id);
    }
    let join = Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id: caller.client_id.clone(),
        client_host: caller.client_host.clone(),
        session_timeout,
        // Version 0 has one timeout for both.
        rebalance_timeout: if caller.version == 0 {
            session_timeout
        } else {
            millis(request.rebalance_timeout_ms)
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|one| (one.name.to_string(), one.metadata)).collect(),
        id_required: caller.version >= 4,
    };
    let (answered, given_id) = node.groups.join(&request.group_id, join);
    match answered.await {
        Ok(Ok(joined)) => join_response(caller, joined),
        Ok(Err(reason)) => refused(reason, given_id.map_or(request.member_id, StrBytes::from_string)),
        // The same member joined again over another connection.
        Err(_) => refused(ResponseError::RebalanceInProgress, request.member_id),
    }
}

fn join_response(caller: &Caller, joined: Joined) -> JoinGroupResponse {
    let member = |(id, instance_id, subscription): (String, Option<String>, bytes::Bytes)| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(id))
            .with_metadata(subscription);
        if caller.version >= 5 {
            member.with_group_instance_id(instance_id.map(StrBytes::from_string))
        } else {
            member
        }
    };
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect());
    if caller.version >= 7 {
        response.with_protocol_type(Some(StrBytes::from_string(joined.protocol_type)))
    } else {
        response
    }
}

pub(super) async fn sync(node: &Arc<Node>, request: SyncGroupRequest) -> SyncGroupResponse {
    let speaker = Speaker {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let assignments =
        request.assignments.into_iter().map(|one| (one.member_id.to_string(), one.assignment)).collect();
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    let answered = node.groups.sync(&request.group_id, speaker, protocol, assignments);
    match answered.await.unwrap_or(Err(ResponseError::UnknownMemberId)) {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_string(synced.protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(synced.protocol)))
            .with_assignment(synced.assignment),
        Err(reason) => SyncGroupResponse::default().with_error_code(reason.code()),
    }
}

pub(super) fn heartbeat(node: &Node, request: &HeartbeatRequest) -> HeartbeatResponse {
    let speaker = Speaker {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let beat = node.groups.with_known(&request.group_id, |group, now| group.heartbeat(speaker, now));
    HeartbeatResponse::default().with_error_code(code(beat))
}

fn code(outcome: Result<(), ResponseError>) -> i16 {
    outcome.map_or_else(|reason| reason.code(), |()| 0)
}

pub(super) fn leave(node: &Node, caller: &Caller, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let go = |member: &MemberIdentity| {
        node.groups.with_known(&request.group_id, |group, now| {
            group.leave(&member.member_id, member.group_instance_id.as_deref(), now)
        })
    };
    if caller.version < 3 {
        let gone = go(&MemberIdentity::default().with_member_id(request.member_id.clone()));
        return LeaveGroupResponse::default().with_error_code(code(gone));
    }
    let members = request.members.iter().map(|member| {
        MemberResponse::default()
            .with_error_code(code(go(member)))
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(super) async fn describe(node: &Arc<Node>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let with_offsets: BTreeSet<String> =
        node.offsets.groups().await.unwrap_or_default().into_iter().collect();
    let groups = node.groups.lock();
    let described = request.groups.into_iter().map(|id| {
        let described = DescribedGroup::default().with_authorized_operations(NO_OPERATIONS);
        match groups.get(id.as_str()) {
            Some(group) => describe_group(described, group),
            None if with_offsets.contains(id.as_str()) => described.with_group_state(text("Empty")),
            None => described.with_group_state(text("Dead")),
        }
        .with_group_id(id)
    });
    DescribeGroupsResponse::default().with_groups(described.collect())
}

fn describe_group(described: DescribedGroup, group: &Group) -> DescribedGroup {
    let member = |(id, member): (&String, &Member)| {
        let chosen = member.protocols.iter().find(|(name, _)| *name == group.protocol);
        DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(chosen.map(|(_, subscription)| subscription.clone()).unwrap_or_default())
            .with_member_assignment(member.assignment.clone())
    };
    described
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text(&group.protocol))
        .with_members(group.members.iter().map(member).collect())
}

pub(super) async fn list(node: &Arc<Node>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let mut listed = Vec::new();
    let with_offsets = match node.offsets.groups().await {
        Ok(names) => names,
        Err(reason) => return ListGroupsResponse::default().with_error_code(reason.code()),
    };
    let groups = node.groups.lock();
    let names: BTreeSet<&String> = groups.keys().chain(&with_offsets).collect();
    for name in names {
        let (state, protocol_type) = match groups.get(name) {
            Some(group) => (group.state.name(), group.protocol_type.as_str()),
            None => ("Empty", ""),
        };
        let wanted = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|one| one.as_str().eq_ignore_ascii_case(value))
        };
        if wanted(&request.states_filter, state) && wanted(&request.types_filter, "classic") {
            let group = ListedGroup::default()
                .with_group_id(GroupId(text(name)))
                .with_protocol_type(text(protocol_type));
            listed.push(group.with_group_state(text(state)).with_group_type(text("classic")));
        }
    }
    ListGroupsResponse::default().with_groups(listed)
}

pub(super) async fn delete(node: &Arc<Node>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for id in request.groups_names {
        let outcome = delete_group(node, &id).await;
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code(outcome)));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_group(node: &Node, id: &str) -> Result<(), ResponseError> {
    let offsets = node.offsets.read(id).await?;
    let removal = |(topic, partition): (String, i32)| Commit {
        group: id.to_owned(),
        topic,
        partition,
        committed: None,
    };
    let removals: Vec<Commit> = offsets.into_keys().map(removal).collect();
    let place = node.offsets.place().await?;
    let answered = {
        let mut groups = node.groups.lock();
        match groups.get(id) {
            Some(group) if !group.is_idle() => return Err(ResponseError::NonEmptyGroup),
            None if removals.is_empty() => return Err(ResponseError::GroupIdNotFound),
            _ => groups.remove(id),
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        place.send(Command::Write(removals, answer));
        answered
    };
    answered.await.unwrap_or(Err(ResponseError::CoordinatorNotAvailable))
}
