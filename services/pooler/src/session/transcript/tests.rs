use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const MEMORY: usize = 1000;

#[derive(Debug, Clone)]
enum Step {
    /// So many numbered events in a message of so many bytes.
    Push {
        events: i64,
        bytes: usize,
    },
    Take,
    /// Somebody begins anew, so many events before the end.
    Rewind {
        back: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_i64, 1..400_usize).prop_map(|(events, bytes)| Step::Push { events, bytes }),
        Just(Step::Take),
        (0..20_i64).prop_map(|back| Step::Rewind { back }),
    ]
}

proptest! {
    /// Against a model that keeps everything.
    #[test]
    fn reader_gets_everything_after_what_it_knows_or_is_told_that_it_is_gone(steps in prop::collection::vec(step(), 1..200)) {
        let mut transcript = Transcript::new(MEMORY, 0);
        // The number of the last event of each message.
        let mut written: Vec<(i64, usize)> = Vec::new();
        let (mut last, mut next, mut oldest) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Push { events, bytes } => {
                    last += events;
                    written.push((last, bytes));
                    transcript.push(EncodedEvents::from_encoded(Bytes::from(vec![0; bytes])), last);
                }
                Step::Take => {
                    let taken = transcript.take();
                    prop_assert_eq!(taken.is_some(), next < written.len());
                    if let Some(taken) = taken {
                        prop_assert_eq!((taken.last, taken.message.as_bytes().len()), written[next]);
                        next += 1;
                        // As many of the last that were taken as fit.
                        while written[oldest..next].iter().map(|(_, bytes)| bytes).sum::<usize>() > MEMORY {
                            oldest += 1;
                        }
                    }
                }
                Step::Rewind { back } => {
                    let after = last - back;
                    let before_oldest = oldest.checked_sub(1).map_or(0, |index: usize| written[index].0);
                    prop_assert_eq!(transcript.rewind(after).is_ok(), after >= before_oldest);
                    if after >= before_oldest {
                        next = written.iter().position(|(last, _)| *last > after).unwrap_or(written.len());
                    }
                }
            }
            let waiting: usize = written[next..].iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(transcript.has_room(), waiting < ROOM);
        }
    }
}

#[test]
fn what_was_never_written_cannot_be_waited_for() {
    let mut transcript = Transcript::new(MEMORY, 0);
    transcript.push(EncodedEvents::default(), 3);
    assert_eq!(transcript.rewind(4), Err(Expired));
    assert_eq!(transcript.rewind(-1), Err(Expired));
    assert_eq!(transcript.rewind(3), Ok(()));
    assert!(transcript.take().is_none());
}
