#include "runtime/queue/hand_over.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/deadline.h"
#include "runtime/segment/host_table.h"

namespace pyhost {
namespace {

// A reader spins for 60 us at most.  One that has been announced for longer is preempted, stopped, or dead without our
// knowing it: a program may know, and what it sends then has to be where all can see it.
constexpr int64_t kLongestAnnouncement = 100'000;

}  // namespace

// ---- Giving -----------------------------------------------------------------------------------------------------------

bool HandOver::Give(std::span<const std::byte> message, absl::FunctionRef<bool()> is_empty) {
  if (message.size() > HandOverLane::kMaxBytes ||
      PhaseOf(lane_->word.load(std::memory_order_relaxed)) != kWaiting || !LockForGiving()) {
    return false;
  }
  const bool given = GiveLocked(message, is_empty);
  PYHOST_CRASH_POINT("hand-over-before-unlock");
  lane_->giving.Unlock(me_);
  return given;
}

// Without waiting: another giver's message and ours have no order.
bool HandOver::LockForGiving() {
  if (lane_->giving.TryLock(me_)) return true;
  const HostId owner = lane_->giving.owner();
  return owner && !HostMayBeAlive(hosts_, owner) && lane_->giving.TakeOver(owner, me_);
}

bool HandOver::GiveLocked(std::span<const std::byte> message, absl::FunctionRef<bool()> is_empty) {
  // Acquire: whoever announced itself is done with the bytes of the last message.
  uint64_t word = lane_->word.load(std::memory_order_acquire);
  if (PhaseOf(word) != kWaiting || ReaderIsDead(word) || !is_empty()) return false;
  if (Deadline::MonotonicNanos() - lane_->announced_at.load(std::memory_order_relaxed) > kLongestAnnouncement) return false;
  if (!message.empty()) std::memcpy(lane_->bytes, message.data(), message.size());
  lane_->size.store(static_cast<uint32_t>(message.size()), std::memory_order_relaxed);
  PYHOST_CRASH_POINT("hand-over-before-given");
  return lane_->word.compare_exchange_strong(word, word - kWaiting + kGiven, std::memory_order_release,
                                             std::memory_order_relaxed);
}

// ---- Taking -----------------------------------------------------------------------------------------------------------

bool HandOver::ReaderIsDead(uint64_t word) const { return !HostMayBeAlive(hosts_, ReaderOf(word)); }

bool HandOver::ReaderIsGone(uint64_t word) const { return ReaderIsDead(word) || hosts_.ProcessIsGone(ReaderOf(word)); }

bool HandOver::IsLeftBehind() const {
  const uint64_t word = lane_->word.load(std::memory_order_relaxed);
  return PhaseOf(word) == kGiven && ReaderIsGone(word);
}

bool HandOver::Announce() {
  const int64_t now = Deadline::MonotonicNanos();
  uint64_t word = lane_->word.load(std::memory_order_relaxed);
  const Phase phase = PhaseOf(word);
  if (phase == kWaiting && !ReaderIsDead(word)) return false;
  if (phase == kGiven && !ReaderIsGone(word)) return false;
  if (phase != kGiven) lane_->announced_at.store(now, std::memory_order_relaxed);
  turn_ = TurnOf(word) + 1;
  // Acquire and release: what a dead reader was given is seen by the heir, and by the heir's own.
  const bool announced = lane_->word.compare_exchange_strong(word, WordOf(phase == kGiven ? kGiven : kWaiting),
                                                             std::memory_order_acq_rel, std::memory_order_relaxed);
  PYHOST_CRASH_POINT("hand-over-announced");
  return announced;
}

bool HandOver::Withdraw() {
  uint64_t mine = WordOf(kWaiting);
  return lane_->word.compare_exchange_strong(mine, WordOf(kIdle), std::memory_order_acq_rel, std::memory_order_acquire);
}

absl::StatusOr<size_t> HandOver::Take(std::span<std::byte> to) {
  const size_t size = lane_->size.load(std::memory_order_relaxed);
  const bool fits = size <= HandOverLane::kMaxBytes && size <= to.size();
  if (fits) std::memcpy(to.data(), lane_->bytes, size);
  PYHOST_CRASH_POINT("hand-over-before-taken");
  lane_->word.store(WordOf(kIdle), std::memory_order_release);
  if (fits) return size;
  return absl::DataLossError(absl::StrCat("a message handed over says it has ", size, " bytes, of at most ",
                                          HandOverLane::kMaxBytes, ": the shared memory is damaged"));
}

void HandOver::set_comes_by_hand(bool by_hand) {
  if (comes_by_hand() != by_hand) lane_->comes_by_hand.store(by_hand ? 1 : 0, std::memory_order_relaxed);
}

}  // namespace pyhost
