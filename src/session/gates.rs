//! How many sessions may be starting behind one door at one time: an sshd drops connections that are not authenticated yet once there
//! are ten of them (`MaxStartups 10:30:100`), and a bastion is the door of every host behind it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Below the ten from which sshd begins to drop, with room for somebody else.
const AT_ONCE: usize = 8;

static GATES: LazyLock<Mutex<HashMap<String, Arc<Semaphore>>>> = LazyLock::new(Mutex::default);

/// The right to start one session; given back when dropped.
pub(super) struct Permits {
    _held: Vec<OwnedSemaphorePermit>,
}

/// Waits until there is room at every one of `doors`. They are passed from the farthest to the nearest: who holds the nearest, a
/// bastion's, waits for no other.
pub(super) async fn enter(doors: &[String]) -> Permits {
    let mut held = Vec::new();
    for door in doors {
        let gate = {
            let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(door.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
        };
        // A gate is never closed.
        held.extend(gate.acquire_owned().await.ok());
    }
    Permits { _held: held }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_lets_so_many_in_and_another_door_does_not_care() {
        let door = ["gates-test".to_owned()];
        let mut inside = Vec::new();
        for _ in 0..AT_ONCE {
            inside.push(enter(&door).await);
        }
        let mut waiting = Box::pin(enter(&door));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        enter(&["gates-test-other".to_owned()]).await;
        inside.pop();
        waiting.await;
    }
}
