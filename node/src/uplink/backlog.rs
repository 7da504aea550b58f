//! `watchline_backlog_bytes{lane}` and `watchline_backlog_oldest_age_seconds{lane}`, read from the spool at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use watchline_proto::Lane;
use watchline_spool as spool;

use super::status::now_unix_nano;

/// What has not been acknowledged yet, per reader of a spool and lane. Register it once a process with
/// [`Registry::register_collector`](prometheus_client::registry::Registry::register_collector).
///
/// A forwarder has one reader and no label beside `lane`; at a collector each output has its own `output` label.
pub struct Backlog {
    readers: Vec<Queued>,
}

struct Queued {
    view: spool::View,
    reader: String,
    output: Option<String>,
}

impl Backlog {
    /// Of a forwarder's only reader.
    pub fn of(view: spool::View, reader: &str) -> Backlog {
        Backlog {
            readers: vec![Queued {
                view,
                reader: reader.to_owned(),
                output: None,
            }],
        }
    }

    /// Of a collector's outputs, by the names of their readers: `output/<name>`.
    pub fn of_outputs(view: &spool::View, outputs: &[String]) -> Backlog {
        let readers = outputs
            .iter()
            .map(|name| Queued {
                view: view.clone(),
                reader: name.clone(),
                output: Some(name.strip_prefix("output/").unwrap_or(name).to_owned()),
            })
            .collect();
        Backlog { readers }
    }

    fn each(
        &self,
        mut with: impl FnMut(&[(&str, &str)], &spool::LaneStatus) -> fmt::Result,
    ) -> fmt::Result {
        for queued in &self.readers {
            let lanes = queued.view.backlog(&queued.reader);
            for lane in Lane::ALL {
                let status = &lanes[lane.index()];
                match &queued.output {
                    None => with(&[("lane", lane.as_str())], status)?,
                    Some(output) => with(&[("lane", lane.as_str()), ("output", output)], status)?,
                }
            }
        }
        Ok(())
    }
}

impl Collector for Backlog {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut bytes = encoder.encode_descriptor(
            "watchline_backlog_bytes",
            "Bytes that the next hop has not acknowledged",
            None,
            MetricType::Gauge,
        )?;
        self.each(|labels, status| {
            let value = i64::try_from(status.bytes).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(bytes.encode_family(&labels)?)
        })?;
        let now = now_unix_nano();
        let mut age = encoder.encode_descriptor(
            "watchline_backlog_oldest_age_seconds",
            "Age of the oldest batch that the next hop has not acknowledged; 0 when there is none",
            None,
            MetricType::Gauge,
        )?;
        self.each(|labels, status| {
            let nanos = if status.items == 0 {
                0
            } else {
                now.saturating_sub(status.oldest_unix_nano).max(0)
            };
            #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
            let seconds = nanos as f64 / 1e9;
            ConstGauge::new(seconds).encode(age.encode_family(&labels)?)
        })
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog")
            .field("readers", &self.readers.len())
            .finish()
    }
}
