// Where Python's allocator takes its arenas from: memory for small objects, 1 MiB at a time.
//
// Python gives each arena back as soon as it is empty.  A program that makes and drops many objects again and again has the
// kernel clear the same pages again and again, which was a third of the time of a Pool.map() over 400,000 ints.  So a few
// freed arenas are kept for the next.  And the first touch of a page is dear, above all in a virtual machine: a process that
// has come to need many arenas gets them as huge pages.
//
// Costs at most kKeptArenas arenas that python3 would have given back.  A forked child shares them until it writes.
// Thread-safe: interpreters with a GIL of their own have an allocator each.

#ifndef PYHOST_HOST_ARENA_CACHE_H_
#define PYHOST_HOST_ARENA_CACHE_H_

namespace pyhost::host {

inline constexpr int kKeptArenas = 16;
// So many of a process are made of small pages: most processes need no more, and touch only parts of them.
inline constexpr int kPlainArenas = 8;

// Once, after Py_PreInitialize() and before Py_Initialize().
void KeepFreedArenas();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_ARENA_CACHE_H_
