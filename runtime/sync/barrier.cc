#include "runtime/sync/barrier.h"

#include <functional>

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/sync/sync_layout.h"
#include "runtime/sync/wait_list.h"

namespace pyhost {
namespace {

enum class Phase : uint32_t { kFilling = 0, kActing = 1, kReleasing = 2, kBroken = 3 };

}  // namespace

// The barrier under its lock: every change of its phase.
class Barrier::Guard {
 public:
  Guard(Segment& segment, HostId me, BarrierState& state)
      : segment_(segment),
        me_(me),
        state_(state),
        lock_(segment, me, state.waiters),
        list_(segment, me, state.waiters) {
    if (lock_.owner_died()) Repair();
  }

  Phase phase() const { return static_cast<Phase>(state_.phase.load()); }
  uint32_t round() const { return state_.round.load(); }
  WaitList& list() { return list_; }

  void BeginActing() {
    state_.actor.store(me_.value());
    Enter(Phase::kActing);
  }
  // The steps are in this order so that Repair() finishes what a dead one began.
  void Release() {
    Enter(Phase::kReleasing);
    PYHOST_CRASH_POINT("barrier-releasing");
    list_.TellAll(WaitList::Word::kTold);
    NextRound();
  }
  void Break() {
    Enter(Phase::kBroken);
    PYHOST_CRASH_POINT("barrier-breaking");
    list_.TellAll(WaitList::Word::kBroken);
    state_.round.fetch_add(1);
    state_.reopened.NotifyAll();
  }
  // Through Broken: one that dies halfway leaves a broken barrier, not a mixture of two rounds.
  void Reset() {
    Break();
    NextRound();
  }
  // Has one of those who must still come along died?
  void BreakIfSomebodyDied() {
    bool dead = IsActing() && IsDead(state_.actor.load());
    if (phase() == Phase::kFilling) {
      list_.ForEach([&](WaitEntry& entry) {
        dead |= entry.word.load() == static_cast<uint32_t>(WaitList::Word::kWaiting) &&
                IsDead(entry.host.load());
      });
    }
    if (dead) Break();
  }
  void Recover(HostId dead) {
    Repair();
    BreakIfOf(dead);
    list_.Remove(dead);
    state_.reopened.Recover(dead);
  }
  void Repair() {
    if (phase() == Phase::kReleasing) Release();
    if (phase() == Phase::kBroken) list_.TellAll(WaitList::Word::kBroken);
  }

 private:
  bool IsActing() const { return phase() == Phase::kActing; }
  bool IsDead(uint32_t host) const {
    const HostId id = HostId::FromValue(host);
    return !HostMayBeAlive(segment_.hosts(), id) || segment_.hosts().ProcessIsGone(id);
  }
  void BreakIfOf(HostId dead) {
    bool missing = IsActing() && state_.actor.load() == dead.value();
    list_.ForEach([&](WaitEntry& entry) {
      missing |= entry.word.load() == static_cast<uint32_t>(WaitList::Word::kWaiting) &&
                 entry.host.load() == dead.value();
    });
    if (missing) Break();
  }
  void Enter(Phase phase) { state_.phase.store(static_cast<uint32_t>(phase)); }
  void NextRound() {
    state_.round.fetch_add(1);
    Enter(Phase::kFilling);
    state_.reopened.NotifyAll();
  }

  Segment& segment_;
  const HostId me_;
  BarrierState& state_;
  WaitListLock lock_;
  WaitList list_;
};

namespace {

BarrierState* StateOf(Segment& segment, Handle handle) {
  absl::StatusOr<BarrierState*> state = segment.objects().StateAs<BarrierState>(handle);
  return state.ok() ? *state : nullptr;
}

void Destroy(Segment& segment, HostId me, Handle handle) {
  BarrierState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  WaitList(segment, me, state->waiters).VisitExtents([&](Handle extent) {
    segment.objects().EndTransit(extent, me);
  });
}

void VisitTransits(Segment& segment, HostId me, Handle handle,
                   const std::function<void(Handle)>& visit) {
  BarrierState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  WaitListLock lock(segment, me, state->waiters);
  WaitList(segment, me, state->waiters).VisitExtents(visit);
}

}  // namespace

void RegisterBarrierKind() {
  // Guard is Barrier's own, hence this recover function stands here.
  constexpr auto recover = [](Segment& segment, HostId me, Handle handle, HostId dead) {
    BarrierState* state = StateOf(segment, handle);
    if (state == nullptr) return;
    if (state->waiters.lock.TakeOver(dead, me)) state->waiters.lock.Unlock(me);
    Barrier(&segment, me, handle, state).Recover(dead);
  };
  RegisterKind(ObjectKind::kBarrier,
               {.destroy = Destroy, .recover = recover, .visit_transits = VisitTransits});
}

absl::StatusOr<Barrier> Barrier::Create(Segment& segment, HostId me, uint32_t parties) {
  if (parties == 0) return absl::InvalidArgumentError("create a barrier: parties must be > 0");
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kBarrier, 0, me));
  PYHOST_ASSIGN_OR_RETURN(BarrierState * state, segment.objects().StateAs<BarrierState>(handle));
  state->parties.store(parties, std::memory_order_relaxed);
  return Barrier(&segment, me, handle, state);
}

