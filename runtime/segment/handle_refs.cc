#include "runtime/segment/handle_refs.h"

#include <utility>

#include "runtime/segment/object_table.h"

namespace pyhost {
namespace {

// Of the thread that is between BeforeFork and its end, in parent and child.
thread_local const HandleRefs* forking = nullptr;

}  // namespace

absl::Status HandleRefs::Retain(Handle handle, HostId me) {
  MutexLock lock(mutex_);
  const Key key{handle.value(), me.value()};
  auto [entry, first] = counts_.try_emplace(key, 0);
  if (first) {
    if (absl::Status held = objects_->Hold(handle, me); !held.ok()) {
      counts_.erase(entry);
      return held;
    }
  }
  ++entry->second;
  return absl::OkStatus();
}

void HandleRefs::Adopt(Handle handle, HostId me) {
  MutexLock lock(mutex_);
  ++counts_[Key{handle.value(), me.value()}];
}

void HandleRefs::Release(Handle handle, HostId me) {
  if (forking == this) return ReleaseLater(handle);
  MutexLock lock(mutex_);
  auto entry = counts_.find(Key{handle.value(), me.value()});
  if (entry == counts_.end() || --entry->second != 0) return;
  counts_.erase(entry);
  objects_->Drop(handle, me, me);
}

bool HandleRefs::IsOnlyOwner(Handle handle, HostId me) const {
  MutexLock lock(mutex_);
  const auto entry = counts_.find(Key{handle.value(), me.value()});
  return entry != counts_.end() && entry->second == 1 && objects_->IsHeldByNoOther(handle, me);
}

void HandleRefs::BeforeFork() {
  LockMutex(mutex_);
  forking = this;
}

void HandleRefs::AfterForkParent() {
  forking = nullptr;
  UnlockMutex(mutex_);
}

void HandleRefs::Rename(HostId from, HostId to) {
  absl::flat_hash_map<Key, uint32_t> renamed;
  for (const auto& [key, count] : counts_) {
    if (key.host == from.value()) renamed[Key{key.handle, to.value()}] = count;
  }
  counts_ = std::move(renamed);
}

void HandleRefs::AfterForkChild(HostId parent, HostId child) {
  forking = nullptr;
  Rename(parent, child);
  UnlockMutex(mutex_);
}

void HandleRefs::ReleaseLate(HostId me) {
  std::vector<Handle> late;
  {
    MutexLock lock(mutex_);
    late.swap(late_);
  }
  for (Handle handle : late) Release(handle, me);
}

void HandleRefs::ChangeHost(HostId from, HostId to) {
  MutexLock lock(mutex_);
  Rename(from, to);
}

size_t HandleRefs::size() const {
  MutexLock lock(mutex_);
  return counts_.size();
}

}  // namespace pyhost
