//! A host against a peer at the other end of an in-memory pipe, which speaks the protocol as the test says.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Call, Host, HostError, Reply};
use crate::config::environment::{SessionKind, Target};
use crate::op::{Answer, Code, Facts, Failure, Op};
use crate::plan::tests::bare;
use crate::session::bootstrap::Started;
use crate::session::{Diagnostics, Pipe};
use crate::wire::frame::{self, FrameKind, MAX_PAYLOAD};
use crate::wire::{self, DEAD_MS, Decoder, FromHelper, Messages, ToHelper, VERSION, WINDOW};

const PIECE: usize = 60_000;

/// The helper's end.
struct Peer {
    pipe: DuplexStream,
    decoder: Decoder,
    messages: Messages,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(ToHelper),
    Data(u32, usize),
    End(u32),
}

impl Peer {
    async fn say(&mut self, message: &FromHelper) {
        self.raw(&wire::encode(message).unwrap()).await;
    }

    async fn data(&mut self, kind: FrameKind, id: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, id, payload);
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self, id: u32, result: Result<Answer, Failure>) {
        self.say(&FromHelper::Answer { id, result }).await;
    }

    /// The next frame that is not a beat; none at the end of the pipe.
    async fn see(&mut self) -> Option<Seen> {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                match frame.kind {
                    FrameKind::Part => self.messages.part(&frame.payload).unwrap(),
                    FrameKind::Message => match self.messages.message(&frame.payload).unwrap() {
                        ToHelper::Beat => {}
                        message => return Some(Seen::Message(message)),
                    },
                    FrameKind::Data | FrameKind::DataErr => return Some(Seen::Data(frame.id, frame.payload.len())),
                    FrameKind::End => return Some(Seen::End(frame.id)),
                }
            }
            let mut chunk = vec![0; 4096];
            match self.pipe.read(&mut chunk).await {
                Ok(count @ 1..) => self.decoder.feed(&chunk[..count]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    async fn see_request(&mut self) -> u32 {
        match self.see().await {
            Some(Seen::Message(ToHelper::Request { id, .. })) => id,
            other => panic!("{other:?}"),
        }
    }
}

fn facts(hostname: &str) -> Facts {
    Facts { hostname: hostname.into(), ..bare() }
}

async fn connected() -> (Host, Peer) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let mut peer = Peer { pipe: theirs, decoder: Decoder::default(), messages: Messages::default() };
    peer.say(&FromHelper::Hello { version: VERSION, facts: Box::new(facts("first")) }).await;
    (greet(ours).await.unwrap(), peer)
}

async fn greet(ours: DuplexStream) -> Result<Host, super::ConnectError> {
    let (reader, writer) = tokio::io::split(ours);
    let diagnostics = Diagnostics::new(None);
    diagnostics.close();
    let pipe = Pipe { reader: Box::new(reader), writer: Box::new(writer), diagnostics, owner: Box::new(()) };
    let target = Target {
        name: "app1".into(),
        address: "app1".into(),
        user: None,
        port: None,
        roles: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        session: None,
        root: None,
        cache: None,
    };
    Host::greet(&target, (SessionKind::Local, String::new()), Started { pipe, early: Vec::new(), noise: Vec::new(), uploaded: 0 }).await
}

fn failure() -> Failure {
    Failure { code: Code::DiskFull, message: "no space".into(), hint: None }
}

async fn request(host: &Host, peer: &mut Peer) -> (Call, u32) {
    let call = host.start(Op::Probe { paths: Vec::new() }).await.unwrap();
    (call, peer.see_request().await)
}

#[tokio::test]
async fn facts_are_those_of_the_greeting_until_they_are_asked_for_again() {
    let (host, mut peer) = connected().await;
    assert_eq!(host.facts().hostname, "first");
    let (refreshed, ()) = tokio::join!(host.refresh(), async {
        let id = peer.see_request().await;
        peer.answer(id, Ok(Answer::Facts(Box::new(facts("second"))))).await;
    });
    assert_eq!(refreshed.unwrap().hostname, "second");
    assert_eq!(host.facts().hostname, "second");
    assert!(host.sent_bytes() > 0);
}

