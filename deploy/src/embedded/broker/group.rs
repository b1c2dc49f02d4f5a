//! One consumer group: who is in it, in which generation, and what each member was assigned.
//!
//! The classic protocol. A pure state machine: time is an argument, answers leave through one-shot channels.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::member::{Join, JoinAnswer, Joined, Member, Speaker, SyncAnswer, Synced};
use super::node::fresh_id;

/// More members than this are refused.
const MAX_MEMBERS: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    /// Members are asked to join again, until all have or this moment has come.
    Joining(Instant),
    /// The leader is computing the assignment.
    Syncing(Instant),
    Stable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining(_) => "PreparingRebalance",
            Self::Syncing(_) => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub state: State,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub members: BTreeMap<String, Member>,
    leader: Option<String>,
    /// Ids handed out to members that have not come back with them yet, and until when they may.
    pending: HashMap<String, Instant>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            members: BTreeMap::new(),
            leader: None,
            pending: HashMap::new(),
        }
    }
}

impl Group {
    pub(super) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Takes a member in, or has it wait until all have joined; `answer` is used then.
    pub(super) fn join(
        &mut self,
        join: Join,
        now: Instant,
        answer: oneshot::Sender<JoinAnswer>,
    ) -> Option<String> {
        match self.try_join(join, now, answer) {
            Ok(()) => None,
            Err((answer, reason, member_id)) => {
                let _ = answer.send(Err(reason));
                member_id
            }
        }
    }

