#include "runtime/queue/ends.h"

#include <limits>

#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/queue/ring.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

// Asks for a cache line that is going to be written, so that the wait for the other side to give it up is over
// when it is.
void PrefetchToWrite(const void* line) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, 1);
#endif
}

}  // namespace

ProducerLock::ProducerLock(Segment& segment, HostId me, QueueState& state)
    : state_(state), me_(me) {
  if (state.push_lock.Lock(segment.hosts(), me) == OwnerLock::Acquired::kOwnerDied) {
    RepairProducerEnd(segment, state);
  }
}

ConsumerLock::ConsumerLock(Segment& segment, HostId me, QueueState& state)
    : state_(state), me_(me) {
  if (state.pop_lock.Lock(segment.hosts(), me) == OwnerLock::Acquired::kOwnerDied) {
    RepairConsumerEnd(state);
  }
}

// The position needs no repair: the commit word says which copy is true.  A chunk linked behind the tail's was
// not committed: unlinked here, freed by the recount of transits.  Transits of an unpublished frame likewise.
void RepairProducerEnd(Segment& segment, QueueState& state) {
  state.published = ObserveTail(state).word;
  const QueuePosition tail = state.tails[QueueCount{state.published}.side()];
  if (Chunk chunk = ChunkAt(segment, tail.chunk); chunk.header != nullptr) {
    ResetChunk(*chunk.header);
  }
  state.known_freed = state.freed_chunk.load(std::memory_order_acquire) == tail.chunk
                          ? state.freed_at.load(std::memory_order_acquire)
                          : 0;
  if ((state.flags.load(std::memory_order_relaxed) & kQueueClosed) != 0) {
    state.closed.store(1, std::memory_order_release);
  }
}

// What the dead one had taken out but not given back is given back; chunks it had not freed yet are
// unreachable, and freed by the recount.
void RepairConsumerEnd(QueueState& state) {
  const QueuePosition head = state.heads[ObserveHead(state).side()];
  state.freed_at.store(head.at, std::memory_order_release);
  state.freed_chunk.store(head.chunk, std::memory_order_release);
}

ProducerEnd::ProducerEnd(Segment& segment, HostId me, Handle queue, QueueState& state)
    : segment_(segment),
      me_(me),
      queue_(queue),
      state_(state),
      tail_{state.published},
      at_(state.tails[tail_.side()]),
      chunk_(ChunkAt(segment, at_.chunk)),
      freed_(state.known_freed) {}

uint64_t ProducerEnd::Room() {
  if ((state_.flags.load(std::memory_order_relaxed) & kQueueBounded) == 0) return std::numeric_limits<uint64_t>::max();
  const uint64_t max = state_.max_messages.load(std::memory_order_relaxed);
  const auto inside = [&] { return tail_.messages() - QueueCount{state_.known_head}.messages(); };
  if (inside() >= max) state_.known_head = ObserveHead(state_).word;
  return inside() >= max ? 0 : max - inside();
}

void ProducerEnd::LookWhatIsFreed() {
  freed_ = state_.freed_chunk.load(std::memory_order_acquire) == at_.chunk
               ? state_.freed_at.load(std::memory_order_acquire)
               : 0;
}

absl::StatusOr<std::byte*> ProducerEnd::Reserve(size_t frame_bytes) {
  if (chunk_.header == nullptr) return Annotate(CorruptChunk(at_.chunk), queue_.ToString());
  if (!ring::IsPlace(at_.at, chunk_.capacity)) return Annotate(CorruptChunk(at_.chunk), queue_.ToString());
  ring::Place place = ring::Find(freed_, at_.at, frame_bytes, chunk_.capacity);
  if (!place.fits) {
    LookWhatIsFreed();
    place = ring::Find(freed_, at_.at, frame_bytes, chunk_.capacity);
  }
  if (!place.fits) {
    PYHOST_RETURN_IF_ERROR(Chain(frame_bytes));
    place = {.fits = true, .skip = false, .start = 0};
  }
  if (place.skip) WriteSkipFrame(chunk_.ring + ring::Index(at_.at));
  at_.at = ring::Advance(place.start, frame_bytes, chunk_.capacity);
  return chunk_.ring + ring::Index(place.start);
}

