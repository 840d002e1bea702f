// Chunks: the ring memory of queues.  A chunk is an object of kind Chunk that nobody holds: the queue that links
// it counts as its one transit (ObjectTable), so a chunk that no queue can reach any more is found and freed by
// a recount.
//
// Callers hold the lock of the end they work on.

#ifndef PYHOST_RUNTIME_QUEUE_CHUNK_H_
#define PYHOST_RUNTIME_QUEUE_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/queue/queue_layout.h"

namespace pyhost {

class Segment;

// A range-checked chunk.  `header` is null when the offset or what is found there is nonsense.
struct Chunk {
  ChunkHeader* header = nullptr;
  std::byte* ring = nullptr;
  uint64_t capacity = 0;
};
Chunk ChunkAt(const Segment& segment, uint64_t offset);
absl::Status CorruptChunk(uint64_t offset);

// A new empty chunk of `bytes` altogether; returns its offset.
absl::StatusOr<uint64_t> NewChunk(Segment& segment, HostId me, uint64_t bytes);
// Makes a used chunk like new.
void ResetChunk(ChunkHeader& header);
// Bytes of the chunk that follows one of `bytes` and must take a frame of `frame_bytes`.
uint64_t NextChunkBytes(uint64_t bytes, uint64_t frame_bytes);

// A finished chunk: kept as the queue's spare when it has the final size, else freed.
void RetireChunk(Segment& segment, HostId me, QueueState& state, uint64_t offset);
// The spare as a clean chunk if there is one that takes `bytes`, else 0.
uint64_t TakeSpare(Segment& segment, QueueState& state, uint64_t bytes);
void FreeSpare(Segment& segment, HostId me, QueueState& state);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_CHUNK_H_
