//! Makes what the roles need: the Kafka topics and the ClickHouse tables. May run as often as one likes.

use std::time::Duration;

use anyhow::{Context, bail};
use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings},
    migrations, topics,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub fn client_config(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config.extend(kafka.properties.clone());
    config
}

/// Creates the topics that are missing. Those that exist keep their settings, but the events topic must have as many
/// partitions as its snapshots.
pub async fn create_topics(kafka: &KafkaSettings, partitions: u32, replication: i32) -> anyhow::Result<()> {
    let config = client_config(kafka);
    let existing = tokio::task::spawn_blocking({
        let config = config.clone();
        move || partition_counts(&config)
    })
    .await?
    .with_context(|| format!("kafka.brokers: {} does not answer", kafka.brokers))?;
    let count = |name: &str| existing.iter().find(|(topic, _)| topic == name).map(|(_, count)| *count);
    let events = count(topics::EVENTS).unwrap_or(partitions as usize);
    let missing: Vec<_> = topics::ALL
        .iter()
        .filter(|spec| count(spec.name).is_none())
        .map(|spec| {
            let partitions = if spec.like_events { events as i32 } else { 1 };
            let topic = NewTopic::new(spec.name, partitions, TopicReplication::Fixed(replication));
            spec.configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    if let Some(snapshots) = count(topics::SNAPSHOTS)
        && snapshots != events
    {
        bail!(
            "{} has {events} partitions and {} has {snapshots}: give the latter as many",
            topics::EVENTS,
            topics::SNAPSHOTS
        );
    }
    if missing.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config.create().context("kafka")?;
    let options =
        AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    for outcome in admin.create_topics(&missing, &options).await.context("kafka: cannot create topics")? {
        match outcome {
            // Another node was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("kafka: cannot create {name}: {code}"),
        }
    }
    Ok(())
}

fn partition_counts(config: &ClientConfig) -> anyhow::Result<Vec<(String, usize)>> {
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(None, ANSWER_WITHIN)?;
    Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
}

/// Creates the database and the tables that are missing, as the admin user.
pub async fn create_tables(admin: &ClickHouseSettings) -> anyhow::Result<()> {
    let client = admin.client();
    let unreachable = || format!("clickhouse.url: {} does not take the admin's statements", admin.url);
    // The database may not exist yet, so it must not be named in the connection.
    let database = format!("CREATE DATABASE IF NOT EXISTS `{}`", admin.database.replace('`', ""));
    client.clone().with_database("default").query(&database).execute().await.with_context(unreachable)?;
    for migration in migrations::ALL {
        let applied = client.query(migration.sql).execute().await;
        applied.with_context(|| format!("migration {}", migration.name)).with_context(unreachable)?;
    }
    Ok(())
}
