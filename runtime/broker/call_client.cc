#include "runtime/broker/call_client.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

constexpr size_t kRepliesAtOnce = 64;
// How long the leader sleeps before it looks for deaths that nobody could report.
constexpr absl::Duration kPatience = absl::Seconds(1);

absl::StatusOr<Queue> RetainQueue(Segment& segment, HostId me, uint64_t value) {
  const Handle handle = Handle::FromValue(value);
  if (absl::Status held = segment.refs().Retain(handle, me); !held.ok()) return held;
  absl::StatusOr<Queue> queue = Queue::Open(segment, me, handle);
  if (!queue.ok()) segment.refs().Release(handle, me);
  return queue;
}

}  // namespace

// ---- Life ----------------------------------------------------------------------------------------------------

CallClient::CallClient(Segment& segment, HostId me, Handle pool, PoolView view, Queue calls, Queue replies)
    : segment_(segment), me_(me), pool_(pool), view_(view), calls_(calls), replies_(replies) {}

absl::StatusOr<std::unique_ptr<CallClient>> CallClient::Create(Segment& segment, HostId me, uint32_t cancellable) {
  absl::StatusOr<Handle> pool = CreatePool(segment, me, cancellable);
  if (!pool.ok()) return pool.status();
  absl::StatusOr<PoolView> view = OpenPool(segment, *pool);
  absl::StatusOr<Queue> calls =
      view.ok() ? RetainQueue(segment, me, view->state->call_queue) : view.status();
  absl::StatusOr<Queue> replies =
      calls.ok() ? RetainQueue(segment, me, view->state->reply_queue) : calls.status();
  if (!replies.ok()) {
    if (calls.ok()) segment.refs().Release(calls->handle(), me);
    segment.refs().Release(*pool, me);
    return replies.status();
  }
  return std::unique_ptr<CallClient>(new CallClient(segment, me, *pool, *view, *calls, *replies));
}

CallClient::~CallClient() {
  Terminate(absl::CancelledError("the pool is gone"));
  {
    MutexLock lock(mutex_);
    finished_.clear();
  }
  for (Handle handle : {calls_.handle(), replies_.handle(), pool_}) segment_.refs().Release(handle, me_);
}

void CallClient::ReleaseInherited(std::unique_ptr<CallClient> client, HostId me) {
  for (Handle handle : {client->calls_.handle(), client->replies_.handle(), client->pool_}) {
    client->segment_.refs().Release(handle, me);
  }
  // Its lock may be held for ever by a thread of the parent, and its replies belong to the parent.
  static_cast<void>(client.release());
}

// ---- Submitting --------------------------------------------------------------------------------------------

std::shared_ptr<CallGroup> CallClient::NewGroup(bool notify, bool open) {
  auto group = std::make_shared<CallGroup>(notify);
  if (!notify && !open) return group;
  {
    MutexLock lock(mutex_);
    group->open_ = open;
    if (notify) ++notifying_;
  }
  if (notify) progress_.NotifyAll();  // WaitForFinished has something to drain for.
  return group;
}

void CallClient::CloseGroup(const std::shared_ptr<CallGroup>& group) {
  {
    MutexLock lock(mutex_);
    group->open_ = false;
    NoteIfFinished(group);
  }
  WakeWaiters();
}

absl::StatusOr<CallId> CallClient::Register(const std::shared_ptr<CallGroup>& group, uint64_t count,
                                            uint64_t first_index) {
  MutexLock lock(mutex_);
  if (!refused_.ok()) return refused_;
  const uint64_t first = next_call_;
  if (count == 0) return CallId::FromValue(first);
  next_call_ += count;
  outstanding_ += count;
  group->outstanding_ += count;
  Range& range = ranges_[first];
  range.group = group;
  range.count = range.left = count;
  range.first_index = first_index;
  if (count > 1) range.arrived.resize(count);
  for (uint64_t i = 0; i < count; ++i) view_.tickets.Issue(CallId::FromValue(first + i));
  return CallId::FromValue(first);
}

