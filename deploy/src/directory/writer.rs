//! Changes the directory: a record acked by all replicas, and shown here before anybody goes on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow};
use footfall_dashboard::directory::{Edit, EditError, Writing};
use footfall_schemas::{connect::KafkaSettings, topics::DIRECTORY};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};
use tracing::error;

use super::reader::{Progress, Reader};
use crate::migrate::client_config;

/// How long a record may try to reach the log, and how long its way back here may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Writes entries, whoever else does. A declared one stays as it is declared.
pub struct Writer {
    settings: ClientConfig,
    /// Made anew when it can never write again.
    producer: Mutex<FutureProducer>,
    progress: watch::Receiver<Progress>,
}

impl Writer {
    /// `reader` is of the same process.
    pub fn new(kafka: &KafkaSettings, reader: &Reader) -> anyhow::Result<Self> {
        let mut settings = client_config(kafka);
        settings
            .set("client.id", "footfall-directory")
            .set("linger.ms", "0")
            .set("message.timeout.ms", WITHIN.as_millis().to_string())
            .set("reconnect.backoff.max.ms", "1000");
        // What an answer promises is no setting.
        settings.set("acks", "all").set("enable.idempotence", "true");
        let producer = settings.create().context("kafka: the directory's producer")?;
        Ok(Self { settings, producer: Mutex::new(producer), progress: reader.progress() })
    }

    /// Writes entries in this order, each as [`Edit::write`] does.
    pub async fn write_all(
        &self,
        entries: impl IntoIterator<Item = (String, Option<Value>)>,
    ) -> anyhow::Result<()> {
        try_join_all(entries.into_iter().map(|(key, value)| self.append(key, value))).await?;
        Ok(())
    }

    async fn append(&self, key: String, value: Option<Value>) -> anyhow::Result<()> {
        let value = value.map(|value| value.to_string());
        let mut record = FutureRecord::to(DIRECTORY).partition(0).key(&key);
        if let Some(value) = &value {
            record = record.payload(value);
        }
        let producer = self.producer();
        let delivered = match producer.send(record, WITHIN).await {
            Ok(delivered) => delivered,
            Err((error, _)) => {
                self.replace(&producer, &error);
                return Err(error).context("kafka does not take the record");
            }
        };
        let end = match delivered.offset {
            // It was there already when it was sent once more, and where is not told.
            offset if offset < 0 => end_of_log(producer).await?,
            offset => offset + 1,
        };
        let mut progress = self.progress.clone();
        let shown = progress.wait_for(|progress| progress.next >= end);
        match timeout(WITHIN, shown).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(anyhow!("it is written, but does not come back within {WITHIN:?}")),
        }
    }

    fn producer(&self) -> FutureProducer {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idempotent producer that lost its sequence stays useless for ever.
    fn replace(&self, producer: &FutureProducer, cause: &KafkaError) {
        let Some((_, reason)) = producer.client().fatal_error() else { return };
        error!(reason, %cause, "the directory's producer is made anew");
        if let Ok(new) = self.settings.create() {
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

async fn end_of_log(producer: FutureProducer) -> anyhow::Result<i64> {
    let ask = move || producer.client().fetch_watermarks(DIRECTORY, 0, WITHIN);
    let (_, end) = tokio::task::spawn_blocking(ask).await?.context("kafka does not tell the log's end")?;
    Ok(end)
}

impl Edit for Writer {
    fn write(&self, key: String, value: Option<Value>) -> Writing<'_> {
        Box::pin(
            async move { self.append(key, value).await.map_err(|error| EditError(format!("{error:#}"))) },
        )
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer(…)")
    }
}
