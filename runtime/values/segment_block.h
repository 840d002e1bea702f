// Memory of the segment as arrays see it: a SharedHandle is one count in segment.refs(), given back with the last copy of
// the handle.
//
// In a process forked from the one that made it, a handle does nothing: what the fork inherited is not its to give back.
//
// Thread-safe as HandleRefs is.  The segment outlives all handles.

#ifndef PYHOST_RUNTIME_VALUES_SEGMENT_BLOCK_H_
#define PYHOST_RUNTIME_VALUES_SEGMENT_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "pyhost/codec.h"
#include "pyhost/shared_array.h"
#include "runtime/base/ids.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/segment.h"

namespace pyhost {

// Takes over one count of `me` on a Memory object.  On error (NotFound, DataLoss) the count is given back.
absl::StatusOr<SharedHandle> AdoptBlock(Segment& segment, HostId me, Handle handle);

// A new array of zeros.  InvalidArgument for a shape that is none; ResourceExhausted naming size, limit and setting.
absl::StatusOr<AnyArray> NewSharedArray(Segment& segment, HostId me, DType dtype, std::vector<int64_t> shape);

// What a message carries beside the pickle: its sender holds them until it is pushed.
std::vector<Handle> HandlesOf(const EncodedValue& value);

// A value as it came: the pickle, and the shared memory that came with it.
class ReceivedValue {
 public:
  // `payload` is all of the message's, or what follows the receiver's own header; its format is described in
  // modules/native/pickling.h.  Takes the message's handles.  The message must outlive this.
  static absl::StatusOr<ReceivedValue> Open(Segment& segment, HostId me, Message& message,
                                            std::span<const std::byte> payload);

  std::string_view pickle() const { return pickle_; }
  DecodeContext context() const {
    DecodeContext context;
    context.buffers = std::span(blocks_).first(buffers_);
    context.handles = std::span(blocks_).subspan(buffers_);
    return context;
  }

 private:
  std::string_view pickle_;
  std::vector<SharedHandle> blocks_;  // the out-of-band buffers first
  size_t buffers_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_SEGMENT_BLOCK_H_