size_t CallClient::Push(std::span<const MessageView> calls, Wait wait, absl::Status* status) {
  if (calls.size() > 1) return calls_.PushBatch(calls, wait, status);
  *status = calls.empty() ? absl::OkStatus() : calls_.PushQuietly(calls.front());
  if (calls.empty() || !status->ok()) return 0;
  calls_.NotifyReaderUnless(
      [&] { return calls_.depth() <= 1 && view_.state->attention.Covers(Deadline::MonotonicNanos()); });
  return 1;
}

void CallClient::Withdraw(CallId first, uint64_t count) {
  {
    MutexLock lock(mutex_);
    withdrawn_ += count;
    for (uint64_t i = 0; i < count; ++i) {
      Deliver(CallId::FromValue(first.value() + i), absl::CancelledError("the call was not submitted"), Message());
    }
  }
  WakeWaiters();
}

void CallClient::Settle(CallId call, const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    Deliver(call, status, Message());
  }
  WakeWaiters();
}

void CallClient::Abandon(CallGroup& group) {
  std::vector<Arrival> dropped;  // Freed after the lock.
  MutexLock lock(mutex_);
  group.abandoned_ = true;
  dropped.swap(group.arrived_);
  group.taken_ = 0;
}

void CallClient::Notify(const std::shared_ptr<CallGroup>& group) {
  bool finished = false;
  {
    MutexLock lock(mutex_);
    if (std::exchange(group->notify_, true)) return;
    ++notifying_;
    NoteIfFinished(group);
    finished = group->finished_;
  }
  if (finished) {
    WakeWaiters();
  } else {
    progress_.NotifyAll();  // WaitForFinished has something to drain for.
  }
}

// ---- Arrivals ----------------------------------------------------------------------------------------------

CallClient::Ranges::iterator CallClient::FindRange(uint64_t call) {
  auto after = ranges_.upper_bound(call);
  if (after == ranges_.begin()) return ranges_.end();
  auto range = std::prev(after);
  return call - range->first < range->second.count ? range : ranges_.end();
}

std::shared_ptr<CallGroup> CallClient::Leave(CallId call, uint64_t* index) {
  auto found = FindRange(call.value());
  if (found == ranges_.end()) return nullptr;  // Answered before: see pool_state.h.
  Range& range = found->second;
  const uint64_t offset = call.value() - found->first;
  if (!range.arrived.empty()) {
    if (range.arrived[offset]) return nullptr;
    range.arrived[offset] = true;
  }
  std::shared_ptr<CallGroup> group = range.group;
  *index = range.first_index + offset;
  --outstanding_;
  --group->outstanding_;
  if (--range.left == 0) ranges_.erase(found);
  if (!kept_.empty()) {
    if (auto kept = kept_.extract(call.value())) Forget(kept.mapped());
  }
  return group;
}

void CallClient::Deliver(CallId call, absl::Status status, Message message, std::string verdict) {
  uint64_t index = 0;
  const std::shared_ptr<CallGroup> group = Leave(call, &index);
  if (group == nullptr) return;
  if (!group->abandoned_) {
    group->arrived_.push_back({index, std::move(status), std::move(message), std::move(verdict)});
  }
  NoteIfFinished(group);
}

void CallClient::NoteIfFinished(const std::shared_ptr<CallGroup>& group) {
  if (!group->notify_ || group->finished_ || group->open_ || group->outstanding_ != 0) return;
  group->finished_ = true;
  --notifying_;
  finished_.push_back(group);
}

void CallClient::DeliverAll(const absl::Status& status) {
  while (!ranges_.empty()) {
    const auto& [first, range] = *ranges_.begin();
    const uint64_t begin = first, count = range.count;
    for (uint64_t i = 0; i < count; ++i) Deliver(CallId::FromValue(begin + i), status, Message());
  }
}

void CallClient::WakeWaiters() {
  bool leading = false;
  {
    MutexLock lock(mutex_);
    leading = leading_;
  }
  // A message for no call.  If there is no memory for it, the leader's patience does.
  if (leading) replies_.Push({.parts = {}, .handles = {}, .tag = 0}, Wait::Try()).IgnoreError();
  progress_.NotifyAll();
}

