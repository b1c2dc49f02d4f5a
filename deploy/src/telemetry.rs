//! What the process tells of itself: logs on stderr and by OTLP, metrics as Prometheus text and by OTLP, traces by OTLP.
//!
//! Everything that goes out by OTLP waits in a bounded queue for a thread of its own, and is dropped when that is full:
//! a collector that is slow or gone costs nothing else.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context;
use opentelemetry::KeyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{Instrument, SdkMeterProvider, Stream},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// What is logged, by level and target: `info`, `footfall_ingest=debug,info`. `RUST_LOG` wins.
    pub log: String,
    pub log_format: LogFormat,
    /// OTLP over HTTP, for example `http://127.0.0.1:4318`. When absent, `OTEL_EXPORTER_OTLP_ENDPOINT`; without that
    /// nothing is sent.
    pub otlp_endpoint: Option<String>,
    /// Share of batches that are traced, 0 to 1.
    pub trace_ratio: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        // librdkafka's own lines repeat what the roles say in their words.
        Self {
            log: "info,rdkafka=warn,librdkafka=warn".into(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: 0.01,
        }
    }
}

impl TelemetrySettings {
    /// Errors name the key.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return Err(format!("telemetry.trace_ratio: {} is no share; set 0 to 1", self.trace_ratio));
        }
        EnvFilter::try_new(&self.log).map(drop).map_err(|error| format!("telemetry.log: {error}"))
    }

    fn filter(&self) -> anyhow::Result<EnvFilter> {
        EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&self.log)).context("telemetry.log")
    }

    fn endpoint(&self) -> Option<String> {
        let endpoint =
            self.otlp_endpoint.clone().or_else(|| std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok())?;
        let endpoint = endpoint.trim_end_matches('/');
        (!endpoint.is_empty()).then(|| endpoint.to_owned())
    }
}

/// Renders all metrics as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Keeps the exporters until [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    meters: SdkMeterProvider,
    sent: Option<Sent>,
    registry: Registry,
    trace_ratio: f64,
}

/// What goes out by OTLP beside the metrics.
#[derive(Debug)]
struct Sent {
    tracers: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

/// How long the last spans, logs and metrics may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);
/// Of a metric by site and reason. More sites and reasons than this share a last one.
const MOST_SERIES: usize = 20_000;
/// What the exporters themselves log, and the HTTP client under them. Sent by OTLP, each export would cause the next.
const OF_THE_EXPORTERS: [&str; 5] = ["opentelemetry", "reqwest", "hyper", "hyper_util", "h2"];

impl Telemetry {
    /// Installs logs, the global meter and the global tracer. Once a process. `instance` is unique among those that run.
    pub fn install(
        settings: &TelemetrySettings,
        role: &'static str,
        instance: String,
    ) -> anyhow::Result<Self> {
        let resource = resource(role, instance);
        let registry = Registry::new();
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .context("the Prometheus exporter")?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_view(many_series)
            .with_reader(scrape);
        let endpoint = settings.endpoint();
        let mut sent = None;
        if let Some(endpoint) = &endpoint {
            let wrong = || format!("telemetry.otlp_endpoint: {endpoint}");
            let metrics =
                MetricExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/metrics"));
            meters = meters.with_periodic_exporter(metrics.build().with_context(wrong)?);
            let spans = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/traces"));
            // Who begins a trace has drawn lots for it already; who goes on with one does as it was drawn.
            let tracers = SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
                .with_batch_exporter(spans.build().with_context(wrong)?)
                .build();
            opentelemetry::global::set_tracer_provider(tracers.clone());
            let lines = LogExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/logs"));
            let logs = SdkLoggerProvider::builder()
                .with_resource(resource)
                .with_batch_exporter(lines.build().with_context(wrong)?)
                .build();
            sent = Some(Sent { tracers, logs });
        }
        let meters = meters.build();
        opentelemetry::global::set_meter_provider(meters.clone());

        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
        let lines = match settings.log_format {
            LogFormat::Text => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let exported = sent.as_ref().map(|sent| {
            OpenTelemetryTracingBridge::new(&sent.logs)
                .with_filter(filter_fn(|meta| may_be_sent(meta.target())))
        });
        // One filter before both layers. With one in each, a Kafka client that is made asks whether librdkafka's lines
        // are wanted, and when they are not, the next line of that thread is lost.
        tracing_subscriber::registry()
            .with(exported)
            .with(lines)
            .with(settings.filter()?)
            .try_init()
            .context("logs")?;
        let trace_ratio = if sent.is_some() { settings.trace_ratio } else { 0.0 };
        Ok(Self { meters, sent, registry, trace_ratio })
    }

    /// Share of the batches to trace: 0 when nobody takes traces.
    pub fn trace_ratio(&self) -> f64 {
        self.trace_ratio
    }

    pub fn metrics_text(&self) -> MetricsText {
        let registry = self.registry.clone();
        Arc::new(move || {
            let mut text = Vec::new();
            match TextEncoder::new().encode(&registry.gather(), &mut text) {
                Ok(()) => String::from_utf8(text).unwrap_or_default(),
                Err(error) => format!("# metrics cannot be rendered: {error}\n"),
            }
        })
    }

    /// Sends what is still held. Blocks for up to some seconds: call it last, off the async threads.
    pub fn shutdown(self) {
        // Side by side, and whatever comes of it: a collector that is gone must not keep the process.
        thread::scope(|scope| {
            scope.spawn(|| self.meters.shutdown_with_timeout(FLUSH_WITHIN));
            if let Some(sent) = &self.sent {
                scope.spawn(|| sent.tracers.shutdown_with_timeout(FLUSH_WITHIN));
                scope.spawn(|| sent.logs.shutdown_with_timeout(FLUSH_WITHIN));
            }
        });
    }
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over what is known here.
fn resource(role: &'static str, instance: String) -> Resource {
    let mut resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "footfall"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("footfall.role", role),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()) {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

/// Metrics by site and reason may have more series than the SDK keeps by itself.
fn many_series(instrument: &Instrument) -> Option<Stream> {
    let by_site = instrument.name().starts_with("footfall.ingest.events.");
    by_site.then(|| Stream::builder().with_cardinality_limit(MOST_SERIES).build().ok()).flatten()
}

fn may_be_sent(target: &str) -> bool {
    !OF_THE_EXPORTERS.iter().any(|exporter| target.starts_with(exporter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(TelemetrySettings { trace_ratio: 1.5, ..Default::default() }, "telemetry.trace_ratio")]
    #[case(TelemetrySettings { trace_ratio: f64::NAN, ..Default::default() }, "telemetry.trace_ratio")]
    #[case(TelemetrySettings { log: "a=b=c".into(), ..Default::default() }, "telemetry.log")]
    fn a_wrong_setting_is_named(#[case] settings: TelemetrySettings, #[case] key: &str) {
        assert!(settings.check().unwrap_err().starts_with(key));
    }

    #[rstest]
    #[case("footfall_ingest::run", true)]
    #[case("opentelemetry_sdk", false)]
    #[case("opentelemetry-otlp", false)]
    #[case("hyper_util::client::legacy", false)]
    fn logs_of_the_exporters_are_not_exported(#[case] target: &str, #[case] sent: bool) {
        assert_eq!(may_be_sent(target), sent);
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(TelemetrySettings::default().check(), Ok(()));
    }
}
