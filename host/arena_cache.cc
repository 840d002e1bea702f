#include "host/arena_cache.h"

#include <Python.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pyhost::host {
namespace {

constexpr size_t kArenaSize = size_t{1} << 20;  // Python's; those of another size are not kept
constexpr size_t kHugePage = size_t{2} << 20;

std::array<std::atomic<std::byte*>, kKeptArenas> kept;
std::atomic<int> plain_arenas_left{kPlainArenas};

std::byte* Map(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

void Unmap(std::byte* memory, size_t size) {
  if (size != 0) munmap(memory, size);
}

std::byte* TakeKept() {
  for (std::atomic<std::byte*>& place : kept) {
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    if (std::byte* arena = place.exchange(nullptr, std::memory_order_acquire)) return arena;
  }
  return nullptr;
}

bool Keep(std::byte* arena) {
  for (std::atomic<std::byte*>& place : kept) {
    std::byte* empty = nullptr;
    if (place.compare_exchange_strong(empty, arena, std::memory_order_release, std::memory_order_relaxed)) return true;
  }
  return false;
}

// Two arenas that are one huge page, if the kernel has one: the second is kept for the next.
std::byte* MapHuge() {
  std::byte* memory = Map(2 * kHugePage);
  if (memory == nullptr) return Map(kArenaSize);
  const size_t before = -reinterpret_cast<uintptr_t>(memory) % kHugePage;
  Unmap(memory, before);
  std::byte* const page = memory + before;
  Unmap(page + kHugePage, kHugePage - before);
  madvise(page, kHugePage, MADV_HUGEPAGE);  // A wish: without it the pages are small ones.
  if (!Keep(page + kArenaSize)) Unmap(page + kArenaSize, kArenaSize);
  return page;
}

void* Allocate(void*, size_t size) {
  if (size != kArenaSize) return Map(size);
  if (std::byte* arena = TakeKept()) return arena;
  const bool plain = plain_arenas_left.load(std::memory_order_relaxed) > 0 &&
                     plain_arenas_left.fetch_sub(1, std::memory_order_relaxed) > 0;
  return plain ? Map(size) : MapHuge();
}

void Free(void*, void* memory, size_t size) {
  auto* const arena = static_cast<std::byte*>(memory);
  if (size != kArenaSize || !Keep(arena)) Unmap(arena, size);
}

}  // namespace

void KeepFreedArenas() {
  PyObjectArenaAllocator keeping = {.ctx = nullptr, .alloc = Allocate, .free = Free};
  PyObject_SetArenaAllocator(&keeping);
}

}  // namespace pyhost::host
