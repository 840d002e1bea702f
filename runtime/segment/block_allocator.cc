#include "runtime/segment/block_allocator.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/os/memory_limit.h"

namespace pyhost {
namespace {

constexpr uint64_t kSmallestBlock = 64;
constexpr uint64_t kLargestSmall = kSmallestBlock << (AllocatorState::kSmallClasses - 1);
static_assert(kLargestSmall * 2 == kPageBytes);

bool IsSmall(uint64_t size) { return size <= kLargestSmall; }

int ClassOf(uint64_t size) {
  if (size <= kSmallestBlock) return 0;
  return std::bit_width((size - 1) / kSmallestBlock);
}
uint64_t ClassBytes(int small_class) { return kSmallestBlock << small_class; }

// All blocks of a span of this class free.
uint64_t AllSlots(int small_class) {
  const uint64_t slots = kPageBytes / ClassBytes(small_class);
  return slots == 64 ? ~uint64_t{0} : (uint64_t{1} << slots) - 1;
}

uint64_t PagesOf(uint64_t size) { return size / kPageBytes + (size % kPageBytes != 0); }

// Bytes that a block of this size really takes.
uint64_t Footprint(uint64_t size) { return IsSmall(size) ? ClassBytes(ClassOf(size)) : PagesOf(size) * kPageBytes; }

}  // namespace

BlockAllocator::BlockAllocator(const SegmentMap* map, const MemoryFile* file)
    : map_(map), file_(file), state_(map->header().allocator), heap_(map) {}

// ---- Blocks ---------------------------------------------------------------------------------------------------

std::optional<uint64_t> BlockAllocator::Allocate(uint64_t size) {
  if (size > map_->block_bytes()) return std::nullopt;
  std::optional<uint64_t> block;
  if (IsSmall(size)) {
    block = AllocateSmall(ClassOf(size));
  } else if (const std::optional<uint64_t> page = heap_.Allocate(PagesOf(size))) {
    block = *page * kPageBytes;
  }
  if (!block) return std::nullopt;
  state_.used_bytes.fetch_add(Footprint(size), std::memory_order_relaxed);
  return map_->blocks_offset() + *block;
}

PageRun BlockAllocator::Free(uint64_t offset, uint64_t size) {
  if (size == 0 || !InRange(offset, size)) {
    damaged_ = true;
    return {};
  }
  const uint64_t block = offset - map_->blocks_offset();
  state_.used_bytes.fetch_sub(Footprint(size), std::memory_order_relaxed);
  if (IsSmall(size)) return FreeSmall(block, ClassOf(size));
  if (block % kPageBytes != 0) {
    damaged_ = true;
    return {};
  }
  return heap_.Free(block / kPageBytes, PagesOf(size));
}

PageInfo* BlockAllocator::NewSpan(int small_class, uint64_t* page) {
  const std::optional<uint64_t> first = heap_.Allocate(1);
  if (!first) return nullptr;
  PYHOST_CRASH_POINT("allocator-span-half-made");
  PageInfo* span = heap_.Info(*first);
  span->kind = PageKind::kSpan;
  span->small_class = static_cast<uint8_t>(small_class);
  span->free_slots = AllSlots(small_class);
  heap_.Link(&state_.partial_spans[small_class], *first);
  *page = *first;
  return span;
}

std::optional<uint64_t> BlockAllocator::AllocateSmall(int small_class) {
  uint32_t* head = &state_.partial_spans[small_class];
  uint64_t page = *head - uint64_t{1};
  PageInfo* span = *head != 0 ? heap_.Info(page) : NewSpan(small_class, &page);
  if (span == nullptr || span->kind != PageKind::kSpan || span->small_class != small_class ||
      (span->free_slots & AllSlots(small_class)) == 0) {
    damaged_ = damaged_ || span != nullptr || *head != 0;
    return std::nullopt;
  }
  const int slot = std::countr_zero(span->free_slots);
  span->free_slots &= span->free_slots - 1;
  PYHOST_CRASH_POINT("allocator-small-taken");
  if (span->free_slots == 0) heap_.Unlink(head, page);
  return page * kPageBytes + static_cast<uint64_t>(slot) * ClassBytes(small_class);
}

PageRun BlockAllocator::FreeSmall(uint64_t block, int small_class) {
  const uint64_t page = block / kPageBytes;
  const uint64_t in_page = block % kPageBytes;
  PageInfo* span = heap_.Info(page);
  const uint64_t bit = uint64_t{1} << (in_page / ClassBytes(small_class));
  if (span == nullptr || span->kind != PageKind::kSpan || span->small_class != small_class ||
      in_page % ClassBytes(small_class) != 0 || (span->free_slots & bit) != 0) {
    damaged_ = true;
    return {};
  }
  uint32_t* head = &state_.partial_spans[small_class];
  if (span->free_slots == 0) heap_.Link(head, page);
  span->free_slots |= bit;
  PYHOST_CRASH_POINT("allocator-small-freed");
  if (span->free_slots != AllSlots(small_class)) return {};
  heap_.Unlink(head, page);
  span->kind = PageKind::kRun;
  span->length = 1;
  return heap_.Free(page, 1);
}

// ---- Rebuilding -------------------------------------------------------------------------------------------------

void BlockAllocator::BeginRebuild() {
  damaged_ = false;
  heap_.Reset();
  state_.used_bytes.store(0, std::memory_order_relaxed);
}

void BlockAllocator::MarkUsed(uint64_t offset, uint64_t size) {
  if (size == 0 || !InRange(offset, size)) return;  // damaged cell: it owns nothing
  const uint64_t block = offset - map_->blocks_offset();
  if (IsSmall(size)) {
    MarkSmall(block, ClassOf(size));
  } else if (block % kPageBytes == 0) {
    heap_.Mark(block / kPageBytes, PagesOf(size));
  } else {
    return;
  }
  state_.used_bytes.fetch_add(Footprint(size), std::memory_order_relaxed);
}

void BlockAllocator::MarkSmall(uint64_t block, int small_class) {
  const uint64_t page = block / kPageBytes;
  if (block % ClassBytes(small_class) != 0) return;
  heap_.Mark(page, 1);
  PageInfo* span = heap_.Info(page);
  if (span == nullptr) return;
  if (span->kind == PageKind::kRun && span->length == 1) {
    span->kind = PageKind::kSpan;
    span->small_class = static_cast<uint8_t>(small_class);
    span->free_slots = AllSlots(small_class);
  }
  if (span->kind != PageKind::kSpan || span->small_class != small_class) return;
  span->free_slots &= ~(uint64_t{1} << (block % kPageBytes / ClassBytes(small_class)));
}

void BlockAllocator::EndRebuild() {
  heap_.Sweep();
  for (uint64_t page = 0; const PageInfo* span = heap_.Info(page); ++page) {
    if (span->kind != PageKind::kSpan || span->free_slots == 0) continue;
    heap_.Link(&state_.partial_spans[span->small_class % AllocatorState::kSmallClasses], page);
  }
}

// ---- Memory of the system -----------------------------------------------------------------------------------------

bool BlockAllocator::InRange(uint64_t offset, uint64_t size) const {
  if (offset < map_->blocks_offset()) return false;
  const uint64_t block = offset - map_->blocks_offset();
  return block <= map_->block_bytes() && size <= map_->block_bytes() - block;
}

uint64_t BlockAllocator::CommitUnits() const {
  return map_->block_bytes() / kCommitBytes + (map_->block_bytes() % kCommitBytes != 0);
}

bool BlockAllocator::IsCommitted(uint64_t unit) const {
  return (map_->commit_word(unit / 64).load(std::memory_order_acquire) >> (unit % 64) & 1) != 0;
}

absl::Status BlockAllocator::Commit(uint64_t offset, uint64_t size) {
  if (size == 0 || !InRange(offset, size)) return absl::OkStatus();
  const uint64_t first = (offset - map_->blocks_offset()) / kCommitBytes;
  const uint64_t end = (offset - map_->blocks_offset() + size - 1) / kCommitBytes + 1;
  for (uint64_t unit = first; unit < end;) {
    if (IsCommitted(unit)) {
      ++unit;
      continue;
    }
    uint64_t stop = unit + 1;
    while (stop < end && !IsCommitted(stop)) ++stop;
    const uint64_t bytes = std::min(stop * kCommitBytes, map_->block_bytes()) - unit * kCommitBytes;
    const absl::Status status = file_->Commit(map_->blocks_offset() + unit * kCommitBytes, bytes);
    if (!status.ok()) {
      return absl::ResourceExhaustedError(absl::StrCat(Exhausted(size).message(), "; the system has no more: ",
                                                       status.message()));
    }
    PYHOST_CRASH_POINT("allocator-committed-before-noted");
    for (; unit < stop; ++unit) {
      const uint64_t bit = uint64_t{1} << (unit % 64);
      // Another process may have done the same: counted once.
      if ((map_->commit_word(unit / 64).fetch_or(bit) & bit) == 0) {
        state_.committed_bytes.fetch_add(kCommitBytes, std::memory_order_relaxed);
      }
    }
  }
  return absl::OkStatus();
}

void BlockAllocator::Discard(uint64_t offset, uint64_t size) {
  if (!InRange(offset, size)) return;
  const uint64_t block = offset - map_->blocks_offset();
  const uint64_t first = (block + kCommitBytes - 1) / kCommitBytes;
  const uint64_t end = (block + size) / kCommitBytes;  // a unit at the end of the space may be left over
  for (uint64_t unit = first; unit < end; ++unit) {
    const uint64_t bit = uint64_t{1} << (unit % 64);
    if ((map_->commit_word(unit / 64).fetch_and(~bit) & bit) != 0) {
      state_.committed_bytes.fetch_sub(kCommitBytes, std::memory_order_relaxed);
    }
  }
  PYHOST_CRASH_POINT("allocator-before-discard");
  if (first < end) {
    // A refusal leaves the memory with us, uncounted until the units are used again.
    static_cast<void>(file_->Discard(map_->blocks_offset() + first * kCommitBytes, (end - first) * kCommitBytes));
  }
}

uint64_t BlockAllocator::kept_free_bytes() const {
  constexpr uint64_t kMost = 256 << 20;  // a few large messages on their way
  return std::min(kMost, map_->block_bytes() / 4);
}

std::optional<BlockAllocator::Block> BlockAllocator::TakeExcess(PageRun run) {
  constexpr uint64_t kUnitPages = kCommitBytes / kPageBytes;
  constexpr uint64_t kWorthwhile = 16;  // units: below, it happens too often for what it gives
  const uint64_t used = used_bytes();
  const uint64_t free = committed_bytes() - std::min(used, committed_bytes());
  const uint64_t keep = used + kept_free_bytes();
  if (run.length < kWorthwhile * kUnitPages || free <= keep) return std::nullopt;
  // Down to half of what triggers it, so that it does not happen again at once; from the end of the run.
  const uint64_t wanted = (free - keep / 2) / kCommitBytes;
  const uint64_t begin = (run.first + kUnitPages - 1) / kUnitPages;
  uint64_t end = std::min((run.first + run.length) / kUnitPages, CommitUnits());
  while (end > begin && !IsCommitted(end - 1)) --end;
  uint64_t first = end;
  for (uint64_t taken = 0; first > begin && taken < wanted; --first) taken += IsCommitted(first - 1) ? 1 : 0;
  if (end - first < kWorthwhile) return std::nullopt;
  const Block excess{map_->blocks_offset() + first * kCommitBytes, (end - first) * kCommitBytes};
  if (!heap_.AllocateAt(run, first * kUnitPages, (end - first) * kUnitPages)) return std::nullopt;
  state_.used_bytes.fetch_add(Footprint(excess.size), std::memory_order_relaxed);
  return excess;
}

absl::Status BlockAllocator::Exhausted(uint64_t size) const {
  const std::string setting =
      map_->header().limit_given != 0
          ? std::string("Options::shared_memory_limit of the first pool")
          : absl::StrCat("the environment variable ", kMemoryLimitVariable, ", for example 2G");
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for ", FormatMemorySize(size), " of shared memory: ", FormatMemorySize(used_bytes()),
                   " in use, the limit is ", FormatMemorySize(limit_bytes()), " (set by ", setting, ")"));
}

}  // namespace pyhost
