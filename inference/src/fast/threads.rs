//! A small team of threads for the many short steps of one frame: some sixty starts and ends a frame must cost little.
//!
//! Between two steps members spin for some microseconds; between two frames they sleep. Each member has a share of the tasks
//! that is the same part of all steps, and helps others when it is done: what it wrote in one step is mostly what it reads in
//! the next, and lies in its own core's cache. A member that has no core just then is not waited for, unless it holds a task:
//! the others do its share. What they compute is not known here.
#![allow(unsafe_code, reason = "a borrowed job is lent to threads that outlive it")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    /// A [`Job`]: helpers wait for the next one.
    job: AtomicU64,
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

/// A job's number, whether it can still be joined, and how many helpers are within: one word, so that nobody joins what the
/// caller has just left.
#[derive(Debug, Clone, Copy)]
struct Job(u64);

impl Job {
    const OPEN: u64 = 1 << 31;
    const WITHIN: u64 = Self::OPEN - 1;

    const fn number(self) -> u64 {
        self.0 >> 32
    }

    const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    const fn within(self) -> u64 {
        self.0 & Self::WITHIN
    }

    /// The next one, which nobody has joined.
    const fn next(self, open: bool) -> u64 {
        (self.number() + 1) << 32 | if open { Self::OPEN } else { 0 }
    }
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
        let shared = Arc::new(Shared::new(members));
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
        // SAFETY: only the lifetime is changed. No helper looks at it after it left the job, none joins what is closed, and below
        // the job is closed and all who are within are waited for, whatever the caller's own tasks do.
        let pointer = Pointer(unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) });
        *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(pointer);
        for (member, next) in shared.next.iter().enumerate() {
            next.0.store(shared.share(member, tasks), Ordering::Relaxed);
        }
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.announce(true);

        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(0, work)));
        shared.close();
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.failed.swap(false, Ordering::Relaxed), "a task panicked on another thread");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.announce(false);
        for helper in self.helpers.drain(..) {
            // It can't panic: tasks' panics are caught.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn new(members: usize) -> Self {
        Self {
            job: 0.into(),
            next: (0..members).map(|_| Next::default()).collect(),
            tasks: 0.into(),
            work: Mutex::new(None),
            failed: false.into(),
            ended: false.into(),
            sleepers: 0.into(),
            asleep: Mutex::new(()),
            awake: Condvar::new(),
        }
    }

    /// Says that there is a job, also to those who sleep. Nobody is within the one before.
    fn announce(&self, open: bool) {
        let next = Job(self.job.load(Ordering::Relaxed)).next(open);
        self.job.store(next, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.awake.notify_all();
        }
    }

    /// Lets nobody join any more, and waits for those who have.
    fn close(&self) {
        self.job.fetch_and(!Job::OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while Job(self.job.load(Ordering::Acquire)).within() > 0 {
            looks += 1;
            if looks < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }

    fn help(&self, member: usize) {
        let mut seen = 0;
        loop {
            let job = self.wait_for_another(seen);
            seen = job.number();
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            if !self.join(job) {
                continue;
            }
            // By itself: a lock that is held while tasks are done would let one helper work at a time.
            let work = *self.work.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Pointer(work)) = work {
                // SAFETY: the caller keeps it until this member has left the job.
                let work = unsafe { &*work };
                if catch_unwind(AssertUnwindSafe(|| self.take_tasks(member, work))).is_err() {
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
            self.job.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether the job could be joined: its caller may have gone on.
    fn join(&self, mut job: Job) -> bool {
        let number = job.number();
        while job.is_open() && job.number() == number {
            match self.job.compare_exchange_weak(job.0, job.0 + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => job = Job(now),
            }
        }
        false
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

    /// Another job than the one seen last, once there is one.
    fn wait_for_another(&self, seen: u64) -> Job {
        let now = || Job(self.job.load(Ordering::SeqCst));
        for look in 0..SPINS + YIELDS {
            let job = now();
            if job.number() != seen {
                return job;
            }
            if look < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Whoever announces after this look sees the sleeper, and can't notify before it waits: the lock is held.
        while now().number() == seen {
            guard = self.awake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        now()
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
    fn all_members_work_at_the_same_time() {
        let mut team = Team::new(3).unwrap();
        for _ in 0..20 {
            let (within, deadline) =
                (AtomicUsize::new(0), std::time::Instant::now() + std::time::Duration::from_secs(30));
            // None ends before all are within.
            team.run(3, &|_, _| {
                within.fetch_add(1, Ordering::SeqCst);
                while within.load(Ordering::SeqCst) < 3 {
                    assert!(std::time::Instant::now() < deadline, "a helper waits for another one");
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn who_has_no_core_is_not_waited_for() {
        let (ready, wait) = std::sync::mpsc::channel::<()>();
        // A helper that does not get to run until the team is gone.
        let absent = thread::spawn(move || {
            // It ends with the other end.
            let _ = wait.recv();
        });
        let mut team = Team { shared: Arc::new(Shared::new(2)), helpers: vec![absent] };
        // Dropped before the team, which waits for its helpers, also where this test fails.
        let ready = ready;
        for _ in 0..100 {
            let count = AtomicUsize::new(0);
            team.run(7, &|member, _| {
                assert_eq!(member, 0);
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 7);
        }
        drop(ready);
    }

    #[test]
    fn nobody_joins_a_job_that_is_closed() {
        let shared = Shared::new(2);
        shared.announce(true);
        let job = shared.wait_for_another(0);
        assert!(shared.join(job));
        shared.job.fetch_sub(1, Ordering::Release);
        shared.close();
        assert!(!shared.join(job), "it was open when it was looked at");
        shared.announce(true);
        assert!(!shared.join(job), "the next one is another");
        assert_eq!(Job(shared.job.load(Ordering::SeqCst)).within(), 0);
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
