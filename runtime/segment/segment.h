// Segment: a session's shared memory, mapped into this process.
//
// Created once by the root of a session (a sealed, sparse memfd), attached by every other process from an
// inherited descriptor.  Thread-safe; process-safe.  Unmapped on destruction; objects and hosts in it are
// not touched by that.  A Segment outlives everything that points into it.
//
// The memory holds: header page | host table | object table | block space (see layout.h and
// runtime/README.md).  Offsets and handles read from it are range-checked where they are used; nonsense is
// DataLoss, never undefined behaviour.

#ifndef PYHOST_RUNTIME_SEGMENT_SEGMENT_H_
#define PYHOST_RUNTIME_SEGMENT_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

class HostTable;
class ObjectTable;
class BlockAllocator;
class HandleRefs;
class MemoryFile;
class PrivateMapping;
class SegmentMap;

struct SegmentOptions {
  // Bytes of block space at most; 0 = DefaultLimit().
  uint64_t limit = 0;
  uint32_t max_hosts = 1024;
  uint32_t max_objects = 1u << 20;
};

struct SegmentUsage {
  uint64_t limit_bytes = 0;      // what may be used at most
  uint64_t committed_bytes = 0;  // extents backed by memory now
  uint64_t used_bytes = 0;       // in live blocks
  uint32_t objects = 0;
  uint32_t hosts = 0;
};

class Segment {
 public:
  // The least of half of RAM, half of the tightest cgroup memory.max, RLIMIT_AS / 4 and RLIMIT_FSIZE, or
  // what the environment variable PYHOST_MEMORY_LIMIT says ("512M", "2G").
  static absl::StatusOr<uint64_t> DefaultLimit();

  static absl::StatusOr<std::unique_ptr<Segment>> Create(const SegmentOptions& options);
  // Takes a duplicate of `fd` (the caller keeps its own).  FailedPrecondition when it is no pyhost segment,
  // is not sealed, or has another layout version; the message names both versions.
  static absl::StatusOr<std::unique_ptr<Segment>> Attach(int fd);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // Owned by the segment, close-on-exec.
  int fd() const;
  // Where the descriptor is had again when the program closed it (MemoryFile::set_recovery).
  void set_recovery(std::function<absl::StatusOr<UniqueFd>()> recovery);
  uint64_t session_id() const;    // Random, never 0.
  HostTable& hosts() { return *hosts_; }
  ObjectTable& objects() { return *objects_; }
  BlockAllocator& blocks() { return *blocks_; }
  // How often this process holds each object (segment/handle_refs.h): the only way to hold and drop for oneself.
  HandleRefs& refs() { return *refs_; }
  SegmentUsage Usage() const;

  // Session-wide once flags (0..63): true for the first caller of all processes.
  bool FirstTime(int flag);

  // Part of a block, copy-on-write: see PrivateMapping.  The block must be held meanwhile.
  absl::StatusOr<PrivateMapping> MapPrivately(std::span<const std::byte> part) const;

  // The address of [offset, offset + size) of the segment, or null when that is outside of it.
  std::byte* At(uint64_t offset, uint64_t size) const {
    return offset <= size_ && size <= size_ - offset ? base_ + offset : nullptr;
  }
  const SegmentMap& map() const { return *map_; }

 private:
  Segment(std::unique_ptr<MemoryFile> file, const SegmentMap& map);

  // Constant after construction.
  std::unique_ptr<MemoryFile> file_;
  std::unique_ptr<SegmentMap> map_;
  std::byte* base_;
  uint64_t size_;
  std::unique_ptr<HostTable> hosts_;
  std::unique_ptr<BlockAllocator> blocks_;
  std::unique_ptr<ObjectTable> objects_;
  std::unique_ptr<HandleRefs> refs_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_SEGMENT_H_
