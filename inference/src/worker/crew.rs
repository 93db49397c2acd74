//! The threads that compute, apart from those that talk to the network.
//!
//! On a CPU their priority is lower: a frame takes all of a core for tens of milliseconds, and whoever decodes, codes or carries
//! the frames of the same machine needs it for a few. Where a core is free, a low priority costs nothing. What they compute is
//! not known here.

use std::io;

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
};

use crate::device::Device;

/// By so much (Linux' niceness) the threads are behind others: beside one that could use all of a core, a quarter of it
/// is left to each. Twice as much is hardly better for video, and would leave a tenth beside a program that has nothing to do with it.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 5;

/// Threads for work that may block: as many as there is work at a time. They end with it, once their work is done.
#[derive(Debug)]
pub(super) struct Crew {
    /// Used for its threads only. There until it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Crew {
    /// Computing on a GPU is waiting for it, mostly: those threads have the priority of others.
    pub(super) fn new(device: Device) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.thread_name("inference");
        if device == Device::Cpu {
            builder.on_thread_start(step_back);
        }
        let runtime = builder.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Has it done by one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.handle.spawn_blocking(work).await
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: that would block the caller's own runtime.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the calling thread's priority, and with it that of the threads that it starts from now on.
#[cfg(target_os = "linux")]
fn step_back() {
    // It is a thread's own on Linux, though POSIX says otherwise. Without it, the work is done all the same.
    if let Err(error) = rustix::process::nice(BEHIND) {
        tracing::debug!(%error, "a thread's priority can't be lowered");
    }
}

/// Elsewhere it would be all of the process's.
#[cfg(not(target_os = "linux"))]
fn step_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread.
    #[cfg(target_os = "linux")]
    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_computes_on_a_cpu_is_behind_others_and_so_are_its_helpers() {
        let crew = Crew::new(Device::Cpu).unwrap();
        let both = crew.run(|| [niceness(), std::thread::spawn(niceness).join().unwrap()]).await.unwrap();
        // 19 is the lowest there is: whoever tests may have stepped back already.
        assert_eq!(both, [(niceness() + BEHIND).min(19); 2]);
        let crew = Crew::new(Device::Cuda(0)).unwrap();
        assert_eq!(crew.run(niceness).await.unwrap(), niceness());
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_next_work_is_done() {
        let crew = Crew::new(Device::Cpu).unwrap();
        assert!(crew.run(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(crew.run(|| 7).await.unwrap(), 7);
    }
}
