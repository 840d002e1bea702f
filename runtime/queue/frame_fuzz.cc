// Fuzz target: ParseFrame() on arbitrary bytes never reads outside of them and never returns a view that does.

#include "absl/status/status.h"
#include "runtime/queue/frame.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::Require;

// Touches all that a view shows, for the sanitizers to look at.
void Look(const FrameView& frame, FuzzInput ring) {
  const std::byte* end = ring.data() + ring.size();
  Require(frame.size <= ring.size() && frame.size >= kSkipFrameBytes, "a frame lies in its ring");
  if (frame.kind == FrameKind::kSkip) return;
  Require(frame.inline_payload.data() + frame.inline_payload.size() <= end, "a payload lies in its ring");
  uint64_t sum = frame.tag + frame.sender.value() + frame.payload_object.value() + frame.payload_size;
  for (size_t i = 0; i < frame.handle_count; ++i) sum += frame.handle(i).value();
  for (std::byte byte : frame.inline_payload) sum += static_cast<uint64_t>(byte);
  volatile uint64_t seen = sum;
  static_cast<void>(seen);
}

PYHOST_FUZZ_TARGET(Frame, "runtime/queue/frame_corpus", kTruncated) {
  for (FuzzInput ring = input; ring.size() >= kSkipFrameBytes;) {
    const absl::StatusOr<FrameView> frame = ParseFrame(ring);
    if (!frame.ok()) {
      Require(absl::IsDataLoss(frame.status()), "nonsense is DataLoss");
      break;
    }
    Look(*frame, ring);
    ring = ring.subspan(frame->size);
  }
}

}  // namespace
}  // namespace pyhost
