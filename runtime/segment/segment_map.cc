#include "runtime/segment/segment_map.h"

#include "absl/strings/str_cat.h"

namespace pyhost {
namespace {

constexpr uint64_t kMaxBlockPages = uint64_t{1} << 31;  // 8 TiB: page numbers + 1 fit 32 bits
constexpr uint32_t kMaxObjects = 1u << 26;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

absl::Status OutOfRange(absl::string_view what, uint64_t value, uint64_t most) {
  return absl::InvalidArgumentError(absl::StrCat("segment: ", what, " is ", value, ", must be 1 to ", most));
}

absl::Status CheckNumbers(uint64_t block_pages, uint32_t max_hosts, uint32_t max_objects) {
  if (block_pages == 0 || block_pages > kMaxBlockPages) {
    return OutOfRange("the number of block pages", block_pages, kMaxBlockPages);
  }
  if (max_hosts == 0 || max_hosts > HostId::kMaxSlots) return OutOfRange("max_hosts", max_hosts, HostId::kMaxSlots);
  if (max_objects == 0 || max_objects > kMaxObjects) return OutOfRange("max_objects", max_objects, kMaxObjects);
  return absl::OkStatus();
}

}  // namespace

SegmentMap SegmentMap::Compute(uint64_t block_pages, uint32_t max_hosts, uint32_t max_objects) {
  SegmentMap map;
  map.max_hosts_ = max_hosts;
  map.max_objects_ = max_objects;
  map.block_pages_ = block_pages;
  map.cell_stride_ = static_cast<uint32_t>(RoundUp(sizeof(ObjectCell) + max_hosts / 8, kCacheLine));
  const uint64_t commit_units = RoundUp(block_pages * kPageBytes, kCommitBytes) / kCommitBytes;
  uint64_t offset = 0;
  const auto place = [&offset](uint64_t bytes) {
    const uint64_t start = offset;
    offset = RoundUp(offset + bytes, kPageBytes);
    return start;
  };
  place(kPageBytes);  // the header
  map.hosts_offset_ = place(uint64_t{max_hosts} * sizeof(HostRecord));
  map.watchers_offset_ = place(uint64_t{max_hosts} * (max_hosts / 8));
  map.objects_offset_ = place(uint64_t{max_objects} * map.cell_stride_);
  map.pages_offset_ = place(block_pages * sizeof(PageInfo));
  map.commits_offset_ = place(RoundUp(commit_units, 64) / 8);
  map.blocks_offset_ = place(block_pages * kPageBytes);
  map.total_bytes_ = offset;
  return map;
}

absl::StatusOr<SegmentMap> SegmentMap::Plan(uint64_t block_bytes, uint32_t max_hosts, uint32_t max_objects) {
  const uint64_t block_pages = block_bytes / kPageBytes + (block_bytes % kPageBytes != 0);
  const absl::Status status = CheckNumbers(block_pages, max_hosts, max_objects);
  if (!status.ok()) return status;
  return Compute(block_pages, static_cast<uint32_t>(RoundUp(max_hosts, 64)), max_objects);
}

void SegmentMap::Write(std::byte* base, uint64_t session_id) {
  base_ = base;
  SegmentHeader& h = header();
  h.layout_version = kLayoutVersion;
  h.max_hosts = max_hosts_;
  h.max_objects = max_objects_;
  h.cell_stride = cell_stride_;
  h.session_id = session_id;
  h.total_bytes = total_bytes_;
  h.hosts_offset = hosts_offset_;
  h.watchers_offset = watchers_offset_;
  h.objects_offset = objects_offset_;
  h.pages_offset = pages_offset_;
  h.commits_offset = commits_offset_;
  h.blocks_offset = blocks_offset_;
  h.block_pages = block_pages_;
  h.magic = kSegmentMagic;
}

absl::StatusOr<SegmentMap> SegmentMap::Read(std::byte* base, uint64_t size) {
  if (size < kPageBytes) {
    return absl::FailedPreconditionError(absl::StrCat("no pyhost segment: a file of ", size, " bytes"));
  }
  const SegmentHeader& h = *reinterpret_cast<const SegmentHeader*>(base);
  if (h.magic != kSegmentMagic) return absl::FailedPreconditionError("no pyhost segment: wrong magic number");
  if (h.layout_version != kLayoutVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the segment has layout version ", h.layout_version,
                                                      ", this program has ", kLayoutVersion));
  }
  const uint64_t block_pages = h.block_pages;
  const uint32_t max_hosts = h.max_hosts;
  const uint32_t max_objects = h.max_objects;
  if (!CheckNumbers(block_pages, max_hosts, max_objects).ok() || max_hosts % 64 != 0) {
    return absl::DataLossError(absl::StrCat("segment header: impossible sizes (", max_hosts, " hosts, ", max_objects,
                                            " objects, ", block_pages, " pages)"));
  }
  SegmentMap map = Compute(block_pages, max_hosts, max_objects);
  if (map.total_bytes_ != size || h.total_bytes != size || h.cell_stride != map.cell_stride_ ||
      h.hosts_offset != map.hosts_offset_ || h.watchers_offset != map.watchers_offset_ ||
      h.objects_offset != map.objects_offset_ || h.pages_offset != map.pages_offset_ ||
      h.commits_offset != map.commits_offset_ || h.blocks_offset != map.blocks_offset_ || h.session_id == 0) {
    return absl::DataLossError(
        absl::StrCat("segment header: sizes and offsets do not add up to the ", size, " bytes of the file"));
  }
  map.base_ = base;
  return map;
}

}  // namespace pyhost
