// HandleRefs: how often this process holds each object.  The segment knows one bit per host and object; a
// process may have many owners of the same object (Python objects, messages not yet read, C++ values).
// The first Retain sets the bit, the last Release clears it, and both happen under one lock, so that
// a message dropped on one thread never takes away what another thread holds.
//
// Everything in a process that keeps a handle alive goes through here; nobody else calls ObjectTable::Hold
// and Drop for the calling host (children being started and recovery act for other hosts, on the table itself).
//
// Thread-safe.  Fork: the child's counts are the parent's (AfterForkChild only changes the host they belong to);
// the lock is held around the fork.  What the forking thread releases meanwhile is released after it: an interpreter
// frees what the threads had that the child has not, and does that before anybody is told of the fork.  Owned by the Segment.

#ifndef PYHOST_RUNTIME_SEGMENT_HANDLE_REFS_H_
#define PYHOST_RUNTIME_SEGMENT_HANDLE_REFS_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/ids.h"
#include "runtime/base/mutex_lock.h"

namespace pyhost {

class ObjectTable;

class HandleRefs {
 public:
  explicit HandleRefs(ObjectTable* objects) : objects_(objects) {}
  HandleRefs(const HandleRefs&) = delete;
  HandleRefs& operator=(const HandleRefs&) = delete;

  // One more owner in this process.  The object is alive meanwhile for another reason (an owner here, a
  // frame being popped, inheritance); NotFound when it is not.
  absl::Status Retain(Handle handle, HostId me);
  // Takes over the bit that ObjectTable::Create set for its caller.
  void Adopt(Handle handle, HostId me);
  // One owner less; the last one may free the object.
  void Release(Handle handle, HostId me);

  // Whether one owner in this process is all that keeps the object alive.
  bool IsOnlyOwner(Handle handle, HostId me) const;

  // Around fork(), on the forking thread.
  void BeforeFork() ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex_);
  void AfterForkParent() ABSL_UNLOCK_FUNCTION(mutex_);
  // The embryo already has the parent's bits (ObjectTable::DuplicateHolds).
  void AfterForkChild(HostId parent, HostId child) ABSL_UNLOCK_FUNCTION(mutex_);
  // What `from` is counted to hold, `to` holds: it has the bits.
  void ChangeHost(HostId from, HostId to);

  // What was released during the fork, by `me`: the parent, or the child that has adopted its record.
  void ReleaseLate(HostId me);

  size_t size() const;  // objects held

 private:
  void Rename(HostId from, HostId to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // By the thread that forks, which has the lock.
  void ReleaseLater(Handle handle) ABSL_NO_THREAD_SAFETY_ANALYSIS { late_.push_back(handle); }

  struct Key {
    uint64_t handle;
    uint32_t host;
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.handle, key.host);
    }
  };

  ObjectTable* const objects_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<Key, uint32_t> counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<Handle> late_ ABSL_GUARDED_BY(mutex_);  // released during a fork
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_HANDLE_REFS_H_
