// Fuzz target: ParseFrame() on arbitrary bytes never reads outside of them and never returns a view that does.
//
// With clang: build `frame_fuzz` and run it on a copy of frame_corpus/.  Any compiler: the test "frame corpus" runs the
// corpus through it.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "runtime/queue/frame.h"

namespace {

void Require(bool holds) {
  if (!holds) abort();
}

// Touches all that a view shows, for the sanitizers to look at.
void Look(const pyhost::FrameView& frame, std::span<const std::byte> ring) {
  const std::byte* end = ring.data() + ring.size();
  Require(frame.size <= ring.size() && frame.size >= pyhost::kSkipFrameBytes);
  if (frame.kind == pyhost::FrameKind::kSkip) return;
  Require(frame.inline_payload.data() + frame.inline_payload.size() <= end);
  uint64_t sum = frame.tag + frame.sender.value() + frame.payload_object.value() + frame.payload_size;
  for (size_t i = 0; i < frame.handle_count; ++i) sum += frame.handle(i).value();
  for (std::byte byte : frame.inline_payload) sum += static_cast<uint64_t>(byte);
  volatile uint64_t seen = sum;
  static_cast<void>(seen);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that a read behind its end is found.
  const std::vector<std::byte> copy(reinterpret_cast<const std::byte*>(data),
                                    reinterpret_cast<const std::byte*>(data) + size);
  for (std::span<const std::byte> ring(copy); ring.size() >= pyhost::kSkipFrameBytes;) {
    const absl::StatusOr<pyhost::FrameView> frame = pyhost::ParseFrame(ring);
    if (!frame.ok()) {
      Require(absl::IsDataLoss(frame.status()));
      break;
    }
    Look(*frame, ring);
    ring = ring.subspan(frame->size);
  }
  return 0;
}
