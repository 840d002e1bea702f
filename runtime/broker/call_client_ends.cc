// CallClient's calls that end otherwise than by a reply: cancelled, condemned while they run, lost with their worker,
// submitted again.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/broker/call_client.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

constexpr size_t kRepliesAtOnce = 64;

}  // namespace

// ---- Cancelling ----------------------------------------------------------------------------------------------

uint64_t CallClient::CancelRange(CallId first, uint64_t count, const std::string& verdict) {
  uint64_t cancelled = 0;
  {
    MutexLock lock(mutex_);
    for (uint64_t i = 0; i < count; ++i) {
      const CallId call = CallId::FromValue(first.value() + i);
      // Outstanding and waiting: nobody else can make it arrive but the end of the pool, under this lock.
      if (FindRange(call.value()) == ranges_.end() || !view_.tickets.Cancel(call)) continue;
      ++cancelled;
      if (verdict.empty()) {
        uint64_t index = 0;
        if (const std::shared_ptr<CallGroup> group = Leave(call, &index)) NoteIfFinished(group);
      } else {
        Deliver(call, absl::CancelledError("the call was cancelled"), Message(), verdict);
      }
    }
  }
  if (cancelled != 0) WakeWaiters();
  return cancelled;
}

void CallClient::CancelQueued() {
  for (;;) {
    absl::StatusOr<std::vector<Message>> calls = calls_.PopBatch(kRepliesAtOnce, Wait::Try());
    if (!calls.ok()) break;
    MutexLock lock(mutex_);
    for (const Message& call : *calls) {
      Deliver(CallId::FromValue(call.tag()), absl::CancelledError("the call was cancelled"), Message());
    }
  }
  WakeWaiters();
}

// ---- Running calls -------------------------------------------------------------------------------------------

CallId CallClient::RunningOn(HostId worker) const {
  if (worker.slot() >= view_.hands.size()) return {};
  const Hand& hand = view_.hands[worker.slot()];
  if (hand.worker.load(std::memory_order_acquire) != worker.value()) return {};
  if (hand.claim.load(std::memory_order_acquire) == 0) return {};
  return CallId::FromValue(hand.call.load(std::memory_order_acquire));
}

HostId CallClient::WorkerOf(CallId call) const {
  for (const Hand& hand : view_.hands) {
    const HostId worker = HostId::FromValue(hand.worker.load(std::memory_order_acquire));
    if (worker && hand.running.load(std::memory_order_acquire) == RunningWord(call)) return worker;
  }
  return {};
}

bool CallClient::Condemn(HostId worker, CallId call) {
  if (worker.slot() >= view_.hands.size()) return false;
  Hand& hand = view_.hands[worker.slot()];
  if (hand.worker.load(std::memory_order_acquire) != worker.value()) return false;
  MutexLock lock(mutex_);  // A kLost for the call is looked at under it.
  if (FindRange(call.value()) == ranges_.end()) return false;
  uint64_t expected = RunningWord(call);
  if (!hand.running.compare_exchange_strong(expected, expected | kCondemned, std::memory_order_acq_rel)) return false;
  condemned_.insert(call.value());
  return true;
}

bool CallClient::Conclude(CallId call, absl::Status status, std::string verdict) {
  {
    MutexLock lock(mutex_);
    if (condemned_.erase(call.value()) == 0) return false;
    Deliver(call, std::move(status), Message(), std::move(verdict));
  }
  WakeWaiters();
  return true;
}

Overdue CallClient::FindOverdue() const {
  Overdue found;
  const int64_t now = Deadline::MonotonicNanos();
  for (const Hand& hand : view_.hands) {
    const uint64_t running = hand.running.load(std::memory_order_acquire);
    const auto limit = static_cast<int64_t>(hand.limit_millis.load(std::memory_order_acquire)) * 1'000'000;
    if (running == 0 || (running & kCondemned) != 0 || limit == 0) continue;
    const int64_t left = static_cast<int64_t>(hand.started_nanos.load(std::memory_order_relaxed)) + limit - now;
    if (left <= 0) {
      const HostId worker = HostId::FromValue(hand.worker.load(std::memory_order_acquire));
      found.calls.push_back({worker, CallId::FromValue(running >> 1), absl::Nanoseconds(limit)});
    } else {
      found.next = std::min(found.next, absl::Nanoseconds(left));
    }
  }
  return found;
}

// ---- Lost calls ----------------------------------------------------------------------------------------------

