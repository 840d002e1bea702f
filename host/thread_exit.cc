// Compiled without exceptions (host/meson.build): glibc's clean-up handlers jump then, instead of being destructors.

#include "host/thread_exit.h"

#include <pthread.h>
#include <unistd.h>

#include <cstdlib>

// The end of daemon threads at the interpreter's end.
//
// A thread that comes back for the GIL when the interpreter is ending must not run Python any more.  CPython before 3.14
// calls pthread_exit(), which unwinds the thread's stack: through C++ frames of ours and of extensions, whose
// destructors need the GIL or may not be left so (the program aborts).  Here such a thread stops for good, as it does
// in CPython 3.14; the process is about to end.
//
// The main thread comes here too, where a subinterpreter that nobody destroyed writes its output in that end.  In python3
// the process then ends with 0, once no other thread is left; here none of those that have stopped would ever leave.
//
// host/meson.build has the linker send libpython's calls of pthread_exit here.  Other libraries' are not concerned.
extern "C" [[noreturn]] void __wrap_pthread_exit(void*) {
  if (gettid() == getpid()) std::exit(0);
  for (;;) pause();
}

namespace pyhost::host {

void RunEndingThread(void (*body)(void* context), void (*ended)(void* context), void* context) {
  pthread_cleanup_push(ended, context);
  body(context);
  pthread_cleanup_pop(0);
}

}  // namespace pyhost::host
