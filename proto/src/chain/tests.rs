use proptest::prelude::*;

use super::*;
use crate::samples::{CHAIN_STATE_V1, chain, draft, each_damage, labels, payload, void};

#[test]
fn the_stored_sample_of_state_version_1_is_read_and_made_again_to_the_byte() {
    assert_eq!(EpochChain::decode_state(CHAIN_STATE_V1), Ok(chain()));
    assert_eq!(chain().encode_state(), CHAIN_STATE_V1);
}

#[test]
fn damage_of_a_state_is_an_error_or_another_value() {
    each_damage(CHAIN_STATE_V1, |damaged| {
        assert!(
            EpochChain::decode_state(damaged) != Ok(chain()),
            "{damaged:02x?}"
        );
    });
}

#[test]
fn a_state_of_a_newer_program_is_told_from_damage() {
    let mut state = CHAIN_STATE_V1.to_vec();
    state[0] = 2;
    assert_eq!(
        EpochChain::decode_state(&state),
        Err(ChainStateError::Version(2))
    );
    state[0] = 0;
    assert_eq!(
        EpochChain::decode_state(&state),
        Err(ChainStateError::Malformed)
    );
    assert_eq!(
        EpochChain::decode_state(&[]),
        Err(ChainStateError::Malformed)
    );
}

#[test]
fn each_seal_continues_its_lane_and_shows_the_other() {
    let mut chain = chain();
    let mut heads = [chain.head(Lane::Alert), chain.head(Lane::Routine)];
    for lane in [
        Lane::Routine,
        Lane::Routine,
        Lane::Alert,
        Lane::Routine,
        Lane::Alert,
    ] {
        let sealed = chain.seal(draft(lane, &payload())).unwrap();
        assert_eq!(Seal::decode(&sealed.bytes).as_ref(), Ok(&sealed.seal));
        assert_eq!(Hash::of(&sealed.bytes), sealed.hash);
        let head = &mut heads[lane.index()];
        assert!(head.is_followed_by(sealed.seal.sequence, sealed.seal.previous));
        *head = sealed.seal.head_after(sealed.hash);
        assert_eq!(chain.head(lane), *head);
        assert_eq!(sealed.seal.other, heads[lane.other().index()]);
    }
    assert_eq!(heads.map(|head| head.next), [3, 3]);
}

#[test]
fn the_first_seal_of_each_lane_names_the_epoch_before_and_no_other_does() {
    let before = chain();
    let mut chain = before.succeed(before.sealer().clone(), Epoch([1; 16]));
    let named = PreviousEpoch {
        epoch: before.epoch(),
        heads: Lane::ALL.map(|lane| before.head(lane)),
    };
    for (lane, expected) in [
        (Lane::Routine, Some(named)),
        (Lane::Routine, None),
        (Lane::Alert, Some(named)),
        (Lane::Alert, None),
    ] {
        let sealed = chain.seal(draft(lane, &payload())).unwrap();
        assert_eq!(sealed.seal.previous_epoch, expected);
    }
}

#[test]
fn an_epoch_in_which_nothing_was_sealed_is_passed_over() {
    let before = chain();
    let empty = before.succeed(before.sealer().clone(), Epoch([1; 16]));
    let after = empty.succeed(empty.sealer().clone(), Epoch([2; 16]));
    assert_eq!(after.epoch(), Epoch([2; 16]));
    assert_eq!(after.previous_epoch().unwrap().epoch, before.epoch());
}

#[test]
fn a_sealer_with_another_name_names_no_epoch_of_the_old_one() {
    let sealer = "spiffe://watch.example/agency/moh/forwarder/renamed"
        .parse()
        .unwrap();
    assert_eq!(
        chain().succeed(sealer, Epoch([1; 16])).previous_epoch(),
        None
    );
}

#[test]
fn what_the_draft_carries_stands_in_the_seal() {
    let (labels, voids) = (labels(), [void()]);
    let payload = payload();
    let draft = Draft {
        labels: &labels,
        voids: &voids,
        clock: ClockState::Synchronized,
        ..draft(Lane::Routine, &payload)
    };
    let seal = chain().seal(draft).unwrap().seal;
    assert_eq!(seal.labels, labels);
    assert_eq!(seal.voids, voids);
    assert_eq!(seal.clock, ClockState::Synchronized);
    assert_eq!(seal.payload, payload.info);
    assert_eq!(seal.sealed_unix_nano, draft.sealed_unix_nano);
}

#[test]
fn a_draft_beyond_the_limits_moves_nothing() {
    let mut chain = chain();
    let before = chain.clone();
    let payload = payload();
    let voids = vec![void(); crate::MAX_VOIDS + 1];
    let error = chain
        .seal(Draft {
            voids: &voids,
            ..draft(Lane::Alert, &payload)
        })
        .unwrap_err();
    assert!(
        matches!(error, SealError::Limit { what: "voids", .. }),
        "{error}"
    );
    assert_eq!(chain, before);
}

#[test]
fn a_statement_says_how_far_the_chains_reach() {
    let chain = chain();
    let statement = chain.statement(5, true);
    assert_eq!(statement.sealer, *chain.sealer());
    assert_eq!(statement.epoch, chain.epoch());
    assert_eq!(statement.heads, Lane::ALL.map(|lane| chain.head(lane)));
    assert_eq!((statement.time_unix_nano, statement.closing), (5, true));
}

proptest! {
    #[test]
    fn a_state_comes_back(lanes in prop::collection::vec(prop::sample::select(&Lane::ALL[..]), 0..6), epoch: [u8; 16]) {
        let before = chain();
        prop_assume!(before.epoch() != Epoch(epoch));
        let mut chain = before.succeed(before.sealer().clone(), Epoch(epoch));
        for lane in lanes {
            chain.seal(draft(lane, &payload())).unwrap();
        }
        prop_assert_eq!(EpochChain::decode_state(&chain.encode_state()), Ok(chain));
    }

    #[test]
    fn any_bytes_are_a_state_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = EpochChain::decode_state(&bytes);
    }
}
