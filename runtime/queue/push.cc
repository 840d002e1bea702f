// The producers' half of Queue (queue.h).

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/queue/ends.h"
#include "runtime/queue/frame.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {

// A message ready to be written.  A large payload already lies in an object, which this owns once.
struct Queue::Prepared {
  Prepared() = default;
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;
  ~Prepared() {
    if (payload_object) segment->refs().Release(payload_object, me);
  }

  FrameKind kind() const { return payload_object ? FrameKind::kObject : FrameKind::kInline; }
  size_t inline_size() const { return payload_object ? 0 : payload_size; }
  size_t frame_bytes() const { return FrameBytes(kind(), message->handles.size(), inline_size()); }

  Segment* segment = nullptr;
  HostId me;
  const MessageView* message = nullptr;
  uint64_t payload_size = 0;
  Handle payload_object;
};

namespace {

// So many messages are prepared and published together at most: bounds the stack and the time under the lock.
constexpr size_t kBatch = 64;

absl::Status TooMuch(Handle queue, const char* what, uint64_t limit) {
  return absl::InvalidArgumentError(absl::StrFormat("push to %s: %s is beyond the limit of %u",
                                                    queue.ToString(), what, limit));
}

// Counts what a frame carries as in transit: all of it, or nothing when this fails or is not kept.
class TransitCount {
 public:
  TransitCount(Segment& segment, HostId me) : segment_(segment), me_(me) {}
  ~TransitCount() {
    for (size_t i = 0; i < count_; ++i) segment_.objects().EndTransit(handles_[i], me_);
    if (object_) segment_.objects().EndTransit(object_, me_);
  }
  TransitCount(const TransitCount&) = delete;
  TransitCount& operator=(const TransitCount&) = delete;

  absl::Status Add(Handle payload_object, std::span<const Handle> handles) {
    handles_ = handles;
    if (payload_object) {
      PYHOST_RETURN_IF_ERROR(segment_.objects().AddTransit(payload_object));
      object_ = payload_object;
    }
    for (; count_ < handles.size(); ++count_) {
      PYHOST_RETURN_IF_ERROR(segment_.objects().AddTransit(handles[count_]));
      PYHOST_CRASH_POINT("queue-push-transit-counted");
    }
    return absl::OkStatus();
  }
  // The frame is going to be published.
  void Keep() {
    count_ = 0;
    object_ = Handle();
  }

 private:
  Segment& segment_;
  const HostId me_;
  Handle object_;
  std::span<const Handle> handles_;
  size_t count_ = 0;
};

}  // namespace

absl::Status Queue::Prepare(const MessageView& message, Prepared* prepared) {
  uint64_t size = 0;
  for (std::span<const std::byte> part : message.parts) {
    if (part.size() > kMaxMessageBytes - size) {
      return TooMuch(handle_, "the message's size in bytes", kMaxMessageBytes);
    }
    size += part.size();
  }
  if (message.handles.size() > kMaxHandles) {
    return TooMuch(handle_, "the number of handles", kMaxHandles);
  }
  prepared->message = &message;
  prepared->payload_size = size;
  return size <= kMaxInlineBytes ? absl::OkStatus() : CopyToObject(prepared);
}

