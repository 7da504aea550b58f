//! Random operations, crashes and failures against a model that is a few queues.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use watchline_spool::{
    AppendError, Frame, Item, ItemNo, Mark, Options, ReadError, Reader, Spool,
    testing::{FailingDisk, Fault, Keep, Operation},
};

use crate::harness::{drain, options, try_open};

#[derive(Debug, Clone)]
enum Step {
    Append {
        lanes: Vec<(usize, usize)>,
        state: Option<(u8, bool)>,
    },
    Mark {
        share: [u8; 2],
    },
    Sync,
    /// The next write, sync … fails.
    Fail {
        operation: u8,
        after: u64,
        errno: u8,
    },
    Crash {
        keep: u8,
        seed: u64,
    },
    Reopen,
    Close,
    ReadSome {
        lane: usize,
        count: usize,
    },
    Seek {
        lane: usize,
        share: u8,
    },
    Advance {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (
        prop::collection::vec((0..2usize, 0..2500usize), 0..3),
        prop::option::of((0..4u8, any::<bool>())),
    )
        .prop_map(|(lanes, state)| Step::Append { lanes, state });
    let step = prop_oneof![
        12 => append,
        3 => any::<[u8; 2]>().prop_map(|share| Step::Mark { share }),
        5 => Just(Step::Sync),
        2 => (0..5u8, 0..6u64, 0..3u8).prop_map(|(operation, after, errno)| Step::Fail { operation, after, errno }),
        2 => (0..3u8, any::<u64>()).prop_map(|(keep, seed)| Step::Crash { keep, seed }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Close),
        4 => (0..2usize, 1..6usize).prop_map(|(lane, count)| Step::ReadSome { lane, count }),
        1 => (0..2usize, any::<u8>()).prop_map(|(lane, share)| Step::Seek { lane, share }),
        1 => (0..100u64).prop_map(|seconds| Step::Advance { seconds }),
    ];
    prop::collection::vec(step, 1..80)
}

/// One frame as the model sees it.
#[derive(Debug, Clone, Default)]
struct Said {
    items: Vec<(usize, u64, Bytes)>,
    state: Option<(u8, Option<Bytes>)>,
    mark: Option<[u64; 2]>,
}

/// What the spool must be: frames in a queue, of which those below `durable` can no longer be lost.
#[derive(Default)]
struct Model {
    frames: VecDeque<(u64, Said)>,
    durable: u64,
    next_frame: u64,
    serial: u64,
}

impl Model {
    fn items(&self, lane: usize, below: u64) -> Vec<(u64, Bytes)> {
        let readable = self.frames.iter().filter(|(frame, _)| *frame < below);
        let items = readable
            .flat_map(|(_, said)| &said.items)
            .filter(|(its, ..)| *its == lane);
        items.map(|(_, no, bytes)| (*no, bytes.clone())).collect()
    }

    fn state(&self) -> BTreeMap<u8, Bytes> {
        let mut state = BTreeMap::new();
        for (key, value) in self
            .frames
            .iter()
            .filter_map(|(_, said)| said.state.clone())
        {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        state
    }

    fn mark(&self) -> [u64; 2] {
        self.frames
            .iter()
            .filter_map(|(_, said)| said.mark)
            .next_back()
            .unwrap_or_default()
    }

    fn cut(&mut self, end: u64) {
        assert!(
            end >= self.durable,
            "durable frames are lost: {end} of {}",
            self.durable
        );
        assert!(
            end <= self.next_frame,
            "frames from nowhere: {end} of {}",
            self.next_frame
        );
        self.frames.retain(|(frame, _)| *frame < end);
        (self.durable, self.next_frame) = (end, end);
    }
}

struct Run {
    disk: FailingDisk,
    options: Options,
    spool: Option<Spool>,
    reader: Option<Reader>,
    /// Item numbers of frames that may or may not be there.
    model: Model,
}

impl Run {
    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn open(&mut self) {
        let (spool, recovery) = try_open(&self.disk, self.options.clone()).unwrap();
        assert_eq!(recovery.damage, []);
        self.reader = Some(spool.reader("uplink"));
        self.spool = Some(spool);
        let end = self.spool().view().durable().0;
        self.model.cut(end);
        self.check();
    }

    fn reopen(&mut self) {
        let durable = self.spool().view().durable().0;
        assert!(durable >= self.model.durable);
        if self.spool().reopen().is_err() {
            self.disk.heal();
            let recovery = self.spool().reopen().unwrap();
            assert_eq!(recovery.damage, []);
        }
        assert_eq!(
            self.spool().view().durable().0,
            durable,
            "cut at the durable mark"
        );
        self.model.cut(durable);
        self.check();
    }

    /// Everything from the mark on is readable, and the state is that of the last frame.
    fn check(&mut self) {
        let below = if self.options.read_unsynced {
            u64::MAX
        } else {
            self.model.durable
        };
        let (mark, state) = (self.model.mark(), self.model.state());
        for (lane, marked) in mark.into_iter().enumerate() {
            let mut reader = self.spool().reader("uplink");
            assert_eq!(reader.position(lane), ItemNo(mark[lane]));
            let (items, errors) = drain(&mut reader, lane);
            assert!(errors.is_empty(), "{errors:?}");
            let mut expected = self.model.items(lane, below);
            expected.retain(|(no, _)| *no >= marked);
            assert_eq!(items, expected);
        }
        let found: BTreeMap<u8, Bytes> = self
            .spool()
            .state_with_prefix(b"")
            .map(|(key, value)| (key[0], value.clone()))
            .collect();
        assert_eq!(found, state);
        let held: Vec<u64> = self
            .spool()
            .view()
            .backlog("uplink")
            .iter()
            .map(|lane| lane.items)
            .collect();
        let all = |lane| {
            self.model
                .items(lane, u64::MAX)
                .iter()
                .filter(|(no, _)| *no >= mark[lane])
                .count() as u64
        };
        assert_eq!(held, [all(0), all(1)]);
    }