#[tokio::test]
async fn requests_at_the_same_time_get_their_own_output_and_answers() {
    let (host, mut peer) = connected().await;
    let (mut one, first) = request(&host, &mut peer).await;
    let (mut two, second) = request(&host, &mut peer).await;
    peer.data(FrameKind::Data, second, b"two").await;
    peer.data(FrameKind::Data, first, b"one").await;
    peer.data(FrameKind::DataErr, first, b"err").await;
    peer.say(&FromHelper::Progress { id: first, done: 1 }).await;
    peer.say(&FromHelper::Progress { id: first, done: 2 }).await;
    peer.data(FrameKind::End, first, b"").await;
    peer.answer(second, Err(failure())).await;
    peer.answer(first, Ok(Answer::Done)).await;
    assert_eq!(two.next().await, Ok(Reply::Output { stderr: false, bytes: b"two".to_vec() }));
    assert_eq!(two.next().await, Err(HostError::Failed(failure())));
    assert_eq!(one.next().await, Ok(Reply::Output { stderr: false, bytes: b"one".to_vec() }));
    assert_eq!(one.next().await, Ok(Reply::Output { stderr: true, bytes: b"err".to_vec() }));
    let mut rest = Vec::new();
    loop {
        match one.next().await.unwrap() {
            Reply::Progress(done) => rest.push(done),
            Reply::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rest.last(), Some(&2));
    assert_eq!(one.next().await, Ok(Reply::Answer(Answer::Done)));
    assert!(matches!(one.next().await, Err(HostError::Protocol { .. })));
}

#[tokio::test]
async fn a_stream_stops_at_its_window_until_credit_comes_and_control_passes_it() {
    let (host, mut peer) = connected().await;
    let (call, id) = request(&host, &mut peer).await;
    let (mut sender, receiver) = call.split();
    let bytes = vec![7; usize::try_from(WINDOW).unwrap() + 1];
    let sending = tokio::spawn(async move {
        sender.send(&bytes).await?;
        sender.end().await
    });
    let mut seen = 0;
    while seen < WINDOW {
        match peer.see().await {
            Some(Seen::Data(of, count)) if of == id && count <= MAX_PAYLOAD => seen += count as u64,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, WINDOW);
    // A request is control: its peer would see the rest of the stream before it, if that had not to wait.
    let (other, second) = request(&host, &mut peer).await;
    drop(other);
    assert_eq!(peer.see().await, Some(Seen::Message(ToHelper::Stop { id: second })), "nothing of the stream comes before it");
    peer.say(&FromHelper::Credit { id, bytes: 10 }).await;
    assert_eq!(peer.see().await, Some(Seen::Data(id, 1)));
    assert_eq!(peer.see().await, Some(Seen::End(id)));
    sending.await.unwrap().unwrap();
    peer.answer(id, Ok(Answer::Done)).await;
    assert_eq!(receiver.answer().await, Ok(Answer::Done));
}

#[tokio::test]
async fn a_sender_that_waits_for_credit_learns_that_the_request_failed() {
    let (host, mut peer) = connected().await;
    let (call, id) = request(&host, &mut peer).await;
    let (mut sender, receiver) = call.split();
    let sending = tokio::spawn(async move { sender.send(&vec![0; 3 * 1024 * 1024]).await });
    peer.answer(id, Err(failure())).await;
    assert_eq!(sending.await.unwrap(), Err(HostError::Failed(failure())));
    assert_eq!(receiver.answer().await, Err(HostError::Failed(failure())));
}

#[tokio::test]
async fn credit_is_given_back_as_output_is_taken_and_not_before() {
    let (host, mut peer) = connected().await;
    let (mut call, id) = request(&host, &mut peer).await;
    let pieces = usize::try_from(WINDOW).unwrap() / PIECE;
    for _ in 0..pieces {
        peer.data(FrameKind::Data, id, &vec![1; PIECE]).await;
    }
    let (other, ()) = tokio::join!(host.ask(Op::Facts), async {
        let id = peer.see_request().await;
        peer.answer(id, Ok(Answer::Done)).await;
    });
    assert_eq!(other, Ok(Answer::Done), "a full stream does not hold up another request, and no credit came before it");
    let mut taken = 0;
    while taken < pieces * PIECE {
        let Reply::Output { bytes, .. } = call.next().await.unwrap() else { panic!("no output") };
        taken += bytes.len();
    }
    let mut credit = 0;
    while credit < WINDOW / 2 {
        match peer.see().await {
            Some(Seen::Message(ToHelper::Credit { id: of, bytes })) if of == id => credit += bytes,
            other => panic!("{other:?}"),
        }
    }
    assert!(credit <= taken as u64);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_stopped_and_its_output_goes_nowhere() {
    let (host, mut peer) = connected().await;
    let (call, id) = request(&host, &mut peer).await;
    drop(call);
    assert_eq!(peer.see().await, Some(Seen::Message(ToHelper::Stop { id })));
    for _ in 0..10 {
        peer.data(FrameKind::Data, id, &vec![1; PIECE]).await;
    }
    assert!(matches!(peer.see().await, Some(Seen::Message(ToHelper::Credit { id: of, .. })) if of == id));
    peer.answer(id, Ok(Answer::Done)).await;
    let (answer, ()) = tokio::join!(host.ask(Op::Facts), async {
        let id = peer.see_request().await;
        peer.answer(id, Ok(Answer::Done)).await;
    });
    assert_eq!(answer, Ok(Answer::Done));
}

#[tokio::test]
async fn a_host_that_breaks_the_rules_is_cut_off() {
    for case in 0..6 {
        let (host, mut peer) = connected().await;
        let (call, id) = request(&host, &mut peer).await;
        match case {
            0 => {
                for _ in 0..=usize::try_from(WINDOW).unwrap() / PIECE {
                    let mut bytes = Vec::new();
                    frame::put(&mut bytes, FrameKind::Data, id, &vec![1; PIECE]);
                    // It may be cut off before the last of them.
                    let _ = peer.pipe.write_all(&bytes).await;
                }
            }
            1 => peer.raw(&[0xff; 16]).await,
            2 => peer.data(FrameKind::Data, id + 1, b"x").await,
            3 => peer.say(&FromHelper::Credit { id, bytes: u64::MAX }).await,
            4 => peer.say(&FromHelper::Hello { version: VERSION, facts: Box::new(facts("again")) }).await,
            _ => peer.data(FrameKind::Message, 0, &[0xee; 40]).await,
        }
        let error = call.answer().await.unwrap_err();
        assert!(matches!(&error, HostError::Lost { host, .. } if host == "app1"), "{case}: {error}");
        assert_eq!(host.start(Op::Facts).await.err(), Some(error), "{case}: the reason stays");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_lost_after_its_time_and_beats_keep_one_alive() {
    let (host, mut peer) = connected().await;
    let (call, id) = request(&host, &mut peer).await;
    let began = tokio::time::Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(DEAD_MS - 1000)).await;
        peer.say(&FromHelper::Beat).await;
    }
    let beating = began.elapsed();
    let error = call.answer().await.unwrap_err();
    assert!(error.to_string().contains("silent for 20 s"), "{error}");
    let silent = began.elapsed().checked_sub(beating).unwrap();
    assert!(silent >= Duration::from_millis(DEAD_MS) && silent < Duration::from_millis(DEAD_MS + 1000), "{silent:?} after request {id}");
}

#[tokio::test(start_paused = true)]
async fn the_controller_beats_while_nothing_is_asked() {
    let (_host, mut peer) = connected().await;
    let mut first = [0; frame::HEADER];
    for _ in 0..4 {
        let began = tokio::time::Instant::now();
        peer.pipe.read_exact(&mut first).await.unwrap();
        let (kind, _, length) = frame::parse_header(first).unwrap();
        let mut payload = vec![0; length];
        peer.pipe.read_exact(&mut payload).await.unwrap();
        assert_eq!(kind, FrameKind::Message);
        assert_eq!(Messages::default().message::<ToHelper>(&payload).unwrap(), ToHelper::Beat);
        assert!(began.elapsed() <= Duration::from_millis(wire::BEAT_MS + 10));
    }
}

#[tokio::test]
async fn the_end_of_the_pipe_ends_every_request() {
    let (host, mut peer) = connected().await;
    let (one, _) = request(&host, &mut peer).await;
    let (two, _) = request(&host, &mut peer).await;
    drop(peer);
    for call in [one, two] {
        assert!(matches!(call.answer().await, Err(HostError::Lost { .. })));
    }
    assert!(matches!(host.ask(Op::Facts).await, Err(HostError::Lost { .. })));
}

#[tokio::test]
async fn closing_says_goodbye_and_ends_what_is_open() {
    let (host, mut peer) = connected().await;
    let (call, _) = request(&host, &mut peer).await;
    let ((), seen) = tokio::join!(host.close(), async move {
        let seen = peer.see().await;
        drop(peer);
        seen
    });
    assert_eq!(seen, Some(Seen::Message(ToHelper::Bye)));
    assert!(matches!(call.answer().await, Err(HostError::Lost { .. })));
}

#[tokio::test]
async fn the_last_clone_ends_the_session() {
    let (host, mut peer) = connected().await;
    let other = host.clone();
    drop(host);
    let (_, ()) = tokio::join!(other.ask(Op::Facts), async {
        let id = peer.see_request().await;
        peer.answer(id, Ok(Answer::Done)).await;
    });
    drop(other);
    assert_eq!(peer.see().await, None);
}

#[tokio::test]
async fn a_helper_of_another_version_is_refused() {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let mut peer = Peer { pipe: theirs, decoder: Decoder::default(), messages: Messages::default() };
    peer.say(&FromHelper::Hello { version: VERSION + 1, facts: Box::new(facts("x")) }).await;
    assert_eq!(greet(ours).await.err().unwrap().code(), "protocol");
}