void CallClient::Keep(CallId call, const MessageView& message, uint32_t attempts) {
  if (attempts < 2) return;
  KeptCall kept;
  kept.attempts_left = attempts - 1;
  for (const auto& part : message.parts) {
    kept.payload.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  for (Handle handle : message.handles) {
    if (segment_.refs().Retain(handle, me_).ok()) kept.handles.push_back(handle);
  }
  MutexLock lock(mutex_);
  kept_[call.value()] = std::move(kept);
}

void CallClient::Forget(KeptCall& kept) {
  for (Handle handle : kept.handles) segment_.refs().Release(handle, me_);
  kept.handles.clear();
}

bool CallClient::TakeAgain(CallId call, HostId dead) {
  auto kept = kept_.find(call.value());
  if (kept == kept_.end() || FindRange(call.value()) == ranges_.end()) return false;
  if (kept->second.lost_with == dead) return true;  // Told twice: it is on its way again already.
  if (kept->second.attempts_left == 0) return false;
  --kept->second.attempts_left;
  kept->second.lost_with = dead;
  again_.push_back(call);
  return true;
}

void CallClient::SubmitAgain() {
  MutexLock lock(mutex_);
  for (CallId call : std::exchange(again_, {})) {
    auto kept = kept_.find(call.value());
    if (kept == kept_.end()) continue;
    view_.tickets.Issue(call);
    const std::span<const std::byte> part = std::as_bytes(std::span(kept->second.payload));
    // Under the lock, so that the call cannot end meanwhile; a push waits for nobody.
    const absl::Status status =
        calls_.Push({.parts = {&part, 1}, .handles = kept->second.handles, .tag = call.value()}, Wait::Try());
    if (!status.ok()) Deliver(call, absl::AbortedError(absl::StrCat("it could not be run again: ", status.message())), Message());
  }
}

void CallClient::DeliverReply(CallId call, Message message) {
  const absl::StatusOr<ReplyView> reply = ParseReply(message.payload());
  if (reply.ok() && reply->kind == ReplyKind::kLost) {
    LostWorker lost;
    std::memcpy(&lost, reply->outcome.data(), sizeof(lost));
    if (condemned_.contains(call.value()) || TakeAgain(call, HostId::FromValue(lost.host))) return;
    if (!lost_ && FindRange(call.value()) != ranges_.end()) lost_ = LostCall{call, lost};  // Not answered before.
  }
  Deliver(call, absl::OkStatus(), std::move(message));
}

void CallClient::NoteReport(Message message) {
  ++reports_;
  if (message.payload().empty()) return;  // Only to wake the leader.
  if (sink_ != nullptr) return sink_->OnNotice(std::move(message));
  const absl::StatusOr<ReplyView> reply = ParseReply(message.payload());
  if (!reply.ok() || reply->kind != ReplyKind::kReport) return;
  report_.assign(reinterpret_cast<const char*>(reply->outcome.data()), reply->outcome.size());
}

void CallClient::CollectLost() {
  std::vector<std::pair<CallId, HostId>> lost;
  const uint64_t popped = calls_.popped();  // Before the hands: pool_state.h, invariant (3).
  for (const Hand& hand : view_.hands) {
    const HostId worker = HostId::FromValue(hand.worker.load(std::memory_order_acquire));
    if (!worker || !segment_.hosts().ProcessIsGone(worker)) continue;
    const uint64_t claim = hand.claim.load(std::memory_order_acquire);
    if (claim == 0 || claim > popped) continue;
    lost.emplace_back(CallId::FromValue(hand.call.load(std::memory_order_acquire)), worker);
  }
  if (lost.empty()) return;
  // A reply that a worker pushed before it died counts: it is in the queue by now.
  absl::StatusOr<std::vector<Message>> replies = replies_.PopBatch(kRepliesAtOnce, Wait::Try());
  while (replies.ok()) {
    MutexLock lock(mutex_);
    DeliverReplies(*std::move(replies));
    replies = replies_.PopBatch(kRepliesAtOnce, Wait::Try());
  }
  {
    MutexLock lock(mutex_);
    for (const auto& [call, worker] : lost) DeliverLost(call, worker);
  }
  SubmitAgain();
}

void CallClient::DeliverLost(CallId call, HostId worker) {
  if (condemned_.contains(call.value()) || TakeAgain(call, worker)) return;
  const absl::StatusOr<HostInfo> info = segment_.hosts().Info(worker);
  const ExitStatus exit = segment_.hosts().Exit(worker);
  // Who says how it ended may be about to; if nobody has until the next look, nobody will.
  if (!exit.ended() && gone_.insert(worker.value()).second) return;
  Deliver(call,
          absl::AbortedError(absl::StrCat(info.ok() ? info->Describe() : worker.ToString(), " ",
                                          exit.ended() ? exit.ToString() : "ended, nobody knows how,")),
          Message());
}

// ---- Figures -------------------------------------------------------------------------------------------------

std::vector<WorkerFigures> CallClient::Figures() const {
  std::vector<WorkerFigures> all;
  const auto now = static_cast<uint64_t>(Deadline::MonotonicNanos());
  for (const Hand& hand : view_.hands) {
    const HostId worker = HostId::FromValue(hand.worker.load(std::memory_order_acquire));
    if (!worker) continue;
    const uint64_t started = hand.started_nanos.load(std::memory_order_relaxed);
    all.push_back({.worker = worker,
                   .calls = hand.calls.load(std::memory_order_relaxed),
                   .busy_nanos = hand.busy_nanos.load(std::memory_order_relaxed),
                   .pickling_nanos = hand.pickling_nanos.load(std::memory_order_relaxed),
                   .waiting_nanos = hand.waiting_nanos.load(std::memory_order_relaxed),
                   .bytes_in = hand.bytes_in.load(std::memory_order_relaxed),
                   .bytes_out = hand.bytes_out.load(std::memory_order_relaxed),
                   .in_hand = RunningOn(worker),
                   .running_nanos = started == 0 || started > now ? 0 : now - started});
  }
  return all;
}

}  // namespace pyhost
