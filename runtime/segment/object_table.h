// ObjectTable: every shared thing of a session, who holds it, and the memory it owns.
//
// One cell an object (layout.h: ObjectCell): kind and generation, a bit per host that holds it, a count of
// frames in queues that carry its handle ("transit"), one optional block of memory, and a few cache lines
// of kind-specific state in place.
//
//   Free -> Claimed(host) -> Live -> Dying(host) -> Free       (state, generation and claimer in one atomic word)
//
// Invariants:
//  (1) A Live object has a holder or a transit; the host that drops the last of both frees it.
//  (2) Bits are set and cleared idempotently; a dead host's bit is cleared by its recovery.
//  (3) The cells are the truth about block memory: block space not named by a Claimed, Live or Dying cell is free.
//  (4) A handle of another generation or kind is NotFound, never somebody else's object.
//
// Thread- and process-safe.  `me` is the calling host.  A process holds and drops for itself only through
// segment/handle_refs.h (segment.refs()), which counts its owners: the bit is set once and cleared once.

#ifndef PYHOST_RUNTIME_SEGMENT_OBJECT_TABLE_H_
#define PYHOST_RUNTIME_SEGMENT_OBJECT_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"

namespace pyhost {

class BlockAllocator;
class HostTable;
class Segment;
class SegmentMap;
struct ObjectCell;
struct PageRun;

// What a kind of object needs beyond its block: registered once per process, at static-initialisation-free
// start-up, by the code of that kind (RegisterKind; an empty one for a kind that needs nothing).
//
// Each may run again for the same object after its caller died in it: it takes up where that one stopped, and
// does nothing twice (a transit is ended after the step that makes the frame unreachable, never before).
struct ObjectKindOps {
  // Called when the last holder and transit are gone, before the block is freed: drop what the state refers to.
  // State() and Block() still work on the handle.
  void (*destroy)(Segment& segment, HostId me, Handle handle) = nullptr;
  // Called for each object a dead host held, before its bit is cleared: repair locks, undo half-done steps.
  void (*recover)(Segment& segment, HostId me, Handle handle, HostId dead) = nullptr;
  // `recover` also for objects that the dead host had let go of: what it did to them may outlast its hold.
  bool recover_unheld = false;
  // Visits the handles that this object carries (in the frames of a queue, chunks and parts it counted with
  // AddTransit), once per count, under the lock under which it counts them: see AddTransit.
  void (*visit_transits)(Segment& segment, HostId me, Handle handle,
                         const std::function<void(Handle)>& visit) = nullptr;
};
void RegisterKind(ObjectKind kind, const ObjectKindOps& ops);

class ObjectTable {
 public:
  // Bytes of kind-specific state in each cell.  Zeroed in a new object.
  static constexpr size_t kStateBytes = 256;

  explicit ObjectTable(Segment* segment);

  // A new object, held by `me`, with a block of `size` bytes (0 = none; contents undefined).
  // ResourceExhausted naming size, limit and setting when memory or cells are used up.
  absl::StatusOr<Handle> Create(ObjectKind kind, uint64_t size, HostId me);

  // Kind-specific state of a live object.  NotFound names the handle.  The caller holds the object.
  absl::StatusOr<std::byte*> State(Handle handle) const;
  template <typename T>
  absl::StatusOr<T*> StateAs(Handle handle) const {
    static_assert(sizeof(T) <= kStateBytes && alignof(T) <= 64);
    absl::StatusOr<std::byte*> state = State(handle);
    if (!state.ok()) return state.status();
    return reinterpret_cast<T*>(*state);
  }
  // The object's block (exactly the size asked for in Create).
  absl::StatusOr<std::span<std::byte>> Block(Handle handle) const;

  // Sets `who`'s bit.  The caller guarantees that the object is kept alive meanwhile (holds it or took it
  // from a frame whose transit has not ended yet); NotFound when it is not.
  absl::Status Hold(Handle handle, HostId who);
  // Clears `who`'s bit; frees the object when nothing holds or carries it any more.
  void Drop(Handle handle, HostId who, HostId me);
  bool IsHeld(Handle handle, HostId who) const;
  // `who` holds it, nobody else does, and nothing carries it.
  bool IsHeldByNoOther(Handle handle, HostId who) const;

  // A frame (or another object) that carries the handle is about to be published / was taken out.  Both are called
  // under the lock of the carrier that also covers the publishing or taking; Add before it, End after it, so that
  // a death in between leaves the count too high and never too low.
  absl::Status AddTransit(Handle handle);
  void EndTransit(Handle handle, HostId me);

  // Fork and start: `child` gets every bit that `parent` has.
  void DuplicateHolds(HostId parent, HostId child);
  // Runs the kinds' recover, clears the bits of `dead`, frees what nobody holds, repairs the allocator.
  void Recover(HostId dead, HostId me);
  // Corrects all transit counts that deaths left too high, from what the carriers really contain.  Call it after
  // Recover of a host that did not leave by itself.  Counts that keep moving stay as they are.
  // FailedPrecondition when an object is of a kind that this process did not register.
  absl::Status RecountTransits(HostId me);

  // Objects that exist (for tests, usage, live view).
  uint32_t size() const;
  void ForEach(const std::function<void(Handle, const ObjectCell&)>& visit) const;

 private:
  class Locked;

  uint32_t cells_used() const;
  ObjectCell* Find(Handle handle) const;  // Live or Dying; null otherwise
  absl::Status NoSuchObject(Handle handle) const;
  bool IsUnused(uint32_t index) const;

  // Allocator's lock held.
  absl::StatusOr<uint32_t> TakeCell();
  void ReturnCell(uint32_t index);
  void Rebuild();
  std::optional<uint32_t> ClaimExcess(PageRun run, HostId me);

  absl::StatusOr<uint32_t> Claim(ObjectKind kind, uint64_t size, HostId me);
  void DestroyIfUnused(Handle handle, HostId me);
  void Destroy(Handle handle, HostId me);
  void Finish(uint32_t index, HostId me);
  void RecoverCell(uint32_t index, HostId dead, HostId me);
  void RecoverKind(Handle handle, HostId dead, HostId me);
  void ClearHold(uint32_t index, HostId dead, HostId me);
  absl::StatusOr<bool> RecountOnce(HostId me);
  void VisitTransits(HostId me, const std::function<void(Handle)>& visit);
  template <typename Visit>
  void VisitHeld(Handle handle, HostId me, Visit visit);

  // Constant after construction.
  Segment* segment_;
  const SegmentMap* map_;
  HostTable* hosts_;
  BlockAllocator* blocks_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_OBJECT_TABLE_H_
