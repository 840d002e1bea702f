// The layout of a segment: every struct of the core that lies in shared memory.
//
//   offset 0        SegmentHeader                      one page
//   hosts           HostRecord[max_hosts]
//   watchers        u64[max_hosts][max_hosts / 64]     who watches which host
//   objects         ObjectCell + holder bits, `cell_stride` bytes each, [max_objects]
//   pages           PageInfo[block_pages]              the allocator's cache
//   commits         u64[...]                           a bit per kCommitBytes of block space: backed by memory
//   blocks          block_pages * kPageBytes           what users allocate
//
// Everything starts as zeros, and zeros are a valid empty state; the file is sparse, so that only what was
// used costs memory.  Values here are read by every process of a session, also by ones of other builds: a change of any
// struct or meaning needs a new kLayoutVersion.  Words that more than one host may touch at a time are atomics.

#ifndef PYHOST_RUNTIME_SEGMENT_LAYOUT_H_
#define PYHOST_RUNTIME_SEGMENT_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/base/ids.h"
#include "runtime/sync/owner_lock.h"
#include "runtime/sync/waiter.h"

namespace pyhost {

inline constexpr uint64_t kSegmentMagic = 0x31'74'73'6f'68'79'70'89;  // "\x89pyhost1"
inline constexpr uint32_t kLayoutVersion = 6;

inline constexpr uint64_t kPageBytes = 4096;          // the allocator's unit
inline constexpr uint64_t kCommitBytes = 256 * 1024;  // the unit of taking memory from the system and giving it back
inline constexpr size_t kCacheLine = 64;

// ---- Header -------------------------------------------------------------------------------------------------

// The allocator's part: guarded by `lock` but for the atomics, which are written under it and read by anyone.
struct alignas(kCacheLine) AllocatorState {
  static constexpr int kBins = 256;      // free runs by length, see block_allocator.cc
  static constexpr int kSmallClasses = 6;  // 64, 128, ... 2048 bytes

  OwnerLock lock;                      // guards this struct, all PageInfo, and the list of free cells
  uint32_t free_cell;                  // index + 1 of the first free cell that was used before; 0 = none
  std::atomic<uint32_t> cells_used;    // cells [0, cells_used) have been used
  std::atomic<uint32_t> live_objects;  // a figure
  uint64_t pages_used;                 // pages [0, pages_used) have been used; the rest is free
  std::atomic<uint64_t> used_bytes;       // in blocks, as rounded up to pages or size classes
  std::atomic<uint64_t> committed_bytes;  // of block space backed by memory
  uint64_t bin_bits[kBins / 64];       // which bins hold runs
  uint32_t bins[kBins];                // page + 1 of the first free run in the bin
  uint32_t partial_spans[kSmallClasses];  // page + 1 of the first span of that class with a free slot
};

struct alignas(kCacheLine) SegmentHeader {
  // Constant after creation.
  uint64_t magic;
  uint32_t layout_version;
  uint32_t max_hosts;    // a multiple of 64
  uint32_t max_objects;
  uint32_t cell_stride;  // bytes from one ObjectCell to the next
  uint64_t session_id;   // random, never 0
  uint64_t total_bytes;  // of the file
  uint64_t hosts_offset;
  uint64_t watchers_offset;
  uint64_t objects_offset;
  uint64_t pages_offset;
  uint64_t commits_offset;
  uint64_t blocks_offset;
  uint64_t block_pages;
  uint64_t limit_given;  // 1: by who created the segment (SegmentOptions::limit); 0: by the environment or the machine

  alignas(kCacheLine) std::atomic<uint64_t> once_flags;  // bit n: flag n was taken (Segment::FirstTime)
  std::atomic<uint32_t> hosts_used;                      // host slots [0, hosts_used) have been used

