#include "host/arena_cache.h"

#include <Python.h>

#include <array>
#include <atomic>
#include <cstddef>

namespace pyhost::host {
namespace {

PyObjectArenaAllocator the_system;  // what Python would have used
std::atomic<size_t> arena_size{0};  // 0 until the first one
std::array<std::atomic<void*>, kKeptArenas> kept;

bool IsOfUsualSize(size_t size) {
  size_t usual = 0;
  return arena_size.compare_exchange_strong(usual, size, std::memory_order_relaxed) || usual == size;
}

void* Allocate(void*, size_t size) {
  if (IsOfUsualSize(size)) {
    for (std::atomic<void*>& place : kept) {
      if (place.load(std::memory_order_relaxed) == nullptr) continue;
      if (void* arena = place.exchange(nullptr, std::memory_order_acquire)) return arena;
    }
  }
  return the_system.alloc(the_system.ctx, size);
}

void Free(void*, void* arena, size_t size) {
  if (IsOfUsualSize(size)) {
    for (std::atomic<void*>& place : kept) {
      void* empty = nullptr;
      if (place.compare_exchange_strong(empty, arena, std::memory_order_release, std::memory_order_relaxed)) return;
    }
  }
  the_system.free(the_system.ctx, arena, size);
}

}  // namespace

void KeepFreedArenas() {
  PyObject_GetArenaAllocator(&the_system);
  PyObjectArenaAllocator keeping = {.ctx = nullptr, .alloc = Allocate, .free = Free};
  PyObject_SetArenaAllocator(&keeping);
}

}  // namespace pyhost::host
