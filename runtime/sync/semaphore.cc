#include "runtime/sync/semaphore.h"

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/sync/sync_layout.h"

namespace pyhost {
namespace {

bool TryAcquire(SemaphoreState& state) {
  uint32_t value = state.value.load(std::memory_order_relaxed);
  while (value > 0) {
    if (state.value.compare_exchange_weak(value, value - 1, std::memory_order_acquire,
                                          std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void Recover(Segment& segment, HostId, Handle handle, HostId dead) {
  absl::StatusOr<SemaphoreState*> state = segment.objects().StateAs<SemaphoreState>(handle);
  if (state.ok()) (*state)->permits.Recover(dead);
}

}  // namespace

void RegisterSemaphoreKind() {
  RegisterKind(ObjectKind::kSemaphore,
               {.destroy = nullptr, .recover = Recover, .visit_transits = nullptr});
}

absl::StatusOr<Semaphore> Semaphore::Create(Segment& segment, HostId me, uint32_t initial,
                                            uint32_t max_value) {
  if (max_value > kMaxValue || initial > max_value) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "create a semaphore: initial value %u with a maximum of %u; 0 <= initial <= maximum <= %u",
        initial, max_value, kMaxValue));
  }
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kSemaphore, 0, me));
  PYHOST_ASSIGN_OR_RETURN(SemaphoreState * state,
                          segment.objects().StateAs<SemaphoreState>(handle));
  state->max_value.store(max_value, std::memory_order_relaxed);
  state->value.store(initial, std::memory_order_relaxed);
  return Semaphore(me, handle, state);
}

absl::StatusOr<Semaphore> Semaphore::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kSemaphore) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no semaphore", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(SemaphoreState * state,
                          segment.objects().StateAs<SemaphoreState>(handle));
  return Semaphore(me, handle, state);
}

absl::Status Semaphore::Acquire(Wait wait) {
  absl::Status waited = state_->permits.Await(
      me_, wait, [&] { return TryAcquire(*state_); }, [] { return absl::OkStatus(); }, [&] { return value() != 0; });
  PYHOST_CRASH_POINT("semaphore-acquired");
  if (waited.ok()) return waited;
  return Annotate(waited, absl::StrFormat("acquire %s", handle_.ToString()));
}

absl::Status Semaphore::Release(uint32_t count) {
  uint32_t value = state_->value.load(std::memory_order_relaxed);
  do {
    if (value > max_value() || count > max_value() - value) {
      return absl::FailedPreconditionError("semaphore or lock released too many times");
    }
  } while (!state_->value.compare_exchange_weak(value, value + count, std::memory_order_release,
                                                std::memory_order_relaxed));
  PYHOST_CRASH_POINT("semaphore-released");
  state_->permits.Notify(count);
  return absl::OkStatus();
}

uint32_t Semaphore::value() const { return state_->value.load(std::memory_order_acquire); }

uint32_t Semaphore::max_value() const { return state_->max_value.load(std::memory_order_relaxed); }

}  // namespace pyhost
