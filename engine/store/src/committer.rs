//! Group commit: one batch at a time goes to disk, and whoever comes meanwhile is in the next one.
//!
//! A lone writer commits on its own thread (two hand-overs would cost more than half a sync); when several write at once, a
//! thread takes all that waits. Before it does, it gives those whom it has just answered a fraction of a sync to come back:
//! else writers fall into two halves that wait for each other's syncs, and each batch carries half of them. Every answer,
//! also that a compare failed, is given only after all that it rests on is durable. The first failed write or sync ends all
//! writing; the process has to start again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::evaluate::evaluate;
use crate::shared::Shared;
use crate::writer::{AppendError, Writer};
use crate::{StoreError, Txn, TxnResult};

type Answer = Result<TxnResult, StoreError>;

/// How many transactions wait for a batch at most; the next caller waits for one of them to be answered.
const WAITING: usize = 4096;
/// A batch takes no further transaction once it is this large.
const BATCH_BYTES: usize = 1 << 20;
/// What part of the last batch's time the next one waits for more, and how long at most.
const GATHERING: u32 = 4;
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// Orders and commits transactions.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
    /// Signalled when the thread may have something to do.
    work: Condvar,
    slots: Arc<Semaphore>,
    /// Only whoever has set `Queue::busy` takes this.
    writer: Mutex<Writer>,
    failure: watch::Sender<Option<StoreError>>,
    inline_below: Duration,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Whether a batch is on its way to disk.
    busy: bool,
    /// Whether the last batch was a lone transaction that was quick enough to have been the caller's own.
    alone: bool,
    /// Until when the next batch waits for how many: those that waited when the last one was answered, and the answered.
    gathering: Option<(Instant, usize)>,
    stopping: bool,
}

#[derive(Debug)]
struct Request {
    txn: Txn,
    answer: oneshot::Sender<Answer>,
    /// Its place in the bounded queue, which it keeps when its caller goes away.
    _slot: OwnedSemaphorePermit,
}

/// The right to commit the next batch; given back when dropped.
struct Turn<'a> {
    committer: &'a Committer,
    alone: bool,
}

impl Committer {
    /// Commits through `writer` and publishes in `shared`. A sync that takes `inline_below` or longer is not done on a
    /// caller's thread the next time.
    pub(crate) fn new(shared: Arc<Shared>, writer: Writer, inline_below: Duration) -> Self {
        let alone = !inline_below.is_zero();
        Self {
            shared,
            queue: Mutex::new(Queue { waiting: VecDeque::new(), busy: false, alone, gathering: None, stopping: false }),
            work: Condvar::new(),
            slots: Arc::new(Semaphore::new(WAITING)),
            writer: Mutex::new(writer),
            failure: watch::Sender::new(None),
            inline_below,
        }
    }

    /// Commits one transaction.
    pub(crate) async fn commit(&self, txn: Txn) -> Answer {
        txn.check()?;
        if let Some(turn) = self.own_turn()? {
            return turn.commit_one(&txn);
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let answer = self.enqueue(txn, slot)?;
        answer.await.unwrap_or_else(|_| Err(self.failed().unwrap_or(StoreError::Closed)))
    }

    /// A turn for a caller that is alone.
    fn own_turn(&self) -> Result<Option<Turn<'_>>, StoreError> {
        let mut queue = self.queue();
        self.writable()?;
        if queue.busy || !queue.alone || !queue.waiting.is_empty() {
            return Ok(None);
        }
        queue.busy = true;
        Ok(Some(Turn { committer: self, alone: true }))
    }

