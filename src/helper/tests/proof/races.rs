//! Many that want one host at once.

use std::time::Instant;

use crate::client::Client;
use crate::invariants::violations;
use crate::op::{Answer, Facts, Locked, Op, RunInfo};
use crate::scenarios::Host;

const RACERS: usize = 6;

/// Lets all of them want the lock at once, so often; one in ten winners is killed with it in its hand. Gives how many were.
fn race(times: u32) -> u32 {
    let host = Host::new();
    let root = host.root();
    let mut racers: Vec<Client> = (0..RACERS).map(|_| Client::start(&root)).collect();
    let (mut kills, mut before) = (0, 0);
    for turn in 0..times {
        let run = |number: usize| RunInfo { run: format!("run{turn}-{number}"), by: "ada".into(), what: "racing".into(), since: 0 };
        let asked: Vec<u32> = racers.iter_mut().enumerate().map(|(number, racer)| racer.request(Op::Lock(run(number)))).collect();
        let answers: Vec<Answer> = racers.iter_mut().zip(asked).map(|(racer, id)| racer.answer(id).result.unwrap()).collect();
        let won = |answer: &Answer| match answer {
            Answer::Locked(Locked::Yes { epoch, .. }) => Some(*epoch),
            _ => None,
        };
        let winners: Vec<(usize, u64)> = answers.iter().enumerate().filter_map(|(number, answer)| Some((number, won(answer)?))).collect();
        let [(winner, epoch)] = winners[..] else { panic!("turn {turn}: {answers:?}") };
        assert!(epoch > before, "turn {turn}: epoch {epoch} follows {before}");
        before = epoch;
        if turn % 10 == 9 {
            std::mem::replace(&mut racers[winner], Client::start(&root)).kill();
            kills += 1;
        } else {
            assert_eq!(racers[winner].well(Op::Unlock), Answer::Done);
        }
        if turn % 100 == 0 {
            let Facts { holder, .. } = racers[0].read_facts();
            assert_eq!(holder, None, "turn {turn}");
            assert_eq!(violations(&root), [""; 0], "turn {turn}");
        }
    }
    kills
}

#[test]
fn of_many_that_want_a_host_at_once_one_gets_it_and_a_dead_one_keeps_nobody_out() {
    race(100);
}

#[test]
#[ignore = "takes minutes: `scripts/soak`"]
fn ten_thousand_races() {
    let began = Instant::now();
    let kills = race(10_000);
    eprintln!("races: 10000 for one lock by {RACERS}, {kills} winners killed, 0 violations, {:.0} s", began.elapsed().as_secs_f64());
}
