//! Threads that must not end by themselves, each with a runtime of its own: whoever started one learns of its end,
//! whatever that is.
//!
//! A panic ends one thread and not the process, and the others would go on beside a table that nobody writes to any
//! more, or with callers that nobody answers.

use std::io;
use tokio_util::sync::CancellationToken;

/// The end of a thread.
#[derive(Debug)]
pub(crate) struct Ended(CancellationToken);

impl Ended {
    /// Waits for it.
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// Starts one, which runs `work` on a single-threaded runtime. The kernel shows the first 15 bytes of `name`.
pub(crate) fn start<F>(name: String, work: impl FnOnce() -> F + Send + 'static) -> io::Result<Ended>
where
    F: Future<Output = ()>,
{
    let over = CancellationToken::new();
    let ended = Ended(over.clone());
    std::thread::Builder::new().name(name).spawn(move || {
        // Dropped by a panic, too.
        let _over = over.drop_guard();
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(async { work().await });
                // What it has left to do on other threads nobody waits for.
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "a thread gets no runtime"),
        }
    })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_end_is_noticed_whatever_it_is() {
        let returns = start("returns".to_owned(), async || ()).unwrap();
        let panics = start("panics".to_owned(), async || panic!("a planted fault")).unwrap();
        returns.wait().await;
        panics.wait().await;
        // Asked again, it has ended still.
        panics.wait().await;
    }

    #[tokio::test]
    async fn one_that_goes_on_has_not_ended() {
        let (release, released) = oneshot::channel::<()>();
        let ended = start("goes on".to_owned(), move || async { drop(released.await) }).unwrap();
        let mut end = pin!(ended.wait());
        tokio::select! {
            biased;
            () = &mut end => panic!("it has ended"),
            () = std::future::ready(()) => (),
        }
        drop(release);
        end.await;
    }
}
