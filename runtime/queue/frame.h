// Frame: one message as bytes in a ring.  The one description that writer and reader share.
//
//   offset  size  field
//   0       4     size        whole frame in bytes, multiple of 8, this header included
//   4       2     kind        1 inline, 2 object, 3 skip (nothing until the end of the ring)
//   6       2     handles     number of handles
//   8       8     tag         the pusher's own value
//   16      4     sender      HostId of the pusher
//   20      4     inline_size bytes of inline payload (kind 2: 0)
//   24      8*n   handles     objects the message carries; kind 2: the payload object comes first (not in n),
//                             followed by the payload's size in bytes (8)
//   ...           payload     inline_size bytes, then zero to seven bytes of padding
//
// A skip frame consists of its first eight bytes alone.  A frame never wraps around the end of its ring.
// Little-endian, as both supported machines are.  Values are never renumbered: a change of any of this
// needs a new layout version.
//
// The reader trusts nothing: ParseFrame() returns DataLoss for a frame that does not fit its ring or contradicts
// itself, and reads every field once.  Pure functions, thread-safe.

#ifndef PYHOST_RUNTIME_QUEUE_FRAME_H_
#define PYHOST_RUNTIME_QUEUE_FRAME_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"

namespace pyhost {

static_assert(std::endian::native == std::endian::little, "frames and handles are little-endian");

enum class FrameKind : uint16_t { kInline = 1, kObject = 2, kSkip = 3 };

struct FrameHeader {
  uint32_t size;
  FrameKind kind;
  uint16_t handles;
  uint64_t tag;
  uint32_t sender;
  uint32_t inline_size;
};
static_assert(sizeof(FrameHeader) == 24 && std::is_trivially_copyable_v<FrameHeader>);

inline constexpr size_t kFrameAlignment = 8;
inline constexpr size_t kSkipFrameBytes = 8;
inline constexpr size_t kMaxInlineBytes = 16 * 1024;  // more travels in a Memory object
inline constexpr size_t kMaxFrameHandles = 4096;
inline constexpr size_t kObjectPrefixBytes = 16;  // payload object and its size
inline constexpr size_t kMaxFrameBytes =
    sizeof(FrameHeader) + kObjectPrefixBytes + kMaxFrameHandles * sizeof(Handle) + kMaxInlineBytes;
static_assert(kMaxFrameBytes % kFrameAlignment == 0);

// Bytes of the frame of such a message.
constexpr size_t FrameBytes(FrameKind kind, size_t handles, size_t inline_size) {
  const size_t prefix = kind == FrameKind::kObject ? kObjectPrefixBytes : 0;
  const size_t exact = sizeof(FrameHeader) + prefix + handles * sizeof(Handle) + inline_size;
  return (exact + kFrameAlignment - 1) & ~(kFrameAlignment - 1);
}

// What a frame says; handles and payload point into the ring.
struct FrameView {
  size_t size = 0;  // bytes until the next frame
  FrameKind kind = FrameKind::kSkip;
  uint64_t tag = 0;
  HostId sender;
  Handle payload_object;      // kObject
  uint64_t payload_size = 0;  // kObject
  size_t handle_count = 0;
  const std::byte* handle_bytes = nullptr;
  std::span<const std::byte> inline_payload;

  Handle handle(size_t i) const {
    uint64_t value;
    std::memcpy(&value, handle_bytes + i * sizeof(value), sizeof(value));
    return Handle::FromValue(value);
  }
};

// Writes a message; `to` has at least FrameBytes() bytes.
class FrameWriter {
 public:
  FrameWriter(std::byte* to, FrameKind kind, std::span<const Handle> handles, size_t inline_size,
              uint64_t tag, HostId sender)
      : at_(to) {
    const FrameHeader header{.size = static_cast<uint32_t>(FrameBytes(kind, handles.size(), inline_size)),
                             .kind = kind,
                             .handles = static_cast<uint16_t>(handles.size()),
                             .tag = tag,
                             .sender = sender.value(),
                             .inline_size = static_cast<uint32_t>(inline_size)};
    Put(&header, sizeof(header));
    handles_ = handles;
    if (kind == FrameKind::kInline) PutHandles();
  }

