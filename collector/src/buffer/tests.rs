use super::*;
use crate::ledger::Mismatch;
use bytes::Bytes;
use std::{collections::BTreeMap, path::Path, sync::mpsc};
use watchline_proto::{
    ClockState, Epoch, EpochChain, Lane,
    chain::Draft,
    payload::{EventMeta, Origin, PayloadBuilder},
};
use watchline_spool::{
    Disk as _,
    testing::{FailingDisk, Fault, Keep, Operation},
};

fn id(path: &str) -> SpiffeId {
    format!("spiffe://watch.example/{path}").parse().unwrap()
}

/// A sealer with real seals; what is signed is not the buffer's business.
struct Sealer {
    chain: EpochChain,
    builder: PayloadBuilder,
}

impl Sealer {
    fn new(epoch: u8) -> Sealer {
        let sealer = id("agency/moh/forwarder/host-01");
        Sealer {
            chain: EpochChain::start(sealer, Epoch([epoch; 16])),
            builder: PayloadBuilder::new(),
        }
    }

    /// The next batch of a lane, with one event of this body.
    fn batch(&mut self, lane: Lane, body: &[u8]) -> Batch {
        let origin = self.builder.origin(&Origin {
            source: "auth".to_owned(),
            kind: "file".to_owned(),
            attributes: Vec::new(),
        });
        let meta = EventMeta {
            origin,
            observed_unix_nano: 1,
            time_unix_nano: None,
            severity: 0,
            attributes: &[],
        };
        self.builder.push(body, meta);
        let payload = self.builder.finish().unwrap();
        let draft = Draft {
            lane,
            payload: &payload,
            labels: &BTreeMap::new(),
            clock: ClockState::Unknown,
            sealed_unix_nano: 1,
            voids: &[],
        };
        let sealed = self.chain.seal(draft).unwrap();
        Batch {
            seal: sealed.seal,
            hash: sealed.hash,
            wire: stored::unsigned(sealed.bytes, payload.bytes),
        }
    }

    fn batches(&mut self, lane: Lane, count: usize) -> Vec<Batch> {
        (0..count)
            .map(|number| self.batch(lane, format!("event {number}").as_bytes()))
            .collect()
    }
}

#[derive(Clone)]
struct Batch {
    seal: Seal,
    hash: Hash,
    wire: wire::SealedBatch,
}

impl Batch {
    fn incoming(&self) -> Incoming {
        Incoming {
            seal: self.seal.clone(),
            seal_hash: self.hash,
            batch: self.wire.clone(),
            direct_peer: self.seal.sealer.clone(),
        }
    }
}

const DIRECTORY: &str = "/buffer";
const OUTPUT: &str = "output/center";

struct Opened {
    buffer: Buffer,
    worker: Worker,
    notices: mpsc::Receiver<Notice>,
    metrics: BufferMetrics,
    states: mpsc::Receiver<CheckState>,
}

fn options() -> Options {
    Options {
        directory: DIRECTORY.into(),
        max_bytes: 64 << 20,
        max_age: Duration::from_secs(3600),
        readers: vec![OUTPUT.to_owned()],
        required_readers: vec![OUTPUT.to_owned()],
        limits: Limits::default(),
        collector: id("agency/moh/collector/c1"),
    }
}

fn open_with(disk: &FailingDisk, options: Options) -> Opened {
    let (tell, notices) = mpsc::channel();
    let (report, states) = mpsc::channel();
    let metrics = BufferMetrics::default();
    let notice = move |notice| drop(tell.send(notice));
    let (buffer, worker) = Buffer::open(
        Arc::new(disk.clone()),
        options,
        metrics.clone(),
        GapMetrics::default(),
        notice,
        move |state| drop(report.send(state)),
    )
    .unwrap();
    Opened {
        buffer,
        worker,
        notices,
        metrics,
        states,
    }
}

fn open(disk: &FailingDisk) -> Opened {
    open_with(disk, options())
}

impl Opened {
    async fn offer(&self, batch: &Batch) -> Result<Decision, BufferError> {
        let answer = self.buffer.append_if_new(batch.incoming()).await?;
        answer.await.unwrap()
    }

