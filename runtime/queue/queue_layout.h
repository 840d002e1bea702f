// The queue's shared memory: QueueState (in place, in the object's cell) and ChunkHeader (at the beginning of
// each chunk).  A change needs a new layout version (segment/layout.h).
//
//   QueueState.heads[side] ---> chunk ---next--> chunk <--- QueueState.tails[side]
//                               |frames ...|     |frames ...  |
//
// The commit words.  `tail` and `head` count messages: {messages:63, side:1}.  Each side of the queue keeps its
// position twice; the bit `side` of its commit word says which of the two is true.  So:
//
//   push:  1. write the frame at tails[side]   2. write tails[!side]   3. store tail {messages + 1, !side}
//   pop:   1. read the frame at heads[side]    2. write heads[!side]   3. store head {messages + 1, !side}
//
// One store moves the position and counts the message; whoever dies before it has done nothing, and the next
// owner of the lock simply finds the old position.
//
// Four cache lines, by who writes them: producers, producers for consumers, consumers, consumers for producers.

#ifndef PYHOST_RUNTIME_QUEUE_QUEUE_LAYOUT_H_
#define PYHOST_RUNTIME_QUEUE_QUEUE_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/segment/object_table.h"
#include "runtime/sync/owner_lock.h"
#include "runtime/sync/waiter.h"

namespace pyhost {

// A place in the chain of chunks.
struct QueuePosition {
  uint64_t chunk;  // segment offset of the ChunkHeader
  uint64_t at;     // {lap:32, index:32}, see ring.h
};

// The bits of a commit word.
struct QueueCount {
  uint64_t word;
  constexpr uint64_t messages() const { return word >> 1; }
  constexpr uint32_t side() const { return word & 1; }
  constexpr QueueCount Plus(uint64_t n) const { return {((word >> 1) + n) << 1 | (~word & 1)}; }
};

struct QueueState {
  // Line 0: producers, under push_lock.
  alignas(64) OwnerLock push_lock;
  std::atomic<uint32_t> flags;    // kQueueCarries and so on
  QueuePosition tails[2];         // tails[tail.side] is where the next frame goes
  uint64_t known_freed;           // copy of `freed_at`, valid for the chunk of the tail
  uint64_t known_head;            // copy of `head`
  uint64_t published;             // copy of `tail`: line 1 is with the consumers, who look at it all the time

  // Line 1: written by producers, read by consumers.
  alignas(64) std::atomic<uint64_t> tail;  // commit word of push
  std::atomic<uint32_t> closed;            // 1: no push succeeds any more; set under push_lock
  uint32_t reserved1;
  WaitPoint readable;                      // consumers that wait for a message
  std::atomic<uint64_t> max_messages;      // 0 = unbounded; constant

  // Line 2: consumers, under pop_lock.
  alignas(64) OwnerLock pop_lock;
  std::atomic<uint32_t> bounded;  // 1: producers may wait for room; constant
  QueuePosition heads[2];         // heads[head.side] is where the next frame is read
  uint64_t known_tail;            // copy of `tail`
  std::atomic<uint32_t> ends_with[2];  // HostIds whose end closes the queue, 0 = none; each set once
  // Whether consumers stay a little behind (pop.cc).  Hints: a lost update does not matter.
  std::atomic<uint16_t> trailing;   // 1: they do
  std::atomic<uint16_t> waits;      // since it was last tried whether they should
  std::atomic<uint16_t> probe_gap;  // so many waits until it is tried again; 0 = the least
  uint16_t reserved2;

  // Line 3: written by consumers, read by producers.
  alignas(64) std::atomic<uint64_t> head;  // commit word of pop
  std::atomic<uint64_t> freed_chunk;       // the chunk that `freed_at` speaks of
  std::atomic<uint64_t> freed_at;          // ring bytes before this position may be written again
  std::atomic<uint64_t> spare;             // offset of an empty chunk kept warm, or 0
  WaitPoint writable;                      // producers that wait for room
};
static_assert(sizeof(QueueState) <= ObjectTable::kStateBytes && alignof(QueueState) == 64);
static_assert(std::is_standard_layout_v<QueueState>);
static_assert(std::atomic<uint64_t>::is_always_lock_free);
// Nobody's private words share a line with what the other side polls.
static_assert(offsetof(QueueState, tail) == 64);
static_assert(offsetof(QueueState, pop_lock) == 128);
static_assert(offsetof(QueueState, head) == 192);

// Bits of QueueState::flags.
inline constexpr uint32_t kQueueCarries = 1;  // a message has carried a handle: recounts must look inside
inline constexpr uint32_t kQueueClosed = 2;   // like `closed`
inline constexpr uint32_t kQueueBounded = 8;   // like `bounded`
inline constexpr uint32_t kQueueDestroyed = 4;  // what it carried is being let go: nobody looks inside any more

struct ChunkHeader {
  uint64_t handle;             // the chunk's own object
  uint64_t capacity;           // bytes of ring behind this header, multiple of 64
  std::atomic<uint64_t> next;  // segment offset of the chunk that follows, or 0; written before the commit
                               // that uses it, so a link of the tail's chunk means nothing
  std::atomic<uint64_t> end;   // the position behind the last frame, valid with `next`
  uint64_t reserved[4];
};
static_assert(sizeof(ChunkHeader) == 64 && std::is_standard_layout_v<ChunkHeader>);

inline constexpr uint64_t kFirstChunkBytes = 4096;
inline constexpr uint64_t kLastChunkBytes = uint64_t{1} << 20;
inline constexpr uint64_t kChunkGrowth = 4;

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_QUEUE_LAYOUT_H_