  void PutPayloadObject(Handle object, uint64_t payload_size) {
    const uint64_t value = object.value();
    Put(&value, sizeof(value));
    Put(&payload_size, sizeof(payload_size));
    PutHandles();
  }

  void PutInline(std::span<const std::byte> part) { Put(part.data(), part.size()); }

 private:
  void PutHandles() {
    for (Handle handle : handles_) {
      const uint64_t value = handle.value();
      Put(&value, sizeof(value));
    }
  }
  void Put(const void* from, size_t size) {
    if (size == 0) return;  // An empty span may have no address.
    std::memcpy(at_, from, size);
    at_ += size;
  }

  std::byte* at_;
  std::span<const Handle> handles_;
};

// Tells the reader to go on at the ring's beginning; `to` has kSkipFrameBytes.
inline void WriteSkipFrame(std::byte* to) {
  const uint32_t size = kSkipFrameBytes;
  const FrameKind kind = FrameKind::kSkip;
  const uint16_t handles = 0;
  std::memcpy(to, &size, sizeof(size));
  std::memcpy(to + 4, &kind, sizeof(kind));
  std::memcpy(to + 6, &handles, sizeof(handles));
}

namespace internal_frame {
absl::Status Nonsense(const char* what, uint64_t value, uint64_t limit);
}

// Parses the frame at the beginning of `ring`, which reaches to the end of the ring or of what is written.
inline absl::StatusOr<FrameView> ParseFrame(std::span<const std::byte> ring) {
  using internal_frame::Nonsense;
  FrameHeader header{};
  if (ring.size() < kSkipFrameBytes) return Nonsense("bytes left", ring.size(), kSkipFrameBytes);
  std::memcpy(&header, ring.data(), kSkipFrameBytes);
  FrameView view;
  view.kind = header.kind;
  if (header.kind == FrameKind::kSkip) {
    if (header.size != kSkipFrameBytes) return Nonsense("skip size", header.size, kSkipFrameBytes);
    view.size = ring.size();
    return view;
  }
  if (header.kind != FrameKind::kInline && header.kind != FrameKind::kObject) {
    return Nonsense("kind", static_cast<uint64_t>(header.kind), 3);
  }
  if (ring.size() < sizeof(header)) return Nonsense("bytes left", ring.size(), sizeof(header));
  std::memcpy(&header.tag, ring.data() + offsetof(FrameHeader, tag), 16);
  if (header.handles > kMaxFrameHandles) return Nonsense("handles", header.handles, kMaxFrameHandles);
  const bool object = header.kind == FrameKind::kObject;
  const size_t max_inline = object ? 0 : kMaxInlineBytes;
  if (header.inline_size > max_inline) return Nonsense("inline size", header.inline_size, max_inline);
  view.size = FrameBytes(header.kind, header.handles, header.inline_size);
  if (header.size != view.size) return Nonsense("size", header.size, view.size);
  if (view.size > ring.size()) return Nonsense("size", view.size, ring.size());

  const std::byte* at = ring.data() + sizeof(header);
  if (object) {
    uint64_t payload_object;
    std::memcpy(&payload_object, at, sizeof(payload_object));
    std::memcpy(&view.payload_size, at + 8, sizeof(view.payload_size));
    view.payload_object = Handle::FromValue(payload_object);
    if (view.payload_object.kind() != ObjectKind::kMemory) {
      return Nonsense("payload object", payload_object, 0);
    }
    at += kObjectPrefixBytes;
  }
  view.tag = header.tag;
  view.sender = HostId::FromValue(header.sender);
  view.handle_count = header.handles;
  view.handle_bytes = at;
  view.inline_payload = {at + header.handles * sizeof(Handle), header.inline_size};
  return view;
}

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_FRAME_H_
