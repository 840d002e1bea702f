// BlockAllocator: the memory of objects.
//
//   up to 2 KiB   blocks of 64, 128, ... 2048 bytes, cut out of one page each ("span", a bit per block)
//   above         runs of 4 KiB pages (page_heap.h)
//
// Everything it keeps is a cache: which blocks are in use is what the cells of the object table say, and
// Rebuild() derives the rest from them.  Thus a host may die at any instruction in here.
//
// Memory is taken from the system in units of kCommitBytes before a block is handed out, so that touching it
// cannot fail, and given back when much more is free than used.  (The step does not grow with the session:
// backing memory costs the same per byte however it is asked for, so a small session stays small.)
//
// Calls under "lock held" need AllocatorState::lock; the others may be made by any thread of any process.

#ifndef PYHOST_RUNTIME_SEGMENT_BLOCK_ALLOCATOR_H_
#define PYHOST_RUNTIME_SEGMENT_BLOCK_ALLOCATOR_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "runtime/os/memory_file.h"
#include "runtime/segment/page_heap.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {

class BlockAllocator {
 public:
  // Both outlive the allocator.
  BlockAllocator(const SegmentMap* map, const MemoryFile* file);

  // ---- Lock held ----

  // The offset in the segment of a block of at least `size` bytes (not 0), aligned to 64; page-aligned above
  // 2 KiB.  None when there is no room, or when the cache is damaged.
  std::optional<uint64_t> Allocate(uint64_t size);
  // Returns the run of free pages that came of it (length 0: none).
  PageRun Free(uint64_t offset, uint64_t size);
  // The cache makes no sense: rebuild it.
  bool damaged() const { return damaged_ || heap_.damaged(); }

  // Rebuilding: BeginRebuild, MarkUsed for the block of every cell, EndRebuild.
  void BeginRebuild();
  void MarkUsed(uint64_t offset, uint64_t size);
  void EndRebuild();

  // When far more is free than used: the part of the free `run` to give back, taken out as a block of its own
  // (offset, size).  Nothing otherwise.
  struct Block {
    uint64_t offset = 0;
    uint64_t size = 0;
  };
  std::optional<Block> TakeExcess(PageRun run);

  // ---- Any time ----

  // Backs a block by memory.  ResourceExhausted when the system has none.
  absl::Status Commit(uint64_t offset, uint64_t size);
  // Gives the memory of a block back to the system; the block must be in nobody's use.
  void Discard(uint64_t offset, uint64_t size);

  // Whether [offset, offset + size) lies in the block space.
  bool InRange(uint64_t offset, uint64_t size) const;
  // "…: 80 MiB asked for, 12 MiB of 64 MiB in use; set PYHOST_MEMORY_LIMIT ..."
  absl::Status Exhausted(uint64_t size) const;

  uint64_t limit_bytes() const { return map_->block_bytes(); }
  uint64_t used_bytes() const { return state_.used_bytes.load(std::memory_order_relaxed); }
  uint64_t committed_bytes() const { return state_.committed_bytes.load(std::memory_order_relaxed); }
  // Free memory that is kept for reuse whatever is in use.
  uint64_t kept_free_bytes() const;

 private:
  std::optional<uint64_t> AllocateSmall(int small_class);
  PageRun FreeSmall(uint64_t block_offset, int small_class);
  PageInfo* NewSpan(int small_class, uint64_t* page);
  void MarkSmall(uint64_t block_offset, int small_class);
  bool IsCommitted(uint64_t unit) const;
  uint64_t CommitUnits() const;

  const SegmentMap* map_;
  const MemoryFile* file_;
  AllocatorState& state_;
  PageHeap heap_;
  bool damaged_ = false;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_BLOCK_ALLOCATOR_H_
