#include "runtime/sync/condition.h"

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/sync/sync_layout.h"
#include "runtime/sync/wait_list.h"

namespace pyhost {
namespace {

// Runs signal handlers while the mutex is taken back, and keeps the first error for later: WaitOn never
// returns without the mutex.
class DeferErrors final : public Interruptible {
 public:
  explicit DeferErrors(Interruptible* inner) : inner_(inner) {}
  absl::Status OnSignal() override {
    if (error_.ok() && inner_ != nullptr) error_ = inner_->OnSignal();
    return absl::OkStatus();
  }
  void BeginBlocking() override {
    if (inner_ != nullptr) inner_->BeginBlocking();
  }
  void EndBlocking() override {
    if (inner_ != nullptr) inner_->EndBlocking();
  }
  const absl::Status& error() const { return error_; }

 private:
  Interruptible* inner_;
  absl::Status error_;
};

ConditionState* StateOf(Segment& segment, Handle handle) {
  absl::StatusOr<ConditionState*> state = segment.objects().StateAs<ConditionState>(handle);
  return state.ok() ? *state : nullptr;
}

void Destroy(Segment& segment, HostId me, Handle handle) {
  ConditionState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  WaitList(segment, me, state->waiters).VisitExtents([&](Handle extent) {
    segment.objects().EndTransit(extent, me);
  });
}

void Recover(Segment& segment, HostId me, Handle handle, HostId dead) {
  ConditionState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  if (state->waiters.lock.TakeOver(dead, me)) state->waiters.lock.Unlock(me);
  WaitListLock lock(segment, me, state->waiters);
  WaitList list(segment, me, state->waiters);
  list.TellOldest(list.Remove(dead), WaitList::Word::kTold);
}

void VisitTransits(Segment& segment, HostId me, Handle handle,
                   const std::function<void(Handle)>& visit) {
  ConditionState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  WaitListLock lock(segment, me, state->waiters);
  WaitList(segment, me, state->waiters).VisitExtents(visit);
}

}  // namespace

void RegisterConditionKind() {
  RegisterKind(ObjectKind::kCondition,
               {.destroy = Destroy, .recover = Recover, .visit_transits = VisitTransits});
}

absl::StatusOr<Condition> Condition::Create(Segment& segment, HostId me) {
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kCondition, 0, me));
  return Open(segment, me, handle);
}

absl::StatusOr<Condition> Condition::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kCondition) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no condition", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(ConditionState * state,
                          segment.objects().StateAs<ConditionState>(handle));
  return Condition(&segment, me, handle, state);
}

absl::Status Condition::WaitOn(Mutex& mutex, Wait wait) {
  if (!mutex.is_mine()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("wait on %s: %s is not held by this thread", handle_.ToString(),
                        mutex.handle().ToString()));
  }
  WaitList list(*segment_, me_, state_->waiters);
  WaitEntry* entry;
  {
    WaitListLock lock(*segment_, me_, state_->waiters);
    PYHOST_ASSIGN_OR_RETURN(entry, list.Join(list.NextTurn()));
  }
  PYHOST_ASSIGN_OR_RETURN(const uint32_t depth, mutex.ReleaseAll());
  absl::Status waited = list.Await(*entry, wait, [] { return absl::OkStatus(); });
  const bool told = WaitList::Leave(*entry) == WaitList::Word::kTold;
  PYHOST_CRASH_POINT("condition-heard");
  if (told && absl::IsDeadlineExceeded(waited)) waited = absl::OkStatus();
  // An interrupted waiter does not act on its notification: it is the next one's.
  if (told && !waited.ok()) Notify();
  if (!waited.ok()) waited = Annotate(waited, absl::StrFormat("wait on %s", handle_.ToString()));
  absl::Status taken = TakeBack(mutex, depth, wait.interruptible);
  return waited.ok() || absl::IsDeadlineExceeded(waited) ? (taken.ok() ? waited : taken) : waited;
}

// Returns with the mutex held, whatever it says.
absl::Status Condition::TakeBack(Mutex& mutex, uint32_t depth, Interruptible* interruptible) {
  DeferErrors deferring(interruptible);
  absl::Status owner_died;
  for (;;) {
    absl::Status taken = mutex.AcquireAll(depth, {Deadline::Never(), &deferring});
    if (taken.ok()) break;
    owner_died = taken;
  }
  return deferring.error().ok() ? owner_died : deferring.error();
}

uint32_t Condition::Notify(uint32_t count) {
  WaitListLock lock(*segment_, me_, state_->waiters);
  return WaitList(*segment_, me_, state_->waiters).TellOldest(count, WaitList::Word::kTold);
}

uint32_t Condition::NotifyAll() {
  WaitListLock lock(*segment_, me_, state_->waiters);
  return WaitList(*segment_, me_, state_->waiters).TellAll(WaitList::Word::kTold);
}

uint32_t Condition::waiting() const {
  return WaitList(*segment_, me_, state_->waiters).CountWaiting();
}

}  // namespace pyhost
