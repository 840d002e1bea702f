// Ring: where the next frame goes in a chunk, and which bytes the reader has given back.  Pure arithmetic on
// positions; knows no locks and no atomics.
//
// A position is {lap:32, index:32}: how often the writer (or reader) has come around, and the byte in the ring.
// A frame never wraps: when it does not fit before the end, the rest of the lap is skipped.
//
//      index 0          reader                 writer            capacity
//      |  free           |  frames               |  free            |         same lap
//      |  frames         |  free                 |  frames          |         writer one lap ahead (roles swapped)
//
// Invariants: index is a multiple of kFrameAlignment and < capacity; the writer is 0 to capacity bytes ahead.

#ifndef PYHOST_RUNTIME_QUEUE_RING_H_
#define PYHOST_RUNTIME_QUEUE_RING_H_

#include <cstdint>

namespace pyhost::ring {

constexpr uint64_t Index(uint64_t at) { return at & 0xffffffff; }
// Where a frame can begin at all.
constexpr bool IsPlace(uint64_t at, uint64_t capacity) { return Index(at) < capacity && at % 8 == 0; }
constexpr uint64_t NextLap(uint64_t at) { return ((at >> 32) + 1) << 32; }

// The position behind `size` bytes at `at`, which end at or before the ring's end.
constexpr uint64_t Advance(uint64_t at, uint64_t size, uint64_t capacity) {
  return Index(at) + size >= capacity ? NextLap(at) : at + size;
}

// Bytes between reader and writer; more than `capacity` when the positions contradict each other.
constexpr uint64_t Used(uint64_t reader, uint64_t writer, uint64_t capacity) {
  const uint64_t laps = (writer >> 32) - (reader >> 32);
  if (laps == 0 && writer >= reader) return writer - reader;
  if (laps == 1 && Index(reader) >= Index(writer)) return capacity - (Index(reader) - Index(writer));
  return capacity + 1;
}

// Where a frame of `size` bytes can be written.
struct Place {
  bool fits = false;
  bool skip = false;   // a skip frame at `at` first
  uint64_t start = 0;  // where the frame goes
};
constexpr Place Find(uint64_t reader, uint64_t writer, uint64_t size, uint64_t capacity) {
  const uint64_t used = Used(reader, writer, capacity);
  if (used > capacity) return {};
  const uint64_t free = capacity - used;
  const uint64_t to_end = capacity - Index(writer);
  if (size <= to_end) return {.fits = size <= free, .skip = false, .start = writer};
  return {.fits = to_end + size <= free, .skip = true, .start = NextLap(writer)};
}

}  // namespace pyhost::ring

#endif  // PYHOST_RUNTIME_QUEUE_RING_H_
