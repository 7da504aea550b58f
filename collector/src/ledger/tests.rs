use super::{chain::Chain, codec, *};
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, BTreeSet};
use watchline_proto::{
    ClockState, HeldRange, PreviousEpoch, Void,
    payload::{FORMAT_COLUMNS_ZSTD_1, PayloadInfo},
};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

fn sealer(name: &str) -> SpiffeId {
    format!("spiffe://watch.example/agency/moh/forwarder/{name}")
        .parse()
        .unwrap()
}

/// Any seal will do: the ledger looks at its place in the chain only.
fn seal(epoch: u8, lane: Lane, sequence: u64, previous: Hash) -> Seal {
    Seal {
        sealer: sealer("host-01"),
        epoch: Epoch([epoch; 16]),
        lane,
        sequence,
        previous,
        other: Head::START,
        payload: PayloadInfo {
            format: FORMAT_COLUMNS_ZSTD_1,
            hash: Hash([1; 32]),
            bytes: 10,
            unpacked_bytes: 20,
            events: 3,
        },
        sealed_unix_nano: i64::from(epoch) * SECOND,
        first_observed_unix_nano: 0,
        last_observed_unix_nano: 0,
        clock: ClockState::Unknown,
        labels: BTreeMap::new(),
        previous_epoch: None,
        voids: Vec::new(),
    }
}

/// A chain as its sealer made it, with the hash of each seal.
fn chain(epoch: u8, lane: Lane, len: u64) -> Vec<(Seal, Hash)> {
    let mut previous = Hash::ZERO;
    (0..len)
        .map(|sequence| {
            let seal = seal(epoch, lane, sequence, previous);
            previous = Hash::of(&seal.encode());
            (seal, previous)
        })
        .collect()
}

fn head(chain: &[(Seal, Hash)]) -> Head {
    match chain.last() {
        Some((seal, hash)) => Head::after(seal.sequence, *hash),
        None => Head::START,
    }
}

/// Judges and applies, writing the state to `disk` as the buffer does.
fn offer(
    ledger: &mut Ledger,
    disk: &mut BTreeMap<Bytes, Bytes>,
    seal: &Seal,
    hash: Hash,
    now: i64,
) -> Verdict {
    let verdict = ledger.judge(seal, hash, now);
    let Verdict::New(plan) = verdict else {
        return verdict;
    };
    for (key, value) in plan.state() {
        match value {
            Some(value) => disk.insert(key, value),
            None => disk.remove(&key),
        };
    }
    let alarms = plan.alarms.clone();
    ledger.apply(*plan);
    // Handed back for its alarms only.
    Verdict::New(Box::new(Plan {
        sealer: seal.sealer.clone(),
        epoch: seal.epoch,
        lane: seal.lane,
        sequence: seal.sequence,
        hash,
        other_next: 0,
        sealed_unix_nano: 0,
        now_unix_nano: 0,
        chains: BTreeMap::new(),
        record: None,
        alarms,
    }))
}

/// A ledger with its state on disk.
#[derive(Default)]
struct Held {
    ledger: Option<Ledger>,
    disk: BTreeMap<Bytes, Bytes>,
    limits: Limits,
}

impl Held {
    fn ledger(&mut self) -> &mut Ledger {
        let limits = self.limits.clone();
        self.ledger.get_or_insert_with(|| Ledger::new(limits))
    }

    fn offer(&mut self, (seal, hash): &(Seal, Hash), now: i64) -> Verdict {
        let limits = self.limits.clone();
        let ledger = self.ledger.get_or_insert_with(|| Ledger::new(limits));
        offer(ledger, &mut self.disk, seal, *hash, now)
    }

    fn stored(&mut self, offered: &(Seal, Hash), now: i64) -> Vec<Alarm> {
        match self.offer(offered, now) {
            Verdict::New(plan) => plan.alarms,
            other => panic!("{} {}: {other:?}", offered.0.lane, offered.0.sequence),
        }
    }

    fn fork(&mut self, offered: &(Seal, Hash)) -> ForkReason {
        match self.offer(offered, 0) {
            Verdict::Fork(reason) => reason,
            other => panic!("{} {}: {other:?}", offered.0.lane, offered.0.sequence),
        }
    }

