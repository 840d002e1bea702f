// The end of a thread by pthread_exit(): what CPython calls, and what extensions, ctypes among them, may call.

#ifndef PYHOST_HOST_THREAD_EXIT_H_
#define PYHOST_HOST_THREAD_EXIT_H_

namespace pyhost::host {

// Calls body(context).  Where the thread ends in it by pthread_exit(), `ended` is called instead of unwinding the callers'
// stack; it must not return.
//
// Unwinding would abort: glibc does it with the shared libgcc, and our C++ frames know the one that is linked in.
void RunEndingThread(void (*body)(void* context), void (*ended)(void* context), void* context);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_THREAD_EXIT_H_
