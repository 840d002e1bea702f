// SegmentMap: where the parts of one mapped segment lie.
//
// A process-local copy of the header's constants, checked once when the segment is created or attached:
// whatever happens to the header afterwards, addresses computed here stay inside the mapping.
// Constant after construction; a value.

#ifndef PYHOST_RUNTIME_SEGMENT_SEGMENT_MAP_H_
#define PYHOST_RUNTIME_SEGMENT_SEGMENT_MAP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/segment/layout.h"

namespace pyhost {

class SegmentMap {
 public:
  SegmentMap() = default;
  // Lays out a segment.  `block_bytes` is rounded up to whole pages, `max_hosts` to 64.
  // InvalidArgument when a number is out of its range.
  static absl::StatusOr<SegmentMap> Plan(uint64_t block_bytes, uint32_t max_hosts, uint32_t max_objects);
  // What the header of a mapped file says.  FailedPrecondition for another magic or layout version;
  // DataLoss when the numbers do not add up.
  static absl::StatusOr<SegmentMap> Read(std::byte* base, uint64_t size);

  // Fills a fresh header in.
  void Write(std::byte* base, uint64_t session_id);

  uint64_t total_bytes() const { return total_bytes_; }
  uint32_t max_hosts() const { return max_hosts_; }
  uint32_t max_objects() const { return max_objects_; }
  uint64_t block_pages() const { return block_pages_; }
  uint64_t block_bytes() const { return block_pages_ * kPageBytes; }
  uint64_t blocks_offset() const { return blocks_offset_; }
  uint32_t holder_words() const { return max_hosts_ / 64; }

  SegmentHeader& header() const { return *reinterpret_cast<SegmentHeader*>(base_); }
  // Indices must be below the maxima above.
  HostRecord& host(uint32_t slot) const {
    return reinterpret_cast<HostRecord*>(base_ + hosts_offset_)[slot];
  }
  std::atomic<uint64_t>* watchers(uint32_t slot) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(base_ + watchers_offset_) +
           static_cast<size_t>(slot) * holder_words();
  }
  ObjectCell& cell(uint32_t index) const {
    return *reinterpret_cast<ObjectCell*>(base_ + objects_offset_ + uint64_t{index} * cell_stride_);
  }
  std::atomic<uint64_t>* holders(uint32_t index) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(base_ + objects_offset_ + uint64_t{index} * cell_stride_ +
                                                    sizeof(ObjectCell));
  }
  PageInfo& page(uint64_t page) const { return reinterpret_cast<PageInfo*>(base_ + pages_offset_)[page]; }
  std::atomic<uint64_t>& commit_word(uint64_t word) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(base_ + commits_offset_)[word];
  }
  std::byte* base() const { return base_; }

 private:
  static SegmentMap Compute(uint64_t block_pages, uint32_t max_hosts, uint32_t max_objects);

  std::byte* base_ = nullptr;
  uint32_t max_hosts_ = 0;
  uint32_t max_objects_ = 0;
  uint32_t cell_stride_ = 0;
  uint64_t block_pages_ = 0;
  uint64_t hosts_offset_ = 0;
  uint64_t watchers_offset_ = 0;
  uint64_t objects_offset_ = 0;
  uint64_t pages_offset_ = 0;
  uint64_t commits_offset_ = 0;
  uint64_t blocks_offset_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_SEGMENT_MAP_H_
