//! Members come and go under load.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, PARTITIONS};

/// Who owns what, by asking one member after the other. Who is asked first may have given a partition away meanwhile:
/// asked again, it must not have it any more.
async fn owners(cluster: &Cluster) -> BTreeMap<i32, usize> {
    let mut owners = BTreeMap::new();
    for (number, member) in cluster.members.iter().enumerate() {
        for partition in member.owns().await {
            if let Some(before) = owners.insert(partition, number) {
                let still = cluster.members[before].owns().await;
                assert!(
                    !still.contains(&partition),
                    "{} and {} both own partition {partition}\n{}",
                    cluster.members[before].name,
                    member.name,
                    cluster.logs()
                );
            }
        }
    }
    owners
}

pub(crate) async fn one_to_three_to_one(seed: u64) {
    let mut cluster = Cluster::start(1).await;
    let load = cluster.load(seed);
    cluster.until_fresh().await;
    for members in [2, 3] {
        cluster.add_member();
        watched(&cluster, cluster.until_shared()).await;
        let owners = owners(&cluster).await;
        assert_eq!(owners.len(), PARTITIONS as usize, "each partition has an owner");
        let mut shares = vec![0; members];
        owners.values().for_each(|owner| shares[*owner] += 1);
        assert!(shares.iter().all(|share| *share == PARTITIONS as usize / members), "{shares:?}");
        println!("{members} members, fresh events after {:?}", cluster.until_fresh().await);
    }
    for _ in 0..2 {
        // The one that was there first goes first.
        let leaver = cluster.members.remove(0);
        leaver.process.stop().await;
        watched(&cluster, cluster.until_shared()).await;
        println!("{} members, fresh events after {:?}", cluster.members.len(), cluster.until_fresh().await);
    }
    cluster.prove(load).await;
}

/// No partition has two owners meanwhile.
async fn watched(cluster: &Cluster, change: impl Future<Output = ()>) {
    let watch = async {
        loop {
            owners(cluster).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = change => {}
        () = watch => unreachable!("it watches for ever"),
    }
}
