//! The outputs of this process: started, shown, given other endpoints, stopped.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use watchline_node::{
    health::{CheckState, Checks},
    identity::Identity,
    uplink::{UplinkMetrics, UplinkStatus},
};

use crate::{
    buffer::Buffer,
    chains::ChainStore,
    outputs::{
        ArchiveOutput, Feed, FileOutput, OutputConfig, OutputKind, OutputsMetrics, Signal,
        upstream::{UpstreamOutput, check_of},
    },
    watch::{OwnEventQueue, OwnEvents},
    worker::Worker,
};

/// How long outputs on our own disk may still write after the stop.
const LOCAL_GRACE: Duration = Duration::from_secs(5);
/// Between attempts to read a buffer whose disk fails.
const READER_AGAIN: Duration = Duration::from_millis(500);
/// Between looks at what is left to write.
const GRACE_LOOK: Duration = Duration::from_millis(20);

/// What every output is given.
pub(super) struct Surroundings {
    pub buffer: Buffer,
    pub identity: Identity,
    pub chains: ChainStore,
    pub events: OwnEventQueue,
    pub checks: Checks,
    pub buffer_directory: PathBuf,
    pub software: String,
    pub uplink_metrics: UplinkMetrics,
    pub outputs_metrics: OutputsMetrics,
}

/// How an output does, for `/status`. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct OutputStates {
    states: Arc<Mutex<BTreeMap<String, CheckState>>>,
    uplinks: Arc<Mutex<BTreeMap<String, UplinkStatus>>>,
}

impl OutputStates {
    fn set(&self, output: &str, state: CheckState) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(output.to_owned(), state);
    }

    fn set_uplink(&self, output: &str, status: UplinkStatus) {
        let mut uplinks = self.uplinks.lock().unwrap_or_else(PoisonError::into_inner);
        uplinks.insert(output.to_owned(), status);
    }

    /// Whether an output works.
    pub fn state(&self, output: &str) -> Option<CheckState> {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(output)
            .cloned()
    }

    /// What the uplink of an `upstream` output says.
    pub fn uplink(&self, output: &str) -> Option<UplinkStatus> {
        self.uplinks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(output)
            .cloned()
    }
}

/// Name of a required output's check. Leaked once an output and process: check names live as long as the process.
pub(super) fn check_name(output: &OutputConfig) -> Option<&'static str> {
    output
        .required
        .then(|| -> &'static str { Box::leak(format!("output:{}", output.name).into_boxed_str()) })
}

/// Folder of batches that an output set aside.
pub fn quarantine_of(buffer_directory: &Path, output: &str) -> PathBuf {
    buffer_directory.join("quarantine").join(output)
}

/// A thread that writes to our own disk.
struct Local {
    reader_name: String,
    signal: Signal,
}

/// A task that keeps an uplink up.
struct Line {
    config: OutputConfig,
    check: Option<&'static str>,
    /// Ends this uplink; a new one may follow.
    stop: CancellationToken,
    task: JoinSet<()>,
}

/// All outputs.
pub(super) struct Outputs {
    surroundings: Surroundings,
    pub states: OutputStates,
    local: Vec<Local>,
    /// Joins the threads of local outputs; none ends before the stop.
    workers: JoinSet<anyhow::Result<()>>,
    lines: Vec<Line>,
}

