// SharedObject: the common head of every Python object that stands for an object of the segment (queues,
// locks, memory): its handle, counted once per Python object through HandleRefs.
//
// Pickling.  A handle may travel only where somebody keeps the object alive on the way: in a frame of a
// queue (a HandleCollector is active on this thread), or to a child being started (the popen that
// multiprocessing.context.get_spawning_popen() returns has `share(obj)`, which calls ChildStart.share).
// Anywhere else __reduce__ raises python3's RuntimeError.

#ifndef PYHOST_MODULES_NATIVE_SHARED_OBJECT_H_
#define PYHOST_MODULES_NATIVE_SHARED_OBJECT_H_

#include <vector>

#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/base/ids.h"

namespace pyhost::native {

struct SharedObject {
  PyObject_HEAD
  Handle handle;  // none until attached
};

// True when `object` is one of our shared types; `*handle` is its handle.
bool GetSharedHandle(PyObject* object, Handle* handle);

// Counts the Python object for `handle` (this host holds it already, by creation, by a frame or by inheritance).
bool AttachHandle(SharedObject* self, Handle handle);
// tp_dealloc part: gives the count back.
void DetachHandle(SharedObject* self);

// __reduce__ of all shared types: (_pyhost._rebuild, (session id, handle)).
PyObject* ReduceShared(PyObject* self, PyObject* unused);

// While alive on a thread, handles pickled on that thread are collected instead of refused.  Nests.
class HandleCollector {
 public:
  HandleCollector();
  ~HandleCollector();
  HandleCollector(const HandleCollector&) = delete;
  HandleCollector& operator=(const HandleCollector&) = delete;

  std::vector<Handle>& handles() { return handles_; }
  static HandleCollector* Current();

 private:
  HandleCollector* previous_;
  std::vector<Handle> handles_;
};

int BindShared(PyObject* module, ModuleState* state);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_SHARED_OBJECT_H_
