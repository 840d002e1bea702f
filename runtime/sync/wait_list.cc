#include "runtime/sync/wait_list.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

constexpr uint32_t ExtentEntries(size_t extent) { return 64u << (3 * extent); }

}  // namespace

WaitListLock::WaitListLock(Segment& segment, HostId me, WaitListState& state)
    : lock_(state.lock),
      me_(me),
      owner_died_(state.lock.Lock(segment.hosts(), me) == OwnerLock::Acquired::kOwnerDied) {}

// Null when memory that the state names does not exist: then the rest of the list cannot be reached.
WaitEntry* WaitList::Entry(uint32_t index) const {
  if (index < WaitListState::kInPlace) return &state_.in_place[index];
  index -= WaitListState::kInPlace;
  for (size_t extent = 0; extent < WaitListState::kExtents; ++extent) {
    if (index < ExtentEntries(extent)) {
      const auto handle =
          Handle::FromValue(state_.extents[extent].load(std::memory_order_acquire));
      absl::StatusOr<std::span<std::byte>> block = segment_.objects().Block(handle);
      if (!block.ok() || block->size() < ExtentEntries(extent) * sizeof(WaitEntry) ||
          reinterpret_cast<uintptr_t>(block->data()) % alignof(WaitEntry) != 0) {
        return nullptr;
      }
      return reinterpret_cast<WaitEntry*>(block->data()) + index;
    }
    index -= ExtentEntries(extent);
  }
  return nullptr;
}

void WaitList::ForEach(absl::FunctionRef<void(WaitEntry&)> visit) const {
  const uint32_t used = state_.used.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < used; ++index) {
    WaitEntry* entry = Entry(index);
    if (entry == nullptr) return;
    visit(*entry);
  }
}

absl::StatusOr<WaitEntry*> WaitList::Join(uint64_t turn) {
  WaitEntry* entry = nullptr;
  ForEach([&](WaitEntry& one) {
    if (entry == nullptr && WordOf(one) == Word::kFree) entry = &one;
  });
  if (entry == nullptr) {
    PYHOST_ASSIGN_OR_RETURN(entry, Grow());
  }
  entry->host.store(me_.value(), std::memory_order_relaxed);
  entry->turn.store(turn, std::memory_order_relaxed);
  entry->word.store(static_cast<uint32_t>(Word::kWaiting), std::memory_order_release);
  PYHOST_CRASH_POINT("wait-list-joined");
  return entry;
}

absl::StatusOr<WaitEntry*> WaitList::Grow() {
  const uint32_t index = state_.used.load(std::memory_order_relaxed);
  uint32_t first = WaitListState::kInPlace;
  for (size_t extent = 0; extent < WaitListState::kExtents; ++extent) {
    if (index == first && state_.extents[extent].load(std::memory_order_relaxed) == 0) {
      PYHOST_RETURN_IF_ERROR(AddExtent(extent));
    }
    first += ExtentEntries(extent);
  }
  WaitEntry* entry = Entry(index);
  if (entry == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%u threads wait here already; no more are possible", index));
  }
  state_.used.store(index + 1, std::memory_order_release);
  return entry;
}

absl::Status WaitList::AddExtent(size_t extent) {
  ObjectTable& objects = segment_.objects();
  PYHOST_ASSIGN_OR_RETURN(
      const Handle handle,
      objects.Create(ObjectKind::kMemory, ExtentEntries(extent) * sizeof(WaitEntry), me_));
  absl::StatusOr<std::span<std::byte>> block = objects.Block(handle);
  if (block.ok()) std::memset(block->data(), 0, block->size());
  absl::Status counted = objects.AddTransit(handle);
  if (counted.ok()) state_.extents[extent].store(handle.value(), std::memory_order_release);
  PYHOST_CRASH_POINT("wait-list-grown");
  objects.Drop(handle, me_, me_);
  return counted;
}

bool WaitList::Tell(WaitEntry& entry, Word word) {
  auto waiting = static_cast<uint32_t>(Word::kWaiting);
  if (!entry.word.compare_exchange_strong(waiting, static_cast<uint32_t>(word),
                                          std::memory_order_acq_rel)) {
    return false;
  }
  PYHOST_CRASH_POINT("wait-list-told");
  entry.told.Notify();
  return true;
}

uint32_t WaitList::TellAll(Word word) {
  uint32_t told = 0;
  ForEach([&](WaitEntry& entry) { told += Tell(entry, word); });
  return told;
}

uint32_t WaitList::TellOldest(uint32_t count, Word word) {
  uint32_t told = 0;
  while (told < count) {
    WaitEntry* oldest = OldestWaiting();
    if (oldest == nullptr) break;
    told += Tell(*oldest, word);
  }
  return told;
}

// Frees the entries of the dead that it meets.
WaitEntry* WaitList::OldestWaiting() {
  WaitEntry* oldest = nullptr;
  ForEach([&](WaitEntry& entry) {
    if (WordOf(entry) != Word::kWaiting) return;
    if (!HostMayBeAlive(segment_.hosts(), HostId::FromValue(entry.host.load()))) {
      Leave(entry);
    } else if (oldest == nullptr || entry.turn.load() < oldest->turn.load()) {
      oldest = &entry;
    }
  });
  return oldest;
}

absl::Status WaitList::Await(WaitEntry& entry, Wait wait,
                             absl::FunctionRef<absl::Status()> on_patience) {
  return entry.told.Await(me_, wait, [&] { return WordOf(entry) != Word::kWaiting; }, on_patience);
}

WaitList::Word WaitList::Leave(WaitEntry& entry) {
  PYHOST_CRASH_POINT("wait-list-before-leave");
  return static_cast<Word>(
      entry.word.exchange(static_cast<uint32_t>(Word::kFree), std::memory_order_acq_rel));
}

uint32_t WaitList::CountWaiting() const {
  uint32_t count = 0;
  ForEach([&](WaitEntry& entry) { count += WordOf(entry) == Word::kWaiting; });
  return count;
}

uint32_t WaitList::Remove(HostId dead) {
  uint32_t unheard = 0;
  ForEach([&](WaitEntry& entry) {
    const Word word = WordOf(entry);
    if (word == Word::kFree) return;
    if (entry.host.load() == dead.value()) {
      Leave(entry);
      unheard += word == Word::kTold;
    } else {
      entry.told.Recover(dead);
    }
  });
  return unheard;
}

void WaitList::VisitExtents(absl::FunctionRef<void(Handle)> visit) const {
  for (const std::atomic<uint64_t>& extent : state_.extents) {
    if (const auto handle = Handle::FromValue(extent.load(std::memory_order_acquire))) {
      visit(handle);
    }
  }
}

}  // namespace pyhost