    /// Offers again until the disk works.
    async fn stored(&self, batch: &Batch) -> Decision {
        loop {
            match self.offer(batch).await {
                Ok(decision) => return decision,
                Err(BufferError::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn close(self) {
        self.buffer.close();
        self.worker.join().await.unwrap();
    }
}

/// Sequence numbers of everything in a lane, in order, as an output reads them.
fn delivered(reader: &mut spool::Reader, lane: Lane) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Some(item) = reader.next(lane.index()).unwrap() {
        let batch = stored::decode(item.bytes).unwrap();
        assert_eq!(
            batch.receipts.last().unwrap().collector,
            id("agency/moh/collector/c1").to_string()
        );
        sequences.push(Seal::decode(&batch.seal).unwrap().sequence);
    }
    sequences
}

#[tokio::test]
async fn stored_is_said_only_after_the_sync() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let batch = Sealer::new(1).batch(Lane::Routine, b"one");
    disk.fail(Fault {
        operation: Operation::Sync,
        after: 0,
        times: 1,
        errno: 5,
    });
    let first = opened.buffer.append_if_new(batch.incoming()).await.unwrap();
    assert!(matches!(
        first.await.unwrap(),
        Err(BufferError::Unavailable { .. })
    ));
    assert_eq!(
        opened.stored(&batch).await,
        Decision::Stored,
        "it had not been stored"
    );
    disk.cut_power();
    opened.close().await;
    disk.restore_power(Keep::Nothing);

    let opened = open(&disk);
    assert_eq!(opened.offer(&batch).await, Ok(Decision::Duplicate));
    let mut reader = opened.buffer.reader(OUTPUT).unwrap();
    assert_eq!(delivered(&mut reader, Lane::Routine), [0]);
    opened.close().await;
}

#[tokio::test]
async fn a_duplicate_of_what_is_not_committed_shares_its_fate() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let mut sealer = Sealer::new(1);
    let (first, second) = (
        sealer.batch(Lane::Routine, b"one"),
        sealer.batch(Lane::Routine, b"two"),
    );
    let mut answers = Vec::new();
    for batch in [&first, &first, &first] {
        answers.push(opened.buffer.append_if_new(batch.incoming()).await.unwrap());
    }
    let mut decisions = Vec::new();
    for answer in answers {
        decisions.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(
        decisions,
        [Decision::Stored, Decision::Duplicate, Decision::Duplicate]
    );

    disk.fail(Fault {
        operation: Operation::Sync,
        after: 0,
        times: 1,
        errno: 5,
    });
    // Under the inbox's lock, so that both are in one group.
    let mut answers = Vec::new();
    {
        let mut appends = Vec::new();
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let budget = Arc::new(Semaphore::new(1))
                .acquire_many_owned(1)
                .await
                .unwrap();
            answers.push(answer);
            appends.push(Append {
                incoming: second.incoming(),
                reply,
                budget,
                bytes: 1,
            });
        }
        opened
            .buffer
            .shared
            .inbox
            .append_all(Lane::Routine.index(), appends);
    }
    for answer in answers {
        assert!(matches!(
            answer.await.unwrap(),
            Err(BufferError::Unavailable { .. })
        ));
    }
    assert_eq!(opened.stored(&second).await, Decision::Stored);
    opened.close().await;
}

#[tokio::test]
async fn a_fork_is_refused_and_told() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let (ours, theirs) = (
        Sealer::new(1).batch(Lane::Alert, b"ours"),
        Sealer::new(1).batch(Lane::Alert, b"theirs"),
    );
    assert_eq!(opened.offer(&ours).await, Ok(Decision::Stored));
    assert!(matches!(
        opened.offer(&theirs).await,
        Ok(Decision::Fork { .. })
    ));
    let Notice::Fork { seal, reason, .. } = opened.notices.recv().unwrap() else {
        panic!("another notice");
    };
    assert_eq!(
        (*seal, reason),
        (theirs.seal.clone(), ForkReason::OtherSeal)
    );
    assert_eq!(opened.offer(&ours).await, Ok(Decision::Duplicate));
    let summary = opened.buffer.summaries().remove(0);
    assert_eq!((summary.batches, summary.forks), (1, 1));
    opened.close().await;
}

#[tokio::test]
async fn a_disagreement_found_while_storing_is_told() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let mut sealer = Sealer::new(1);
    let ours = sealer.batches(Lane::Routine, 3);
    let mut other = Sealer::new(1);
    other.batch(Lane::Routine, b"event 0");
    let theirs = other.batch(Lane::Routine, b"another event");
    for batch in [&ours[0], &ours[2], &theirs] {
        assert_eq!(opened.offer(batch).await, Ok(Decision::Stored));
    }
    let notice = opened.notices.recv().unwrap();
    let mismatch = Mismatch::Hash { sequence: 1 };
    assert!(
        matches!(&notice, Notice::Alarm { alarm: Alarm::Mismatch { mismatch: found, .. }, .. } if *found == mismatch),
        "{notice:?}"
    );
    opened.close().await;
}

