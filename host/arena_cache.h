// A few of the arenas that Python's allocator gives back are kept for when it wants some again.
//
// Python takes memory for small objects from the system in arenas (1 MiB), and gives each back as soon as it is empty.  A
// program that makes and drops many objects again and again has the kernel clear the same pages again and again: of
// Pool.map() over 400,000 ints this was a fifth of the time.
//
// Costs at most kKeptArenas arenas of memory that python3 would have given back.  A forked child shares them until it
// writes.  Thread-safe: interpreters with a GIL of their own have an allocator each.

#ifndef PYHOST_HOST_ARENA_CACHE_H_
#define PYHOST_HOST_ARENA_CACHE_H_

namespace pyhost::host {

inline constexpr int kKeptArenas = 16;

// Once, after Py_PreInitialize() and before Py_Initialize().
void KeepFreedArenas();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_ARENA_CACHE_H_