    fn is_duplicate(&mut self, offered: &(Seal, Hash)) -> bool {
        matches!(self.offer(offered, 0), Verdict::Duplicate)
    }

    fn restart(&mut self) {
        let entries = self.disk.iter().map(|(key, value)| (&key[..], &value[..]));
        let (ledger, unreadable) = Ledger::load(self.limits.clone(), entries);
        assert_eq!(unreadable, []);
        self.ledger = Some(ledger);
    }

    fn ranges(&mut self, epoch: u8, lane: Lane) -> Vec<HeldRange> {
        let held = self.ledger().held_by(&sealer("host-01"));
        let chain = held
            .into_iter()
            .find(|chain| chain.epoch == Epoch([epoch; 16]) && chain.lane == lane);
        chain.map(|chain| chain.ranges).unwrap_or_default()
    }

    fn summary(&mut self) -> SealerSummary {
        self.ledger().summaries().remove(0)
    }
}

proptest! {
    #[test]
    fn the_ledger_holds_what_a_set_holds_whatever_the_order(
        order in vec((0usize..40, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let chains = [chain(1, Lane::Alert, 40), chain(1, Lane::Routine, 40)];
        let mut held = Held::default();
        let mut model: [BTreeSet<usize>; 2] = Default::default();
        for (sequence, routine, restart) in order {
            let lane = usize::from(routine);
            let offered = &chains[lane][sequence];
            match held.offer(offered, 1) {
                Verdict::New(plan) => {
                    prop_assert!(model[lane].insert(sequence));
                    prop_assert_eq!(&plan.alarms, &[]);
                }
                Verdict::Duplicate => prop_assert!(model[lane].contains(&sequence)),
                // After a restart nothing is known of the middle of a range.
                Verdict::Fork(reason) => {
                    prop_assert_eq!(reason, ForkReason::Unproven);
                    prop_assert!(model[lane].contains(&sequence) && model[lane].contains(&(sequence + 1)));
                }
                Verdict::Limited(limit) => return Err(TestCaseError::fail(limit.to_string())),
            }
            if restart && sequence % 7 == 0 {
                held.restart();
            }
        }
        for lane in Lane::ALL {
            let set = &model[lane.index()];
            let ranges = held.ranges(1, lane);
            let numbers: BTreeSet<usize> =
                ranges.iter().flat_map(|range| range.first as usize..range.end as usize).collect();
            prop_assert_eq!(&numbers, set);
            for range in &ranges {
                let chain = &chains[lane.index()];
                prop_assert_eq!(range.last, chain[range.end as usize - 1].1);
                prop_assert_eq!(range.previous, chain[range.first as usize].0.previous);
            }
            // Maximal: two ranges never meet.
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].first));
        }
        let summary = held.summary();
        prop_assert_eq!(summary.batches as usize, model[0].len() + model[1].len());
        prop_assert_eq!(summary.events, summary.batches * 3);
        let missing: usize = model.iter().map(|set| set.last().map_or(0, |last| last + 1 - set.len())).sum();
        prop_assert_eq!(summary.missing_batches as usize, missing);
    }

    #[test]
    fn a_forked_seal_is_never_taken_for_a_duplicate(
        order in vec((0usize..20, any::<bool>()), 1..100),
    ) {
        let ours = chain(1, Lane::Routine, 20);
        let mut theirs = chain(1, Lane::Routine, 20);
        for (seal, hash) in &mut theirs[5..] {
            seal.sealed_unix_nano += 1;
            *hash = Hash::of(&seal.encode());
        }
        let mut held = Held::default();
        let mut model: BTreeMap<usize, Hash> = BTreeMap::new();
        for (sequence, other) in order {
            let offered = &if other { &theirs } else { &ours }[sequence];
            match held.offer(offered, 1) {
                Verdict::New(_) => prop_assert_eq!(model.insert(sequence, offered.1), None),
                Verdict::Duplicate => prop_assert_eq!(model.get(&sequence), Some(&offered.1)),
                Verdict::Fork(ForkReason::OtherSeal) => {
                    prop_assert!(model.get(&sequence).is_some_and(|hash| *hash != offered.1));
                }
                Verdict::Fork(ForkReason::BrokenChain) => {
                    let below = model.get(&(sequence - 1));
                    prop_assert!(below.is_some_and(|hash| *hash != offered.0.previous));
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
    }

    #[test]
    fn reading_state_never_panics(key in "(chain|forwarder)/[ -~]{0,80}", value in vec(any::<u8>(), 0..200)) {
        let _ = codec::decode(key.as_bytes(), &value);
        let mut versioned = vec![1];
        versioned.extend(value);
        let _ = codec::decode_chain(&versioned);
        let _ = codec::decode_sealer(&versioned);
    }

    #[test]
    fn state_comes_back_as_it_was(order in vec(0usize..30, 1..60), voids in vec((0u64..40, 1u64..5), 0..6)) {
        let seals = chain(2, Lane::Alert, 30);
        let mut state = Chain::default();
        let mut seen = BTreeSet::new();
        for sequence in order {
            if seen.insert(sequence) {
                let (seal, hash) = &seals[sequence];
                state.insert(seal.sequence, *hash, seal.previous, sequence as i64);
            }
        }
        for (first, len) in voids {
            let (taken, _) = state.void(VoidRange { first, end: first + len, last: Hash([3; 32]), events: 2 }, 100);
            prop_assert!(taken);
        }
        state.close(head(&seals));
        prop_assert_eq!(codec::decode_chain(&codec::encode_chain(&state)), Ok(state));
    }
}

#[test]
fn a_hole_closes_by_arrival() {
    let seals = chain(1, Lane::Routine, 5);
    let mut held = Held::default();
    for index in [0, 1, 3, 4] {
        assert_eq!(held.stored(&seals[index], 1), []);
    }
    assert_eq!(
        (held.summary().holes, held.summary().missing_batches),
        (1, 1)
    );
    held.stored(&seals[2], 1);
    assert_eq!(
        (held.summary().holes, held.summary().missing_batches),
        (0, 0)
    );
    assert_eq!(held.ranges(1, Lane::Routine).len(), 1);
}

#[test]
fn a_hole_closes_by_a_signed_void() {
    let seals = chain(1, Lane::Routine, 6);
    let mut held = Held::default();
    held.stored(&seals[0], 1);
    let mut voiding = seals[4].clone();
    voiding.0.voids = vec![Void {
        epoch: Epoch([1; 16]),
        lane: Lane::Routine,
        first: 1,
        end: 4,
        reason: "full".to_owned(),
        events: 9,
        last: seals[3].1,
    }];
    voiding.1 = Hash::of(&voiding.0.encode());
    assert_eq!(held.stored(&voiding, 1), []);
    let summary = held.summary();
    assert_eq!((summary.holes, summary.missing_batches), (0, 0));
    assert_eq!((summary.void_batches, summary.void_events), (3, 9));
    // It was on its way after all: held counts.
    held.stored(&seals[2], 1);
    assert!(held.is_duplicate(&seals[2]));
}

#[test]
fn a_void_that_does_not_fit_what_is_above_it_is_reported() {
    let seals = chain(1, Lane::Routine, 6);
    let mut held = Held::default();
    held.stored(&seals[0], 1);
    held.stored(&seals[4], 1);
    let mut alert = seal(1, Lane::Alert, 0, Hash::ZERO);
    alert.voids = vec![Void {
        epoch: Epoch([1; 16]),
        lane: Lane::Routine,
        first: 1,
        end: 4,
        reason: "full".to_owned(),
        events: 9,
        last: Hash([9; 32]),
    }];
    let hash = Hash::of(&alert.encode());
    let alarms = held.stored(&(alert, hash), 1);
    assert!(
        matches!(
            alarms[..],
            [Alarm::Mismatch {
                mismatch: Mismatch::Hash { sequence: 3 },
                ..
            }]
        ),
        "{alarms:?}"
    );
}

#[test]
fn a_seal_that_fits_below_but_not_above_is_kept_apart_and_reported() {
    let seals = chain(1, Lane::Routine, 5);
    let mut held = Held::default();
    for index in [0, 1, 3] {
        held.stored(&seals[index], 1);
    }
    let mut other = seals[2].clone();
    other.0.sealed_unix_nano += 1;
    other.1 = Hash::of(&other.0.encode());
    let alarms = held.stored(&other, 1);
    assert!(
        matches!(
            alarms[..],
            [Alarm::Mismatch {
                mismatch: Mismatch::Hash { sequence: 2 },
                ..
            }]
        ),
        "{alarms:?}"
    );
    assert_eq!(held.fork(&seals[2]), ForkReason::OtherSeal);
    assert!(held.is_duplicate(&seals[3]));
    held.restart();
    assert!(held.is_duplicate(&other) && held.is_duplicate(&seals[3]));
    assert_eq!(
        held.ranges(1, Lane::Routine).len(),
        1,
        "only what agrees is told"
    );
}

#[test]
fn a_broken_chain_is_refused() {
    let seals = chain(1, Lane::Routine, 3);
    let mut held = Held::default();
    held.stored(&seals[0], 1);
    held.stored(&seals[1], 1);
    let broken = seal(1, Lane::Routine, 2, Hash([8; 32]));
    let hash = Hash::of(&broken.encode());
    assert_eq!(held.fork(&(broken, hash)), ForkReason::BrokenChain);
    held.stored(&seals[2], 1);
}

#[test]
fn a_closed_complete_epoch_folds_into_one_line() {
    let (alert, routine) = (chain(1, Lane::Alert, 2), chain(1, Lane::Routine, 4));
    let mut held = Held::default();
    for offered in alert.iter().chain(&routine) {
        held.stored(offered, 1);
    }
    let mut next = seal(2, Lane::Routine, 0, Hash::ZERO);
    next.previous_epoch = Some(PreviousEpoch {
        epoch: Epoch([1; 16]),
        heads: [head(&alert), head(&routine)],
    });
    let next = (next.clone(), Hash::of(&next.encode()));
    assert_eq!(held.stored(&next, 2), []);
    for restarted in [false, true] {
        let summary = held.summary();
        assert_eq!(
            (summary.open_epochs, summary.closed_epochs),
            (1, 1),
            "restarted: {restarted}"
        );
        assert_eq!((summary.batches, summary.missing_batches), (7, 0));
        assert!(
            !held
                .disk
                .keys()
                .any(|key| key.ends_with(b"/01010101010101010101010101010101/alert"))
        );
        assert!(
            held.is_duplicate(&routine[3]),
            "the last one is known by the line"
        );
        assert_eq!(
            held.is_duplicate(&routine[1]),
            !restarted,
            "others as long as they are remembered"
        );
        assert_eq!(
            held.ranges(1, Lane::Routine)[0].end,
            4,
            "Welcome names it still"
        );
        held.restart();
    }
    let beyond = seal(1, Lane::Routine, 4, routine[3].1);
    let hash = Hash::of(&beyond.encode());
    assert_eq!(held.fork(&(beyond, hash)), ForkReason::Folded);
}

#[test]
fn an_incomplete_epoch_stays_open_until_the_rest_has_come() {
    let routine = chain(1, Lane::Routine, 4);
    let mut held = Held::default();
    held.stored(&routine[0], 1);
    let mut next = seal(2, Lane::Routine, 0, Hash::ZERO);
    next.previous_epoch = Some(PreviousEpoch {
        epoch: Epoch([1; 16]),
        heads: [Head::START, head(&routine)],
    });
    held.stored(&(next.clone(), Hash::of(&next.encode())), 2);
    assert_eq!(
        (held.summary().open_epochs, held.summary().missing_batches),
        (2, 3)
    );
    held.restart();
    for offered in &routine[1..] {
        assert_eq!(held.stored(offered, 3), []);
    }
    assert_eq!(
        (held.summary().open_epochs, held.summary().missing_batches),
        (1, 0)
    );
}

#[test]
fn a_sealer_that_has_lost_state_is_reported_and_nothing_is_refused() {
    let routine = chain(1, Lane::Routine, 4);
    let mut held = Held::default();
    for offered in &routine[..3] {
        held.stored(offered, 1);
    }
    let mut next = seal(2, Lane::Routine, 0, Hash::ZERO);
    next.previous_epoch = Some(PreviousEpoch {
        epoch: Epoch([1; 16]),
        heads: [Head::START, head(&routine[..2])],
    });
    let alarms = held.stored(&(next.clone(), Hash::of(&next.encode())), 2);
    assert!(
        matches!(
            alarms[..],
            [Alarm::Mismatch {
                mismatch: Mismatch::BeyondEnd { sequence: 2 },
                ..
            }]
        ),
        "{alarms:?}"
    );
}

#[test]
fn what_a_sealer_sealed_before_it_was_heard_of_is_not_missing() {
    let mut first = seal(2, Lane::Routine, 0, Hash::ZERO);
    first.previous_epoch = Some(PreviousEpoch {
        epoch: Epoch([1; 16]),
        heads: [Head::START, head(&chain(1, Lane::Routine, 9))],
    });
    let mut alert = first.clone();
    alert.lane = Lane::Alert;
    let mut held = Held::default();
    held.stored(&(first.clone(), Hash::of(&first.encode())), 1);
    held.stored(&(alert.clone(), Hash::of(&alert.encode())), 1);
    assert_eq!(
        (held.summary().open_epochs, held.summary().missing_batches),
        (1, 0)
    );
}

#[test]
fn epochs_beyond_the_limit_are_refused_until_one_has_been_quiet() {
    let limits = Limits {
        open_epochs: 3,
        ..Limits::default()
    };
    let mut held = Held {
        limits,
        ..Held::default()
    };
    for epoch in 1..=3 {
        held.stored(
            &chain(epoch, Lane::Routine, 1)[0],
            i64::from(epoch) * SECOND,
        );
    }
    let fourth = &chain(4, Lane::Routine, 1)[0];
    assert!(matches!(
        held.offer(fourth, 10 * SECOND),
        Verdict::Limited(Limit::OpenEpochs(3))
    ));
    let alarms = held.stored(fourth, HOUR + 2 * SECOND);
    assert!(
        matches!(alarms[..], [Alarm::GivenUp { epoch, missing: 0 }] if epoch == Epoch([1; 16])),
        "{alarms:?}"
    );
    held.restart();
    assert_eq!(
        (held.summary().open_epochs, held.summary().closed_epochs),
        (3, 1)
    );
    let late = &chain(1, Lane::Routine, 2)[1];
    assert_eq!(held.fork(late), ForkReason::Folded);
    // Another sealer is not touched by it.
    let mut other = seal(9, Lane::Routine, 0, Hash::ZERO);
    other.sealer = sealer("host-02");
    held.stored(&(other.clone(), Hash::of(&other.encode())), 11 * SECOND);
}

#[test]
fn holes_beyond_the_limit_are_refused_until_the_lowest_has_been_quiet() {
    let limits = Limits {
        ranges: 3,
        ..Limits::default()
    };
    let seals = chain(1, Lane::Routine, 20);
    let mut held = Held {
        limits,
        ..Held::default()
    };
    for index in [1, 3, 5] {
        held.stored(&seals[index], SECOND);
    }
    assert!(matches!(
        held.offer(&seals[7], 2 * SECOND),
        Verdict::Limited(Limit::Ranges(3))
    ));
    held.stored(&seals[6], 2 * SECOND); // opens no range
    let alarms = held.stored(&seals[8], HOUR + 2 * SECOND);
    assert!(
        matches!(alarms[..], [Alarm::GivenUp { missing: 2, .. }]),
        "{alarms:?}"
    );
    held.restart();
    let firsts: Vec<u64> = held
        .ranges(1, Lane::Routine)
        .iter()
        .map(|range| range.first)
        .collect();
    assert_eq!(firsts, [3, 5, 8]);
    assert_eq!(held.summary().missing_batches, 2 + 1 + 1);
    assert_eq!(held.fork(&seals[2]), ForkReason::Unproven);
}

#[test]
fn remembered_hashes_are_bounded_and_each_chain_keeps_its_share() {
    let limits = Limits {
        remembered_hashes: 1000,
        ..Limits::default()
    };
    let mut ledger = Ledger::new(limits);
    let mut quiet = seal(1, Lane::Routine, 0, Hash::ZERO);
    quiet.sealer = sealer("quiet");
    let quiet = (quiet.clone(), Hash::of(&quiet.encode()));
    let mut disk = BTreeMap::new();
    offer(&mut ledger, &mut disk, &quiet.0, quiet.1, 1);
    for (seal, hash) in chain(1, Lane::Routine, 5000) {
        offer(&mut ledger, &mut disk, &seal, hash, 1);
        assert!(ledger.remembered <= 1001);
    }
    assert!(ledger.remembered >= 250);
    assert!(matches!(
        ledger.judge(&quiet.0, quiet.1, 1),
        Verdict::Duplicate
    ));
}

#[test]
fn what_was_read_back_from_the_log_proves_duplicates_after_a_restart() {
    let seals = chain(1, Lane::Routine, 9);
    let mut held = Held::default();
    for offered in &seals {
        held.stored(offered, 1);
    }
    held.restart();
    assert_eq!(held.fork(&seals[4]), ForkReason::Unproven);
    for (seal, hash) in &seals {
        held.ledger().remember(seal, *hash);
    }
    assert!(held.is_duplicate(&seals[4]));
}

#[test]
fn entries_that_cannot_be_read_are_left_out_and_named() {
    let mut held = Held::default();
    held.stored(&chain(1, Lane::Routine, 1)[0], 1);
    let key = codec::chain_key(&sealer("host-01"), Epoch([1; 16]), Lane::Routine);
    let newer = Bytes::from_static(&[2, 0]);
    let entries = [
        (&key[..], &newer[..]),
        (&b"forwarder/nobody"[..], &[1][..]),
        (&b"something/else"[..], &[][..]),
    ];
    let (ledger, unreadable) = Ledger::load(Limits::default(), entries.into_iter());
    assert_eq!(ledger.sealers(), 0);
    let errors: Vec<_> = unreadable.into_iter().map(|(_, error)| error).collect();
    assert_eq!(
        errors,
        [
            StateError::Version(2),
            StateError::Malformed("the key names no sealer")
        ]
    );
}

/// A sample of version 1 of both entries, as it lies on disks out there.
#[test]
fn stored_samples_are_read() {
    let (alert, routine) = (chain(1, Lane::Alert, 2), chain(1, Lane::Routine, 4));
    let mut expected = Chain::default();
    for index in [0, 1, 3] {
        let (seal, hash) = &routine[index];
        expected.insert(seal.sequence, *hash, seal.previous, 77);
    }
    expected.void(
        VoidRange {
            first: 2,
            end: 3,
            last: routine[2].1,
            events: 5,
        },
        10,
    );
    expected.close(head(&routine));
    expected.batches = 3;
    expected.events = 9;
    let mut record = SealerRecord {
        first_stored_unix_nano: 5,
        last_stored_unix_nano: 6,
        epoch: Some(Epoch([2; 16])),
        epoch_sealed_unix_nano: 7,
        forks: 1,
        ..SealerRecord::default()
    };
    record.folded.push_back(Folded {
        epoch: Epoch([1; 16]),
        chains: [&alert, &routine].map(|chain| FoldedChain {
            next: head(chain).next,
            last: head(chain).hash,
        }),
        complete: true,
    });
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let samples = [
        ("ledger-chain-v1.bin", codec::encode_chain(&expected)),
        ("ledger-forwarder-v1.bin", codec::encode_sealer(&record)),
    ];
    for (name, encoded) in &samples {
        let path = directory.join(name);
        if std::env::var_os("WATCHLINE_WRITE_SAMPLES").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, encoded).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), encoded[..], "{name}");
    }
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    assert_eq!(
        codec::decode_chain(&read("ledger-chain-v1.bin")),
        Ok(expected)
    );
    assert_eq!(
        codec::decode_sealer(&read("ledger-forwarder-v1.bin")),
        Ok(record)
    );
}