#[tokio::test]
async fn a_restart_keeps_the_ledger_and_proves_duplicates() {
    let disk = FailingDisk::new();
    let mut sealer = Sealer::new(1);
    let batches = sealer.batches(Lane::Routine, 20);
    let id_before = {
        let opened = open(&disk);
        for batch in &batches {
            assert_eq!(opened.offer(batch).await, Ok(Decision::Stored));
        }
        let id = opened.buffer.id();
        opened.close().await;
        id
    };
    let opened = open(&disk);
    assert_eq!(opened.buffer.id(), id_before);
    let held = opened.buffer.held_by(&batches[0].seal.sealer).await;
    assert_eq!(
        (held.len(), held[0].ranges.len(), held[0].ranges[0].end),
        (1, 1, 20)
    );
    for batch in &batches {
        assert_eq!(
            opened.offer(batch).await,
            Ok(Decision::Duplicate),
            "{}",
            batch.seal.sequence
        );
    }
    assert_eq!(
        opened.offer(&sealer.batch(Lane::Routine, b"more")).await,
        Ok(Decision::Stored)
    );
    opened.close().await;
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_at_any_write_and_nothing_is_there_twice() {
    for seed in 0..60u64 {
        let disk = FailingDisk::new();
        let mut sealer = Sealer::new(1);
        let batches: Vec<Batch> = (0..12)
            .map(|number| {
                sealer.batch(
                    if number % 4 == 0 {
                        Lane::Alert
                    } else {
                        Lane::Routine
                    },
                    &[number; 300],
                )
            })
            .collect();
        let opened = open(&disk);
        disk.cut_power_after_bytes(seed * 131 % 9000);
        let mut answers = Vec::new();
        for batch in &batches {
            if let Ok(answer) = opened.buffer.append_if_new(batch.incoming()).await {
                answers.push(answer);
            }
        }
        let mut stored = Vec::new();
        for (batch, answer) in batches.iter().zip(answers) {
            if let Ok(Ok(Decision::Stored)) = answer.await {
                stored.push(batch.clone());
            }
        }
        disk.cut_power();
        opened.close().await;
        disk.restore_power(Keep::Some(seed));

        let opened = open(&disk);
        for batch in &stored {
            let again = opened.offer(batch).await;
            assert_eq!(
                again,
                Ok(Decision::Duplicate),
                "seed {seed}, {} {}",
                batch.seal.lane,
                batch.seal.sequence
            );
        }
        for batch in &batches {
            let again = opened.offer(batch).await;
            assert!(
                matches!(again, Ok(Decision::Duplicate | Decision::Stored)),
                "seed {seed}: {again:?}"
            );
        }
        let mut reader = opened.buffer.reader(OUTPUT).unwrap();
        for (lane, count) in [(Lane::Alert, 3), (Lane::Routine, 9)] {
            let mut sequences = delivered(&mut reader, lane);
            sequences.sort_unstable();
            assert!(sequences.into_iter().eq(0..count), "seed {seed}, {lane}");
        }
        opened.close().await;
    }
}

#[tokio::test]
async fn a_full_buffer_refuses_until_the_output_has_moved_on() {
    let disk = FailingDisk::new();
    let options = Options {
        max_bytes: 4 << 20,
        ..options()
    };
    let opened = open_with(&disk, options);
    let mut sealer = Sealer::new(1);
    // Not compressible, so that it fills.
    let mut noise = 1u64;
    let mut body = move || -> Vec<u8> {
        (0..200_000)
            .map(|_| {
                noise = noise
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (noise >> 56) as u8
            })
            .collect()
    };
    let refused = loop {
        let batch = sealer.batch(Lane::Routine, &body());
        match opened.offer(&batch).await {
            Ok(decision) => assert_eq!(decision, Decision::Stored),
            Err(BufferError::Full { .. }) => break batch,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(!opened.buffer.has_room());
    assert_eq!(opened.states.recv(), Ok(CheckState::Ok));
    let CheckState::Failing { reason } = opened.states.recv().unwrap() else {
        panic!("a full buffer is called ok");
    };
    assert!(reason.starts_with("buffer is full"), "{reason}");
    let alert = sealer.batch(Lane::Alert, b"alerts have a reserve");
    assert_eq!(opened.offer(&alert).await, Ok(Decision::Stored));

    let mut reader = opened.buffer.reader(OUTPUT).unwrap();
    delivered(&mut reader, Lane::Alert);
    delivered(&mut reader, Lane::Routine);
    let mark = spool::Mark {
        reader: OUTPUT.to_owned(),
        next: [reader.position(0), reader.position(1)],
        note: Bytes::new(),
    };
    opened.buffer.mark_synced(mark).await.unwrap().unwrap();
    assert!(opened.buffer.has_room());
    assert_eq!(opened.offer(&refused).await, Ok(Decision::Stored));
    assert_eq!(opened.states.recv(), Ok(CheckState::Ok));
    opened.close().await;
}

#[tokio::test]
async fn no_room_on_the_disk_refuses_and_passes() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let batch = Sealer::new(1).batch(Lane::Routine, &[7; 1000]);
    disk.fail(Fault {
        operation: Operation::Write,
        after: 0,
        times: 1,
        errno: 28,
    });
    assert!(matches!(
        opened.offer(&batch).await,
        Err(BufferError::Unavailable { .. })
    ));
    assert_eq!(opened.stored(&batch).await, Decision::Stored);
    opened.close().await;
}

#[tokio::test]
async fn marks_without_wait_are_written_at_the_latest_when_the_buffer_closes() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    opened
        .offer(&Sealer::new(1).batch(Lane::Routine, b"one"))
        .await
        .unwrap();
    let mark = spool::Mark {
        reader: OUTPUT.to_owned(),
        next: [spool::ItemNo(0), spool::ItemNo(1)],
        note: Bytes::from_static(b"note"),
    };
    opened.buffer.mark(mark.clone());
    opened.close().await;
    let opened = open(&disk);
    assert_eq!(opened.buffer.view().mark(OUTPUT), Some(mark));
    let reader = opened.buffer.reader(OUTPUT).unwrap();
    assert!(opened.buffer.reader(OUTPUT).is_none(), "it has been taken");
    assert_eq!(reader.position(Lane::Routine.index()), spool::ItemNo(1));
    opened.close().await;
}

#[tokio::test]
async fn what_is_offered_is_what_became_of_it() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let mut sealer = Sealer::new(1);
    let batches = sealer.batches(Lane::Routine, 5);
    for batch in batches.iter().chain(&batches[..2]) {
        opened.offer(batch).await.unwrap();
    }
    opened
        .offer(&Sealer::new(1).batch(Lane::Routine, b"fork"))
        .await
        .unwrap();
    disk.fail(Fault {
        operation: Operation::Sync,
        after: 0,
        times: 1,
        errno: 5,
    });
    opened
        .offer(&sealer.batch(Lane::Routine, b"not stored"))
        .await
        .unwrap_err();
    let events = |stage| opened.metrics.events(stage);
    let became = [Stage::Stored, Stage::Duplicate, Stage::Fork, Stage::Refused].map(events);
    assert_eq!(became, [5, 2, 1, 1]);
    assert_eq!(events(Stage::Offered), became.iter().sum::<u64>());
    opened.close().await;
}

