//! Who may commit when. Exactly-once delivery rests on this: a member that the group has moved past cannot commit.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::clients::{fresh, topic};
use super::raw::{RawClient, text};
use super::target::{address, eventually};

const JOIN: i16 = 5;

/// A group member whose every request is made by hand.
struct Member {
    raw: RawClient,
    group: GroupId,
    topic: TopicName,
    id: StrBytes,
    instance: Option<StrBytes>,
    generation: i32,
    session_timeout_ms: i32,
}

impl Member {
    async fn new(address: &str, group: &str, topic: &str) -> Self {
        let mut raw = RawClient::connect(address).await;
        // Apache Kafka creates the place where it keeps groups when it is first asked for a coordinator.
        eventually("the group has a coordinator", async || {
            let found = raw.ask(3, &FindCoordinatorRequest::default().with_key(text(group))).await;
            let listed =
                raw.ask(2, &DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))])).await;
            (found.error_code == 0 && listed.groups[0].error_code == 0).then_some(())
        })
        .await;
        Self {
            raw,
            group: GroupId(text(group)),
            topic: TopicName(text(topic)),
            id: StrBytes::default(),
            instance: None,
            generation: -1,
            session_timeout_ms: 10_000,
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(vec![0, 0].into());
        JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_rebalance_timeout_ms(10_000)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    /// Gets an id where it has none, then asks to be let in; the answer comes when all have.
    async fn ask_to_join(&mut self) {
        if self.id.is_empty() && self.instance.is_none() {
            let refused = self.raw.ask(JOIN, &self.join_request()).await;
            assert_eq!(refused.error_code, ResponseError::MemberIdRequired.code());
            self.id = refused.member_id;
        }
        self.raw.send(JOIN, &self.join_request()).await;
    }

    async fn joined(&mut self) -> JoinGroupResponse {
        let response = self.raw.answer::<JoinGroupRequest>(JOIN).await;
        if response.error_code == 0 {
            self.generation = response.generation_id;
            self.id = response.member_id.clone();
        }
        response
    }

    async fn sync(&mut self, members: &[StrBytes]) -> i16 {
        let assign = |id: &StrBytes| {
            SyncGroupRequestAssignment::default().with_member_id(id.clone()).with_assignment(vec![1].into())
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_assignments(members.iter().map(assign).collect());
        self.raw.ask(3, &request).await.error_code
    }

    async fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.raw.ask(3, &request).await.error_code
    }

    async fn commit(&mut self, offset: i64) -> i16 {
        let part = OffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("m")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(self.topic.clone()).with_partitions(vec![part]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![topic]);
        self.raw.ask(8, &request).await.topics[0].partitions[0].error_code
    }

    async fn committed(&mut self) -> i64 {
        let topic =
            OffsetFetchRequestTopics::default().with_name(self.topic.clone()).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.group.clone())
            .with_topics(Some(vec![topic]));
        let response = self.raw.ask(8, &OffsetFetchRequest::default().with_groups(vec![group])).await;
        response.groups[0].topics[0].partitions[0].committed_offset
    }

    /// Joins a group in which it is alone.
    async fn settle(&mut self) {
        self.ask_to_join().await;
        assert_eq!(self.joined().await.error_code, 0);
        let own = self.id.clone();
        assert_eq!(self.sync(&[own]).await, 0);
    }
}

async fn pair() -> (Member, Member) {
    let address = address();
    let (topic, group) = (topic(&address, 1, &[]).await, fresh("g"));
    (Member::new(&address, &group, &topic).await, Member::new(&address, &group, &topic).await)
}

