//! One fetch for all who ask for the same thing at one time. It goes on when those who asked have left.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::Shared;

use super::error::IndexError;

type Flight<T> = Shared<Pin<Box<dyn Future<Output = Result<T, IndexError>> + Send>>>;

/// What is being fetched, by name.
pub struct Flights<T: Clone> {
    flying: Arc<Mutex<HashMap<String, Flight<T>>>>,
}

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self { flying: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Waits for the fetch of `key`: the one that is under way, else a new one.
    pub async fn join<F>(&self, key: &str, work: impl FnOnce() -> F) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, IndexError>> + Send + 'static,
    {
        let flight = {
            let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flying.get(key) {
                flight.clone()
            } else {
                let landed = Landed { key: key.to_owned(), flying: Arc::clone(&self.flying) };
                let work = work();
                let task = tokio::spawn(async move {
                    let _landed = landed;
                    work.await
                });
                let outcome = async { task.await.unwrap_or_else(|error| Err(IndexError::Internal(error.to_string()))) };
                let flight = outcome.boxed().shared();
                flying.insert(key.to_owned(), flight.clone());
                flight
            }
        };
        flight.await
    }
}

/// Takes a flight off the list when it is over, however it ended.
struct Landed<T: Clone> {
    key: String,
    flying: Arc<Mutex<HashMap<String, Flight<T>>>>,
}

impl<T: Clone> Drop for Landed<T> {
    fn drop(&mut self) {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_one_time_share_one_fetch_and_those_who_leave_do_not_end_it() {
        let flights = Arc::new(Flights::<u32>::default());
        let (count, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (count, go) = (Arc::clone(&count), Arc::clone(&go));
            async move {
                go.notified().await;
                Ok(count.fetch_add(1, Ordering::SeqCst) + 1)
            }
        };
        {
            let leaves = flights.join("a", work);
            assert!(leaves.now_or_never().is_none());
        }
        go.notify_one();
        assert_eq!(futures_util::future::join(flights.join("a", work), flights.join("a", work)).await, (Ok(1), Ok(1)));
        go.notify_one();
        assert_eq!(flights.join("a", work).await, Ok(2));
    }
}
