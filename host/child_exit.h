// How a forked child of spawn ends: what python3's child does on its way out and a user can see, without taking the
// interpreter apart, most of which is the server's and lies in pages that nobody has touched yet.
//
// Threads, exit functions and the package's finalizers were done in Python (multiprocessing/child_main.py).  Then:
//
//   1. the modules that the child imported are dropped, collected, and cleared where somebody still holds them;
//   2. what is left of the child's objects is referenced by the server's modules: those with a finalizer get it called,
//      files last, from the outer layer (text) to the inner;
//   3. the standard streams are flushed; exit functions and streams of C are the caller's std::exit().
//
// Left out: freeing memory, and clearing the modules that the server had imported.  Where more than that could be
// seen (daemon threads, subinterpreters, Py_AtExit functions, -v), the interpreter is finalized as python3 does.
// tests/python/process/test_exit_of_children.py asks for all of it, with python3 as the oracle.

#ifndef PYHOST_HOST_CHILD_EXIT_H_
#define PYHOST_HOST_CHILD_EXIT_H_

#include "modules/native/python_ref.h"

#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace pyhost::host {

// What a server's children begin with; made in the server, used in each of them.  Needs the GIL.
class InterpreterSnapshot {
 public:
  static absl::StatusOr<InterpreterSnapshot> Take();

  // In a child: the end of Python.  Returns exit_code, or 120 where the streams could not be flushed.
  int End(int exit_code);

 private:
  explicit InterpreterSnapshot(native::PyRef modules) : modules_(std::move(modules)) {}

  bool MustFinalize() const;
  std::vector<std::pair<native::PyRef, native::PyRef>> NewModules() const;
  void DropModules() const;
  void ClearModules(PyObject* references) const;

  native::PyRef modules_;  // a copy of sys.modules
};

}  // namespace pyhost::host

#endif  // PYHOST_HOST_CHILD_EXIT_H_