// ---- Waiting -------------------------------------------------------------------------------------------------

void CallClient::DeliverReplies(std::vector<Message> messages) {
  settled_ = replies_.popped();  // By the leader alone.  Not a count of these: one that cannot be read any more is among them.
  for (Message& message : messages) {
    const CallId call = CallId::FromValue(message.tag());
    if (call) {
      DeliverReply(call, std::move(message));
    } else {
      NoteReport(std::move(message));
    }
  }
}

template <typename Done>
absl::Status CallClient::Lead(Done done, Wait wait, bool* satisfied) {
  const Wait patient{wait.deadline.AtMost(kPatience), wait.interruptible};
  absl::StatusOr<std::vector<Message>> messages =
      replies_.PopBatch(kRepliesAtOnce, wait.deadline.is_immediate() ? wait : patient);
  const bool impatient = absl::IsDeadlineExceeded(messages.status()) && !wait.deadline.Expired();
  if (impatient) CollectLost();
  bool again = false;
  {
    MutexLock lock(mutex_);
    leading_ = false;
    DeliverReplies(messages.ok() ? *std::move(messages) : std::vector<Message>());
    *satisfied = done();
    again = !again_.empty();
  }
  if (again) SubmitAgain();
  progress_.NotifyAll();  // For the followers: their replies, or the lead.
  return impatient ? absl::OkStatus() : messages.status();
}

template <typename Done>
absl::Status CallClient::Await(Done done, Wait wait) {
  for (;;) {
    bool lead = false;
    {
      MutexLock lock(mutex_);
      if (done()) return absl::OkStatus();
      lead = !std::exchange(leading_, true);
    }
    if (lead) {
      bool satisfied = false;
      absl::Status status = Lead(done, wait, &satisfied);
      if (satisfied) return absl::OkStatus();
      if (!status.ok()) return status;
      continue;
    }
    absl::Status status = progress_.Await(me_, wait, [&] {
      MutexLock lock(mutex_);
      return done() || !leading_;
    });
    if (!status.ok()) return status;
  }
}

absl::Status CallClient::WaitForArrival(CallGroup& group, Wait wait) {
  return Await([&] { return group.arrived_.size() > group.taken_ || (group.outstanding_ == 0 && !group.open_); }, wait);
}

absl::Status CallClient::WaitForAllOr(CallGroup* group, const std::function<bool()>& or_else, Wait wait) {
  return Await([&] { return (group != nullptr && group->outstanding_ == 0 && !group->open_) || or_else(); }, wait);
}

bool CallClient::IsOutstanding(CallId call) {
  MutexLock lock(mutex_);
  auto found = FindRange(call.value());
  if (found == ranges_.end()) return false;
  const Range& range = found->second;
  return range.arrived.empty() || !range.arrived[call.value() - found->first];
}

absl::Status CallClient::WaitForOutstanding(Wait wait) {
  return Await(
      [&] {
        mutex_.AssertHeld();
        return outstanding_ == 0;
      },
      wait);
}

absl::Status CallClient::WaitForAll(CallGroup& group, Wait wait) {
  return Await([&] { return group.outstanding_ == 0 && !group.open_; }, wait);
}

absl::Status CallClient::WaitForRoom(uint64_t calls, Wait wait) {
  // A call was taken some time before its reply comes, so a look with each reply is soon enough.
  return Await(
      [&] {
        mutex_.AssertHeld();
        return calls_.depth() < calls || !refused_.ok();
      },
      wait);
}

std::vector<Arrival> CallClient::Take(CallGroup& group, size_t max) {
  MutexLock lock(mutex_);
  const size_t count = std::min(max, group.arrived_.size() - group.taken_);
  if (group.taken_ == 0 && count == group.arrived_.size()) return std::exchange(group.arrived_, {});
  const auto first = group.arrived_.begin() + static_cast<std::ptrdiff_t>(group.taken_);
  const auto last = first + static_cast<std::ptrdiff_t>(count);
  std::vector<Arrival> taken(std::make_move_iterator(first), std::make_move_iterator(last));
  group.taken_ += count;
  if (group.taken_ == group.arrived_.size()) {
    group.arrived_.clear();
    group.taken_ = 0;
  }
  return taken;
}