    fn append(&mut self, said: Said) {
        let parts: Vec<[&[u8]; 2]> = said
            .items
            .iter()
            .map(|(.., bytes)| bytes.split_at(bytes.len() / 2))
            .map(|(a, b)| [a, b])
            .collect();
        let items = said
            .items
            .iter()
            .zip(&parts)
            .map(|((lane, ..), parts)| Item { lane: *lane, parts });
        let state = said
            .state
            .iter()
            .map(|(key, value)| (vec![*key].into(), value.clone()));
        let marks = said.mark.iter().map(|next| Mark {
            reader: "uplink".into(),
            next: next.map(ItemNo),
            note: Bytes::new(),
        });
        let frame = Frame {
            items: items.collect(),
            state: state.collect(),
            marks: marks.collect(),
            ..Frame::default()
        };
        let next = self.spool().view().next_items();
        let appended = self.spool().append(&frame);
        self.model.durable = self.model.durable.max(self.spool().view().durable().0);
        let (frame, mut first) = match &appended {
            Ok(appended) => (appended.frame.0, appended.first),
            Err(AppendError::Io { .. }) => (self.model.next_frame, next),
            Err(AppendError::Full { .. } | AppendError::NoRoom { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let mut said = said;
        for (lane, no, _) in &mut said.items {
            *no = first[*lane].0;
            first[*lane].0 += 1;
        }
        assert_eq!(frame, self.model.next_frame);
        self.model.frames.push_back((frame, said));
        self.model.next_frame = frame + 1;
        if appended.is_err() {
            self.reopen();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append { lanes, state } => {
                self.model.serial += 1;
                let serial = self.model.serial;
                let content = |bytes: usize| {
                    Bytes::from([&serial.to_le_bytes()[..], &vec![serial as u8; bytes]].concat())
                };
                let items = lanes
                    .iter()
                    .map(|(lane, bytes)| (*lane, 0, content(*bytes)))
                    .collect();
                let state = state.map(|(key, set)| (key, set.then(|| content(5))));
                self.append(Said {
                    items,
                    state,
                    mark: None,
                });
            }
            Step::Mark { share } => {
                let below = if self.options.read_unsynced {
                    u64::MAX
                } else {
                    self.model.durable
                };
                let old = self.model.mark();
                let mark = [0, 1].map(|lane| {
                    let end = self
                        .model
                        .items(lane, below)
                        .last()
                        .map_or(0, |(no, _)| no + 1);
                    old[lane] + end.saturating_sub(old[lane]) * u64::from(share[lane]) / 255
                });
                self.append(Said {
                    mark: Some(mark),
                    ..Said::default()
                });
            }
            Step::Sync => match self.spool().sync() {
                Ok(durable) => {
                    assert_eq!(durable.0, self.model.next_frame);
                    self.model.durable = durable.0;
                }
                Err(_) => self.reopen(),
            },
            Step::Fail {
                operation,
                after,
                errno,
            } => {
                let operations = [
                    Operation::Write,
                    Operation::Sync,
                    Operation::Create,
                    Operation::SyncDirectory,
                    Operation::Allocate,
                ];
                let errno = [5, 28, 30][usize::from(errno)];
                let operation = operations[usize::from(operation)];
                self.disk.fail(Fault {
                    operation,
                    after,
                    times: 1,
                    errno,
                });
            }
            Step::Crash { keep, seed } => {
                self.disk.cut_power();
                self.spool = None;
                self.disk.restore_power(
                    [Keep::Nothing, Keep::Everything, Keep::Some(seed)][usize::from(keep)],
                );
                self.open();
            }
            Step::Reopen => self.reopen(),
            Step::Close => {
                self.disk.heal();
                self.spool.take().unwrap().close().unwrap();
                self.open();
            }
            Step::ReadSome { lane, count } => {
                let below = if self.options.read_unsynced {
                    u64::MAX
                } else {
                    self.model.durable
                };
                let items = self.model.items(lane, below);
                let mark = self.model.mark()[lane];
                let reader = self.reader.as_mut().unwrap();
                for _ in 0..count {
                    let position = reader.position(lane).0;
                    let expected = items.iter().find(|(no, _)| *no >= position);
                    match reader.next(lane) {
                        Ok(Some(item)) => assert_eq!(Some(&(item.no.0, item.bytes)), expected),
                        Ok(None) => assert_eq!(None, expected),
                        Err(ReadError::Gone { to, .. }) => {
                            assert!(to.0 <= mark, "{to:?} is gone at {mark}")
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Step::Seek { lane, share } => {
                let end = self.spool().view().next_items()[lane].0;
                let reader = self.reader.as_mut().unwrap();
                reader.seek(lane, ItemNo(end * u64::from(share) / 255));
            }
            Step::Advance { seconds } => self.disk.advance(Duration::from_secs(seconds)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_is_a_pair_of_queues_whatever_happens(
        steps in steps(),
        read_unsynced in any::<bool>(),
        keep in prop::option::of(1..200u64),
    ) {
        let options = Options {
            max_bytes: 256 << 10,
            reserve_bytes: 16 << 10,
            read_unsynced,
            keep_delivered: keep.map(Duration::from_secs),
            ..options()
        };
        let disk = FailingDisk::new();
        let mut run = Run { disk, options, spool: None, reader: None, model: Model::default() };
        run.open();
        for step in steps {
            run.step(step);
        }
        run.disk.heal();
        run.reopen();
        run.step(Step::Crash { keep: 0, seed: 0 });
    }
}
