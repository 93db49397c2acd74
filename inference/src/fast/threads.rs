//! A small team of threads for the many short steps of one frame: some sixty starts and ends a frame must cost little.
//!
//! Between two steps members spin for some microseconds; between two frames they sleep. Each member has a share of the tasks
//! that is the same part of all steps, and helps others when it is done: what it wrote in one step is mostly what it reads in
//! the next, and lies in its own core's cache. What they compute is not known here.
#![allow(unsafe_code, reason = "a borrowed job is lent to threads that outlive it")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Looks before a member lets others run, and then before it sleeps.
const SPINS: u32 = 4_000;
const YIELDS: u32 = 200;

/// What members are given: (member, task).
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The caller and its helpers.
#[derive(Debug)]
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Counts the jobs: helpers wait for the next one.
    job: AtomicUsize,
    /// Helpers that are done with the job.
    done: AtomicUsize,
    /// The next task of each member's share, and how many there are in all.
    next: Vec<Next>,
    tasks: AtomicUsize,
    work: Mutex<Option<Pointer>>,
    failed: AtomicBool,
    ended: AtomicBool,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    awake: Condvar,
}

/// In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Next(AtomicUsize);

/// To the caller's work, which lives until all are done with it.
#[derive(Clone, Copy)]
struct Pointer(*const Work<'static>);

impl std::fmt::Debug for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("work")
    }
}

// SAFETY: what it points to is `Sync`.
unsafe impl Send for Pointer {}

impl Team {
    /// A team of so many members, the caller among them.
    pub(crate) fn new(members: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: 0.into(),
            done: 0.into(),
            next: (0..members).map(|_| Next::default()).collect(),
            tasks: 0.into(),
            work: Mutex::new(None),
            failed: false.into(),
            ended: false.into(),
            sleepers: 0.into(),
            asleep: Mutex::new(()),
            awake: Condvar::new(),
        });
        let mut team = Self { shared, helpers: Vec::new() };
        for member in 1..members {
            let shared = team.shared.clone();
            let helper = thread::Builder::new().name(format!("kernel-{member}"));
            team.helpers.push(helper.spawn(move || shared.help(member))?);
        }
        Ok(team)
    }

    pub(crate) fn members(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Has tasks 0 to `tasks` - 1 done, each once, by whichever member is free; returns when all are done.
    ///
    /// # Panics
    /// If a task does.
    pub(crate) fn run(&mut self, tasks: usize, work: &Work<'_>) {
        if self.helpers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| work(0, task));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed. No helper looks at it after it counted itself done, and below all are
        // waited for, whatever the caller's own tasks do.
        let pointer = Pointer(unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) });
        *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(pointer);
        shared.done.store(0, Ordering::Relaxed);
        for (member, next) in shared.next.iter().enumerate() {
            next.0.store(shared.share(member, tasks), Ordering::Relaxed);
        }
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.announce();

        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(0, work)));
        let mut looks = 0;
        while shared.done.load(Ordering::Acquire) < self.helpers.len() {
            looks += 1;
            if looks < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.failed.swap(false, Ordering::Relaxed), "a task panicked on another thread");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.announce();
        for helper in self.helpers.drain(..) {
            // It can't panic: tasks' panics are caught.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// Says that there is a job, also to those who sleep.
    fn announce(&self) {
        self.job.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.awake.notify_all();
        }
    }

    fn help(&self, member: usize) {
        let mut seen = 0;
        loop {
            self.wait_for_another(seen);
            seen += 1;
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            if let Some(Pointer(work)) = *self.work.lock().unwrap_or_else(PoisonError::into_inner) {
                // SAFETY: the caller keeps it until this member has counted itself done.
                let work = unsafe { &*work };
                if catch_unwind(AssertUnwindSafe(|| self.take_tasks(member, work))).is_err() {
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn take_tasks(&self, member: usize, work: &Work<'_>) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let members = self.next.len();
        for owner in (0..members).map(|n| (member + n) % members) {
            let end = self.share(owner + 1, tasks);
            loop {
                let task = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                work(member, task);
            }
        }
    }

    /// The first task of a member's share.
    fn share(&self, member: usize, tasks: usize) -> usize {
        tasks * member / self.next.len()
    }

    /// Until another job than the one seen last is announced.
    fn wait_for_another(&self, seen: usize) {
        for look in 0..SPINS + YIELDS {
            if self.job.load(Ordering::Acquire) != seen {
                return;
            }
            if look < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Whoever announces after this look sees the sleeper, and can't notify before it waits: the lock is held.
        while self.job.load(Ordering::SeqCst) == seen {
            guard = self.awake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_done_once_and_before_the_end() {
        let mut team = Team::new(3).unwrap();
        for round in 0..2_000 {
            let tasks = round % 17;
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| 0.into()).collect();
            team.run(tasks, &|member, task| {
                assert!(member < 3);
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn members_that_fell_asleep_wake_up() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..3 {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while team.shared.sleepers.load(Ordering::SeqCst) == 0 {
                assert!(std::time::Instant::now() < deadline, "idle members sleep");
                thread::yield_now();
            }
            let count = AtomicUsize::new(0);
            team.run(100, &|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn a_panic_of_a_task_is_the_callers_and_the_team_goes_on() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..50 {
            let run = catch_unwind(AssertUnwindSafe(|| team.run(8, &|_, task| assert!(task != 5))));
            assert!(run.is_err());
            team.run(8, &|_, _| {});
        }
    }
}
