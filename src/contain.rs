//! A failed assertion ends the work that it is in and nothing else (FAULTS: "assertions stay on in
//! release and stop only that session").

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;

/// Does work; `Err` is what an assertion in it said. Only for work whose half-done state nobody uses
/// afterwards.
///
/// # Errors
/// It panicked.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic))
}

/// The same of work that waits.
///
/// # Errors
/// It panicked.
pub async fn contained_while<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_assertion_said_is_told_and_everything_else_goes_on() {
        assert_eq!(contained(|| 7), Ok(7));
        let (one, other) = (1, 2);
        let said = contained(|| assert!(one == other, "{one} is not {other}")).unwrap_err();
        assert_eq!(said, "1 is not 2");
    }

    #[tokio::test]
    async fn so_it_is_while_it_waits() {
        let work = async {
            tokio::task::yield_now().await;
            assert!(String::new().len() == 1, "in the middle");
        };
        assert_eq!(contained_while(work).await, Err("in the middle".to_owned()));
    }
}
