#include "runtime/values/segment_block.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"

namespace pyhost {
namespace {

constexpr uint64_t kReadOnly = uint64_t{1} << 63;  // in the size of an out-of-band buffer

class SegmentBlock final : public SharedBlock {
 public:
  SegmentBlock(Segment& segment, HostId me, Handle handle, std::span<std::byte> bytes)
      : SharedBlock(bytes, handle.value(), segment.session_id()), segment_(segment), me_(me), process_(getpid()) {}
  ~SegmentBlock() override {
    if (getpid() == process_) segment_.refs().Release(Handle::FromValue(handle()), me_);
  }

 private:
  Segment& segment_;
  const HostId me_;
  const pid_t process_;
};

// 0 when the shape is none, or too large to count.
uint64_t BytesOf(DType dtype, const std::vector<int64_t>& shape) {
  uint64_t bytes = DTypeSize(dtype);
  for (int64_t part : shape) {
    if (part < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(part), &bytes)) return 0;
  }
  return std::max<uint64_t>(bytes, 1);  // An array without elements has memory all the same: it can be sent.
}

absl::Status BadPayload(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("malformed message: ", what));
}

}  // namespace

absl::StatusOr<SharedHandle> AdoptBlock(Segment& segment, HostId me, Handle handle) {
  absl::StatusOr<std::span<std::byte>> bytes = segment.objects().Block(handle);
  if (!bytes.ok()) {
    segment.refs().Release(handle, me);
    return bytes.status();
  }
  return std::make_shared<SegmentBlock>(segment, me, handle, *bytes);
}

absl::StatusOr<AnyArray> NewSharedArray(Segment& segment, HostId me, DType dtype, std::vector<int64_t> shape) {
  const uint64_t size = BytesOf(dtype, shape);
  if (size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "[", absl::StrJoin(shape, ", "), "] is not the shape of an array: a part is negative, or all are too large"));
  }
  absl::StatusOr<Handle> handle = segment.objects().Create(ObjectKind::kMemory, size, me);
  if (!handle.ok()) return handle.status();
  segment.refs().Adopt(*handle, me);
  PYHOST_ASSIGN_OR_RETURN(SharedHandle block, AdoptBlock(segment, me, *handle));
  std::memset(block->bytes().data(), 0, block->bytes().size());
  return AnyArray::Over(std::move(block), 0, dtype, std::move(shape));
}

std::vector<Handle> HandlesOf(const EncodedValue& value) {
  std::vector<Handle> handles;
  for (const SharedHandle& block : value.handles) handles.push_back(Handle::FromValue(block->handle()));
  return handles;
}

absl::StatusOr<ReceivedValue> ReceivedValue::Open(Segment& segment, HostId me, Message& message,
                                                  std::span<const std::byte> payload) {
  ReceivedValue value;
  uint64_t count = 0;
  if (payload.size() < sizeof(count)) return BadPayload("shorter than its header");
  std::memcpy(&count, payload.data(), sizeof(count));
  payload = payload.subspan(sizeof(count));
  if (count > message.handles().size()) return BadPayload("more out-of-band buffers than handles");
  if (count > payload.size() / sizeof(uint64_t)) return BadPayload("its header is cut off");
  value.buffers_ = count;
  const std::vector<Handle> handles = message.TakeHandles();
  absl::Status status;
  for (size_t i = 0; i < handles.size(); ++i) {
    const bool is_memory = handles[i].kind() == ObjectKind::kMemory;
    if (!is_memory) {  // Of no use here: queues and locks are Python's.
      segment.refs().Release(handles[i], me);
      if (i < count) status.Update(BadPayload("an out-of-band buffer that is no memory"));
      continue;
    }
    absl::StatusOr<SharedHandle> block = AdoptBlock(segment, me, handles[i]);
    status.Update(block.status());
    if (!block.ok()) continue;
    uint64_t size = (*block)->bytes().size();
    if (i < count) std::memcpy(&size, payload.data() + i * sizeof(size), sizeof(size));
    if ((size & ~kReadOnly) != (*block)->bytes().size()) {
      status.Update(BadPayload("an out-of-band buffer has another size than announced"));
    }
    value.blocks_.push_back(*std::move(block));
  }
  if (!status.ok()) return status;
  payload = payload.subspan(count * sizeof(uint64_t));
  value.pickle_ = {reinterpret_cast<const char*>(payload.data()), payload.size()};
  return value;
}

}  // namespace pyhost
