// DeferUnmap: the end of this process does not wait for its memory to be given back, which takes the kernel 0.4 ms for the 14 MB of a
// small Python process: longer than many a process works.
//
// A process that shares the memory, and nothing else, lives on until this one has ended, and so it is who gives the memory
// back, when nothing else is to be done (SCHED_IDLE).  All else is as ever: descriptors are closed and locks released when
// whoever waits for this process learns of its end.
//
// The other process is a child of this one's parent, who has to reap it: it ends with 0, and SIGCHLD.
//
// Nothing is deferred for a process that has grown large (kMostDeferred), so that somebody who starts one after the other does not
// need room for two; nor where the system refuses.  One thread of a process, once, right before its end.

#ifndef PYHOST_RUNTIME_OS_DEFERRED_UNMAP_H_
#define PYHOST_RUNTIME_OS_DEFERRED_UNMAP_H_

#include <cstddef>

namespace pyhost {

inline constexpr size_t kMostDeferred = size_t{64} << 20;  // bytes that were resident at once

// False: nothing is deferred.
bool DeferUnmap();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_DEFERRED_UNMAP_H_
