#include "runtime/sync/event.h"

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/sync/sync_layout.h"

namespace pyhost {
namespace {

constexpr uint32_t kSet = 1;
constexpr uint32_t kOneEpoch = 2;

void Recover(Segment& segment, HostId, Handle handle, HostId dead) {
  absl::StatusOr<EventState*> state = segment.objects().StateAs<EventState>(handle);
  if (state.ok()) (*state)->raised.Recover(dead);
}

}  // namespace

void RegisterEventKind() {
  RegisterKind(ObjectKind::kEvent,
               {.destroy = nullptr, .recover = Recover, .visit_transits = nullptr});
}

absl::StatusOr<Event> Event::Create(Segment& segment, HostId me) {
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kEvent, 0, me));
  return Open(segment, me, handle);
}

absl::StatusOr<Event> Event::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kEvent) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no event", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(EventState * state, segment.objects().StateAs<EventState>(handle));
  return Event(me, handle, state);
}

void Event::Set() {
  uint32_t word = state_->word.load(std::memory_order_relaxed);
  do {
    if ((word & kSet) != 0) break;
  } while (!state_->word.compare_exchange_weak(word, (word + kOneEpoch) | kSet,
                                               std::memory_order_acq_rel,
                                               std::memory_order_relaxed));
  PYHOST_CRASH_POINT("event-set");
  state_->raised.NotifyAll();
}

void Event::Clear() { state_->word.fetch_and(~kSet, std::memory_order_acq_rel); }

bool Event::is_set() const { return (state_->word.load(std::memory_order_acquire) & kSet) != 0; }

absl::Status Event::WaitUntilSet(Wait wait) {
  const uint32_t before = state_->word.load(std::memory_order_acquire) & ~kSet;
  absl::Status waited = state_->raised.Await(me_, wait, [&] {
    const uint32_t word = state_->word.load(std::memory_order_acquire);
    return (word & kSet) != 0 || (word & ~kSet) != before;
  });
  if (waited.ok()) return waited;
  return Annotate(waited, absl::StrFormat("wait for %s", handle_.ToString()));
}

}  // namespace pyhost