bool CallClient::Finished(CallGroup& group) { return WaitForAll(group, Wait::Try()).ok(); }

std::shared_ptr<CallGroup> CallClient::TakeFinished() {
  MutexLock lock(mutex_);
  if (finished_.empty()) return nullptr;
  std::shared_ptr<CallGroup> group = std::move(finished_.front());
  finished_.pop_front();
  return group;
}

absl::StatusOr<std::vector<std::shared_ptr<CallGroup>>> CallClient::WaitForFinished(Wait wait) {
  for (;;) {
    bool drain = false;
    {
      MutexLock lock(mutex_);
      if (!finished_.empty()) {
        const std::deque<std::shared_ptr<CallGroup>> finished = std::exchange(finished_, {});
        return std::vector<std::shared_ptr<CallGroup>>(finished.begin(), finished.end());
      }
      drain = notifying_ > 0;
      if (!drain && (stop_waiting_ || !refused_.ok())) return absl::CancelledError("nothing to wait for");
    }
    absl::Status status;
    if (drain) {
      status = Await(
          [&] {
            mutex_.AssertHeld();
            return !finished_.empty() || notifying_ == 0;
          },
          wait);
    } else {
      status = progress_.Await(me_, wait, [&] {
        MutexLock lock(mutex_);
        return !finished_.empty() || notifying_ > 0 || stop_waiting_ || !refused_.ok();
      });
    }
    if (!status.ok()) return status;
  }
}

void CallClient::StopWaiting() {
  {
    MutexLock lock(mutex_);
    stop_waiting_ = true;
  }
  WakeWaiters();
}

// ---- The end -------------------------------------------------------------------------------------------------

void CallClient::Close() {
  {
    MutexLock lock(mutex_);
    if (refused_.ok()) refused_ = absl::FailedPreconditionError("Pool not running");
  }
  calls_.Close();
}

void CallClient::Fail(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    refused_ = status;
    DeliverAll(status);
  }
  WakeWaiters();
}

void CallClient::Terminate(const absl::Status& status) {
  view_.state->flags.fetch_or(kPoolTerminated, std::memory_order_acq_rel);
  calls_.Close();
  Fail(status);
}

absl::Status CallClient::Drain(Wait wait) {
  const uint64_t pushed = replies_.pushed();
  return Await(
      [&] {
        mutex_.AssertHeld();
        return settled_ >= pushed;
      },
      wait);
}

std::optional<LostCall> CallClient::FirstLost() const {
  MutexLock lock(mutex_);
  return lost_;
}

void CallClient::DrainWhatIsThere() { Await([] { return false; }, Wait::Try()).IgnoreError(); }

bool CallClient::DrainSome() {
  const uint64_t popped = replies_.popped();
  bool looked = false;
  Await([&] { return std::exchange(looked, true); }, Wait::Try()).IgnoreError();
  return replies_.popped() != popped;
}

std::string CallClient::TakeReport() {
  DrainWhatIsThere();
  MutexLock lock(mutex_);
  return std::exchange(report_, {});
}

uint64_t CallClient::answered() const {
  MutexLock lock(mutex_);
  return replies_.pushed() - reports_;
}

uint64_t CallClient::CountUnanswered() {
  DrainWhatIsThere();
  return outstanding();
}

uint64_t CallClient::CountUnanswered(const CallGroup& group) {
  DrainWhatIsThere();
  MutexLock lock(mutex_);
  return group.outstanding_;
}

// ---- Figures -------------------------------------------------------------------------------------------------

uint64_t CallClient::withdrawn() const {
  MutexLock lock(mutex_);
  return withdrawn_;
}

uint64_t CallClient::outstanding() const {
  MutexLock lock(mutex_);
  return outstanding_;
}

}  // namespace pyhost