#[tokio::test]
async fn a_closed_buffer_says_so() {
    let disk = FailingDisk::new();
    let opened = open(&disk);
    let buffer = opened.buffer.clone();
    opened.close().await;
    let batch = Sealer::new(1).batch(Lane::Routine, b"late");
    assert_eq!(
        buffer.append_if_new(batch.incoming()).await.unwrap_err(),
        BufferError::Closed
    );
    assert!(buffer.held_by(&batch.seal.sealer).await.is_empty());
    assert!(buffer.new_reader(OUTPUT).await.is_none());
    assert!(disk.list(Path::new(DIRECTORY)).is_ok());
}

#[test]
fn alerts_are_taken_first_and_a_group_is_bounded() {
    let inbox = Inbox::default();
    let mut sealer = Sealer::new(1);
    let append = |batch: Batch| {
        let (reply, _) = oneshot::channel();
        let budget = Arc::new(Semaphore::new(1))
            .try_acquire_many_owned(1)
            .unwrap();
        Append {
            incoming: batch.incoming(),
            reply,
            budget,
            bytes: 100,
        }
    };
    for _ in 0..7 {
        inbox
            .append(1, append(sealer.batch(Lane::Routine, b"routine")))
            .unwrap();
    }
    inbox
        .append(0, append(sealer.batch(Lane::Alert, b"alert")))
        .unwrap();
    let group = inbox.take(250, Duration::ZERO);
    let lanes: Vec<Lane> = group
        .appends
        .iter()
        .map(|append| append.incoming.seal.lane)
        .collect();
    assert_eq!(lanes, [Lane::Alert, Lane::Routine, Lane::Routine]);
    inbox.close();
    assert!(!inbox.take(250, Duration::ZERO).last && inbox.take(250, Duration::ZERO).last);
}
