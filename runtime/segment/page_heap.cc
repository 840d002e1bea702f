#include "runtime/segment/page_heap.h"

#include <algorithm>
#include <bit>

namespace pyhost {
namespace {

constexpr uint64_t kNoPage = ~uint64_t{0};
constexpr int kSubBits = 3;  // eight bins per power of two

// Lengths below 8 have a bin each; above, the three bits after the leading one choose among eight.
uint32_t BinOf(uint64_t pages) {
  if (pages < (1u << kSubBits)) return static_cast<uint32_t>(pages);
  const int log = std::bit_width(pages) - 1;
  const uint64_t sub = (pages >> (log - kSubBits)) & ((1u << kSubBits) - 1);
  return static_cast<uint32_t>((log - kSubBits + 1) << kSubBits | sub);
}

// The first bin all of whose runs have at least `pages` pages.
uint32_t BinThatFits(uint64_t pages) {
  if (pages < (1u << kSubBits)) return BinOf(pages);
  const int log = std::bit_width(pages) - 1;
  return BinOf(pages + (uint64_t{1} << (log - kSubBits)) - 1);
}

}  // namespace

PageHeap::PageHeap(const SegmentMap* map) : map_(map), state_(map->header().allocator) {}

PageInfo* PageHeap::Info(uint64_t page) const {
  const uint64_t used = std::min(state_.pages_used, map_->block_pages());
  return page < used ? &map_->page(page) : nullptr;
}

// ---- Lists --------------------------------------------------------------------------------------------------

void PageHeap::Link(uint32_t* head, uint64_t page) {
  PageInfo* info = Info(page);
  PageInfo* next = *head == 0 ? nullptr : Info(*head - 1);
  if (info == nullptr || (*head != 0 && next == nullptr)) {
    damaged_ = true;
    return;
  }
  info->previous = 0;
  info->next = *head;
  if (next != nullptr) next->previous = static_cast<uint32_t>(page + 1);
  *head = static_cast<uint32_t>(page + 1);
}

void PageHeap::Unlink(uint32_t* head, uint64_t page) {
  PageInfo* info = Info(page);
  PageInfo* previous = info == nullptr || info->previous == 0 ? nullptr : Info(info->previous - 1);
  PageInfo* next = info == nullptr || info->next == 0 ? nullptr : Info(info->next - 1);
  const uint32_t self = static_cast<uint32_t>(page + 1);
  const bool linked = info != nullptr && (info->previous != 0 ? previous != nullptr && previous->next == self
                                                              : *head == self) &&
                      (info->next == 0 || (next != nullptr && next->previous == self));
  if (!linked) {
    damaged_ = true;
    return;
  }
  (previous != nullptr ? previous->next : *head) = info->next;
  if (next != nullptr) next->previous = info->previous;
  info->previous = info->next = 0;
}

// ---- Free runs ------------------------------------------------------------------------------------------------

// The run must touch no other free run.  One that ends at pages_used becomes part of the unused rest.
void PageHeap::MakeFreeRun(uint64_t first, uint64_t pages) {
  if (pages == 0) return;
  if (first + pages == state_.pages_used) {
    state_.pages_used = first;
    return;
  }
  PageInfo* head = Info(first);
  PageInfo* tail = Info(first + pages - 1);
  if (head == nullptr || tail == nullptr) {
    damaged_ = true;
    return;
  }
  *tail = PageInfo{};
  *head = PageInfo{};
  head->kind = tail->kind = PageKind::kFreeRun;
  head->length = tail->length = static_cast<uint32_t>(pages);
  const uint32_t bin = BinOf(pages);
  Link(&state_.bins[bin], first);
  state_.bin_bits[bin / 64] |= uint64_t{1} << (bin % 64);
}

void PageHeap::TakeFromBin(uint64_t first) {
  PageInfo* info = Info(first);
  if (info == nullptr || info->kind != PageKind::kFreeRun || info->length == 0 ||
      Info(first + info->length - 1) == nullptr) {
    damaged_ = true;
    return;
  }
  const uint32_t bin = BinOf(info->length);
  Unlink(&state_.bins[bin], first);
  if (state_.bins[bin] == 0) state_.bin_bits[bin / 64] &= ~(uint64_t{1} << (bin % 64));
}

uint64_t PageHeap::SearchBin(uint32_t bin, uint64_t pages) {
  // Bounded, since damage could have made the list a circle.
  constexpr int kMostSteps = 1000;
  uint32_t next = state_.bins[bin];
  for (int step = 0; next != 0 && step < kMostSteps; ++step) {
    const PageInfo* info = Info(next - 1);
    if (info == nullptr || info->kind != PageKind::kFreeRun) {
      damaged_ = true;
      return kNoPage;
    }
    if (info->length >= pages) return next - 1;
    next = info->next;
  }
  return kNoPage;
}

uint64_t PageHeap::FindFreeRun(uint64_t pages) {
  const uint32_t start = BinThatFits(pages);
  for (uint32_t word = start / 64; word < AllocatorState::kBins / 64; ++word) {
    uint64_t bits = state_.bin_bits[word];
    if (word == start / 64) bits &= ~uint64_t{0} << (start % 64);
    if (bits == 0) continue;
    const uint64_t found = SearchBin(word * 64 + static_cast<uint32_t>(std::countr_zero(bits)), pages);
    if (found == kNoPage) damaged_ = true;  // every run there fits
    return found;
  }
  return SearchBin(BinOf(pages), pages);
}

uint64_t PageHeap::Carve(uint64_t run_first, uint64_t run_pages, uint64_t first, uint64_t pages) {
  const uint64_t run_end = run_first + run_pages;
  MakeFreeRun(run_first, first - run_first);
  MakeFreeRun(first + pages, run_end - (first + pages));
  PageInfo* head = Info(first);
  PageInfo* tail = Info(first + pages - 1);
  if (head == nullptr || tail == nullptr) {
    damaged_ = true;
    return first;
  }
  *tail = PageInfo{};  // may have been the end of a free run
  *head = PageInfo{};
  head->kind = PageKind::kRun;
  head->length = static_cast<uint32_t>(pages);
  return first;
}

std::optional<uint64_t> PageHeap::Allocate(uint64_t pages) {
  if (pages == 0 || pages > map_->block_pages()) return std::nullopt;
  const uint64_t found = FindFreeRun(pages);
  if (damaged_) return std::nullopt;
  if (found != kNoPage) {
    TakeFromBin(found);
    if (damaged_) return std::nullopt;
    const uint64_t first = Carve(found, map_->page(found).length, found, pages);
    return damaged_ ? std::nullopt : std::optional<uint64_t>(first);
  }
  damaged_ = state_.pages_used > map_->block_pages();
  if (damaged_ || map_->block_pages() - state_.pages_used < pages) return std::nullopt;
  const uint64_t first = state_.pages_used;
  state_.pages_used += pages;
  Carve(first, pages, first, pages);
  return first;
}

bool PageHeap::AllocateAt(PageRun free_run, uint64_t first, uint64_t pages) {
  if (free_run.first >= state_.pages_used) {
    // The run became part of the unused rest: take from it, what lies before becomes a free run again.
    if (first < state_.pages_used || first + pages > map_->block_pages()) return false;
    const uint64_t before = state_.pages_used;
    state_.pages_used = first + pages;
    Carve(before, state_.pages_used - before, first, pages);
    return !damaged_;
  }
  TakeFromBin(free_run.first);
  if (damaged_) return false;
  Carve(free_run.first, free_run.length, first, pages);
  return !damaged_;
}

PageRun PageHeap::Free(uint64_t first, uint64_t pages) {
  PageInfo* info = Info(first);
  if (info == nullptr || info->kind != PageKind::kRun || info->length != pages || pages == 0 ||
      Info(first + pages - 1) == nullptr) {
    damaged_ = true;
    return {};
  }
  uint64_t begin = first;
  uint64_t end = first + pages;
  info->kind = PageKind::kNone;
  if (const PageInfo* before = first == 0 ? nullptr : Info(first - 1);
      before != nullptr && before->kind == PageKind::kFreeRun) {
    if (before->length == 0 || before->length > first) {
      damaged_ = true;
      return {};
    }
    begin = first - before->length;
    TakeFromBin(begin);
  }
  if (const PageInfo* after = Info(end); after != nullptr && after->kind == PageKind::kFreeRun) {
    const uint64_t length = after->length;
    TakeFromBin(end);
    end += length;
  }
  if (damaged_) return {};
  // What was an end of a run is now inside of one.
  map_->page(first).kind = PageKind::kNone;
  map_->page(first + pages - 1).kind = PageKind::kNone;
  if (first > begin) map_->page(first - 1).kind = PageKind::kNone;
  if (end > first + pages) map_->page(first + pages).kind = PageKind::kNone;
  MakeFreeRun(begin, end - begin);
  return {begin, end - begin};
}

// ---- Rebuilding -------------------------------------------------------------------------------------------------

void PageHeap::Reset() {
  damaged_ = false;
  state_.pages_used = std::min(state_.pages_used, map_->block_pages());
  for (uint64_t page = 0; page < state_.pages_used; ++page) map_->page(page) = PageInfo{};
  std::fill(std::begin(state_.bin_bits), std::end(state_.bin_bits), 0);
  std::fill(std::begin(state_.bins), std::end(state_.bins), 0);
  std::fill(std::begin(state_.partial_spans), std::end(state_.partial_spans), 0);
}

void PageHeap::Mark(uint64_t first, uint64_t pages) {
  if (pages == 0 || first >= map_->block_pages() || pages > map_->block_pages() - first) return;
  // A lost count of used pages: take up what lies between (those pages have never been described).
  while (state_.pages_used < first + pages) map_->page(state_.pages_used++) = PageInfo{};
  PageInfo& info = map_->page(first);
  if (info.kind != PageKind::kNone) return;
  info.kind = PageKind::kRun;
  info.length = static_cast<uint32_t>(pages);
}

void PageHeap::Sweep() {
  uint64_t free_start = 0;
  uint64_t page = 0;
  const uint64_t used = state_.pages_used;
  while (page < used) {
    const PageInfo& info = map_->page(page);
    if (info.kind == PageKind::kNone) {
      ++page;
      continue;
    }
    if (page > free_start) MakeFreeRun(free_start, page - free_start);
    const uint64_t length = info.kind == PageKind::kRun ? std::min<uint64_t>(info.length, used - page) : 1;
    for (uint64_t inside = page + 1; inside < page + length; ++inside) map_->page(inside) = PageInfo{};
    page += length;
    free_start = page;
  }
  if (used > free_start) MakeFreeRun(free_start, used - free_start);
}

}  // namespace pyhost