impl Outputs {
    /// Starts all of them.
    pub(super) fn start(
        configs: &[(OutputConfig, Option<&'static str>)],
        surroundings: Surroundings,
    ) -> anyhow::Result<Outputs> {
        let mut outputs = Outputs {
            surroundings,
            states: OutputStates::default(),
            local: Vec::new(),
            workers: JoinSet::new(),
            lines: Vec::new(),
        };
        for (config, check) in configs {
            let reader = outputs
                .surroundings
                .buffer
                .reader(&config.reader())
                .with_context(|| format!("output {}: its reader is taken", config.name))?;
            match &config.kind {
                OutputKind::Upstream(_) => outputs.start_line(config.clone(), *check, reader),
                _ => outputs.start_local(config, *check, reader)?,
            }
        }
        Ok(outputs)
    }

    fn start_local(
        &mut self,
        config: &OutputConfig,
        check: Option<&'static str>,
        reader: watchline_spool::Reader,
    ) -> anyhow::Result<()> {
        let around = &self.surroundings;
        let signal = Signal::new();
        let wake = signal.clone();
        around.buffer.view().on_change(move || wake.wake());
        let (states, checks, name) = (
            self.states.clone(),
            around.checks.clone(),
            config.name.clone(),
        );
        let report = move |state: CheckState| {
            states.set(&name, state.clone());
            if let Some(check) = check {
                set(&checks, check, state);
            }
        };
        report(CheckState::Ok);
        let feed = Feed {
            reader: config.reader(),
            output: config.name.clone(),
            items: Box::new(reader),
            marks: Arc::new(around.buffer.clone()),
            events: Arc::new(around.events.clone()) as Arc<dyn OwnEvents>,
            report: Box::new(report),
            metrics: around.outputs_metrics.of(&config.name),
            quarantine: quarantine_of(&around.buffer_directory, &config.name),
            signal: signal.clone(),
        };
        let thread = format!("out {}", config.name);
        let worker = match &config.kind {
            OutputKind::File(file) => {
                let output = FileOutput::new(file.clone(), feed);
                Worker::spawn(thread, move || output.run())
            }
            OutputKind::Archive(archive) => {
                let output =
                    ArchiveOutput::new(archive.clone(), feed, Arc::new(around.chains.clone()));
                Worker::spawn(thread, move || output.run())
            }
            OutputKind::Upstream(_) => return Ok(()), // started as a line
        };
        let worker =
            worker.with_context(|| format!("start a thread for output {}", config.name))?;
        self.workers.spawn(async move { Ok(worker.join().await?) });
        self.local.push(Local {
            reader_name: config.reader(),
            signal,
        });
        Ok(())
    }

    fn start_line(
        &mut self,
        config: OutputConfig,
        check: Option<&'static str>,
        reader: watchline_spool::Reader,
    ) {
        let OutputKind::Upstream(upstream) = &config.kind else {
            return;
        };
        let around = &self.surroundings;
        let output = UpstreamOutput {
            name: config.name.clone(),
            reader_name: config.reader(),
            config: upstream.clone(),
            quarantine: quarantine_of(&around.buffer_directory, &config.name),
            software: around.software.clone(),
        };
        let uplink = output.uplink(
            reader,
            &around.buffer,
            around.identity.clone(),
            Arc::new(around.chains.clone()),
            Arc::new(around.events.clone()),
            &around.uplink_metrics,
        );
        let mut status = uplink.status();
        let stop = CancellationToken::new();
        let (states, checks, name) = (
            self.states.clone(),
            around.checks.clone(),
            config.name.clone(),
        );
        let ended = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let show = async {
                loop {
                    let now = status.borrow_and_update().clone();
                    states.set(&name, check_of(&now));
                    if let Some(check) = check {
                        set(&checks, check, check_of(&now));
                    }
                    states.set_uplink(&name, now);
                    if status.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = Box::pin(uplink.run(ended)) => {}
                () = show => {}
            }
        });
        self.lines.push(Line {
            config,
            check,
            stop,
            task,
        });
    }

    /// Waits for an output to end by itself, which none does: what comes back is why everything must stop.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        let local = async {
            match self.workers.join_next().await {
                Some(ended) => ended,
                None => std::future::pending().await, // there is none, or its end has been taken note of
            }
        };
        let lines = std::future::poll_fn(|context| {
            for line in &mut self.lines {
                if let std::task::Poll::Ready(Some(ended)) = line.task.poll_join_next(context) {
                    return std::task::Poll::Ready((line.config.name.clone(), ended));
                }
            }
            std::task::Poll::Pending
        });
        tokio::select! {
            ended = local => match ended {
                Ok(Ok(())) => anyhow::anyhow!("an output has ended"),
                Ok(Err(error)) => error,
                Err(error) => error.into(),
            },
            (name, ended) = lines => match ended {
                Ok(()) => anyhow::anyhow!("output {name} has ended"),
                Err(error) => anyhow::Error::new(error).context(format!("output {name}")),
            },
        }
    }

    /// Gives upstream outputs their new endpoints: the old uplink ends in order, and a new one begins at the output's mark.
    pub(super) async fn reload(&mut self, configs: &[OutputConfig]) {
        for index in 0..self.lines.len() {
            let old = &self.lines[index].config;
            let Some(new) = configs.iter().find(|new| new.name == old.name) else {
                continue; // a removed output needs a restart
            };
            let (OutputKind::Upstream(was), OutputKind::Upstream(is)) = (&old.kind, &new.kind)
            else {
                continue;
            };
            if was.endpoints == is.endpoints {
                continue;
            }
            let mut config = old.clone();
            if let OutputKind::Upstream(upstream) = &mut config.kind {
                upstream.endpoints = is.endpoints.clone();
            }
            let mut line = self.lines.remove(index);
            line.stop.cancel();
            if let Some(Err(error)) = line.task.join_next().await {
                warn!(output = %config.name, error = %error, "the uplink to the old endpoints did not end in order");
            }
            let reader = loop {
                match self.surroundings.buffer.new_reader(&config.reader()).await {
                    Some(reader) => break reader,
                    None if self.surroundings.buffer.is_closed() => return,
                    None => tokio::time::sleep(READER_AGAIN).await, // the disk fails now
                }
            };
            info!(output = %config.name, "upstream output continues with its new endpoints");
            self.start_line(config, line.check, reader);
            // The new line is the last one; it takes the place of the old, so that each is looked at once.
            if let Some(line) = self.lines.pop() {
                self.lines.insert(index, line);
            }
        }
    }

    /// Lets every output finish what it can within its grace, and joins them.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for line in &self.lines {
            line.stop.cancel();
        }
        let view = self.surroundings.buffer.view();
        let deadline = tokio::time::Instant::now() + LOCAL_GRACE;
        for local in &self.local {
            let left = || {
                view.backlog(&local.reader_name)
                    .iter()
                    .map(|lane| lane.items)
                    .sum::<u64>()
            };
            while left() > 0 && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(GRACE_LOOK).await;
            }
        }
        for local in &self.local {
            local.signal.stop();
        }
        let mut result = Ok(());
        while let Some(ended) = self.workers.join_next().await {
            result = result.and(ended.map_err(Into::into).flatten());
        }
        for line in &mut self.lines {
            while let Some(ended) = line.task.join_next().await {
                result = result.and(ended.map_err(Into::into));
            }
        }
        result
    }
}

fn set(checks: &Checks, name: &'static str, state: CheckState) {
    match state {
        CheckState::Ok => checks.ok(name),
        CheckState::Failing { reason } => checks.failing(name, reason),
    }
}

/// Makes the metrics that outputs share.
pub(super) fn register(registry: &mut Registry) -> (UplinkMetrics, OutputsMetrics) {
    (
        UplinkMetrics::register(registry),
        OutputsMetrics::register(registry),
    )
}
