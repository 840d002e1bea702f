// PageHeap: runs of pages of the block space, allocated and freed by good fit with coalescing.
//
// Free runs are kept in bins by length (eight bins per power of two, newest first, so that warm memory comes
// back first) and named at both ends in PageInfo, so that a freed run finds its free neighbours.  Pages from
// `pages_used` on have never been used, or were given back to that rest; it is the last resort.
//
// All state lies in the segment, guarded by the allocator's lock, which the caller holds.  Everything read is
// range-checked; what makes no sense makes damaged() true and the call fail, and the caller rebuilds.
// The segmentation into bins follows M. Masmano's two-level segregated fit (TLSF).

#ifndef PYHOST_RUNTIME_SEGMENT_PAGE_HEAP_H_
#define PYHOST_RUNTIME_SEGMENT_PAGE_HEAP_H_

#include <cstdint>
#include <optional>

#include "runtime/segment/segment_map.h"

namespace pyhost {

struct PageRun {
  uint64_t first = 0;
  uint64_t length = 0;  // 0 = none
};

class PageHeap {
 public:
  explicit PageHeap(const SegmentMap* map);

  // The first page of a new run.
  std::optional<uint64_t> Allocate(uint64_t pages);
  // Frees the run that was allocated at `first` with this length (anything else is damage).  Returns the free
  // run that it became part of.
  PageRun Free(uint64_t first, uint64_t pages);
  // Takes pages out of a free run, as if Allocate had chosen them.
  bool AllocateAt(PageRun free_run, uint64_t first, uint64_t pages);

  // Rebuilding: Reset, then Mark every run in use, then Sweep.
  void Reset();
  void Mark(uint64_t first, uint64_t pages);
  // Derives the free runs from the marks.  Marks that overlap another one are dropped.
  void Sweep();

  bool damaged() const { return damaged_; }

  // Lists of PageInfo (bins, and the partial spans of a size class): intrusive, doubly linked.
  void Link(uint32_t* head, uint64_t page);
  void Unlink(uint32_t* head, uint64_t page);
  PageInfo* Info(uint64_t page) const;  // null outside of the used pages

 private:
  void MakeFreeRun(uint64_t first, uint64_t pages);
  void TakeFromBin(uint64_t first);
  uint64_t FindFreeRun(uint64_t pages);
  uint64_t SearchBin(uint32_t bin, uint64_t pages);
  // Turns [first, first + pages) of a free run that is in no bin into a run, the rest back into free ones.
  uint64_t Carve(uint64_t run_first, uint64_t run_pages, uint64_t first, uint64_t pages);

  const SegmentMap* map_;
  AllocatorState& state_;
  bool damaged_ = false;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_PAGE_HEAP_H_