// The chunk is full: goes on in a bigger one.
absl::Status ProducerEnd::Chain(size_t frame_bytes) {
  const uint64_t bytes = NextChunkBytes(sizeof(ChunkHeader) + chunk_.capacity, frame_bytes);
  uint64_t next = TakeSpare(segment_, state_, bytes);
  PYHOST_CRASH_POINT("queue-spare-taken");
  if (next == 0) {
    PYHOST_ASSIGN_OR_RETURN(next, NewChunk(segment_, me_, bytes));
  }
  PYHOST_CRASH_POINT("queue-chunk-before-link");
  chunk_.header->end.store(at_.at, std::memory_order_relaxed);
  chunk_.header->next.store(next, std::memory_order_release);
  PYHOST_CRASH_POINT("queue-chunk-linked");
  at_ = {next, 0};
  chunk_ = ChunkAt(segment_, next);
  freed_ = 0;
  return absl::OkStatus();
}

void ProducerEnd::Commit(uint64_t messages) {
  const QueueCount count = tail_.Plus(messages);
  state_.tails[count.side()] = at_;
  PYHOST_CRASH_POINT("queue-push-before-commit");
  PublishTail(state_, count);
  PYHOST_CRASH_POINT("queue-push-committed");
  state_.known_freed = freed_;
  state_.published = count.word;
  tail_ = count;
  // Where the next frame will be; the consumer has these lines from the lap before.
  for (uint64_t line = 0; line < 2; ++line) {
    const uint64_t index = ring::Index(at_.at) + line * 64;
    if (index < chunk_.capacity) PrefetchToWrite(chunk_.ring + index);
  }
}

absl::StatusOr<FrameView> ReadFrame(const Segment& segment, QueuePosition& at) {
  Chunk chunk = ChunkAt(segment, at.chunk);
  if (chunk.header == nullptr) return CorruptChunk(at.chunk);
  const uint64_t next = chunk.header->next.load(std::memory_order_acquire);
  if (next != 0 && chunk.header->end.load(std::memory_order_relaxed) == at.at) {
    at = {next, 0};
    chunk = ChunkAt(segment, next);
    if (chunk.header == nullptr) return CorruptChunk(next);
  }
  for (int skips = 0; skips < 2; ++skips) {
    if (!ring::IsPlace(at.at, chunk.capacity)) break;
    const uint64_t index = ring::Index(at.at);
    absl::StatusOr<FrameView> frame = ParseFrame({chunk.ring + index, chunk.capacity - index});
    if (!frame.ok()) return frame;
    if (frame->kind != FrameKind::kSkip) {
      at.at = ring::Advance(at.at, frame->size, chunk.capacity);
      return frame;
    }
    at.at = ring::NextLap(at.at);
  }
  return absl::DataLossError("corrupt queue: no frame where the next one should be");
}

ConsumerEnd::ConsumerEnd(Segment& segment, HostId me, Handle queue, QueueState& state,
                         QueueCount seen_tail)
    : segment_(segment),
      me_(me),
      queue_(queue),
      state_(state),
      head_{state.head.load(std::memory_order_relaxed)},
      at_(state.heads[head_.side()]) {
  if (seen_tail.messages() > QueueCount{state.known_tail}.messages()) state.known_tail = seen_tail.word;
}

bool ConsumerEnd::HasNext() {
  if (QueueCount{state_.known_tail}.messages() > position()) return true;
  state_.known_tail = ObserveTail(state_).word;
  return QueueCount{state_.known_tail}.messages() > position();
}

absl::StatusOr<FrameView> ConsumerEnd::Next() {
  absl::StatusOr<FrameView> frame = ReadFrame(segment_, at_);
  if (!frame.ok()) return Annotate(frame.status(), queue_.ToString());
  ++taken_;
  return frame;
}

void ConsumerEnd::Commit() {
  const QueuePosition from = state_.heads[head_.side()];
  head_ = head_.Plus(taken_);
  taken_ = 0;
  state_.heads[head_.side()] = at_;
  PYHOST_CRASH_POINT("queue-pop-before-commit");
  PublishHead(state_, head_);
  PYHOST_CRASH_POINT("queue-pop-committed");
  state_.freed_at.store(at_.at, std::memory_order_release);
  if (from.chunk != at_.chunk) GiveBack(from.chunk);
}

// Frees the chunks from `first_chunk` up to the one of the head.
void ConsumerEnd::GiveBack(uint64_t first_chunk) {
  state_.freed_chunk.store(at_.chunk, std::memory_order_release);
  uint64_t steps = segment_.map().max_objects();  // damage could have made a circle of them
  for (uint64_t offset = first_chunk; offset != at_.chunk && steps > 0; --steps) {
    const Chunk chunk = ChunkAt(segment_, offset);
    if (chunk.header == nullptr) return;
    const uint64_t next = chunk.header->next.load(std::memory_order_relaxed);
    PYHOST_CRASH_POINT("queue-pop-before-chunk-freed");
    RetireChunk(segment_, me_, state_, offset);
    offset = next;
  }
}

}  // namespace pyhost
