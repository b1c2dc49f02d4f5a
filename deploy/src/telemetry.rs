//! What the process tells of itself: logs on stderr, metrics as Prometheus text and by OTLP, traces by OTLP.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// What is logged, by level and target: `info`, `footfall_ingest=debug,info`. `RUST_LOG` wins.
    pub log: String,
    pub log_format: LogFormat,
    /// OTLP over HTTP, for example `http://127.0.0.1:4318`. Nothing is sent when absent.
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
}

/// Renders all metrics as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Keeps the exporters until [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
    registry: Registry,
}

/// How long the last spans and metrics may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

impl Telemetry {
    /// Installs logs, the global meter and the global tracer. Once a process.
    pub fn install(settings: &TelemetrySettings, role: &'static str) -> anyhow::Result<Self> {
        let resource = Resource::builder()
            .with_service_name("footfall")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("footfall.role", role),
            ])
            .build();
        let registry = Registry::new();
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .context("the Prometheus exporter")?;
        let mut meters = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(scrape);
        let mut tracers = None;
        if let Some(endpoint) = &settings.otlp_endpoint {
            let endpoint = endpoint.trim_end_matches('/');
            let wrong = || format!("telemetry.otlp_endpoint: {endpoint}");
            let metrics =
                MetricExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/metrics"));
            meters = meters.with_periodic_exporter(metrics.build().with_context(wrong)?);
            let spans = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/traces"));
            let ratio = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.trace_ratio)));
            let provider = SdkTracerProvider::builder()
                .with_resource(resource)
                .with_sampler(ratio)
                .with_batch_exporter(spans.build().with_context(wrong)?)
                .build();
            opentelemetry::global::set_tracer_provider(provider.clone());
            tracers = Some(provider);
        }
        let meters = meters.build();
        opentelemetry::global::set_meter_provider(meters.clone());

        let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&settings.log));
        let filter = filter.context("telemetry.log")?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match settings.log_format {
            LogFormat::Text => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let spans = tracers
            .as_ref()
            .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("footfall")));
        tracing_subscriber::registry()
            .with(spans)
            .with(lines.with_filter(filter))
            .try_init()
            .context("logs")?;
        Ok(Self { meters, tracers, registry })
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
        if let Some(tracers) = self.tracers {
            let _ = tracers.shutdown_with_timeout(FLUSH_WITHIN);
        }
        // A collector that is gone must not keep the process.
        let _ = self.meters.shutdown_with_timeout(FLUSH_WITHIN);
    }
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

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(TelemetrySettings::default().check(), Ok(()));
    }
}
