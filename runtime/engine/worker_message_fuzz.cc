// Fuzz target: whatever a worker of an engine sends as an error or as a value, the engine gets a Status, or a value whose
// parts lie in the message and in the memory that came with it.

#include <array>
#include <optional>

#include "absl/strings/match.h"
#include "pyhost/codec.h"
#include "pyhost/value.h"
#include "runtime/engine/reply_error.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/fuzz_target.h"
#include "runtime/testing/temp_segment.h"
#include "runtime/values/segment_block.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::Require;

// A queue, and one block of memory that goes with each message.
class Channel {
 public:
  Channel() {
    RegisterQueueKind();
    queue_.emplace(*Queue::Create(*segment_, me()));
    segment_->refs().Adopt(queue_->handle(), me());
    memory_ = *segment_.objects().Create(ObjectKind::kMemory, 256, me());
    segment_->refs().Adopt(memory_, me());
  }
  HostId me() const { return segment_.me(); }
  Segment& segment() { return *segment_; }
  Message Send(FuzzInput payload) {
    const std::array handles = {memory_};
    const absl::Status pushed = queue_->Push({.parts = {&payload, 1}, .handles = handles}, Wait::Try());
    Require(pushed.ok(), "any bytes can be sent");
    return *queue_->Pop(Wait::Try());
  }

 private:
  testing::TempSegment segment_;
  std::optional<Queue> queue_;
  Handle memory_;
};

void LookAtError(FuzzInput packed) {
  const absl::Status status = ExceptionStatus("module:function", packed);
  Require(!status.ok(), "an error is no success");
  Require(absl::IsDataLoss(status) || absl::StartsWith(status.message(), "module:function: "),
          "an error names its function");
}

void LookAtValue(FuzzInput payload) {
  static Channel& channel = *new Channel();
  Message message = channel.Send(payload);
  const absl::StatusOr<ReceivedValue> received =
      ReceivedValue::Open(channel.segment(), channel.me(), message, message.payload());
  if (!received.ok()) return;
  Require(received->context().buffers.size() <= 1, "no more buffers than came");
  DecodeValue<Value>(received->pickle(), received->context()).IgnoreError();
}

PYHOST_FUZZ_TARGET(WorkerMessage, "runtime/engine/worker_message_corpus", kTruncated) {
  LookAtError(input);
  LookAtValue(input);
}

}  // namespace
}  // namespace pyhost