absl::Status Queue::CopyToObject(Prepared* prepared) {
  absl::StatusOr<Handle> object =
      segment_->objects().Create(ObjectKind::kMemory, prepared->payload_size, me_);
  if (!object.ok()) {
    return Annotate(object.status(), absl::StrFormat("push to %s", handle_.ToString()));
  }
  segment_->refs().Adopt(*object, me_);
  PYHOST_CRASH_POINT("queue-push-payload-created");
  prepared->segment = segment_;
  prepared->me = me_;
  prepared->payload_object = *object;
  PYHOST_ASSIGN_OR_RETURN(std::span<std::byte> block, segment_->objects().Block(*object));
  std::byte* to = block.data();
  for (std::span<const std::byte> part : prepared->message->parts) {
    if (part.empty()) continue;  // may have no address
    std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  return absl::OkStatus();
}

absl::Status Queue::Push(const MessageView& message, Wait wait) {
  Prepared prepared;
  PYHOST_RETURN_IF_ERROR(Prepare(message, &prepared));
  absl::Status status;
  PushPrepared({&prepared, 1}, wait, &status);
  return status;
}

absl::Status Queue::PushQuietly(const MessageView& message) {
  Prepared prepared;
  PYHOST_RETURN_IF_ERROR(Prepare(message, &prepared));
  absl::Status status;
  if (PushSome({&prepared, 1}, &status) != 0 || !status.ok()) return status;
  return absl::DeadlineExceededError(
      absl::StrFormat("push to %s, which is full with %u messages", handle_.ToString(), max_items()));
}

void Queue::NotifyReaders(uint32_t messages) {
  if (messages == std::numeric_limits<uint32_t>::max()) {
    state_->readable.NotifyAll();
  } else {
    state_->readable.Notify(messages);
  }
}

void Queue::NotifyReaderUnless(absl::FunctionRef<bool()> spare) { state_->readable.NotifyUnless(spare); }

size_t Queue::PushBatch(std::span<const MessageView> messages, Wait wait, absl::Status* status) {
  *status = absl::OkStatus();
  size_t pushed = 0;
  while (pushed < messages.size() && status->ok()) {
    std::array<Prepared, kBatch> prepared;
    absl::Status preparing;
    size_t count = 0;
    while (count < kBatch && pushed + count < messages.size()) {
      preparing = Prepare(messages[pushed + count], &prepared[count]);
      if (!preparing.ok()) break;
      ++count;
    }
    pushed += PushPrepared({prepared.data(), count}, wait, status);
    if (status->ok()) *status = preparing;
  }
  return pushed;
}

size_t Queue::PushPrepared(std::span<const Prepared> prepared, Wait wait, absl::Status* status) {
  size_t pushed = 0;
  const auto publish = [&] {
    const size_t some = PushSome(prepared.subspan(pushed), status);
    if (some != 0) state_->readable.Notify(static_cast<uint32_t>(some));
    pushed += some;
    return pushed == prepared.size() || !status->ok();
  };
  if (publish()) return pushed;
  absl::Status waited = state_->writable.Await(
      me_, wait, [&] { return Writable() && publish(); }, [] { return absl::OkStatus(); }, [] { return false; });
  // Room for more than was pushed, or none needed after an error: the next producer's turn.
  if (Writable()) state_->writable.Notify();
  if (!waited.ok() && status->ok()) {
    *status = Annotate(waited, absl::StrFormat("push to %s, which is full with %u messages",
                                               handle_.ToString(), max_items()));
  }
  return pushed;
}

// A push would not have to wait.
bool Queue::Writable() const {
  const uint64_t max = max_items();
  return max == 0 || depth() < max || closed();
}

// Publishes as many as there is room for now.
size_t Queue::PushSome(std::span<const Prepared> prepared, absl::Status* status) {
  ProducerLock lock(*segment_, me_, *state_);
  PYHOST_CRASH_POINT("queue-push-locked");
  if ((state_->flags.load(std::memory_order_relaxed) & kQueueClosed) != 0) {
    *status = absl::FailedPreconditionError(
        absl::StrFormat("push to %s: the queue is closed", handle_.ToString()));
    return 0;
  }
  ProducerEnd end(*segment_, me_, handle_, *state_);
  const size_t fitting = std::min<uint64_t>(prepared.size(), end.Room());
  size_t written = 0;
  while (written < fitting) {
    absl::Status write = Write(prepared[written], end);
    if (!write.ok()) {
      *status = Annotate(write, absl::StrFormat("push to %s", handle_.ToString()));
      break;
    }
    ++written;
  }
  if (written != 0) end.Commit(written);
  return written;
}

// Writes a frame that the next commit publishes; counts what it carries.
absl::Status Queue::Write(const Prepared& prepared, ProducerEnd& end) {
  const MessageView& message = *prepared.message;
  TransitCount transits(*segment_, me_);
  if (prepared.payload_object || !message.handles.empty()) {
    state_->flags.fetch_or(kQueueCarries, std::memory_order_relaxed);
    PYHOST_RETURN_IF_ERROR(transits.Add(prepared.payload_object, message.handles));
  }
  PYHOST_ASSIGN_OR_RETURN(std::byte * to, end.Reserve(prepared.frame_bytes()));
  FrameWriter frame(to, prepared.kind(), message.handles, prepared.inline_size(), message.tag, me_);
  PYHOST_CRASH_POINT("queue-push-half-written");
  if (prepared.payload_object) {
    frame.PutPayloadObject(prepared.payload_object, prepared.payload_size);
  } else {
    for (std::span<const std::byte> part : message.parts) frame.PutInline(part);
  }
  transits.Keep();
  return absl::OkStatus();
}

}  // namespace pyhost
