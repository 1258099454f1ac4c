use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Answer, Election, Standing};

const TTL: Duration = Duration::from_secs(9);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn leads(election: &mut Election, now: Instant) -> bool {
    matches!(election.standing(now), Standing::Leader { .. })
}

fn term(election: &mut Election, now: Instant) -> u64 {
    match election.standing(now) {
        Standing::Leader { term, .. } => term,
        other => panic!("{other:?}"),
    }
}

/// Asks and hears at once.
fn ask(election: &mut Election, now: Instant, answer: Answer) {
    let token = election.token();
    election.answered(&token, now, now, answer);
}

#[test]
fn a_leader_renews_each_third_and_ends_with_its_lease() {
    let start = Instant::now();
    let mut election = Election::new("me".to_owned(), TTL, start);
    assert_eq!((election.due(), election.standing(start)), (start, Standing::Unknown));
    ask(&mut election, start, Answer::Taken);
    assert_eq!(election.due(), start + seconds(3));
    let first = election.token();
    assert_eq!(election.standing(start), Standing::Leader { token: first.clone(), term: 1 });
    ask(&mut election, start + seconds(3), Answer::Failed);
    ask(&mut election, start + seconds(8), Answer::Failed);
    assert_eq!(election.due(), start + seconds(8) + TTL / 10);
    assert!(leads(&mut election, start + seconds(8)));
    assert_eq!(election.patience(start + seconds(8)), seconds(1));
    ask(&mut election, start + Duration::from_millis(8900), Answer::Failed);
    assert_eq!(election.due(), start + TTL, "the end is noticed at once");
    assert_eq!(election.standing(start + TTL), Standing::Unknown);
    assert_ne!(election.token(), first, "a lost token is not used again");
}

#[test]
fn a_new_term_begins_whenever_others_may_have_written() {
    let mut now = Instant::now();
    let mut election = Election::new("me".to_owned(), TTL, now);
    for (answer, expected) in [
        (Answer::Taken, Some(1)),
        (Answer::Renewed, Some(1)),
        // Redis was emptied.
        (Answer::Taken, Some(2)),
        // Redis was away.
        (Answer::Failed, Some(2)),
        (Answer::Renewed, Some(3)),
        (Answer::Renewed, Some(3)),
        (Answer::HeldBy("other".to_owned()), None),
        (Answer::Taken, Some(4)),
    ] {
        now += seconds(1);
        ask(&mut election, now, answer.clone());
        match expected {
            Some(expected) => assert_eq!(term(&mut election, now), expected, "{answer:?}"),
            None => {
                let leader = "other".to_owned();
                assert_eq!(election.standing(now), Standing::Standby { leader });
            }
        }
    }
}

#[test]
fn an_answer_to_a_token_that_ran_out_counts_for_nothing() {
    let start = Instant::now();
    let mut election = Election::new("me".to_owned(), TTL, start);
    ask(&mut election, start, Answer::Taken);
    let old = election.token();
    let late = start + TTL;
    assert_eq!(election.standing(late), Standing::Unknown);
    election.answered(&old, start + seconds(8), late, Answer::Renewed);
    assert_eq!((election.standing(late), election.due()), (Standing::Unknown, late));
}

/// The lease as Redis keeps it.
#[derive(Debug, Default)]
struct Server {
    held: Option<(String, Instant)>,
}

impl Server {
    fn take(&mut self, token: &str, now: Instant) -> Answer {
        let held = self.held.take().filter(|(_, until)| *until > now);
        let answer = match &held {
            Some((holder, _)) if holder != token => Answer::HeldBy(holder.clone()),
            Some(_) => Answer::Renewed,
            None => Answer::Taken,
        };
        self.held = match answer {
            Answer::HeldBy(_) => held,
            _ => Some((token.to_owned(), now + TTL)),
        };
        answer
    }
}

proptest! {
    /// Questions and answers are late or lost at will. Each step is: who acts, how long the way to
    /// Redis and back takes, and whether the answer arrives.
    #[test]
    fn never_do_two_processes_lead_at_once(
        steps in proptest::collection::vec((0..3_usize, 0..4_000_u64, 0..4_000_u64, any::<bool>()), 1..80),
    ) {
        let mut now = Instant::now();
        let mut server = Server::default();
        let mut processes: Vec<Election> =
            ["a", "b", "c"].map(|name| Election::new(name.to_owned(), TTL, now)).into();
        for (who, there, back, arrives) in steps {
            let asked = now;
            let token = processes[who].token();
            now += Duration::from_millis(there);
            let answer = server.take(&token, now);
            now += Duration::from_millis(back);
            let answer = if arrives { answer } else { Answer::Failed };
            processes[who].answered(&token, asked, now, answer);
            let leaders = processes.iter_mut().filter_map(|process| match process.standing(now) {
                Standing::Leader { token, .. } => Some(token),
                _ => None,
            });
            let leaders: Vec<String> = leaders.collect();
            prop_assert!(leaders.len() <= 1, "{leaders:?}");
            if let Some(leader) = leaders.first() {
                let holder = server.held.as_ref().map(|(holder, _)| holder.as_str());
                prop_assert_eq!(holder, Some(leader.as_str()));
            }
        }
    }
}