#[tokio::test]
async fn the_old_generation_commits_until_the_join_completes_and_not_after() {
    let (mut old, mut new) = pair().await;
    old.settle().await;
    assert_eq!(old.commit(1).await, 0);

    new.ask_to_join().await;
    eventually("the old member is asked to join again", async || {
        (old.heartbeat().await == ResponseError::RebalanceInProgress.code()).then_some(())
    })
    .await;
    assert_eq!(old.commit(2).await, 0, "it still owns what it had");

    let stale = old.generation;
    old.ask_to_join().await;
    let (first, second) = (old.joined().await, new.joined().await);
    assert_eq!(
        (first.generation_id, second.generation_id),
        (stale + 1, stale + 1),
        "one step, when all have joined"
    );
    assert_eq!(old.commit(3).await, ResponseError::RebalanceInProgress.code(), "nobody owns anything yet");
    let everyone = [old.id.clone(), new.id.clone()];
    let leader_is_old = first.leader == old.id;
    let (leader, follower) = if leader_is_old { (&mut old, &mut new) } else { (&mut new, &mut old) };
    assert_eq!(leader.sync(&everyone).await, 0);
    assert_eq!(follower.sync(&[]).await, 0);
    assert_eq!(old.commit(4).await, 0);

    old.generation = stale;
    assert_eq!(old.commit(5).await, ResponseError::IllegalGeneration.code());
    assert_eq!(old.heartbeat().await, ResponseError::IllegalGeneration.code());
    assert_eq!(old.committed().await, 4);
}

#[tokio::test]
async fn a_member_that_was_silent_too_long_cannot_commit() {
    let (mut silent, mut other) = pair().await;
    silent.session_timeout_ms = 500;
    silent.settle().await;
    assert_eq!(silent.commit(1).await, 0);
    // The other gets in only because the silent one does not come back in time.
    other.settle().await;
    assert_eq!(other.commit(2).await, 0);
    assert_eq!(silent.commit(3).await, ResponseError::UnknownMemberId.code());
    assert_eq!(silent.heartbeat().await, ResponseError::UnknownMemberId.code());
    assert_eq!(other.committed().await, 2);
}

#[tokio::test]
async fn a_member_that_left_cannot_commit() {
    let (mut gone, _) = pair().await;
    gone.settle().await;
    let leaver = MemberIdentity::default().with_member_id(gone.id.clone());
    let request = LeaveGroupRequest::default().with_group_id(gone.group.clone()).with_members(vec![leaver]);
    assert_eq!(gone.raw.ask(4, &request).await.members[0].error_code, 0);
    assert_eq!(gone.commit(1).await, ResponseError::UnknownMemberId.code());
}

#[tokio::test]
async fn a_static_member_fences_its_predecessor() {
    let (mut before, mut after) = pair().await;
    before.instance = Some(text("node-1"));
    after.instance = Some(text("node-1"));
    before.settle().await;
    assert_eq!(before.commit(1).await, 0);
    after.ask_to_join().await;
    assert_eq!(after.joined().await.error_code, 0);
    assert_eq!(before.commit(2).await, ResponseError::FencedInstanceId.code());
    assert_eq!(before.heartbeat().await, ResponseError::FencedInstanceId.code());
    assert_eq!(before.committed().await, 1);
}

#[tokio::test]
async fn who_is_not_a_member_commits_only_to_a_group_without_members() {
    let (mut member, mut outsider) = pair().await;
    assert_eq!(outsider.commit(1).await, 0, "a simple consumer");
    outsider.generation = 3;
    outsider.id = text("made-up");
    assert!(
        [ResponseError::IllegalGeneration.code(), ResponseError::UnknownMemberId.code()]
            .contains(&outsider.commit(2).await)
    );
    member.settle().await;
    outsider.generation = -1;
    outsider.id = StrBytes::default();
    assert_eq!(outsider.commit(3).await, ResponseError::UnknownMemberId.code());
    assert_eq!(member.committed().await, 1);
}

#[tokio::test]
async fn an_unknown_member_id_may_not_join() {
    let (mut member, _) = pair().await;
    member.id = text("made-up");
    member.raw.send(JOIN, &member.join_request()).await;
    assert_eq!(member.joined().await.error_code, ResponseError::UnknownMemberId.code());
}
