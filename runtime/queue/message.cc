// Message: what Pop() hands out (queue.h).

#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "runtime/base/status_util.h"
#include "runtime/queue/frame.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {

Message::Message(Message&& other) noexcept { MoveFrom(other); }

Message& Message::operator=(Message&& other) noexcept {
  if (this != &other) {
    Reset();
    MoveFrom(other);
  }
  return *this;
}

Message::~Message() { Reset(); }

void Message::MoveFrom(Message& other) {
  segment_ = std::exchange(other.segment_, nullptr);
  me_ = other.me_;
  sender_ = other.sender_;
  tag_ = other.tag_;
  payload_ = std::exchange(other.payload_, {});
  payload_object_ = std::exchange(other.payload_object_, Handle());
  handles_ = std::exchange(other.handles_, {});
  large_ = std::move(other.large_);
  if (payload_.data() == other.small_) {
    std::memcpy(small_, other.small_, payload_.size());
    payload_ = {small_, payload_.size()};
  }
}

void Message::Reset() {
  if (segment_ == nullptr) return;
  for (Handle handle : handles_) segment_->refs().Release(handle, me_);
  if (payload_object_) segment_->refs().Release(payload_object_, me_);
  handles_.clear();
  payload_object_ = Handle();
  payload_ = {};
  large_.reset();
  segment_ = nullptr;
}

absl::Status Message::Take(Segment& segment, HostId me, const FrameView& frame) {
  segment_ = &segment;
  me_ = me;
  sender_ = frame.sender;
  tag_ = frame.tag;
  absl::Status status = frame.handle_count == 0 ? absl::OkStatus() : RetainHandles(frame);
  if (status.ok() && frame.kind == FrameKind::kObject) {
    status = ReadInPlace(frame);
  } else if (status.ok()) {
    CopyInline(frame.inline_payload);
  }
  if (!status.ok()) Reset();
  return status;
}

absl::Status Message::RetainHandles(const FrameView& frame) {
  handles_.reserve(frame.handle_count);
  for (size_t i = 0; i < frame.handle_count; ++i) {
    const Handle handle = frame.handle(i);
    PYHOST_RETURN_IF_ERROR(segment_->refs().Retain(handle, me_));
    handles_.push_back(handle);
  }
  return absl::OkStatus();
}

absl::Status Message::ReadInPlace(const FrameView& frame) {
  PYHOST_RETURN_IF_ERROR(segment_->refs().Retain(frame.payload_object, me_));
  payload_object_ = frame.payload_object;
  PYHOST_ASSIGN_OR_RETURN(std::span<std::byte> block,
                          segment_->objects().Block(payload_object_));
  if (frame.payload_size > block.size()) {
    return absl::DataLossError(absl::StrFormat("corrupt frame: %u bytes of payload in %s of %u bytes",
                                               frame.payload_size, payload_object_.ToString(),
                                               block.size()));
  }
  payload_ = block.first(frame.payload_size);
  return absl::OkStatus();
}

void Message::CopyInline(std::span<const std::byte> payload) {
  std::byte* to = small_;
  if (payload.size() > kSmallBytes) {
    large_.reset(new std::byte[payload.size()]);
    to = large_.get();
  }
  if (!payload.empty()) std::memcpy(to, payload.data(), payload.size());
  payload_ = {to, payload.size()};
}

}  // namespace pyhost
