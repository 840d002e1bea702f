// Fuzz target: a memory file whose header consists of arbitrary bytes is attached only if all its numbers are possible;
// then everything that they lead to lies in the file.  (Attaching checks the seals and the size first, hence the file is a
// real one.)

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "runtime/os/memory_file.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/segment/segment_map.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::FuzzReader;
using testing::Require;

void LookAround(Segment& segment) {
  const SegmentMap& map = segment.map();
  Require(segment.At(map.total_bytes() - 1, 1) != nullptr && segment.At(map.total_bytes(), 1) == nullptr,
          "the segment is as large as it says");
  Require(map.block_bytes() <= map.total_bytes(), "the blocks lie in the segment");
  segment.hosts().List();
  segment.objects().ForEach([&](Handle handle, const ObjectCell&) {
    static_cast<void>(segment.objects().Block(handle));
  });
  segment.Usage();
}

// Bytes over a valid header, at the place that the first two bytes say; the third adds pages to the file.
PYHOST_FUZZ_TARGET(SegmentHeader, "runtime/segment/header_corpus", kTruncated) {
  FuzzReader reader(input);
  const uint64_t place = reader.Choice(kPageBytes);
  const uint64_t more_pages = reader.Choice(3);
  const FuzzInput bytes = reader.Rest();
  const SegmentMap plan = *SegmentMap::Plan(1 << 20, 64, 64);
  const std::unique_ptr<MemoryFile> file =
      *MemoryFile::Create("fuzzed segment", plan.total_bytes() + more_pages * kPageBytes);
  SegmentMap(plan).Write(file->data(), 1);
  if (!bytes.empty()) std::memcpy(file->data() + place, bytes.data(), std::min<size_t>(bytes.size(), kPageBytes - place));
  const absl::StatusOr<std::unique_ptr<Segment>> segment = Segment::Attach(file->fd());
  if (segment.ok()) return LookAround(**segment);
  Require(absl::IsDataLoss(segment.status()) || absl::IsFailedPrecondition(segment.status()),
          "what is no segment is DataLoss or FailedPrecondition");
}

}  // namespace
}  // namespace pyhost
