// The shared memory of the locks that users see; each in place in its object's cell.  The meaning of each word is in
// the header of its class.  A change needs a new layout version (segment/layout.h).  All-zero is a valid start.

#ifndef PYHOST_RUNTIME_SYNC_SYNC_LAYOUT_H_
#define PYHOST_RUNTIME_SYNC_SYNC_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/segment/object_table.h"
#include "runtime/sync/owner_lock.h"
#include "runtime/sync/waiter.h"

namespace pyhost {

struct MutexState {
  std::atomic<uint64_t> word;   // {thread:32 | contended:1 | mark:1 | owner HostId:30}, see mutex.h
  std::atomic<uint32_t> depth;  // how often the owner has it; written by the owner alone
  std::atomic<uint32_t> type;   // Mutex::Type, constant
  WaitPoint released;           // those who want it
};

struct SemaphoreState {
  std::atomic<uint32_t> value;      // permits
  std::atomic<uint32_t> max_value;  // constant
  WaitPoint permits;                // those who want one
};

struct EventState {
  std::atomic<uint32_t> word;  // {epoch:31 | set:1}
  uint32_t reserved;
  WaitPoint raised;
};

// One who waits in a WaitList.
struct WaitEntry {
  std::atomic<uint32_t> word;  // WaitList::Word
  std::atomic<uint32_t> host;  // HostId of the waiter
  std::atomic<uint64_t> turn;  // order of arrival, or what the list's user wants to know of the waiter
  WaitPoint told;              // the waiter alone waits here
};
static_assert(sizeof(WaitEntry) == 32);

// A list of waiters that can grow but never moves.
struct WaitListState {
  static constexpr size_t kInPlace = 5;
  static constexpr size_t kExtents = 4;
  OwnerLock lock;               // guards joining and telling; leaving needs no lock
  std::atomic<uint32_t> used;   // entries [0, used) have been used
  uint64_t next_turn;
  std::atomic<uint64_t> extents[kExtents];  // handles of Memory objects with more entries, 64, 512, 4096, 32768
  WaitEntry in_place[kInPlace];
};

struct ConditionState {
  WaitListState waiters;
};

struct BarrierState {
  std::atomic<uint32_t> parties;  // constant
  std::atomic<uint32_t> phase;    // Barrier's phases; changes under waiters.lock
  std::atomic<uint32_t> actor;    // HostId of the last to arrive, while Acting or Releasing
  std::atomic<uint32_t> round;    // counted up with each release, reset and abort
  WaitPoint reopened;             // who arrives while the last round is still Acting
  WaitListState waiters;
};

template <typename State>
inline constexpr bool kFitsCell = sizeof(State) <= ObjectTable::kStateBytes &&
                                  std::is_standard_layout_v<State>;
static_assert(kFitsCell<MutexState> && kFitsCell<SemaphoreState> && kFitsCell<EventState> &&
              kFitsCell<ConditionState> && kFitsCell<BarrierState>);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_SYNC_LAYOUT_H_
