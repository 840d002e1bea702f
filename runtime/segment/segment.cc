#include "runtime/segment/segment.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/random_id.h"
#include "runtime/base/status_util.h"
#include "runtime/os/memory_file.h"
#include "runtime/os/memory_limit.h"
#include "runtime/segment/block_allocator.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

constexpr uint64_t kLeastBlockBytes = 64 * 1024;

// Makes the tables smaller; false when they are as small as makes sense: for some tens of processes.
bool Shrink(SegmentOptions* options) {
  constexpr uint32_t kFewObjects = 1024, kLeastObjects = 256, kLeastHosts = 64;
  if (options->max_objects > kFewObjects) {
    options->max_objects /= 2;
  } else if (options->max_hosts > kLeastHosts) {
    options->max_hosts /= 2;
  } else if (options->max_objects > kLeastObjects) {
    options->max_objects /= 2;
  } else {
    return false;
  }
  return true;
}

// The file is as large as all its parts together.  Where the limits on address space or file size leave little
// room, tables and block space share it: at most a quarter for the tables, unless they are as small as can be.
absl::StatusOr<SegmentMap> PlanWithinLimits(const SegmentOptions& options, uint64_t block_bytes) {
  uint64_t room = FileSizeLimit();
  if (AddressSpaceLimit() != kNoLimit) room = std::min(room, AddressSpaceLimit() / 4);
  SegmentOptions fitting = options;
  for (;;) {
    PYHOST_ASSIGN_OR_RETURN(const SegmentMap map,
                            SegmentMap::Plan(block_bytes, fitting.max_hosts, fitting.max_objects));
    if (map.total_bytes() <= room) return map;
    const uint64_t tables = map.total_bytes() - map.block_bytes();
    if (tables > room / 4 && Shrink(&fitting)) continue;
    if (tables < room && room - tables >= kLeastBlockBytes && block_bytes > room - tables) {
      block_bytes = room - tables - kPageBytes;
    } else {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no room for a segment: its tables take ", FormatMemorySize(tables), ", and the limits on file size (",
          "RLIMIT_FSIZE) and address space (a quarter of RLIMIT_AS) leave ", FormatMemorySize(room)));
    }
  }
}

}  // namespace

absl::StatusOr<uint64_t> Segment::DefaultLimit() { return DefaultMemoryLimit(); }

Segment::Segment(std::unique_ptr<MemoryFile> file, const SegmentMap& map)
    : file_(std::move(file)),
      map_(std::make_unique<SegmentMap>(map)),
      base_(file_->data()),
      size_(file_->size()),
      hosts_(std::make_unique<HostTable>(map_.get())),
      blocks_(std::make_unique<BlockAllocator>(map_.get(), file_.get())),
      objects_(std::make_unique<ObjectTable>(this)),
      refs_(std::make_unique<HandleRefs>(objects_.get())) {}

Segment::~Segment() = default;

absl::StatusOr<std::unique_ptr<Segment>> Segment::Create(const SegmentOptions& options) {
  uint64_t limit = options.limit;
  if (limit == 0) {
    PYHOST_ASSIGN_OR_RETURN(limit, DefaultLimit());
  }
  PYHOST_ASSIGN_OR_RETURN(SegmentMap map, PlanWithinLimits(options, std::max(limit, kLeastBlockBytes)));
  PYHOST_ASSIGN_OR_RETURN(const uint64_t session_id, NewRandomId());
  PYHOST_ASSIGN_OR_RETURN(std::unique_ptr<MemoryFile> file, MemoryFile::Create("pyhost-segment", map.total_bytes()));
  map.Write(file->data(), session_id);
  map.header().limit_given = options.limit != 0 ? 1 : 0;
  return std::unique_ptr<Segment>(new Segment(std::move(file), map));
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Attach(int fd) {
  PYHOST_ASSIGN_OR_RETURN(std::unique_ptr<MemoryFile> file, MemoryFile::Attach(fd));
  absl::StatusOr<SegmentMap> map = SegmentMap::Read(file->data(), file->size());
  if (!map.ok()) return Annotate(map.status(), absl::StrCat("descriptor ", fd));
  return std::unique_ptr<Segment>(new Segment(std::move(file), *map));
}

int Segment::fd() const { return file_->fd(); }
void Segment::set_recovery(std::function<absl::StatusOr<UniqueFd>()> recovery) {
  file_->set_recovery(std::move(recovery));
}
uint64_t Segment::session_id() const { return map_->header().session_id; }

SegmentUsage Segment::Usage() const {
  SegmentUsage usage;
  usage.limit_bytes = blocks_->limit_bytes();
  usage.committed_bytes = blocks_->committed_bytes();
  usage.used_bytes = blocks_->used_bytes();
  usage.objects = objects_->size();
  usage.hosts = static_cast<uint32_t>(hosts_->List().size());
  return usage;
}

bool Segment::FirstTime(int flag) {
  if (flag < 0 || flag > 63) return false;
  const uint64_t bit = uint64_t{1} << flag;
  return (map_->header().once_flags.fetch_or(bit) & bit) == 0;
}

absl::StatusOr<PrivateMapping> Segment::MapPrivately(std::span<const std::byte> part) const {
  const auto offset = static_cast<uint64_t>(part.data() - base_);
  if (At(offset, part.size()) == nullptr) return absl::InvalidArgumentError("memory outside of the segment");
  PYHOST_ASSIGN_OR_RETURN(const int fd, file_->CheckedFd());
  return PrivateMapping::Map(fd, size_, offset, part.size());
}

}  // namespace pyhost
