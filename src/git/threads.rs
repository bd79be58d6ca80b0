//! The same work on many items, on two threads: what one disk, and the transfer behind it, can use.

use std::sync::atomic::{AtomicUsize, Ordering};

const THREADS: usize = 2;
/// Items a thread takes at a time.
const RUN: usize = 32;

/// Applies `work` to every item, and gives the results in the order of the items, or one of the errors.
pub fn each<T: Sync, R: Send, E: Send>(items: &[T], work: impl Fn(&T) -> Result<R, E> + Sync) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let share = || {
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let from = next.fetch_add(RUN, Ordering::Relaxed);
            let Some(run) = items.get(from..(from + RUN).min(items.len())).filter(|run| !run.is_empty()) else {
                return Ok::<_, E>(done);
            };
            let results = run.iter().map(&work).collect::<Result<Vec<R>, E>>();
            // The other thread has nothing to do any more either.
            done.push((from, results.inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?));
        }
    };
    let mut runs = std::thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(share)).collect();
        let mut runs = share()?;
        for other in others {
            runs.extend(other.join().expect("the work does not panic")?);
        }
        Ok::<_, E>(runs)
    })?;
    runs.sort_by_key(|(from, _)| *from);
    Ok(runs.into_iter().flat_map(|(_, run)| run).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items_and_an_error_is_not_lost() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(each(&items, |item| Ok::<_, ()>(item * 2)).unwrap(), (0..1000).map(|item| item * 2).collect::<Vec<_>>());
        assert_eq!(each(&items, |item| if *item == 999 { Err(*item) } else { Ok(()) }), Err(999));
        assert_eq!(each(&[] as &[usize], |_| Ok::<(), ()>(())), Ok(Vec::new()));
    }
}
