// SharedObject: the common head of every Python object that stands for an object of the segment (queues,
// locks, memory): its handle, counted once per Python object through HandleRefs.
//
// Pickling.  A handle may travel only where somebody keeps the object alive on the way: in a frame of a
// queue (a HandleCollector is active on this thread), or to a child being started (the popen that
// multiprocessing.context.get_spawning_popen() returns has `share(obj)`, which calls ChildStart.share).
// Anywhere else __reduce__ raises python3's RuntimeError.

#ifndef PYHOST_MODULES_NATIVE_SHARED_OBJECT_H_
#define PYHOST_MODULES_NATIVE_SHARED_OBJECT_H_

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/base/ids.h"

namespace pyhost::native {

struct SharedObject {
  PyObject_HEAD
  Handle handle;  // none until attached
  void* state;    // for views with At(): View::state(), null until first used.  This object keeps it valid
};

// True when `object` is one of our shared types; `*handle` is its handle.
bool GetSharedHandle(PyObject* object, Handle* handle);

// Counts the Python object for `handle` (this host holds it already, by creation, by a frame or by inheritance).
bool AttachHandle(SharedObject* self, Handle handle);
// tp_dealloc part: gives the count back.
void DetachHandle(SharedObject* self);

// __reduce__ of all shared types: (_pyhost._rebuild, (type, session id, handle), attributes or None).
PyObject* ReduceShared(PyObject* self, PyObject* unused);
// tp_dealloc and tp_repr of all shared types that own nothing else.
void DeallocShared(PyObject* self);
PyObject* ReprShared(PyObject* self);

// A new Python object of `type` for an object that Create just made and this host holds.
PyObject* AdoptShared(PyTypeObject* type, Session* session, Handle handle);
template <typename View>
PyObject* NewShared(PyTypeObject* type, Session* session, const absl::StatusOr<View>& view) {
  if (!view.ok()) return SetError(view.status());
  return AdoptShared(type, session, view->handle());
}

template <typename View>
concept HasState = requires(View view) { View::At; view.state(); };

// The C++ view of a shared object for one operation; not kept, because a fork changes who we are.
// Null optional with a Python error.
template <typename View>
std::optional<View> OpenShared(PyObject* self) {
  Session* session = RequireSession();
  if (session == nullptr) return std::nullopt;
  auto* object = reinterpret_cast<SharedObject*>(self);
  if constexpr (HasState<View>) {
    using State = decltype(std::declval<View>().state());
    if (object->state != nullptr) {
      return View::At(session->segment(), session->me(), object->handle, static_cast<State>(object->state));
    }
  }
  absl::StatusOr<View> view = View::Open(session->segment(), session->me(), object->handle);
  if (!view.ok()) {
    SetError(view.status());
    return std::nullopt;
  }
  if constexpr (HasState<View>) object->state = view->state();
  return *std::move(view);
}

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