    fn enqueue(&self, txn: Txn, slot: OwnedSemaphorePermit) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue();
        self.writable()?;
        queue.waiting.push_back(Request { txn, answer, _slot: slot });
        let awaited = queue.gathering.map_or(1, |(_, count)| count);
        if !queue.busy && (queue.waiting.len() == 1 || queue.waiting.len() >= awaited) {
            self.work.notify_one();
        }
        Ok(receiver)
    }

    /// Commits batches until the committer is stopped and nothing waits. The body of the thread.
    pub(crate) fn serve(&self) {
        // A panic drops the turn first, so that those in the batch find out why they get no answer.
        while let Some((batch, mut turn)) = self.next_batch() {
            let (began, size) = (Instant::now(), batch.len());
            let answers = turn.commit(batch.iter().map(|request| &request.txn), size);
            // Before the answers, so that a caller who is now alone finds the turn free for its next transaction.
            drop(turn);
            let mut answers = answers.map(Vec::into_iter);
            for request in batch {
                let next = answers.as_mut().map(|answers| answers.next().expect("each transaction has an answer"));
                reply(request, next.map_err(|error| error.clone()));
            }
            let pause = (began.elapsed() / GATHERING).min(LONGEST_GATHERING);
            let mut queue = self.queue();
            queue.gathering = Some((Instant::now() + pause, size + queue.waiting.len()));
        }
    }

    fn next_batch(&self) -> Option<(Vec<Request>, Turn<'_>)> {
        let mut queue = self.queue();
        while queue.busy || queue.waiting.is_empty() {
            if queue.stopping && queue.waiting.is_empty() {
                return None;
            }
            // As in `queue`: a panic of another leaves nothing half changed here.
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue = self.gather(queue);
        queue.busy = true;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(request) = queue.waiting.pop_front()
        {
            bytes += request.txn.size();
            batch.push(request);
        }
        Some((batch, Turn { committer: self, alone: false }))
    }

    /// Waits a moment for those who are likely to come.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        while let Some((until, count)) = queue.gathering {
            let left = until.saturating_duration_since(Instant::now());
            if queue.stopping || queue.waiting.len() >= count || left.is_zero() {
                queue.gathering = None;
                break;
            }
            queue = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue
    }

    /// Lets `serve` return once nothing waits.
    pub(crate) fn stop(&self) {
        self.queue().stopping = true;
        self.work.notify_one();
    }

    /// Ends all writing for good, and answers those who wait.
    fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "the store takes no more writes");
        self.failure.send_if_modified(|failure| failure.is_none() && failure.replace(error.clone()).is_none());
        let waiting = std::mem::take(&mut self.queue().waiting);
        for request in waiting {
            reply(request, Err(error.clone()));
        }
    }

    /// Why writing has ended, if it has.
    pub(crate) fn failed(&self) -> Option<StoreError> {
        self.failure.borrow().clone()
    }

    /// Waits until writing has ended.
    pub(crate) async fn wait_failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(StoreError::Closed),
            Err(_) => StoreError::Closed,
        }
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.failed().map_or(Ok(()), Err)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half way; `Turn` sees to a panic between taking and giving back the turn.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn whatever the queue looks like, to commit a batch of a known composition.
    #[cfg(test)]
    pub(crate) fn commit_batch(&self, txns: &[Txn]) -> Result<Vec<TxnResult>, StoreError> {
        self.writable()?;
        let mut turn = {
            let mut queue = self.queue();
            assert!(!queue.busy, "only for tests with one writer");
            queue.busy = true;
            Turn { committer: self, alone: true }
        };
        turn.commit(txns, txns.len())
    }
}

/// Answers a caller. One that has gone away does not want to know.
fn reply(request: Request, answer: Answer) {
    drop(request.answer.send(answer));
}

impl Turn<'_> {
    fn commit_one(mut self, txn: &Txn) -> Answer {
        let mut answers = self.commit([txn], 1)?;
        Ok(answers.pop().expect("each transaction has an answer"))
    }

    /// Evaluates, writes, syncs and publishes a batch. An error answers all of it.
    fn commit<'t>(
        &mut self,
        txns: impl IntoIterator<Item = &'t Txn>,
        size: usize,
    ) -> Result<Vec<TxnResult>, StoreError> {
        let committer = self.committer;
        committer.writable()?;
        let began = Instant::now();
        // Held from the evaluation to the publication: nobody else may change what the batch was evaluated against.
        let mut writer = committer.writer.lock().map_err(|_| poisoned("a panic interrupted a write"))?;
        let outcome = evaluate(&*committer.shared.state()?, txns);
        if outcome.commits.is_empty() {
            // All that the answers rest on is published, so it is on disk.
            return Ok(outcome.answers);
        }
        match writer.append(&outcome.commits) {
            Ok((frame, written)) => committer.shared.publish(outcome.commits, frame, written)?,
            Err(AppendError::Refused(error)) => return Err(error),
            Err(AppendError::Broken(error)) => return Err(self.broken(error)),
        }
        self.alone = size == 1 && began.elapsed() < committer.inline_below;
        Ok(outcome.answers)
    }

    fn broken(&self, error: StoreError) -> StoreError {
        let lasting = match error {
            StoreError::Full { .. } => error,
            other => poisoned(&other.to_string()),
        };
        self.committer.fail(&lasting);
        lasting
    }
}

fn poisoned(reason: &str) -> StoreError {
    StoreError::Poisoned { reason: reason.to_owned() }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.committer.fail(&poisoned("a panic interrupted a commit"));
        }
        let mut queue = self.committer.queue();
        queue.busy = false;
        queue.alone = self.alone;
        if !queue.waiting.is_empty() || queue.stopping {
            self.committer.work.notify_one();
        }
    }
}
