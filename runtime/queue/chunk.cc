#include "runtime/queue/chunk.h"

#include <algorithm>
#include <bit>
#include <new>

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/queue/frame.h"
#include "runtime/segment/segment.h"

namespace pyhost {

Chunk ChunkAt(const Segment& segment, uint64_t offset) {
  if (offset == 0 || offset % alignof(ChunkHeader) != 0) return {};
  std::byte* at = segment.At(offset, sizeof(ChunkHeader));
  if (at == nullptr) return {};
  auto* header = reinterpret_cast<ChunkHeader*>(at);
  const uint64_t capacity = header->capacity;
  if (capacity < kFirstChunkBytes - sizeof(ChunkHeader) || capacity > kLastChunkBytes || capacity % 64 != 0 ||
      segment.At(offset, sizeof(ChunkHeader) + capacity) == nullptr) {
    return {};
  }
  return {header, at + sizeof(ChunkHeader), capacity};
}

absl::Status CorruptChunk(uint64_t offset) {
  return absl::DataLossError(
      absl::StrFormat("no chunk at offset %u of the segment", offset));
}

absl::StatusOr<uint64_t> NewChunk(Segment& segment, HostId me, uint64_t bytes) {
  ObjectTable& objects = segment.objects();
  absl::StatusOr<Handle> handle = objects.Create(ObjectKind::kChunk, bytes, me);
  if (!handle.ok()) return handle.status();
  absl::StatusOr<std::span<std::byte>> block = objects.Block(*handle);
  if (!block.ok()) return block.status();
  auto* header = new (block->data()) ChunkHeader{};
  header->handle = handle->value();
  header->capacity = bytes - sizeof(ChunkHeader);
  PYHOST_CRASH_POINT("queue-chunk-created");
  absl::Status counted = objects.AddTransit(*handle);
  PYHOST_CRASH_POINT("queue-chunk-counted");
  // Held or counted at every moment until the queue links it; a death before that leaves it to the recount.
  objects.Drop(*handle, me, me);
  if (!counted.ok()) return counted;
  return static_cast<uint64_t>(block->data() - segment.At(0, 0));
}

void ResetChunk(ChunkHeader& header) {
  header.end.store(0, std::memory_order_relaxed);
  header.next.store(0, std::memory_order_relaxed);
}

uint64_t NextChunkBytes(uint64_t bytes, uint64_t frame_bytes) {
  const uint64_t needed = std::bit_ceil(frame_bytes + sizeof(ChunkHeader));
  return std::max(std::min(bytes * kChunkGrowth, kLastChunkBytes), needed);
}

void RetireChunk(Segment& segment, HostId me, QueueState& state, uint64_t offset) {
  const Chunk chunk = ChunkAt(segment, offset);
  if (chunk.header == nullptr) return;
  uint64_t retired = offset;
  if (sizeof(ChunkHeader) + chunk.capacity >= kLastChunkBytes) {
    retired = state.spare.exchange(offset, std::memory_order_acq_rel);
    PYHOST_CRASH_POINT("queue-spare-exchanged");
  }
  const Chunk old = ChunkAt(segment, retired);
  if (old.header == nullptr) return;
  segment.objects().EndTransit(Handle::FromValue(old.header->handle), me);
}

uint64_t TakeSpare(Segment& segment, QueueState& state, uint64_t bytes) {
  if (bytes < kLastChunkBytes || state.spare.load(std::memory_order_relaxed) == 0) return 0;
  const uint64_t offset = state.spare.exchange(0, std::memory_order_acq_rel);
  const Chunk chunk = ChunkAt(segment, offset);
  if (chunk.header == nullptr) return 0;
  ResetChunk(*chunk.header);
  return offset;
}

void FreeSpare(Segment& segment, HostId me, QueueState& state) {
  const Chunk chunk = ChunkAt(segment, state.spare.exchange(0, std::memory_order_acq_rel));
  if (chunk.header != nullptr) {
    segment.objects().EndTransit(Handle::FromValue(chunk.header->handle), me);
  }
}

}  // namespace pyhost
