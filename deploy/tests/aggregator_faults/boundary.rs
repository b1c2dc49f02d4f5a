//! What a block's writer leaves behind on the log: the boundary in the offset's metadata.

use rustix::process::Signal;

use crate::{
    cluster::{Cluster, eventually},
    proxy::Stage,
};

/// The only member dies with a block on its way, then the broker that holds the group's offsets dies: the next member
/// cuts the same block.
pub(crate) async fn outlives_its_writer_and_its_broker(seed: u64) {
    let mut cluster = Cluster::start(1).await;
    let load = cluster.load(seed);
    cluster.until_fresh().await;
    let held = cluster.proxy.hold(&cluster.members[0].name, Stage::Sent).await.unwrap();
    let block = held.insert.clone();
    cluster.members[0].process.signal(Signal::KILL);
    let announced = cluster.brokers.committed(block.partition).await.unwrap();
    assert_eq!(announced.0, block.range.0, "the offset stays at the block's start");
    let prefix = format!("v1:{}:", block.range.1);
    assert!(announced.1.starts_with(&prefix), "{announced:?} is not the boundary of {block:?}");

    let lost = cluster.brokers.lose_leader(block.partition).await;
    let after = eventually("the group's offsets can be read", async || {
        cluster.brokers.committed(block.partition).await
    })
    .await;
    assert_eq!(after, announced);
    cluster.members[0].process.kill();
    cluster.members[0].start_again();
    cluster.until_shared().await;
    eventually("the block is there", async || {
        let inserts = cluster.proxy.inserts();
        (inserts.iter().filter(|insert| **insert == block).count() == 2).then_some(())
    })
    .await;
    cluster.until_fresh().await;
    drop(held);
    lost.bring_back().await;
    cluster.prove(load).await;
}