  AllocatorState allocator;
};
static_assert(sizeof(SegmentHeader) <= kPageBytes);
static_assert(std::is_standard_layout_v<SegmentHeader>);

// ---- Hosts --------------------------------------------------------------------------------------------------

// A short text that its readers can copy whole although a writer may be at it, or have died in it.
template <size_t kBytes>
struct SharedText {
  static_assert(kBytes % 8 == 0);
  std::atomic<uint32_t> version;  // odd while somebody writes
  uint32_t reserved;
  std::atomic<uint64_t> words[kBytes / 8];  // the text, padded with zeros; no terminator when full
};

// One life of a host slot.  See host_table.h for its states.
struct alignas(kCacheLine) HostRecord {
  // {spare:10 | party HostId:30 | recovered:1 | generation:18 | spare:2 | state:3}
  //   party: of an Embryo, Running or Ended host its parent; of a Recovering one its recoverer.
  //   recovered: (Ended only) what it held was given back; Free as soon as nobody watches it.
  std::atomic<uint64_t> life;
  // {generation:32 | value:32}.  A word of another generation has no value: nothing must be cleared when the slot gets
  // a new life, and whoever is late to write about the last one (they fail to compare and swap) cannot spoil it.
  std::atomic<uint64_t> exit;         // ExitStatus::Encode(); 0 = alive, or not known
  std::atomic<uint64_t> pid;          // 0 = not known yet
  std::atomic<uint64_t> start_time;   // of that pid; 0 = not known
  std::atomic<uint64_t> pid_namespace;  // in which `pid` is meant; 0 = not known
  std::atomic<uint32_t> parent;       // HostId
  std::atomic<uint32_t> flags;        // HostFlag bits
  std::atomic<uint64_t> payload;      // Handle of the start payload, or 0
  WaitPoint changed;                  // notified when `exit` or `pid` is set, and after recovery
  SharedText<64> name;
  SharedText<224> running;  // the function in its hands; of a start that failed, why
};
static_assert(sizeof(HostRecord) == 384);

// ---- Objects ------------------------------------------------------------------------------------------------

inline constexpr size_t kObjectStateBytes = 256;

// One life of an object.  See object_table.h for its states and rules.  Followed by its holder bits:
// u64[max_hosts / 64], bit (slot % 64) of word (slot / 64).
struct alignas(kCacheLine) ObjectCell {
  // {host HostId:30 | generation:24 | kind:8 | state:2}
  //   host: of a Claimed or Dying cell who makes or unmakes it; 0 otherwise.
  std::atomic<uint64_t> life;
  // {changes:32 | transit:32}
  //   transit: how many frames (and other objects) carry the handle.
  //   changes: counts every Hold and AddTransit, so that "nobody holds it" can be read consistently.
  std::atomic<uint64_t> references;
  // The block.  Written while Claimed or Dying only; the offset last when set and first when cleared.
  std::atomic<uint64_t> block_offset;  // in the segment; 0 = no block
  std::atomic<uint64_t> block_size;    // as asked for
  uint32_t next_free;                  // index + 1 of the next free cell, while Free; guarded by the allocator's lock
  uint32_t reserved[7];
  std::byte state[kObjectStateBytes];  // the kind's own
};
static_assert(sizeof(ObjectCell) == kCacheLine + kObjectStateBytes);
static_assert(offsetof(ObjectCell, state) == kCacheLine);

// ---- Allocator's pages ----------------------------------------------------------------------------------------

enum class PageKind : uint8_t {
  kNone = 0,      // inside of a run, or never used
  kFreeRun = 1,   // first (and last) page of a free run
  kRun = 2,       // first page of an allocated run
  kSpan = 3,      // cut into blocks of one small class
};

// Guarded by the allocator's lock.  A cache: Rebuild() derives it from the cells.
struct PageInfo {
  uint32_t length;   // FreeRun (first and last page), Run (first page): pages
  uint32_t previous; // page + 1 in the bin's or the class's list; 0 = none
  uint32_t next;
  PageKind kind;
  uint8_t small_class;  // Span
  uint16_t reserved;
  uint64_t free_slots;  // Span: bit n = block n is free
};
static_assert(sizeof(PageInfo) == 24);
static_assert(std::is_trivially_copyable_v<PageInfo>);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_LAYOUT_H_