    fn try_join(
        &mut self,
        join: Join,
        now: Instant,
        answer: oneshot::Sender<JoinAnswer>,
    ) -> Result<(), JoinRefusal> {
        if !self.speaks_a_common_protocol(&join) {
            return Err((answer, ResponseError::InconsistentGroupProtocol, None));
        }
        if join.member_id.is_empty() {
            return self.join_as_new(join, now, answer);
        }
        if let Err(reason) = self.identify(&join.member_id, join.instance_id.as_deref()) {
            if self.pending.remove(&join.member_id).is_none() {
                return Err((answer, reason, None));
            }
            self.add(join.member_id.clone(), join, now, answer);
            return Ok(());
        }
        let is_leader = self.leader.as_deref() == Some(&join.member_id);
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return Err((answer, ResponseError::UnknownMemberId, None));
        };
        let unchanged = member.protocols == join.protocols;
        member.expires = now + join.session_timeout;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        match self.state {
            // The answer to its first join was lost.
            State::Syncing(_) if unchanged => {
                let _ = answer.send(Ok(self.joined(&join.member_id)));
            }
            State::Stable if unchanged && !is_leader => {
                let _ = answer.send(Ok(self.joined(&join.member_id)));
            }
            _ => {
                member.protocols = join.protocols;
                member.join = Some(answer);
                self.rebalance(now);
            }
        }
        Ok(())
    }

    fn join_as_new(
        &mut self,
        join: Join,
        now: Instant,
        answer: oneshot::Sender<JoinAnswer>,
    ) -> Result<(), JoinRefusal> {
        let member_id = format!("{}-{}", join.client_id, fresh_id());
        if let Some(instance_id) = &join.instance_id {
            if let Some(old_id) = self.holder_of(instance_id) {
                self.replace(&old_id, member_id, join, now, answer);
                return Ok(());
            }
        } else if join.id_required {
            if self.members.len() + self.pending.len() >= MAX_MEMBERS {
                return Err((answer, ResponseError::GroupMaxSizeReached, None));
            }
            self.pending.insert(member_id.clone(), now + join.session_timeout);
            return Err((answer, ResponseError::MemberIdRequired, Some(member_id)));
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err((answer, ResponseError::GroupMaxSizeReached, None));
        }
        self.add(member_id, join, now, answer);
        Ok(())
    }

    fn add(&mut self, member_id: String, join: Join, now: Instant, answer: oneshot::Sender<JoinAnswer>) {
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            assignment: Bytes::new(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            expires: now + join.session_timeout,
            join: Some(answer),
            sync: None,
        };
        self.leader.get_or_insert_with(|| member_id.clone());
        self.members.insert(member_id, member);
        self.rebalance(now);
    }

    /// A static member came back under a new id: the old id is fenced, the assignment stays.
    fn replace(
        &mut self,
        old_id: &str,
        new_id: String,
        join: Join,
        now: Instant,
        answer: oneshot::Sender<JoinAnswer>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        if let Some(old) = member.join.take() {
            let _ = old.send(Err(ResponseError::FencedInstanceId));
        }
        if let Some(old) = member.sync.take() {
            let _ = old.send(Err(ResponseError::FencedInstanceId));
        }
        let was_leader = self.leader.as_deref() == Some(old_id);
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        let unchanged = member.protocols == join.protocols;
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.expires = now + join.session_timeout;
        let stays = unchanged && self.state == State::Stable;
        if !stays {
            member.join = Some(answer);
            self.members.insert(new_id, member);
            self.rebalance(now);
            return;
        }
        self.members.insert(new_id.clone(), member);
        let mut joined = self.joined(&new_id);
        // Told that another one leads, it takes the assignment that is there instead of computing one.
        if was_leader {
            joined.leader = old_id.to_owned();
            joined.members.clear();
        }
        let _ = answer.send(Ok(joined));
    }

    fn holder_of(&self, instance_id: &str) -> Option<String> {
        let holds = |member: &Member| member.instance_id.as_deref() == Some(instance_id);
        self.members.iter().find(|(_, member)| holds(member)).map(|(id, _)| id.clone())
    }

    /// Whether the id, and the instance id where there is one, are a member's.
    fn identify(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance_id) = instance_id {
            return match self.holder_of(instance_id) {
                Some(holder) if holder == member_id => Ok(()),
                Some(_) => Err(ResponseError::FencedInstanceId),
                None => Err(ResponseError::UnknownMemberId),
            };
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    fn speaks_a_common_protocol(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        let mut others =
            self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member).peekable();
        if others.peek().is_none() {
            return true;
        }
        let others: Vec<_> = others.collect();
        let has = |member: &Member, name: &str| member.protocols.iter().any(|(own, _)| own == name);
        join.protocol_type == self.protocol_type
            && join.protocols.iter().any(|(name, _)| others.iter().all(|member| has(member, name)))
    }

    /// Asks everyone to join again, unless that is under way, and goes on at once where all have.
    fn rebalance(&mut self, now: Instant) {
        if !matches!(self.state, State::Joining(_)) {
            for member in self.members.values_mut() {
                if let Some(sync) = member.sync.take() {
                    let _ = sync.send(Err(ResponseError::RebalanceInProgress));
                }
                if matches!(self.state, State::Syncing(_)) {
                    member.assignment = Bytes::new();
                }
            }
            let patience =
                self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default();
            self.state = State::Joining(now + patience);
        }
        if self.pending.is_empty() && self.members.values().all(|member| member.join.is_some()) {
            self.complete_join(now);
        }
    }

    /// Ends the join phase: who did not come is out, and only now a new generation begins. Until here the old one's
    /// members may commit what they still hold.
    fn complete_join(&mut self, now: Instant) {
        self.members.retain(|_, member| member.join.is_some() || member.instance_id.is_some());
        self.generation += 1;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.leader = None;
            self.protocol.clear();
            return;
        }
        let leads = |id: &String| self.members.get(id).is_some_and(|member| member.join.is_some());
        if !self.leader.as_ref().is_some_and(leads) {
            let joined = self.members.iter().find(|(_, member)| member.join.is_some());
            self.leader = joined.or(self.members.iter().next()).map(|(id, _)| id.clone());
        }
        self.protocol = self.elect_protocol();
        let patience = self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        self.state = State::Syncing(now + patience);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.expires = now + member.session_timeout;
                if let Some(answer) = member.join.take() {
                    let _ = answer.send(Ok(joined));
                }
            }
        }
    }

    /// The protocol that all members know and most prefer.
    fn elect_protocol(&self) -> String {
        let known = |name: &str| {
            self.members.values().all(|member| member.protocols.iter().any(|(own, _)| own == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| known(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    fn joined(&self, member_id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let mut members = Vec::new();
        if leader == member_id {
            let all = self.members.iter();
            members.extend(
                all.map(|(id, one)| (id.clone(), one.instance_id.clone(), one.subscription(&self.protocol))),
            );
        }
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            members,
        }
    }

    fn authorise(&self, speaker: Speaker<'_>) -> Result<(), ResponseError> {
        self.identify(speaker.member_id, speaker.instance_id)?;
        if speaker.generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// Takes the leader's assignments, or has a follower wait for them.
    pub(super) fn sync(
        &mut self,
        speaker: Speaker<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        now: Instant,
        answer: oneshot::Sender<SyncAnswer>,
    ) {
        let differs = |stated: Option<&str>, own: &str| stated.is_some_and(|stated| stated != own);
        let refusal = match (self.authorise(speaker), self.state) {
            (Err(reason), _) => Some(reason),
            _ if differs(protocol.0, &self.protocol_type) || differs(protocol.1, &self.protocol) => {
                Some(ResponseError::InconsistentGroupProtocol)
            }
            (Ok(()), State::Empty) => Some(ResponseError::UnknownMemberId),
            (Ok(()), State::Joining(_)) => Some(ResponseError::RebalanceInProgress),
            (Ok(()), State::Syncing(_) | State::Stable) => None,
        };
        if let Some(reason) = refusal {
            let _ = answer.send(Err(reason));
            return;
        }
        if let Some(member) = self.members.get_mut(speaker.member_id) {
            member.expires = now + member.session_timeout;
            member.sync = Some(answer);
        }
        if matches!(self.state, State::Syncing(_)) && self.leader.as_deref() == Some(speaker.member_id) {
            let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
            for (id, member) in &mut self.members {
                member.assignment = assignments.remove(id).unwrap_or_default();
            }
            self.state = State::Stable;
        }
        if self.state == State::Stable {
            self.answer_syncs(now);
        }
    }

    fn answer_syncs(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(answer) = member.sync.take() {
                member.expires = now + member.session_timeout;
                let _ = answer.send(Ok(Synced {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                }));
            }
        }
    }

    pub(super) fn heartbeat(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        self.authorise(speaker)?;
        self.refresh(speaker.member_id, now);
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Joining(_) => Err(ResponseError::RebalanceInProgress),
            State::Syncing(_) | State::Stable => Ok(()),
        }
    }

    fn refresh(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.expires = now + member.session_timeout;
        }
    }

    /// Whether this speaker may commit now. This is the fence: an id that is not a member's and a generation that
    /// is not the current one are refused, and nobody commits between a join and its assignment.
    pub(super) fn admit_commit(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        let anonymous =
            speaker.generation < 0 && speaker.member_id.is_empty() && speaker.instance_id.is_none();
        if speaker.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if anonymous {
            return Err(ResponseError::UnknownMemberId);
        }
        self.authorise(speaker)?;
        if matches!(self.state, State::Syncing(_)) {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.refresh(speaker.member_id, now);
        Ok(())
    }

    /// A member goes; the others are asked to join again.
    pub(super) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let member_id = match instance_id {
            Some(instance_id) if member_id.is_empty() => {
                self.holder_of(instance_id).ok_or(ResponseError::UnknownMemberId)?
            }
            _ => member_id.to_owned(),
        };
        if self.pending.remove(&member_id).is_some() {
            if matches!(self.state, State::Joining(_)) {
                self.rebalance(now);
            }
            return Ok(());
        }
        self.identify(&member_id, instance_id)?;
        self.expel(&member_id);
        self.rebalance(now);
        Ok(())
    }

    fn expel(&mut self, member_id: &str) {
        if let Some(member) = self.members.remove(member_id) {
            if let Some(join) = member.join {
                let _ = join.send(Err(ResponseError::UnknownMemberId));
            }
            if let Some(sync) = member.sync {
                let _ = sync.send(Err(ResponseError::UnknownMemberId));
            }
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Applies every deadline that has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let mut silent: Vec<String> = Vec::new();
        let assignment_overdue = matches!(self.state, State::Syncing(until) if until <= now);
        for (id, member) in &self.members {
            if (!member.is_waiting() && member.expires <= now)
                || (assignment_overdue && member.sync.is_none())
            {
                silent.push(id.clone());
            }
        }
        for id in &silent {
            self.expel(id);
        }
        match self.state {
            State::Joining(until) if until <= now => {
                self.pending.clear();
                self.complete_join(now);
            }
            State::Joining(_) if pending != self.pending.len() || !silent.is_empty() => self.rebalance(now),
            _ if !silent.is_empty() || assignment_overdue => self.rebalance(now),
            _ => {}
        }
    }

    /// When [`Self::expire`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = match self.state {
            State::Joining(until) | State::Syncing(until) => Some(until),
            State::Empty | State::Stable => None,
        };
        let members =
            self.members.values().filter(|member| !member.is_waiting()).map(|member| member.expires);
        members.chain(self.pending.values().copied()).chain(own).min()
    }
}

/// The unused answer, the reason, and the id to come back with.
type JoinRefusal = (oneshot::Sender<JoinAnswer>, ResponseError, Option<String>);