absl::StatusOr<Barrier> Barrier::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kBarrier) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no barrier", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(BarrierState * state, segment.objects().StateAs<BarrierState>(handle));
  return Barrier(&segment, me, handle, state);
}

absl::StatusOr<uint32_t> Barrier::Arrive(Wait wait) {
  return Arrive(wait, [] { return absl::OkStatus(); });
}

absl::StatusOr<uint32_t> Barrier::Arrive(Wait wait, Action action) {
  for (;;) {
    PYHOST_RETURN_IF_ERROR(WaitUntilReopened(wait));
    uint32_t round, index;
    WaitEntry* entry = nullptr;
    {
      Guard guard(*segment_, me_, *state_);
      if (guard.phase() == Phase::kBroken) return Broken();
      if (guard.phase() != Phase::kFilling) continue;
      round = guard.round();
      index = guard.list().CountWaiting();
      if (index + 1 >= parties()) {
        guard.BeginActing();
      } else {
        PYHOST_ASSIGN_OR_RETURN(entry, guard.list().Join(round));
      }
    }
    if (entry == nullptr) return ActAndRelease(index, round, action);
    return WaitForOthers(index, *entry, round, wait);
  }
}

// The last to arrive.  The action runs without the lock: it is user code.
absl::StatusOr<uint32_t> Barrier::ActAndRelease(uint32_t index, uint32_t round, Action action) {
  PYHOST_CRASH_POINT("barrier-acting");
  absl::Status acted = action();
  Guard guard(*segment_, me_, *state_);
  if (guard.phase() != Phase::kActing || guard.round() != round) {
    return acted.ok() ? Broken() : acted;  // reset or aborted meanwhile
  }
  if (!acted.ok()) {
    guard.Break();
    return acted;
  }
  guard.Release();
  return index;
}

absl::StatusOr<uint32_t> Barrier::WaitForOthers(uint32_t index, WaitEntry& entry, uint32_t round,
                                                Wait wait) {
  WaitList list(*segment_, me_, state_->waiters);
  absl::Status waited = list.Await(entry, wait, [&] { return BreakIfSomebodyDied(); });
  const WaitList::Word told = WaitList::Leave(entry);
  PYHOST_CRASH_POINT("barrier-heard");
  const bool interrupted = !waited.ok() && !absl::IsDeadlineExceeded(waited);
  if (told == WaitList::Word::kWaiting) {
    Guard guard(*segment_, me_, *state_);
    if (guard.round() == round) guard.Break();
  }
  if (interrupted) return waited;
  if (told == WaitList::Word::kTold) return index;
  return Broken();
}

absl::Status Barrier::WaitUntilReopened(Wait wait) {
  absl::Status waited = state_->reopened.Await(
      me_, wait,
      [&] {
        const auto phase = static_cast<Phase>(state_->phase.load());
        return phase == Phase::kFilling || phase == Phase::kBroken;
      },
      [&] { return BreakIfSomebodyDied(); });
  if (waited.ok()) return waited;
  // Whoever gives up will be missing in the round to come.
  Abort();
  return absl::IsDeadlineExceeded(waited) ? Broken() : waited;
}

absl::Status Barrier::BreakIfSomebodyDied() {
  Guard(*segment_, me_, *state_).BreakIfSomebodyDied();
  return absl::OkStatus();
}

absl::Status Barrier::Broken() const {
  return absl::AbortedError(absl::StrFormat("%s is broken", handle_.ToString()));
}

void Barrier::Recover(HostId dead) { Guard(*segment_, me_, *state_).Recover(dead); }

void Barrier::Reset() { Guard(*segment_, me_, *state_).Reset(); }

void Barrier::Abort() { Guard(*segment_, me_, *state_).Break(); }

bool Barrier::broken() const { return static_cast<Phase>(state_->phase.load()) == Phase::kBroken; }

uint32_t Barrier::parties() const { return state_->parties.load(std::memory_order_relaxed); }

uint32_t Barrier::n_waiting() const {
  if (static_cast<Phase>(state_->phase.load()) != Phase::kFilling) return 0;
  return WaitList(*segment_, me_, state_->waiters).CountWaiting();
}

}  // namespace pyhost
