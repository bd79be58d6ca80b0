//! What a client heard of the index beside what it asked for, kept for whoever explains how that client ended.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::error::IndexError;

/// Answers that are remembered: more than a client waits for after the one that ended it.
const MOST: usize = 256;

/// Why a client may lack what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It got nothing, and not because there is no such thing.
    Fault(IndexError),
    /// It got what is known of a package, which may lack something.
    Doubt { package: String, why: String },
    /// There is no such thing.
    Missing(String),
}

impl Remark {
    /// What is to be said of an answer that is an error.
    pub(super) fn of(error: &IndexError) -> Option<Self> {
        match error {
            IndexError::Missing(name) | IndexError::Offline(name) => Some(Self::Missing(name.clone())),
            IndexError::Name(_) => None,
            loud => Some(Self::Fault(loud.clone())),
        }
    }
}

/// The remarks on the last answers, by path. Clones are one.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<(String, Remark)>>>);

impl Heard {
    /// Lists the remarks, the last one last.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, remark)| remark.clone()).collect()
    }

    /// Only the last answer to a question counts: clients ask again.
    fn note(&self, path: &str, remark: Option<Remark>) {
        let mut remarks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.retain(|(asked, _)| asked != path);
        if remarks.len() == MOST {
            remarks.remove(0);
        }
        remarks.extend(remark.map(|remark| (path.to_owned(), remark)));
    }
}

/// Answers, and notes what is to be said of the answer.
pub(super) async fn listen(State(heard): State<Heard>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    heard.note(&path, response.extensions().get().cloned());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_answer_to_a_question_counts() {
        let heard = Heard::default();
        let fault = |status| Remark::Fault(IndexError::Status { url: "u".to_owned(), status });
        heard.note("/a", Some(fault(500)));
        heard.note("/b", Some(fault(501)));
        heard.note("/a", Some(fault(502)));
        assert_eq!(heard.clone().remarks(), [fault(501), fault(502)]);
        heard.note("/b", None);
        assert_eq!(heard.remarks(), [fault(502)]);
        for at in 0..2 * MOST {
            heard.note(&format!("/{at}"), Some(fault(500)));
        }
        assert_eq!(heard.remarks().len(), MOST);
    }
}
